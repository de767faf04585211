"""A run that is killed anywhere and started again is the run that was never killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.core.records import Step
from editlab.editing.editor import Editor
from editlab.experiments.run import RunConfig, RunFolder, Sequenced, measures_at, read_run, run_sequence
from editlab.measures import Measures
from editlab.measures.counterfact import OfAll, OfStep
from editlab.measures.generation import GenerationEntropy
from editlab.measures.perplexity import PerplexityOfText
from editlab.measures.retention import RetentionOfEdits
from editlab.model.deltas import load_edit
from editlab.session.session import Session

SCHEDULE = {"retention, perplexity": 2, "everything": [0, 3]}
GENERATION = ("A band from", "The music")


@pytest.fixture
def measures(tmp_path: Path) -> Measures:
    text = tmp_path / "short.txt"
    text.write_text("Bread is among the oldest prepared foods. Flour and water alone make a flat loaf.")
    found = [
        OfStep(),
        RetentionOfEdits(),
        PerplexityOfText(str(text)),
        OfAll(),
        GenerationEntropy(limit=2, n_tokens=16),
    ]
    return Measures({measure.name: measure for measure in found})


@pytest.fixture
def start(gpt2_editor: Editor, facts: list[Fact], measures: Measures) -> Callable[..., tuple[Step, ...]]:
    """Starts, or goes on with, a run of three facts in a folder, as a new process would."""
    sung = tuple(Fact(**{**fact.to_json(), "generation_prompts": GENERATION}) for fact in facts)
    gpt2_editor.model.write([])

    def begin(folder: Path, report: Callable[[Progress], None] = lambda _: None) -> tuple[Step, ...]:
        fresh = Measures(measures.by_name)
        wanted = Sequenced(sung, "memit", {}, 0, gpt2_editor.model.fingerprint())
        run_sequence(Session(gpt2_editor, fresh), lambda: wanted, SCHEDULE, RunFolder(folder), report)
        return RunFolder(folder).finish()

    yield begin
    gpt2_editor.model.write([])


def told(steps: tuple[Step, ...]) -> tuple[dict[str, object], dict[str, float]]:
    """What a run found, without ids and times, the fractions apart: a batch of other rows rounds otherwise."""
    exact: dict[str, object] = {}
    fractions: dict[str, float] = {}

    def walk(path: str, value: object) -> None:
        if isinstance(value, dict | list):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                if key not in ("seconds", "id", "edit", "upon"):
                    walk(f"{path}/{key}", item)
        elif isinstance(value, float):
            fractions[path] = value
        else:
            exact[path] = value

    walk("", [step.to_json() for step in steps])
    return exact, fractions


def nearly(steps: tuple[Step, ...]) -> object:
    exact, fractions = told(steps)
    return exact, pytest.approx(fractions, rel=1e-4, abs=1e-7)


def test_a_run_measures_what_its_schedule_asks_for(start: Callable, tmp_path: Path) -> None:
    steps = start(tmp_path / "run")
    assert [sorted(step.measurement.found) for step in steps] == [
        ["perplexity"],
        [],
        ["perplexity", "retention"],
        ["counterfact", "counterfact_all", "generation", "perplexity", "retention"],
    ]
    assert steps == read_run(tmp_path / "run")
    assert steps[3].measurement.counterfact_all.n_facts == 3
    assert (tmp_path / "run" / "table.parquet").exists()


class Killed(BaseException):
    """What ends a process: no one catches it."""


def test_killed_at_every_report_it_ends_as_if_it_had_not_been(
    start: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start gets a little further than the one before, dies, and the last finds all done."""
    whole = start(tmp_path / "whole")
    edited: list[str] = []
    real = Session.edit
    monkeypatch.setattr(Session, "edit", lambda self, *a: (real(self, *a), edited.append("edit"))[0])
    kills, steps = 0, None
    while steps is None:
        left = iter(range(5 + 3 * kills))

        def kill_later(_: Progress, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Killed

        try:
            steps = start(tmp_path / "killed", kill_later)
        except Killed:
            kills += 1
    assert kills >= 4
    assert len(edited) == 3
    assert told(steps) == nearly(whole)
    for number in (1, 2, 3):
        one, other = (load_edit(tmp_path / run / "edits" / f"{number:05}.safetensors") for run in ("whole", "killed"))
        for layer, delta in one.items():
            assert torch.equal(delta.left, other[layer].left)
            assert torch.equal(delta.right, other[layer].right)


@pytest.mark.parametrize("name", ["add_edit", "add_line", "set_base"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_beside_any_writing_nothing_is_lost_or_done_twice(
    start: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    real, n = getattr(RunFolder, name), 0

    def kill(self: RunFolder, *arguments: object) -> None:
        nonlocal n
        n += 1
        if after or n % 2 == 0:
            real(self, *arguments)
        if n % 2:
            raise Killed

    whole = start(tmp_path / "whole")
    monkeypatch.setattr(RunFolder, name, kill)
    steps = None
    for _ in range(40):
        try:
            steps = start(tmp_path / "killed")
            break
        except Killed:
            continue
    assert steps is not None
    assert told(steps) == nearly(whole)
    lines = [json.loads(line) for line in (tmp_path / "killed" / "measured.jsonl").read_text().splitlines()]
    keys = [(line["step"], line.get("measure")) for line in lines]
    assert len(keys) == len(set(keys))


def test_a_line_that_was_cut_off_is_measured_again(start: Callable, tmp_path: Path) -> None:
    whole = start(tmp_path / "run")
    file = tmp_path / "run" / "measured.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert told(start(tmp_path / "run")) == nearly(whole)


def test_reading_a_run_leaves_a_line_that_is_being_written_alone(start: Callable, tmp_path: Path) -> None:
    start(tmp_path / "run")
    file = tmp_path / "run" / "measured.jsonl"
    file.write_bytes(cut := file.read_bytes()[:-20])
    assert len(read_run(tmp_path / "run")) == 4
    assert file.read_bytes() == cut


def test_a_folder_of_another_model_is_refused(start: Callable, tmp_path: Path) -> None:
    def stop(_: Progress) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        start(tmp_path / "run", stop)
    file = tmp_path / "run" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model": "another"}))
    with pytest.raises(ValueError, match="another model"):
        start(tmp_path / "run")


def test_the_schedule(measures: Measures) -> None:
    assert measures_at(SCHEDULE, measures, 3) == list(measures.by_name)
    assert measures_at(SCHEDULE, measures, 4) == ["retention", "perplexity"]
    assert measures_at(SCHEDULE, measures, 1) == []
    with pytest.raises(ValueError, match="no measure 'chess'"):
        measures_at({"chess": 1}, measures, 0)


def test_a_config_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    def read(text: str) -> RunConfig:
        (tmp_path / "run.toml").write_text(text)
        return RunConfig.read(tmp_path / "run.toml")

    good = read('methods = ["rome"]\nfacts = "facts.json"\n[schedule]\nretention = 1\n')
    assert good.methods == ("rome",)
    assert good.facts == str(tmp_path / "facts.json")
    for text, sentence in (
        ("methods = [", "neither TOML nor JSON"),
        ('methods = ["rome"]\nstep = 3\n', "unknown key 'step' in run.toml; allowed: methods, .*guard_level"),
        ('methods = ["rome"]', "lacks schedule"),
        ("methods = []\n[schedule]\nretention = 1\n", "needs methods"),
        ('methods = ["rome"]\nn = 0\n[schedule]\nretention = 1\n', "n must be the number of facts"),
        ('methods = ["rome"]\n[schedule]\nretention = 0\n', "every 1, 2, ... steps or at a list"),
        ('methods = ["rome"]\n[schedule]\nretention = "often"\n', "schedule: .* got .*'often'"),
        ('methods = ["rome"]\n[schedule]\nretention = [0, -1]\n', "at a list of them"),
    ):
        with pytest.raises(ValueError, match=sentence):
            read(text)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('seed = "a"', "seed: input should be a valid integer, got 'a'"),
        ("seed = -1", "seed must be 0 or above, got -1"),
        ("n = true", "n: input should be a valid integer, got True"),
        ("n = 2.5", "n: .* got 2.5"),
        ("known = 1", "known: input should be a valid boolean, got 1"),
        ("case_ids = [1.5]", "case_ids: .* got \\(1.5,\\)"),
        ("orders = [-1]", "orders must be seeds"),
        ("model = 3", "model: input should be a valid string, got 3"),
        ("guard = 'often'", "the guard must be one of"),
        ("hyperparameters = {rome = 3}", "hyperparameters: .* got {'rome': 3}"),
    ],
)
def test_a_value_of_another_type_is_told_by_its_name(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "run.toml").write_text(f'methods = ["rome"]\n{line}\n[schedule]\nretention = 1\n')
    with pytest.raises(ValueError, match=sentence):
        RunConfig.read(tmp_path / "run.toml")


def test_a_single_name_is_a_list_of_one_and_paths_are_seen_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").touch()
    lines = 'methods = "rome"\nmodel = "tiny"\nmoments = "C.npz"\ntasks = "task.json"\ntext = "wikitext"\n'
    (tmp_path / "run.toml").write_text(f"{lines}[schedule]\nretention = 1\n")
    read = RunConfig.read(tmp_path / "run.toml")
    assert read.methods == ("rome",)
    assert (read.model, read.moments) == (str(tmp_path / "tiny"), str(tmp_path / "C.npz"))
    assert read.tasks == (str(tmp_path / "task.json"),)
    assert read.text == "wikitext"
    for model, moments in (("gpt2-xl", "sample"), ("org/name", "wikipedia")):
        (tmp_path / "run.toml").write_text(
            f'methods = ["rome"]\nmodel = "{model}"\nmoments = "{moments}"\n[schedule]\nretention = 1\n'
        )
        read = RunConfig.read(tmp_path / "run.toml")
        assert (read.model, read.moments) == (model, moments)


def test_without_n_all_that_is_named_or_there_is_taken(gpt2_editor: Editor, facts: list[Fact]) -> None:
    numbered = [Fact(**{**fact.to_json(), "case_id": number}) for number, fact in enumerate(facts)]
    config = RunConfig(("rome",), {"retention": 1}, case_ids=(2, 0), known=False)
    assert config.choose(gpt2_editor.model, numbered) == [numbered[2], numbered[0]]
    assert RunConfig(("rome",), {"retention": 1}, known=False).choose(gpt2_editor.model, facts) == facts


def test_the_facts_of_a_config(gpt2_editor: Editor, facts: list[Fact]) -> None:
    from editlab.model.reading import object_nlls

    model = gpt2_editor.model
    config = RunConfig(("rome",), {"retention": 1}, n=2, known=False)
    assert config.choose(model, facts) == facts[:2]
    known = [
        fact
        for fact in facts
        if object_nlls(model, [(fact.text, fact.target_true)])[0]
        < object_nlls(model, [(fact.text, fact.target_new)])[0]
    ]
    assert RunConfig(("rome",), {"retention": 1}, n=len(known)).choose(model, facts) == known
    with pytest.raises(
        ValueError, match=rf"n = 9, but only {len(known)} facts that .* knows, .* among 3 are available; set known"
    ):
        RunConfig(("rome",), {"retention": 1}, n=9).choose(model, facts)
    with pytest.raises(ValueError, match="case ids 7"):
        RunConfig(("rome",), {"retention": 1}, n=1, case_ids=(7,)).choose(model, facts)
