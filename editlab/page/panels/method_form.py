"""The method and its hyperparameters, built from the lab's description of its methods, and the guard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets

from editlab.core.info import HyperparameterInfo, MethodInfo
from editlab.page.controls import Fold, box, button, choice, field, html, on_enter
from editlab.report.html import note, tag


def written(value: Any) -> str:
    """A hyperparameter's value as it stands in its field."""
    return (
        ", ".join(map(str, value))
        if isinstance(value, (list, tuple))
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def parsed(info: HyperparameterInfo, text: str) -> Any:
    """The value of `text`. Raises ValueError that says what was given and what is allowed."""
    kinds: dict[str, tuple[Callable[[str], Any], str]] = {
        "int": (int, "a whole number"),
        "float": (float, "a number"),
        "layers": (_layers, "layer numbers such as 4, 5, 6"),
    }
    kind, wanted = kinds[info.kind]
    allowed = wanted
    if info.low is not None and info.high is not None:
        allowed += f" between {info.low:g} and {info.high:g}"
    elif info.low is not None or info.high is not None:
        allowed += f" at least {info.low:g}" if info.low is not None else f" at most {info.high:g}"
    try:
        value = kind(text.strip())
    except ValueError:
        raise ValueError(f"{info.name} must be {allowed}, got {text.strip()!r}") from None
    for one in value if isinstance(value, tuple) else (value,):
        if one != one or (info.low is not None and one < info.low) or (info.high is not None and one > info.high):
            raise ValueError(f"{info.name} must be {allowed}, got {text.strip()!r}")
    return value


def _layers(text: str) -> tuple[int, ...]:
    layers = tuple(int(part) for part in text.replace(",", " ").split())
    if not layers:
        raise ValueError("no layer")
    return layers


class MethodForm:
    """`on_change()` is called when the method or a hyperparameter changes; `more` is a widget in the fold too."""

    def __init__(
        self,
        methods: Sequence[MethodInfo],
        on_enter_key: Callable[[], None],
        on_change: Callable[[], None],
        more: widgets.DOMWidget,
    ) -> None:
        self._methods = {method.name: method for method in methods}
        self._on_enter, self._on_change = on_enter_key, on_change
        self._texts: dict[str, dict[str, widgets.Text]] = {}
        self.choice = choice("Method", [(method.title, method.name) for method in methods])
        self._help = html()
        self._fields = box([], "el-fields el-fields-3")
        self._reset = button("Back to the preset", lambda _: self.reset(), "el-small")
        folded = box([self._fields, self._reset, more])
        self._fold = Fold("Hyperparameters and guard…", "Hide hyperparameters and guard", folded)
        self.widget = box([self.choice, self._help, self._fold.widget], "el-method")
        self.choice.observe(self._chosen, "value")
        self._show()

    @property
    def name(self) -> str:
        return self.choice.value

    @property
    def fallback(self) -> str | None:
        """The safer method that can be used in place of the chosen one."""
        return self._methods[self.name].fallback

    def take(self, name: str) -> None:
        """Choose a method, and keep the changed hyperparameters that both methods have."""
        changed = {key: text.value for key, text in self._texts[self.name].items()}
        self.choice.value = name
        for key, text in self._texts[name].items():
            text.value = changed.get(key, text.value)

    def read(self) -> dict[str, Any]:
        """The hyperparameters that differ from the method's preset. Raises ValueError with a sentence."""
        changed = {}
        for info in self._methods[self.name].hyperparameters:
            text = self._texts[self.name][info.name].value
            if text.strip() != written(info.value):
                changed[info.name] = parsed(info, text)
        return changed

    def reset(self) -> None:
        for info in self._methods[self.name].hyperparameters:
            self._texts[self.name][info.name].value = written(info.value)

    def _chosen(self, _: object) -> None:
        self._show()
        self._on_change()

    def _show(self) -> None:
        method = self._methods[self.name]
        if self.name not in self._texts:
            self._texts[self.name] = {info.name: self._field(info) for info in method.hyperparameters}
        self._help.value = note(method.help)
        helps = {info.name: info.help for info in method.hyperparameters}
        self._fields.children = [
            box([text, html(tag("span", escape(helps[name]), "el-why"))], "el-parameter")
            for name, text in self._texts[self.name].items()
        ]

    def _field(self, info: HyperparameterInfo) -> widgets.Text:
        text = field(info.name.replace("_", " "), written(info.value), written(info.value))
        on_enter(text, self._on_enter)
        text.observe(lambda _: self._on_change(), "value")
        return text
