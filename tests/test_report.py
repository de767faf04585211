"""The report draws what the table holds, and is whole in one file."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from editlab.cli import app
from editlab.facts import Fact
from editlab.records import Drift, Measurement, Perplexity, Step, TaskScore
from editlab.report import curves_of, figures_of, panels_of, state_of, table_of_ends, write_report
from editlab.story import story


def score(right: int) -> TaskScore:
    correct = tuple(i < right for i in range(10))
    return TaskScore("sst2", "SST-2", "scores", 10, correct, right / 10, (0.2, 0.9), 0.5, right / 10, 0.33, 0.0)


def step(index: int, drift: float, perplexity: float | None, right: int | None = None) -> Step:
    fact = Fact("The {} is in", "tower", f"Rome {index}")
    measurement = Measurement(
        drift={4: Drift(1.0, drift / 2, 0.1), 5: Drift(1.0, drift, 0.1)} if index else {},
        completions=(),
        tasks={} if right is None else {"sst2": score(right)},
        perplexity=None if perplexity is None else Perplexity(perplexity, "a text", 9, 5),
    )
    return Step(index, f"id{index}", (fact,) if index else (), "rome", {}, None, True, True, measurement, {}, 1.0)


RUN = (step(0, 0.0, 30.0, 8), step(1, 0.1, None), step(2, 0.3, 33.0, 6))


def test_curves_are_of_the_layer_that_moved_most_and_skip_what_was_not_measured() -> None:
    curves = curves_of(RUN)
    assert {index: row.value for index, row in curves["drift.relative"].items()} == {1: 0.1, 2: 0.3}
    assert {index: row.value for index, row in curves["perplexity"].items()} == {0: 30.0, 2: 33.0}


def test_a_figure_for_every_panel_that_has_numbers_and_a_line_for_every_run() -> None:
    runs = {"rome": RUN, "memit": RUN[:2]}
    figures = figures_of({name: curves_of(steps) for name, steps in runs.items()}, panels_of(runs))
    assert [*figures] == [
        "Drift of the layer that moved most, ‖W - W₀‖ ÷ ‖W₀‖",
        "Perplexity of a fixed text",
        "SST-2: accuracy of 10",
    ]
    told = re.findall(r"<title>([^<]*)</title>", figures["SST-2: accuracy of 10"])
    assert told == ["rome, 0 edits: 0.8", "rome, 2 edits: 0.6", "memit, 0 edits: 0.8"]
    assert 'class="level chance"' in figures["SST-2: accuracy of 10"]


def test_a_task_of_ones_own_has_a_panel_by_either_rule() -> None:
    measured = replace(
        RUN[0].measurement, tasks={"my-task": score(4), "my-task:generation": replace(score(5), rule="generation")}
    )
    titles = [panel.title for panel in panels_of({"a": (replace(RUN[0], measurement=measured),)})]
    assert titles[5:7] == ["SST-2: accuracy of 10", "SST-2, by generation: accuracy of 10"]


def test_no_two_of_twenty_runs_look_alike() -> None:
    runs = {f"run {number}": RUN for number in range(20)}
    figures = figures_of({name: curves_of(steps) for name, steps in runs.items()}, panels_of(runs))
    lines = re.findall(r'<g class="(c\d)">.*?class="line (d\d)"', figures["Perplexity of a fixed text"])
    assert len(lines) == len(set(lines)) == 20


def test_the_table_tells_the_first_and_the_last_number() -> None:
    table = table_of_ends({"rome": curves_of(RUN)}, panels_of({"rome": RUN}))
    assert '<th scope="row">Perplexity of a fixed text</th><td>30 → 33</td>' in table.replace("<tr>", "")
    assert "<td>0.8 → 0.6</td>" in table


def test_the_page_is_whole_in_one_file_and_takes_names_as_text(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report({"<i>rome</i>": RUN}, file, "a <b>title</b>")
    page = file.read_text(encoding="utf-8")
    assert "&lt;i&gt;rome&lt;/i&gt;" in page
    assert "<i>rome" not in page
    assert "<h1>a &lt;b&gt;title&lt;/b&gt;</h1>" in page
    assert "<script" not in page
    assert "http" not in page


def test_a_session_and_a_single_run_are_told_as_stories(tmp_path: Path) -> None:
    state = state_of(RUN, "a run")
    session = tmp_path / "session.json"
    session.write_text(json.dumps(state.to_json()), encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(session)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "session.html").read_text(encoding="utf-8") == story(state)

    run = tmp_path / "rome"
    run.mkdir()
    (run / "run.json").write_text("{}")
    lines = [json.dumps({"step": step.index, "told": step.to_json()}) + "\n" for step in RUN]
    (run / "measured.jsonl").write_text("".join(lines), encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / "run.html")])
    assert done.exit_code == 0, done.output
    assert 'id="edit-2"' in (tmp_path / "run.html").read_text(encoding="utf-8")

    (tmp_path / "other.json").write_text("[]")
    for name, sentence in (("other.json", "is not a session's JSON file"), ("none.zip", "no such file")):
        done = CliRunner().invoke(app, ["report", str(tmp_path / name)])
        assert done.exit_code == 2
        assert sentence in done.output


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds no run" in result.output
