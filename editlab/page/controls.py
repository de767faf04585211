"""The few kinds of widgets that the page is made of, each with its class in style.css.

A browser is told of every model and of every change to one, and a page has hundreds of widgets. So their classes are
there from the start, widgets that look alike share the models of their layout and style, and while a page is being
built (`building`) nothing is told: at the end each widget is told once, as it then is. What is behind a fold is told
when the fold is opened.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import ipywidgets as widgets
import traitlets
from markupsafe import Markup, escape

from editlab.report.html import tag

PERCENT = re.compile(r" (?<=\d )%")  # begins with a blank: a file in a link, which has none, is passed over fast
W = TypeVar("W", bound=widgets.Widget)
_shared_models: dict[tuple[Any, ...], Any] = {}
_untold: list[_Told] | None = None  # while a page is being built


class _Told:
    """A widget that a front end is told of when it is made, or else at the end of `building`."""

    waits = False
    behind: Any = None  # a widget behind this fold, which has never been open

    def open(self) -> None:
        self.waits = _untold is not None
        if _untold is None:
            self._tell_of(self.keys)  # type: ignore[attr-defined]
            super().open()  # type: ignore[misc]  # of the widget
        else:
            _untold.append(self)

    def send_state(self, key: Any = None) -> None:
        self._tell_of(["children"])
        super().send_state(key)  # type: ignore[misc]

    def tell(self) -> None:
        """Tell of this widget, if it waits for that."""
        if self.waits:
            self.open()

    def _tell_of(self, names: Iterable[str]) -> None:
        """Tell first of the widgets that this one refers to."""
        for name in names:
            value = getattr(self, name, None)
            for each in value if isinstance(value, tuple) else (value,):
                if isinstance(each, _Told):
                    each.tell()


@contextmanager
def building() -> Iterator[None]:
    """Tell of the widgets that the block makes at its end, as they are then."""
    global _untold
    if _untold is not None:
        yield
        return
    made_here = _untold = []
    try:
        yield
    finally:
        _untold = None
        folded = {id(each) for widget in made_here if widget.behind for each in _within(widget.behind)}
        for widget in made_here:
            if id(widget) not in folded:
                widget.tell()


def _within(widget: Any) -> Iterator[Any]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _within(child)


@functools.cache
def _told(kind: Any) -> Any:
    """The class of widgets of this kind that are told of as `building` has it."""
    return type(kind.__name__, (_Told, kind), {})


def _shared(kind: type[W], **traits: Any) -> W:
    """The one model of this kind with these traits."""
    key = (kind, *traits.items())
    known: Any = _shared_models.get(key)
    if known is None or (known.comm is None and not known.waits):  # a notebook may close all widgets
        known = _shared_models[key] = _told(cast(Any, kind))(**traits)
    shared: W = known
    return shared


def made(kind: type[W], css: str, **traits: Any) -> W:
    """A widget of this kind with these classes."""
    looks = {"layout": _shared(widgets.Layout)}
    if "style" in kind.class_traits():
        looks["style"] = _shared(kind.class_traits()["style"].klass)
    widget: W = _told(cast(Any, kind))(_dom_classes=tuple(css.split()), **looks, **traits)
    return widget


class _Escaped(traitlets.Unicode):
    """A trait for HTML: whatever is not `Markup` is text, and is escaped. A number and its % stay in one line."""

    def validate(self, obj: Any, value: Any) -> Markup:
        return Markup(PERCENT.sub("\N{NO-BREAK SPACE}%", escape(value)))


class _Html(widgets.HTML):
    value = _Escaped().tag(sync=True)


def html(value: str = "", css: str = "") -> widgets.HTML:
    """A widget that shows HTML; whatever is given to it that is not `Markup` is shown as text."""
    return made(_Html, css, value=value)


def box(children: Sequence[widgets.Widget], css: str = "") -> widgets.Box:
    """A plain container; style.css lays out its children."""
    return made(widgets.Box, f"el-box {css}", children=list(children))


def panel(title: str, children: Sequence[widgets.Widget], css: str, hint: str = "") -> widgets.Box:
    """A titled card."""
    heading = tag("h2", title) + (tag("p", hint, "el-hint") if hint else "")
    return box([html(heading, "el-heading"), *children], f"el-panel {css}")


def button(label: str, on_click: Callable[..., Any], css: str = "", hint: str = "") -> widgets.Button:
    control = made(widgets.Button, f"el-button {css}", description=label, tooltip=hint or label)
    control.on_click(on_click)
    return control


def field(label: str, placeholder: str = "", value: str = "", css: str = "") -> widgets.Text:
    """A labelled line of text."""
    return made(widgets.Text, f"el-field {css}", description=label, placeholder=placeholder, value=value)


def text_area(label: str, placeholder: str = "", css: str = "") -> widgets.Textarea:
    """A labelled text that may have line breaks."""
    return made(widgets.Textarea, f"el-field {css}", description=label, placeholder=placeholder, rows=1)


def choice(label: str, options: Sequence[Any], css: str = "", **traits: Any) -> widgets.Dropdown:
    return made(widgets.Dropdown, f"el-field {css}", description=label, options=options, **traits)


def segments(options: Sequence[Any], label: str = "", css: str = "") -> widgets.ToggleButtons:
    """A row of buttons, one of them pressed."""
    return made(widgets.ToggleButtons, f"el-segments {css}", description=label, options=options)


def check(label: str, value: bool, hint: str = "") -> widgets.Checkbox:
    return made(widgets.Checkbox, "el-check", description=label, value=value, indent=False, tooltip=hint)


def on_enter(control: widgets.Text, call: Callable[[], Any]) -> None:
    """Call `call` when Enter is pressed in `control`, not when the control loses the focus."""
    control.on_msg(lambda _, content, __: call() if content.get("event") == "submit" else None)


def show_if(widget: widgets.DOMWidget, visible: bool) -> None:
    wanted = _shared(widgets.Layout) if visible else _shared(widgets.Layout, display="none")
    if widget.layout is not wanted:
        widget.layout = wanted


class Fold:
    """A button that shows or hides `child`, labelled with what it will do; the child keeps its state."""

    def __init__(
        self,
        closed: str,
        opened: str,
        child: Any,  # a widget of this module's
        css: str = "",
        on_switch: Callable[[bool], None] | None = None,
    ) -> None:
        self._names = (closed, opened)
        self._child = child
        self._on_switch: Callable[[bool], None] | None = None
        self.button = button(closed, lambda _: self.set(not self.is_open), "el-quiet")
        self.widget: Any = box([self.button], f"el-fold {css}")
        self.widget.behind = child
        self.set(False)
        self._on_switch = on_switch

    @property
    def is_open(self) -> bool:
        return self._child.layout.display != "none"

    def name(self, closed: str, opened: str) -> None:
        """Label the button anew."""
        self._names = (closed, opened)
        label = self._names[self.is_open]
        if self.button.description != label:
            self.button.description = self.button.tooltip = label

    def set(self, opened: bool) -> None:
        if opened and self.widget.behind:
            self.widget.behind = None
            self._child.tell()
            self.widget.children = [self.button, self._child]
        show_if(self._child, opened)
        self.button.description = self.button.tooltip = self._names[opened]
        if self._on_switch is not None:
            self._on_switch(opened)


class TableFold(Fold):
    """A fold around a table, which is made only while the fold is open: a long run's tables are long."""

    def __init__(self, closed: str, opened: str) -> None:
        self._table = html()
        self._make: Callable[[], Markup] = Markup
        super().__init__(closed, opened, self._table, on_switch=self._switched)

    def show(self, make: Callable[[], Markup]) -> None:
        """Show the table that `make` makes."""
        self._make = make
        self._switched(self.is_open)

    def _switched(self, opened: bool) -> None:
        self._table.value = self._make() if opened else ""
