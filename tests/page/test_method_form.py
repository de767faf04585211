"""Each method's hyperparameters in the form: whose they are, and what is told of changed ones while they are folded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from ipywidgets import Text

from editlab.core.info import HyperparameterInfo, MethodInfo
from editlab.methods import about, describe, methods
from editlab.page.controls import html
from editlab.page.panels.method_form import MethodForm, written
from tests.page.seen import everything, seen

LAYERS = 30


def infos() -> list[MethodInfo]:
    """Every method that there is, with its hyperparameters."""
    return [replace(about(kind), hyperparameters=describe(kind(), LAYERS)) for kind in methods().values()]


@pytest.fixture
def form() -> MethodForm:
    return MethodForm(infos(), lambda: None, lambda: None, html())


def another(info: HyperparameterInfo) -> Any:
    """A value that is allowed and is not the preset's."""
    value = info.value
    if info.kind == "bool":
        return not value
    if info.choices:
        return next(choice for choice in info.choices if choice != value)
    tried = {"int": (value, 1), "float": (value, 0.5)}.get(info.kind)
    found = (tried[0] + tried[1], round(tried[0] - tried[1], 4), tried[0] / 2) if tried else ((1, 2), (3,))
    return next(other for other in found if other != value and _is_allowed(info, other))


def _is_allowed(info: HyperparameterInfo, value: Any) -> bool:
    try:
        info.check(value)
    except ValueError:
        return False
    return True


def changed(form: MethodForm, info: MethodInfo) -> dict[str, Any]:
    """All hyperparameters of a method, after the visitor has changed each."""
    values = {each.name: another(each) for each in info.hyperparameters}
    form.put(info.name, values)
    return values


def pairs() -> Iterator[tuple[MethodInfo, MethodInfo]]:
    return ((a, b) for a in infos() for b in infos() if a.name != b.name)


def test_each_method_keeps_its_own_values(form: MethodForm) -> None:
    kept = {}
    for info in infos():
        form.take(info.name)
        assert form.read() == {}  # whatever was typed for those before
        kept[info.name] = changed(form, info)
    for name, values in kept.items():
        form.take(name)
        assert form.read() == values
        form.reset()
        assert form.read() == {}


def test_a_text_that_the_browser_still_shows_goes_to_the_method_it_was_typed_for(form: MethodForm) -> None:
    for typed, chosen in pairs():
        form.take(typed.name)
        fields = [widget for widget in everything(form, hidden=True) if isinstance(widget, Text)]
        texts = {" ".join([*_marks(field), field.description]): "7" for field in fields}
        assert len(texts) == len(fields)
        form.take(chosen.name)  # the kernel has the click, the browser not yet the other fields
        form.take_typed(texts)
        assert form.read() == {}
        form.take(typed.name)
        assert {field.value for field in fields} <= {"7"}
        form.reset()


def _marks(field: Text) -> list[str]:
    return [name for name in field._dom_classes if name.startswith("el-of-")]


def test_the_safer_method_gets_the_values_by_which_its_risk_was_told(form: MethodForm) -> None:
    rome = next(info for info in infos() if info.name == "rome")
    form.put("r-rome", {"steps": 3})  # of its own, by which nothing was told
    values = changed(form, rome)
    form.fall_back()
    known = {info.name for info in describe(methods()["r-rome"]())}
    assert form.name == "r-rome"
    assert form.read() == {name: value for name, value in values.items() if name in known}


def test_what_is_changed_is_told_while_it_is_folded(form: MethodForm) -> None:
    for info in infos():
        form.take(info.name)
        assert "Hyperparameters and guard…" in seen(form)
        for each in info.hyperparameters:
            form.put(info.name, {each.name: another(each)})
            label = each.name.replace("_", " ")
            new, preset = (
                {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
                for value in (written(another(each)), written(each.value))
            )
            assert f"({label} {new}, not {preset})…" in seen(form)
            form.reset()
        changed(form, info)
        assert f"; {len(info.hyperparameters) - 2} more changed)…" in seen(form)
        form.reset()
