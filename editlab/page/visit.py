"""The visitor's request: the page's address, as Voila hands it to the kernel."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from urllib.parse import parse_qs

from websockets.sync.client import connect

LARGEST_ADDRESS = 2**16


def is_served() -> bool:
    """Whether Voila shows this page, and not a notebook."""
    return os.environ.get("SERVER_SOFTWARE", "").startswith("voila/") or _is_waiting()


def wait_for_visitor() -> None:
    """If this kernel was started before any visitor came, wait for one.

    Voila's own function for this does the same, but importing it costs 50 MB in every kernel.
    """
    if _is_waiting():
        visit = _variables(os.environ)
        os.environ.update({name: str(value) for name, value in visit.items()}, VOILA_PREHEAT="False")


def session_asked_for() -> str:
    """The key in the page's address, `?session=KEY`; "" if the address has none."""
    return _asked_for("session")


def class_asked_for() -> str:
    """The key of the class to join in the page's address, `?class=KEY`; "" if the address has none."""
    return _asked_for("class")


def view_asked_for() -> str:
    """How the page is to be shown, `?view=projector`; "" if the address does not say."""
    return _asked_for("view")


def _asked_for(name: str) -> str:
    return parse_qs(os.environ.get("QUERY_STRING", "")).get(name, [""])[0]


def _is_waiting() -> bool:
    return os.environ.get("VOILA_PREHEAT") == "True"


def _variables(voila: Mapping[str, str]) -> Mapping[str, str]:
    host, port = voila.get("VOILA_APP_IP", "127.0.0.1"), voila["VOILA_APP_PORT"]
    address = f"ws://{host}:{port}{voila['VOILA_SERVER_URL']}voila/query/{voila['VOILA_KERNEL_ID']}"
    with connect(address, proxy=None, max_size=LARGEST_ADDRESS) as socket:
        variables: Mapping[str, str] = json.loads(socket.recv())
        return variables
