"""The report draws what the table holds, and is whole in one file."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from editlab.cli import app
from editlab.facts import Fact
from editlab.records import Drift, Measurement, Perplexity, Step, TaskScore
from editlab.report import curves_of, figures_of, table_of_ends, write_report


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
    runs = {"rome": curves_of(RUN), "memit": curves_of(RUN[:2])}
    figures = {plot.title.text: plot for plot in figures_of(runs)}
    assert set(figures) == {"Drift of the layer that moved most", "Perplexity of a fixed text", "SST-2"}
    lines = [r.data_source.data for r in figures["SST-2"].renderers if type(r.glyph).__name__ == "Line"]
    assert [(list(line["step"]), list(line["value"])) for line in lines] == [([0, 2], [0.8, 0.6]), ([0], [0.8])]


def test_the_table_tells_the_first_and_the_last_number() -> None:
    table = table_of_ends({"rome": curves_of(RUN)})
    assert "<tr><td>Perplexity of a fixed text</td><td>30 &rarr; 33</td></tr>" in table
    assert "<tr><td>SST-2</td><td>0.8 &rarr; 0.6</td></tr>" in table


def test_the_page_is_whole_in_one_file_and_takes_names_as_text(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report({"<i>rome</i>": RUN}, file, "a <b>title</b>")
    page = file.read_text(encoding="utf-8")
    assert "&lt;i&gt;rome&lt;/i&gt;" in page
    assert "<i>rome" not in page
    assert "<h1>a &lt;b&gt;title&lt;/b&gt;</h1>" in page
    assert '<script src="' not in page


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds no run" in result.output
