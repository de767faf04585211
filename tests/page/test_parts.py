"""The pure parts of the page: texts, comparisons, columns of the charts, hyperparameters, and what it imports."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace

import ipywidgets as widgets
import pytest

from editlab.analysis.history import Between
from editlab.core.facts import Fact
from editlab.core.info import HyperparameterInfo
from editlab.core.numbers import decimals
from editlab.core.records import Answer, Cost, PairedTest, SaysIt, SessionState
from editlab.page.controls import html
from editlab.page.files import files_of
from editlab.page.panels.method_form import parsed, written
from editlab.page.plots.chart import TITLE_INDENT, change_columns
from editlab.page.plots.outcomes import (
    outcome_columns,
    perplexity_chart,
    perplexity_outcome,
    retention_outcome,
    share_chart,
    spans_decades,
    task_outcome,
    unedited,
)
from editlab.page.plots.recall import FORGOTTEN, NEVER, RECALLED, UNKNOWN, recall_chart, recall_columns, recall_rows
from editlab.page.plots.weights import UNITS, drift_chart, drift_columns, drift_rows, size_chart, size_columns
from editlab.page.words import cost_words, duration, every_words, measured_at, p_words, paired_words, plan_cost_words
from editlab.report.compare import compared, wins
from editlab.report.html import changed_words, marked_prompt, number, percent, role_of, show_token, table, tag
from editlab.report.readings import says_it_words
from tests.page.fake_lab import FakeLab
from tests.page.fake_model import DISABLING, W0


@pytest.fixture
def state() -> SessionState:
    lab = FakeLab()
    session = lab.create()
    lab.measure(session, ["sentiment"]).result()
    for number_of_edits, method in enumerate(("rome", "rome", "memit")):
        lab.edit(session, [lab.facts[number_of_edits]], method).result()
    lab.measure(session, ["sentiment"]).result()
    return lab.state(session)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0, "0 %"),
        (0.00001, "< 0.01 %"),
        (0.0031, "0.31 %"),
        (0.00999, "1.0 %"),
        (0.042, "4.2 %"),
        (0.0999, "10 %"),
        (0.42, "42 %"),
        (-0.42, "−42 %"),
        (None, "–"),
    ],
)
def test_percent(p: float | None, text: str) -> None:
    assert percent(p) == text


def test_a_number_and_its_percent_sign_stay_in_one_line() -> None:
    shown = html("96 % of them, < 1 & 4.2 %")
    assert shown.value == "96\xa0% of them, &lt; 1 &amp; 4.2\xa0%"
    shown.value = tag("b", "100 %", title="7 %")
    assert shown.value == '<b title="7\xa0%">100\xa0%</b>'


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.31234, "0.312"), (12345.6, "12 346"), (1e-9, "1.00e−09"), (-0.5, "−0.5"), (math.inf, "not finite")],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_decimals() -> None:
    assert [decimals(value) for value in (0.5, -0.5, -0.001)] == ["0.50", "−0.50", "0.00"]
    assert [decimals(value, 1, "+") for value in (0.5, -0.5, -0.01)] == ["+0.5", "−0.5", "+0.0"]


@pytest.mark.parametrize("answer", ["Paris.", "Paris!", "Paris?", "Paris…", "Paris", "3.5"])
def test_a_sentence_that_ends_with_a_quotation_has_one_full_stop(answer: str) -> None:
    answers = (Answer("rewrite", "It is in", "Paris", answer, *[True] * 5, False, "Rome"),)
    said = SaysIt(1, 1, None, None, None, answers=answers)
    stop = "" if answer[-1] in ".!?…" else "."
    assert str(says_it_words(said)).endswith(f"“{answer}”{stop}")


def test_the_subject_is_marked_where_the_prompt_has_it() -> None:
    marked = marked_prompt("a b a", "a", 4)
    assert marked == 'a b <mark class="el-subject">a</mark>'


def test_blank_tokens_can_be_seen() -> None:
    assert show_token("\n") == "⏎"
    assert show_token("  ") == "␣"
    assert show_token(" <b>") == "&lt;b&gt;"
    assert show_token(" Rome") == "Rome"
    assert show_token("Rome") == "·Rome"


def test_only_a_whole_word_after_a_space_begins_an_object() -> None:
    assert role_of(" Rome", "Rome", "Paris") == role_of(" New", "New York", "Paris") == "new"
    assert role_of(" Paris", "Rome", "Paris") == "true"
    assert role_of(" B", "Bordeaux", "Paris") == role_of(" Par", "Rome", "Paris") == role_of(" Ro", "Rome", None) == ""
    assert role_of(" New", "New York", "New Delhi") == ""
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


def edited(*subjects: str, methods: Sequence[str] = ()) -> SessionState:
    """The state after one edit of each subject, all that the plan asks for measured."""
    lab = FakeLab()
    session = lab.create()
    for number_of_edit, subject in enumerate(subjects):
        method = methods[number_of_edit] if methods else "rome"
        lab.edit(session, [Fact("{} is in", subject, "Oslo", "Rome")], method).result()
    lab.measure_due(session).result()
    return lab.state(session)


def test_drift_has_a_line_per_edited_layer_in_either_unit(state: SessionState) -> None:
    columns = drift_columns(state, UNITS[1])
    assert columns["lines"]["layer"] == ["layer 4", "layer 5", "layer 6"]
    layer_6 = [
        y for name, y in zip(columns["points"]["layer"], columns["points"]["drift"], strict=True) if name == "layer 6"
    ]
    sizes = [step.norm or 0.0 for step in state.steps[1:]]
    # The fake's edits are orthogonal: squares add up, and MEMIT leaves a third of its square in layer 6.
    assert layer_6[2] == pytest.approx(math.hypot(sizes[0], sizes[1]))
    assert layer_6[3] == pytest.approx(math.sqrt(sizes[0] ** 2 + sizes[1] ** 2 + sizes[2] ** 2 / 3))
    assert columns["now"]["step"] == [3, 3, 3]
    relative = drift_columns(state, UNITS[0])["points"]["drift"]
    assert relative == [pytest.approx(norm / W0) for norm in columns["points"]["drift"]]


def test_the_layers_of_one_edit_stand_side_by_side(state: SessionState) -> None:
    bars = size_columns(state, UNITS[1])["bars"]
    assert bars["step"] == [1, 2, 3, 3, 3]
    assert bars["layer"][2:] == ["layer 4", "layer 5", "layer 6"]
    left = [x - width / 2 for x, width in zip(bars["x"], bars["width"], strict=True)][2:]
    right = [x + width / 2 for x, width in zip(bars["x"], bars["width"], strict=True)][2:]
    assert 2.5 < left[0] < right[0] <= left[1] < right[1] <= left[2] < right[2] < 3.5


def test_a_log_scale_has_no_zero(state: SessionState) -> None:
    assert min(drift_columns(state, log=True)["points"]["drift"]) > 0
    bars = size_columns(state, log=True)["bars"]
    assert 0 < bars["floor"][0] < min(bars["size"])


def test_the_table_of_drift_says_what_the_charts_draw(state: SessionState) -> None:
    header, rows = drift_rows(state.steps, UNITS[1])
    assert header == [f"layer {layer}: {what}" for what in ("‖W − W₀‖", "‖ΔW‖") for layer in (4, 5, 6)]
    assert rows[0] == [0.0, 0.0, 0.0, None, None, None]
    assert rows[3][3:] == size_columns(state, UNITS[1])["bars"]["size"][2:]


def test_an_outcome_is_drawn_where_it_was_measured(state: SessionState) -> None:
    points = outcome_columns(state, task_outcome("sentiment"))["points"]
    assert points["step"] == [0, 3]
    assert points["low"][0] < points["value"][0] < points["high"][0]
    assert all(map(str.startswith, points["says"], map(percent, points["value"])))  # as it is written elsewhere
    assert unedited(state.steps, task_outcome("sentiment")) == points["value"][0]
    assert unedited(state.steps, perplexity_outcome) is None


def test_perplexity_takes_a_log_axis_once_it_spans_decades() -> None:
    assert not spans_decades(edited("Prado", "Hofburg"), perplexity_outcome)
    assert spans_decades(edited("Prado", DISABLING), perplexity_outcome)


def test_the_forgetting_map_tells_four_states_and_the_first_loss() -> None:
    state = edited("Prado", "A", "B", "C", "D")
    rows = recall_rows(state.steps)
    assert [row.edit for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0].states == dict.fromkeys(range(1, 6), NEVER)
    assert rows[1].states == {2: RECALLED, 3: RECALLED, 4: RECALLED, 5: FORGOTTEN}
    assert [row.forgotten for row in rows] == [None, Between(5, 5), None, None, None]
    columns = recall_columns(state, rows)
    assert (columns["crosses"]["step"], columns["crosses"]["row"]) == ([5], [1])
    assert len(columns["cells"]["step"]) == 5 + 4 + 3 + 2 + 1
    unmeasured_state = replace(state, steps=tuple(replace(step, measurement=None) for step in state.steps))
    assert {word for row in recall_rows(unmeasured_state.steps) for word in row.states.values()} == {UNKNOWN}


def test_a_sample_shows_only_its_own_rows() -> None:
    state = edited("A", "B", "C")
    steps = list(state.steps)
    for index in (1, 2, 3):
        measurement = steps[index].measurement
        recalls = tuple(recall for recall in measurement.retention.recalls if recall.edit != "e2")
        retention = replace(measurement.retention, recalls=recalls, of=index)
        steps[index] = replace(steps[index], measurement=replace(measurement, retention=retention))
    assert [row.edit for row in recall_rows(steps)] == [1, 3]


def test_the_titles_of_all_charts_begin_at_the_left_edge() -> None:
    rows = recall_rows(edited("Prado", "The Colosseum in Rome").steps)
    charts = (recall_chart(rows), recall_chart(rows * 30), drift_chart(), size_chart(), share_chart("A share"))
    for chart in (*charts, perplexity_chart()):
        for plot in chart.figures:
            assert plot.min_border_left + plot.title.offset == TITLE_INDENT


def test_labels_of_the_map_are_never_read_as_tex() -> None:
    chart = recall_chart(recall_rows(edited("$$x^2$$").steps))
    (label,) = chart.figures[0].yaxis[0].major_label_overrides.values()
    assert type(label).__name__ == "PlainText"


def test_charts_mark_the_edit_that_broke_the_model() -> None:
    state = edited("A", "B", DISABLING)
    assert state.health.status == "collapsed"
    marks = change_columns(state)
    assert set(marks["step"]) == {3}
    assert set(marks["kind"]) == {"jump"}
    assert outcome_columns(state, retention_outcome)["changes"] == marks


def test_durations_and_costs_in_words() -> None:
    assert [duration(seconds) for seconds in (0.02, 3.14, 12.3, 200.0)] == ["0.1 s", "3.1 s", "12 s", "3 min"]
    assert cost_words(Cost(3.14, True)) == "3.1 s"
    assert cost_words(Cost(3.14, False)) == "about 3.1 s"
    assert [every_words(every) for every in (0, 1, 2, 5)] == [
        "on demand",
        "every edit",
        "every 2nd edit",
        "every 5th edit",
    ]


def test_a_paired_test_in_words() -> None:
    assert paired_words(PairedTest("t", "scores", 60, 3, 12, 0.0352)) == "12 examples lost, 3 gained, p = 0.04"
    assert paired_words(PairedTest("t", "scores", 60, 0, 1, 1.0)) == "1 example lost, 0 gained, p = 1.00"
    assert paired_words(PairedTest("t", "scores", 60, 0, 0, 1.0)) == "every example answered as before"
    assert p_words(0.0004) == "p < 0.001"


def test_the_cost_of_a_plan_is_told_beforehand() -> None:
    state = edited("A", "B")
    assert plan_cost_words(state).startswith(
        "After each edit, in the background: 8.0 s of measuring."
    )  # 0.5 + 1.5 + 2.5 + 3.5
    dearer = replace(state, plan={"perplexity": 1, "bleeding": 5})
    assert "3.5 s of measuring, 4.6 s on average" in plan_cost_words(dearer)
    assert (measured_at(state, "retention"), measured_at(state, "bleeding")) == ((2, 2), (0, 2))


def test_the_files_hold_the_same_table() -> None:
    import pandas

    state = edited("A", "B")
    files = {file.name: file.content for file in files_of(state)}
    csv, parquet = pandas.read_csv(io.BytesIO(files["editlab-table.csv"])), io.BytesIO(files["editlab-table.parquet"])
    assert len(csv) == len(pandas.read_parquet(parquet)) == len(json.loads(files["editlab-table.json"]))
    assert {"perplexity", "retention", "drift.relative"} <= set(csv.measure)
    assert SessionState.from_json(json.loads(files["editlab-session.json"])) == state


@pytest.mark.parametrize(
    ("kind", "text", "value"), [("int", " 25 ", 25), ("float", "0.5", 0.5), ("layers", "4, 5 6", (4, 5, 6))]
)
def test_hyperparameters_are_read_as_they_are_written(kind: str, text: str, value: object) -> None:
    info = HyperparameterInfo("x", kind, value, "", 0, 30)
    assert parsed(info, widgets.Text(text)) == value
    assert parsed(info, widgets.Text(written(value))) == value


@pytest.mark.parametrize(
    ("kind", "text"), [("int", "2.5"), ("float", "nan"), ("int", "31"), ("layers", ""), ("float", "x")]
)
def test_bad_hyperparameters_are_refused_with_what_is_allowed(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"x must be .* between 0 and 30, got"):
        parsed(HyperparameterInfo("x", kind, 1, "", 0, 30), widgets.Text(text))
