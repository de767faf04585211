"""A visitor of the served page without a browser: the page is fetched, its kernel's web socket opened, widgets used.

Speaks what a browser speaks: Jupyter's messages over the socket, and the widgets' own messages in them.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from html import unescape
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PATIENCE_SECONDS = 180.0
KERNEL = re.compile(r"""kernelId["']?\s*[:=]\s*["']([\w-]+)""")
KEY = re.compile(r'data-session="([^"]+)"')
TAG = re.compile(r"<[^>]*>")
CONTROL = "jupyter.widget.control"


class Visitor:
    """One open page. `models` holds the state of every widget, by its id, as the kernel last told it."""

    def __init__(self, address: str, session: str = "") -> None:
        self.address, self.session = address, session
        self.kernel = ""
        self.models: dict[str, dict[str, Any]] = {}
        self._me = uuid.uuid4().hex
        self._told = asyncio.Condition()
        self._socket: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        """Open the page, and wait until it shows its session."""
        self._client = httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False)
        query = {"session": self.session} if self.session else {}
        page = (await self._client.get(self.address, params=query)).raise_for_status().text
        found = KERNEL.search(page)
        if found is None:
            raise RuntimeError(f"the page names no kernel: {_words(page)[-300:]}")
        self.kernel = found.group(1)
        where = urlsplit(self.address)
        cookies = "; ".join(f"{name}={value}" for name, value in self._client.cookies.items())
        self._socket = await connect(
            f"ws://{where.netloc}/api/kernels/{self.kernel}/channels?session_id={self._me}",
            additional_headers={"Cookie": cookies, "Origin": f"http://{where.netloc}"},
            max_size=None, proxy=None, ping_interval=None,
        )  # fmt: skip
        self._reading = asyncio.get_running_loop().create_task(self._read())
        comm = uuid.uuid4().hex
        await self._send("comm_open", {"comm_id": comm, "target_name": CONTROL, "data": {}}, version="1.0.0")
        await self._send("comm_msg", {"comm_id": comm, "data": {"method": "request_states"}})
        await self.until(lambda: self._find(css="el-knock") is not None)
        await self.click(css="el-knock")
        await self.until(lambda: self.key != "")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the tab, as a browser does: it asks for the kernel's end, and is gone."""
        if self._client is not None:
            with suppress(httpx.HTTPError):
                await self._client.post(f"{self.address}voila/api/shutdown/{self.kernel}")
        await self.leave()

    async def leave(self) -> None:
        """Be gone without a word, as a machine that falls asleep."""
        if self._reading is not None:
            self._reading.cancel()
        if self._socket is not None:
            await self._socket.close()
        if self._client is not None:
            await self._client.aclose()
        self._client = None

    # What the page shows

    @property
    def key(self) -> str:
        """The key of the session that is shown; "" before one is."""
        return next((found.group(1) for html in self._html() if (found := KEY.search(html))), "")

    @property
    def line(self) -> str:
        """What the page says about what is going on."""
        return self.text("el-activity")

    def text(self, css: str) -> str:
        """The words of the widgets of this class."""
        return " ".join(_words(str(state.get("value", ""))) for _, state in self._all(css=css))

    def shows(self, edits: int) -> bool:
        """Whether the page shows a session with so many edits."""
        return any(f'data-session="{self.key}"' in html and f'data-edits="{edits}"' in html for html in self._html())

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for messages of the kernel until it is so. Raises TimeoutError, and ConnectionError without a kernel."""
        async with asyncio.timeout(seconds), self._told:
            while not condition():
                if self._reading is None or self._reading.done():
                    raise ConnectionError("the kernel of this page is gone")
                await self._told.wait()

    # What a visitor does

    async def edit(self, prompt: str, subject: str, new: str, true: str = "") -> str:
        """Fill in the form, apply, and wait for the end; what the page says then."""
        texts = {"Sentence to complete": prompt, "About": subject, "New answer": new, "Correct answer": true}
        for label, value in texts.items():
            await self.fill(label, value)
        return await self.doing("Apply edit", ("is in force", "Cancelled"))

    async def doing(self, label: str, words: tuple[str, ...]) -> str:
        """Click a button, and wait until the page says one of these words, or an error."""
        before = self.line
        await self.click(label)
        ends = (*words, "Error:")
        await self.until(lambda: self.line != before and any(word in self.line for word in ends))
        return self.line

    async def fill(self, label: str, value: str) -> None:
        found = self._find(description=label)
        if found is None:
            raise LookupError(f"the page has no field {label!r}")
        model, state = found
        state["value"] = value
        await self._say(model, {"method": "update", "state": {"value": value}, "buffer_paths": []})

    async def click(self, label: str = "", css: str = "") -> None:
        found = self._find(description=label) if label else self._find(css=css)
        if found is None:
            raise LookupError(f"the page has no button {label or css!r}")
        await self._say(found[0], {"method": "custom", "content": {"event": "click"}})

    # Messages

    def _all(self, css: str = "", description: str = "") -> list[tuple[str, dict[str, Any]]]:
        return [
            (model, state)
            for model, state in self.models.items()
            if (not css or css in state.get("_dom_classes", ()))
            and (not description or state.get("description") == description)
        ]

    def _find(self, css: str = "", description: str = "") -> tuple[str, dict[str, Any]] | None:
        return next(iter(self._all(css, description)), None)

    def _html(self) -> list[str]:
        return [str(state["value"]) for state in self.models.values() if state.get("_model_name") == "HTMLModel"]

    async def _say(self, model: str, data: Mapping[str, Any]) -> None:
        await self._send("comm_msg", {"comm_id": model, "data": data})

    async def _send(self, kind: str, content: Mapping[str, Any], **metadata: str) -> None:
        assert self._socket is not None
        header = {
            "msg_id": uuid.uuid4().hex, "msg_type": kind, "session": self._me, "username": "", "version": "5.3",
            "date": "",
        }  # fmt: skip
        message = {"header": header, "parent_header": {}, "metadata": metadata, "content": content, "channel": "shell"}
        await self._socket.send(json.dumps(message))

    async def _read(self) -> None:
        assert self._socket is not None
        try:
            async for frame in self._socket:
                message = _message(frame)
                if message.get("msg_type", "").startswith("comm_"):
                    async with self._told:
                        self._take(message["msg_type"], message["content"])
                        self._told.notify_all()
        except ConnectionClosed:
            pass
        finally:
            async with self._told:
                self._told.notify_all()

    def _take(self, kind: str, content: Mapping[str, Any]) -> None:
        data, model = content.get("data", {}), content["comm_id"]
        if kind == "comm_open":
            self.models[model] = dict(data.get("state", {}))
        elif kind == "comm_close":
            self.models.pop(model, None)
        elif data.get("method") in ("update", "echo_update") and model in self.models:
            self.models[model] |= data["state"]
        elif data.get("method") == "update_states":
            for each, told in data["states"].items():
                self.models[each] = dict(told["state"])


def _message(frame: str | bytes) -> dict[str, Any]:
    """A message without its buffers: a frame with some begins with their number and the offsets of all parts."""
    if isinstance(frame, str):
        return json.loads(frame)
    parts = int.from_bytes(frame[:4], "big")
    offsets = [int.from_bytes(frame[4 * (place + 1) : 4 * (place + 2)], "big") for place in range(parts)]
    return json.loads(frame[offsets[0] : offsets[1] if parts > 1 else None])


def _words(html: str) -> str:
    return " ".join(unescape(TAG.sub(" ", html)).split())
