"""The report draws what the table holds, and is whole in one file."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from editlab.analysis.scores import wilson
from editlab.cli import app
from editlab.core.facts import Fact
from editlab.core.records import Bleeding, Drift, Measurement, Perplexity, Step, TaskScore
from editlab.methods import about, methods
from editlab.report.report import state_of, table_of_ends, write_report
from editlab.report.story import story
from editlab.report.story.runs import PanelGroup, Runs, curves_of, drawings_of, figures_of

SVG = "{http://www.w3.org/2000/svg}"


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


def figure(name: str, runs: Runs) -> PanelGroup:
    return next(figure for figure in figures_of(runs) if figure.name == name)


def drawings(name: str, runs: Runs) -> dict[str, str]:
    return drawings_of(figure(name, runs), {run: curves_of(steps) for run, steps in runs.items()})


def test_a_drawing_for_every_panel_that_has_numbers_and_a_line_for_every_run() -> None:
    runs = {"rome": RUN, "memit": RUN[:2]}
    drawn = drawings("downstream", runs)
    assert [*drawn] == ["SST-2: accuracy of 10", "Perplexity of a fixed text"]
    assert drawings("forgetting", runs) == {}
    told = re.findall(r"<title>([^<]*)</title>", drawn["SST-2: accuracy of 10"])
    assert told == ["rome, 0 edits: 0.8", "rome, 2 edits: 0.6", "memit, 0 edits: 0.8"]
    assert 'class="level chance"' in drawn["SST-2: accuracy of 10"]


def test_tasks_by_generation_are_a_figure_of_their_own() -> None:
    measured = replace(
        Measurement({}, ()), tasks={"my-task": score(4), "my-task:generation": replace(score(5), rule="generation")}
    )
    runs = {"a": (replace(RUN[0], measurement=measured),)}
    assert figure("downstream", runs).panels[0].title == "SST-2: accuracy of 10"
    assert [p.title for p in figure("downstream-generation", runs).panels] == ["SST-2, by generation: accuracy of 10"]


def test_no_two_of_twenty_runs_look_alike() -> None:
    drawn = drawings("downstream", {f"run {number}": RUN for number in range(20)})
    lines = re.findall(r'<g class="(c\d)">.*?class="line (d\d)"', drawn["Perplexity of a fixed text"])
    assert len(lines) == len(set(lines)) == 20


def test_the_table_tells_the_first_and_the_last_number() -> None:
    table = table_of_ends({"rome": curves_of(RUN)}, figures_of({"rome": RUN}))
    assert '<th scope="row">Perplexity of a fixed text</th><td>30 → 33</td>' in table.replace("<tr>", "")
    assert "<td>0.8 → 0.6</td>" in table


def test_shares_of_independent_cases_have_an_interval_and_the_unedited_model_a_line() -> None:
    measured = replace(Measurement({}, ()), bleeding=Bleeding(40, 0.75, ()))
    runs = {"a": (RUN[0], replace(RUN[2], measurement=measured))}
    drawn = ElementTree.fromstring(drawings("downstream", runs)["Unrelated facts still right"])
    band = next(part for part in drawn.iter("polygon"))
    (_, high), (_, low) = (map(float, corner.split(",")) for corner in band.attrib["points"].split())
    assert (value_at(drawn, high), value_at(drawn, low)) == pytest.approx(wilson(30, 40)[::-1], abs=1e-3)
    assert [said.text for said in drawn.iter("title")] == ["a, 2 edits: 0.75", "unedited model, 2 edits: 1"]


def value_at(panel: ElementTree.Element, y: float) -> float:
    """What a height means, by the lowest and the highest label of a linear axis."""
    ticks = [text for text in panel.iter() if text.attrib.get("class") == "tick end" and text.text != "edits"]
    (low, at_low), (high, at_high) = (
        (float(str(tick.text).replace(" %", "e-2")), float(tick.attrib["y"]) - 4) for tick in (ticks[0], ticks[-1])
    )
    return low + (y - at_low) / (at_high - at_low) * (high - low)


def test_the_figures_are_files_that_need_nothing_else_and_draw_the_numbers_of_the_table(tmp_path: Path) -> None:
    runs = {"<rome>": RUN, "memit": RUN[:2]}
    write_report(runs, tmp_path / "report.html", "two runs")
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == ["downstream.svg", "drift.svg"]
    curves = {name: curves_of(steps) for name, steps in runs.items()}
    for figure in figures_of(runs)[2:4]:
        text = (tmp_path / "figures" / f"{figure.name}.svg").read_text(encoding="utf-8")
        drawing = ElementTree.fromstring(text)
        assert drawing.tag == f"{SVG}svg"
        assert "var(" not in text
        assert "href" not in text
        assert {"<rome>", "memit"} <= {label.text for label in drawing.iter(f"{SVG}text")}
        measured = [panel for panel in figure.panels if panel.measure in curves["<rome>"]]
        panels = drawing.findall(f"{SVG}svg")
        assert [panel.attrib["aria-label"] for panel in panels] == [panel.title for panel in measured]
        for panel, drawn in zip(measured, panels, strict=True):
            dots = [value_at(drawn, float(dot.attrib["cy"])) for dot in drawn.iter(f"{SVG}circle")]
            rows = [row.value for run in curves.values() for row in run.get(panel.measure, {}).values()]
            assert dots == pytest.approx(rows, rel=5e-3)


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
    known = [about(kind) for kind in methods().values()]
    assert (tmp_path / "session.html").read_text(encoding="utf-8") == story(state, methods=known)

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
