"""The method and its hyperparameters, built from the lab's description of its methods, and the guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets

from editlab.core.info import HyperparameterInfo, MethodInfo
from editlab.page.controls import Fold, box, button, check, choice, field, html, on_enter
from editlab.report.html import note, tag

SHOWN = 2  # changed hyperparameters that are named outside the fold


def written(value: Any) -> Any:
    """A hyperparameter's value as it stands in its control."""
    if isinstance(value, bool):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def parsed(info: HyperparameterInfo, control: widgets.ValueWidget) -> Any:
    """The value that a control holds; ValueError with what was given and what is allowed."""
    if not isinstance(control, widgets.Text):
        return control.value
    try:
        return info.parse(control.value)
    except ValueError:
        raise ValueError(f"{info.name} must be {info.allowed}, got {control.value.strip()!r}") from None


def _typed_in(control: widgets.ValueWidget) -> str:
    return str(control.value).strip()


def _words(value: Any) -> str:
    """A control's value in words."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value).strip() or "empty"


def _label(info: HyperparameterInfo) -> str:
    return info.name.replace("_", " ")


class MethodForm:
    """Each method has values of its own, which begin with its preset's and stay while another method is chosen.

    `on_change()` is called when the method or a hyperparameter changes; `more` is a widget in the fold too.
    """

    def __init__(
        self,
        methods: Sequence[MethodInfo],
        on_enter_key: Callable[[], None],
        on_change: Callable[[], None],
        more: widgets.DOMWidget,
    ) -> None:
        self._methods = {method.name: method for method in methods}
        self._on_enter, self._on_change = on_enter_key, on_change
        self._controls: dict[str, dict[str, widgets.ValueWidget]] = {}
        self.choice = choice("Method", [(method.title, method.name) for method in methods])
        self._help = html()
        self._fields = box([], "el-fields el-fields-3")
        self._reset = button("Back to the start values", lambda _: self.reset(), "el-small")
        self._fold = Fold("", "", box([self._help, self._fields, self._reset, more]))
        self.widget = box([self.choice, self._fold.widget], "el-method")
        self.choice.observe(self._chosen, "value")
        self._show()

    @property
    def name(self) -> str:
        return self.choice.value

    @property
    def fallback(self) -> str | None:
        """The safer method that can be used in place of the chosen one."""
        return self._methods[self.name].fallback

    def take_typed(self, texts: Mapping[str, str]) -> None:
        """Put the texts of the browser's fields into those here.

        The browser may still show the fields of the method before, so each text tells whose it is (page.js).
        """
        for name, controls in self._controls.items():
            for control in controls.values():
                if isinstance(control, widgets.Text):
                    control.value = texts.get(f"{self._mark(name)} {control.description}", control.value)

    def take(self, name: str) -> None:
        """Choose a method."""
        self.choice.value = name

    def fall_back(self) -> None:
        """Choose the safer method, with the values by which its risk was told: those changed here are changed there."""
        if self.fallback is None:
            return
        changed = {info.name: control.value for info, control in self._changed()}
        self.take(self.fallback)
        for info in self._methods[self.name].hyperparameters:
            self._controls[self.name][info.name].value = changed.get(info.name, written(info.value))

    def put(self, name: str, values: Mapping[str, Any]) -> None:
        """Choose a method, with these hyperparameters in its fields."""
        self.choice.value = name
        for key, value in values.items():
            self._controls[name][key].value = written(value)

    def take_over(self, other: MethodForm) -> None:
        """Hold what stands in another form of the same methods."""
        for name in (*other._controls, other.name):
            self.take(name)
            for key, control in other._controls[name].items():
                self._controls[name][key].value = control.value

    def read(self) -> dict[str, Any]:
        """The hyperparameters that differ from the method's preset. Raises ValueError with a sentence."""
        return {info.name: parsed(info, control) for info, control in self._changed()}

    def _changed(self) -> list[tuple[HyperparameterInfo, widgets.ValueWidget]]:
        """The hyperparameters whose controls hold something else than the method's preset."""
        pairs = [(info, self._controls[self.name][info.name]) for info in self._methods[self.name].hyperparameters]
        return [(info, control) for info, control in pairs if _typed_in(control) != str(written(info.value))]

    def reset(self) -> None:
        for info in self._methods[self.name].hyperparameters:
            self._controls[self.name][info.name].value = written(info.value)

    def _chosen(self, _: object) -> None:
        self._show()
        self._on_change()

    def _typed(self, _: object) -> None:
        self._name_fold()
        self._on_change()

    def _name_fold(self) -> None:
        """Have the fold's button say what is changed: it must not be out of sight while the fold is closed."""
        changed = [
            f"{_label(info)} {_words(c.value)}, not {_words(written(info.value))}" for info, c in self._changed()
        ]
        more = [f"{n} more changed"] if (n := len(changed) - SHOWN) > 0 else []
        told = f" ({'; '.join([*changed[:SHOWN], *more])})" if changed else ""
        self._fold.name(f"Hyperparameters and guard{told}…", "Hide hyperparameters and guard")

    def _show(self) -> None:
        method = self._methods[self.name]
        if self.name not in self._controls:
            mark = self._mark(self.name)
            self._controls[self.name] = {info.name: self._field(info, mark) for info in method.hyperparameters}
        self._help.value = note(f"{method.help} {method.preset}".strip())
        helps = {info.name: info.help for info in method.hyperparameters}
        self._fields.children = [
            box([control, html(tag("span", helps[name], "el-why"))], "el-parameter")
            for name, control in self._controls[self.name].items()
        ]
        self._name_fold()

    def _mark(self, name: str) -> str:
        """The class of this method's fields: a method's name may be no class."""
        return f"el-of-{list(self._methods).index(name)}"

    def _field(self, info: HyperparameterInfo, css: str) -> widgets.ValueWidget:
        label, value = _label(info), written(info.value)
        if info.kind == "bool":
            control = check(label, value)
        elif info.choices:
            control = choice(label, list(info.choices), value=value)
        else:
            control = field(label, value, value, css)
            on_enter(control, self._on_enter)
        control.observe(self._typed, "value")
        return control
