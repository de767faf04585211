"""The pure parts of the page: texts, comparisons, columns of the charts, hyperparameters, and what it imports."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from editlab.api import HyperparameterInfo
from editlab.page.compare import compared, wins
from editlab.page.html import changed_words, marked_prompt, number, percent, role_of, show_token, table
from editlab.page.panels.method_form import parsed, written
from editlab.page.plots import drift_columns, edit_size, task_columns
from editlab.records import SessionState
from tests.page.fake_lab import FakeLab


@pytest.fixture
def state() -> SessionState:
    lab = FakeLab()
    session = lab.create()
    lab.measure(session, ["sentiment"]).result()
    for number_of_edits, method in enumerate(("rome", "rome", "memit")):
        lab.edit(session, [lab.facts[number_of_edits]], method).result()
    lab.measure(session, ["sentiment"]).result()
    return lab.state(session)


def test_the_page_imports_no_torch() -> None:
    code = "import sys, editlab.page.app, editlab.page.start, editlab.page.serve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0, "0 %"), (0.00001, "< 0.01 %"), (0.0031, "0.31 %"), (0.042, "4.2 %"), (0.42, "42 %"), (None, "–")],
)
def test_percent(p: float | None, text: str) -> None:
    assert percent(p) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.31234, "0.312"), (12345.6, "12 346"), (1e-9, "1.00e-09"), (math.inf, "not finite")]
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_the_subject_is_marked_where_the_prompt_has_it() -> None:
    marked = marked_prompt("a b a", "a", 4)
    assert marked == 'a b <mark class="el-subject">a</mark>'


def test_blank_tokens_can_be_seen() -> None:
    assert show_token("\n") == "⏎"
    assert show_token("  ") == "␣"
    assert show_token(" <b>") == "&lt;b&gt;"
    assert show_token(" Rome") == "Rome"
    assert show_token("Rome") == "·Rome"


def test_only_a_token_after_a_space_begins_an_object() -> None:
    assert role_of(" Rome", "Rome", "Paris") == role_of(" Ro", "Rome", "Paris") == "new"
    assert role_of(" Paris", "Rome", "Paris") == "true"
    assert role_of("Rome", "Rome", "Paris") == role_of(" ", "Rome", "Paris") == ""


def test_only_words_that_changed_are_marked() -> None:
    assert changed_words("Paris is big", "Rome is big") == '<ins class="el-changed">Rome</ins> is big'
    assert changed_words("the same", "the same") == "the same"
    assert changed_words(None, "<new>") == "&lt;new&gt;"


def test_a_table_names_its_rows_and_columns() -> None:
    written_table = table("Drift", ["step", "size"], [["0", "1.5"]])
    assert '<th scope="col">step</th>' in written_table
    assert '<th scope="row">0</th><td>1.5</td>' in written_table


def test_compared_pairs_each_prompt_with_its_past(state: SessionState) -> None:
    rows = compared(state.steps[3].measurement)
    assert rows[0].now.kind == "rewrite"
    assert all(row.base and row.base.prompt == row.now.prompt and row.base.kind == row.now.kind for row in rows)
    counted = wins(rows, "rewrite")
    assert counted is not None
    assert (counted.now, counted.base, counted.n) == (1, 0, 1)
    assert wins(rows, "own") is None


def test_drift_has_a_line_per_edited_layer_and_a_bar_per_edit(state: SessionState) -> None:
    columns = drift_columns(state)
    assert columns["lines"]["layer"] == ["layer 4", "layer 5", "layer 6"]
    assert columns["bars"]["step"] == [1, 2, 3]
    layer_6 = [
        y for name, y in zip(columns["points"]["layer"], columns["points"]["drift"], strict=True) if name == "layer 6"
    ]
    sizes = [edit_size(step) or 0.0 for step in state.steps[1:]]
    # The fake's edits are orthogonal: squares add up, and MEMIT leaves a third of its square in layer 6.
    assert layer_6[2] == pytest.approx(math.hypot(sizes[0], sizes[1]))
    assert layer_6[3] == pytest.approx(math.sqrt(sizes[0] ** 2 + sizes[1] ** 2 + sizes[2] ** 2 / 3))
    assert columns["now"]["step"] == [3, 3, 3]


def test_a_log_scale_has_no_zero(state: SessionState) -> None:
    columns = drift_columns(state, log=True)
    assert min(columns["points"]["drift"]) > 0
    assert 0 < columns["bars"]["floor"][0] < min(columns["bars"]["size"])


def test_a_task_has_gaps_where_it_was_not_measured(state: SessionState) -> None:
    points = task_columns(state, "sentiment")["points"]
    assert points["step"] == [0, 1, 2, 3]
    assert [math.isnan(value) for value in points["accuracy"]] == [False, True, True, False]
    assert points["low"][0] < points["accuracy"][0] < points["high"][0]


@pytest.mark.parametrize(
    ("kind", "text", "value"), [("int", " 25 ", 25), ("float", "0.5", 0.5), ("layers", "4, 5 6", (4, 5, 6))]
)
def test_hyperparameters_are_read_as_they_are_written(kind: str, text: str, value: object) -> None:
    info = HyperparameterInfo("x", kind, value, "", 0, 30)
    assert parsed(info, text) == value
    assert parsed(info, written(value)) == value


@pytest.mark.parametrize(
    ("kind", "text"), [("int", "2.5"), ("float", "nan"), ("int", "31"), ("layers", ""), ("float", "x")]
)
def test_bad_hyperparameters_are_refused_with_what_is_allowed(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"x must be .* between 0 and 30, got"):
        parsed(HyperparameterInfo("x", kind, 1, "", 0, 30), text)
