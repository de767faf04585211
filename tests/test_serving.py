"""Where the page is reached, and who is let in."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from editlab.serving.serving import address_of, check_host, reached_at, services
from editlab.serving.settings import PageSettings, Settings


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("::1", "[::1]"),
        ("10.0.0.5", "10.0.0.5"),
    ],
)
def test_this_machine_reaches_what_it_serves(host: str, reached: str) -> None:
    assert reached_at(host) == reached


def test_the_address_has_host_port_and_path() -> None:
    assert address_of(Settings(page=PageSettings(port=9000, base_url="/lab/"))) == "http://127.0.0.1:9000/lab/"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "lab.example.org", ""])
def test_others_are_let_in_with_a_token_only(host: str) -> None:
    with pytest.raises(ValueError, match="visitors need a token"):
        check_host(host, None)
    check_host(host, SecretStr("sesame"))


def test_each_start_has_a_token_and_a_port_of_its_own() -> None:
    first, second = (services(Settings())[0].environment for _ in range(2))
    assert first["EDITLAB_TOKEN"] != second["EDITLAB_TOKEN"]
    assert first["EDITLAB_HOST"] == "127.0.0.1"
    assert len(first["EDITLAB_TOKEN"]) >= 40
