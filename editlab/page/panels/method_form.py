"""The method and its hyperparameters, built from the lab's description of its methods, and the guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets

from editlab.core.info import HyperparameterInfo, MethodInfo
from editlab.page.controls import Fold, box, button, check, choice, field, html, on_enter
from editlab.report.html import note, tag


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
        self._controls: dict[str, dict[str, widgets.ValueWidget]] = {}
        self.choice = choice("Method", [(method.title, method.name) for method in methods])
        self._help = html()
        self._fields = box([], "el-fields el-fields-3")
        self._reset = button("Back to the start values", lambda _: self.reset(), "el-small")
        folded = box([self._help, self._fields, self._reset, more])
        self._fold = Fold("Hyperparameters and guard…", "Hide hyperparameters and guard", folded)
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

    @property
    def texts(self) -> list[widgets.Text]:
        """The fields of the chosen method in which something can be typed."""
        return [control for control in self._controls[self.name].values() if isinstance(control, widgets.Text)]

    def take(self, name: str) -> None:
        """Choose a method, with the hyperparameters that are changed in the one chosen before changed in it too."""
        changed = {
            info.name: self._controls[self.name][info.name].value
            for info in self._methods[self.name].hyperparameters
            if self._controls[self.name][info.name].value != written(info.value)
        }
        self.choice.value = name
        for key, control in self._controls[name].items():
            control.value = changed.get(key, control.value)

    def put(self, name: str, values: Mapping[str, Any]) -> None:
        """Choose a method, with these hyperparameters in its fields."""
        self.choice.value = name
        for key, value in values.items():
            self._controls[name][key].value = written(value)

    def read(self) -> dict[str, Any]:
        """The hyperparameters that differ from the method's preset. Raises ValueError with a sentence."""
        changed = {}
        for info in self._methods[self.name].hyperparameters:
            control = self._controls[self.name][info.name]
            if str(control.value).strip() != str(written(info.value)):
                changed[info.name] = parsed(info, control)
        return changed

    def reset(self) -> None:
        for info in self._methods[self.name].hyperparameters:
            self._controls[self.name][info.name].value = written(info.value)

    def _chosen(self, _: object) -> None:
        self._show()
        self._on_change()

    def _show(self) -> None:
        method = self._methods[self.name]
        if self.name not in self._controls:
            self._controls[self.name] = {info.name: self._field(info) for info in method.hyperparameters}
        self._help.value = note(f"{method.help} {method.preset}".strip())
        helps = {info.name: info.help for info in method.hyperparameters}
        self._fields.children = [
            box([control, html(tag("span", helps[name], "el-why"))], "el-parameter")
            for name, control in self._controls[self.name].items()
        ]

    def _field(self, info: HyperparameterInfo) -> widgets.ValueWidget:
        label, value = info.name.replace("_", " "), written(info.value)
        if info.kind == "bool":
            control = check(label, value)
        elif info.choices:
            control = choice(label, list(info.choices), value=value)
        else:
            control = field(label, value, value)
            on_enter(control, self._on_enter)
        control.observe(lambda _: self._on_change(), "value")
        return control
