"""What a visitor sees of widgets: words without markup, controls by their labels, and nothing that is hidden."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import ipywidgets as widgets

INLINE = r"</?(?:a|abbr|b|code|em|i|kbd|mark|q|s|strong|sub|sup)\b[^>]*>"


def everything(part: Any, hidden: bool = False) -> Iterator[widgets.Widget]:
    """The widgets of a part of the page, itself included; those out of sight too where `hidden`."""
    widget = part if isinstance(part, widgets.Widget) else getattr(part, "widget", None) or part.root
    if hidden or widget.layout.display != "none":
        yield widget
        behind = getattr(widget, "behind", None) if hidden else None
        for child in (*getattr(widget, "children", ()), *([behind] if behind else [])):
            yield from everything(child, hidden)


def seen(part: Any) -> str:
    """The words of a part of the page, as one line."""
    return " ".join(words for widget in everything(part) if (words := _words(widget)))


def alerts(part: Any) -> list[str]:
    """What is announced at once: the words of elements with the role of an alert."""
    found = (re.findall(r'<(\w+)[^>]*role="alert"[^>]*>(.*?)</\1>', _value(widget)) for widget in everything(part))
    return [_plain(inner) for several in found for _, inner in several]


def row(part: Any, heading: str) -> list[str]:
    """The cells of the first table row whose heading begins so, without the heading."""
    for widget in everything(part):
        for html in re.findall(r"<tr\b.*?</tr>", _value(widget), re.DOTALL):
            cells = [_plain(cell) for cell in re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", html, re.DOTALL)]
            if cells and cells[0].startswith(heading):
                return cells[1:]
    raise AssertionError(f"no row {heading!r} is seen in: {seen(part)}")


def buttons(part: Any) -> dict[str, widgets.Button]:
    """The buttons by their labels."""
    return {widget.description: widget for widget in everything(part) if isinstance(widget, widgets.Button)}


def field(part: Any, label: str) -> Any:
    """The control of a label, in what is folded too."""
    (found,) = (
        widget
        for widget in everything(part, hidden=True)
        if not isinstance(widget, widgets.Button) and getattr(widget, "description", None) == label
    )
    return found


def steps(app: Any) -> list[widgets.Box]:
    """The timeline's rows, by the number of their step."""
    rows = [widget for widget in everything(app.timeline) if "el-step" in widget._dom_classes]
    return sorted(rows, key=lambda widget: int(seen(widget).split()[0]))


def _value(widget: widgets.Widget) -> str:
    return widget.value if isinstance(widget, widgets.HTML) else ""


def _words(widget: widgets.Widget) -> str:
    return _plain(_value(widget)) or getattr(widget, "description", "")


def _plain(html: str) -> str:
    apart = re.sub(r"<[^>]*>", " ", re.sub(INLINE, "", html))
    return " ".join(unescape(apart).split())


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait, with the loop going on, until it is so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)
