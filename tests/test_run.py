"""A run that is killed anywhere and started again is the run that was never killed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from typer.testing import CliRunner

from editlab.cli import app
from editlab.cli.run import changed
from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.core.records import Step
from editlab.editing.editor import Editor
from editlab.experiments.config import RunConfig, measures_at
from editlab.experiments.experiment import Experiment
from editlab.experiments.run import RunFolder, Sequenced, read_run, run_sequence
from editlab.measures import Measures
from editlab.measures.counterfact import OfAll, OfStep
from editlab.measures.generation import GenerationEntropy
from editlab.measures.perplexity import PerplexityOfText
from editlab.measures.retention import RetentionOfEdits
from editlab.model.deltas import load_edit
from editlab.model.loading import ModelChoice
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
        session = Session(gpt2_editor, Measures(measures.by_name))
        wanted = Sequenced.of(session, sung, "memit", {}, SCHEDULE)
        run_sequence(session, wanted, SCHEDULE, RunFolder(folder), report)
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


def test_a_run_without_a_step_is_told(start: Callable, tmp_path: Path) -> None:
    start(tmp_path / "run")
    lines = (tmp_path / "run" / "measured.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "measured.jsonl").write_text("".join(line for line in lines if '"step": 0' not in line))
    with pytest.raises(ValueError, match=r"holds a damaged measured\.jsonl: it lacks a step"):
        read_run(tmp_path / "run")
    (tmp_path / "run" / "measured.jsonl").write_text("")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "run")])
    assert (done.exit_code, "was begun, and nothing is measured yet" in done.stderr) == (2, True)
    state = {"id": "", "steps": [], "position": 0, "watched": [], "model": {}}
    (tmp_path / "state.json").write_text(json.dumps(state))
    for command in ("report", "cite"):
        done = CliRunner().invoke(app, [command, str(tmp_path / "state.json")])
        assert (done.exit_code, "it lacks the step in force" in done.stderr) == (2, True)


def test_reading_a_run_leaves_a_line_that_is_being_written_alone(start: Callable, tmp_path: Path) -> None:
    start(tmp_path / "run")
    file = tmp_path / "run" / "measured.jsonl"
    file.write_bytes(cut := file.read_bytes()[:-20])
    assert len(read_run(tmp_path / "run")) == 4
    assert file.read_bytes() == cut


# --- a folder holds one run ---


def told_in(folder: Path, **changes: object) -> None:
    """Make a folder's run.json say something else."""
    file = folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture
def begun(start: Callable, tmp_path: Path) -> Path:
    """The folder of a run that was killed at its second edit."""

    def kill_in_the_second(progress: Progress) -> None:
        if progress.done == 2:
            raise Killed

    with pytest.raises(Killed):
        start(tmp_path / "run", kill_in_the_second)
    assert RunFolder(tmp_path / "run").edits_made() == 1
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 7}, "seed (7 there, 0 here)"),
        ({"model": "another"}, "model (another there, "),
        ({"dtype": "bfloat16"}, "dtype (bfloat16 there, float32 here)"),
        ({"method": "emmet"}, "method (emmet there, memit here)"),
        ({"contexts": ["{}"]}, "contexts"),
        ({"moments": {"name": "golden", "keys": 9}}, "moments: keys (9 there, nothing here)"),
        ({"guard": {"choice": "refuse", "level": "high"}}, "guard: choice (refuse there, off here)"),
        ({"numbers": 99}, "numbers (99 there, 1 here)"),
        ({"measures": {"perplexity": "of another text"}}, "what perplexity is measured on"),
        ({"numbers": 0}, "begun by an earlier editlab"),
    ],
)
def test_another_run_is_refused_and_what_differs_is_named(
    start: Callable, begun: Path, changes: dict[str, object], named: str
) -> None:
    told_in(begun, **changes)
    before = sorted((path, path.stat().st_mtime_ns) for path in begun.rglob("*"))
    with pytest.raises(ValueError, match=re.escape(named)):
        start(begun)
    assert sorted((path, path.stat().st_mtime_ns) for path in begun.rglob("*")) == before


def test_every_hyperparameter_is_compared(gpt2_editor: Editor, facts: list[Fact], measures: Measures) -> None:
    session = Session(gpt2_editor, measures)
    one = Sequenced.of(session, facts, "memit", {}, SCHEDULE)
    assert one.extended(one) == one
    for name, value in one.hyperparameters.items():
        other = replace(one, hyperparameters={**one.hyperparameters, name: "another"})
        with pytest.raises(ValueError, match=f"^hyperparameters: {name} "):
            one.extended(other)
        assert value is not None


def test_a_larger_n_extends_and_a_smaller_one_or_other_facts_are_refused(
    gpt2_editor: Editor, facts: list[Fact], measures: Measures
) -> None:
    session = Session(gpt2_editor, measures)
    two, three, turned = (
        Sequenced.of(session, some, "memit", {}, SCHEDULE) for some in (facts[:2], facts, facts[::-1])
    )
    assert two.extended(three).facts == tuple(facts)
    with pytest.raises(ValueError, match=r"^n \(3 there, 2 here\)$"):
        three.extended(two)
    with pytest.raises(ValueError, match=r"^facts, from number 1 on$"):
        three.extended(turned)


def test_an_extended_run_is_the_run_of_all_facts(
    start: Callable, gpt2_editor: Editor, measures: Measures, tmp_path: Path
) -> None:
    whole = start(tmp_path / "whole")
    folder = RunFolder(tmp_path / "extended")
    session = Session(gpt2_editor, Measures(measures.by_name))
    first = whole[1].facts
    run_sequence(session, Sequenced.of(session, first, "memit", {}, SCHEDULE), SCHEDULE, folder)
    assert told(start(tmp_path / "extended")) == nearly(whole)


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
    rest = "[schedule]\nretention = 1\n"
    for text, sentence in (
        ('methods = "rome"\n' + rest, r"methods must be a list of names, such as \[\"rome\"\], got 'rome'"),
        ('methods = ["rome"]\nseed = "a"\n' + rest, "seed must be a whole number, 0 or above, got 'a'"),
        ('methods = ["rome"]\nseed = true\n' + rest, "seed must be a whole number, 0 or above, got True"),
        ('methods = ["rome"]\nn = "all"\n' + rest, "n must be the number of facts, 1 or more, got 'all'"),
        ('methods = ["rome"]\ncase_ids = [1.5]\n' + rest, "case_ids must be a list of case ids"),
        ('methods = ["rome"]\ncase_ids = []\n' + rest, r"case_ids must be a list of case ids, one or more, got \[\]"),
        ('methods = ["rome"]\ncase_ids = [" "]\n' + rest, "case_ids must be a list of case ids, one or more"),
        (
            'methods = ["rome"]\nmoments = ""\n' + rest,
            "moments must not hold a blank text: without moments the default",
        ),
        ('methods = ["rome"]\nmodel = " "\n' + rest, "model must not hold a blank text"),
        ('methods = ["rome"]\nfacts = ""\n' + rest, "facts must not hold a blank text"),
        ('methods = ["rome"]\nglue = ""\n' + rest, "glue must not hold a blank text"),
        ('methods = ["rome"]\ntext = "\\t"\n' + rest, "text must not hold a blank text"),
        ('methods = ["rome"]\ntasks = [""]\n' + rest, "tasks must not hold a blank text"),
        ('methods = ["rome"]\norders = [-1]\n' + rest, "orders must be seeds, 0"),
        ('methods = ["rome"]\norders = 1\n' + rest, "orders must be a list of seeds"),
        ('methods = ["rome"]\nknown = 1\n' + rest, "known must be true or false, got 1"),
        ('methods = ["rome"]\nmodel = 3\n' + rest, "model must be text, got 3"),
        ('methods = ["rome"]\ntasks = "a.json"\n' + rest, "tasks must be a list of files, got 'a.json'"),
        ('methods = ["rome"]\nhyperparameters = {rome = 3}\n' + rest, "hyperparameters must be a table for each"),
        ('methods = ["rome"]\nschedule = 3\n', "schedule must be a table"),
        ('methods = ["rome"]\n[schedule]\nretention = true\n', "got True"),
        ("methods = [", "neither TOML nor JSON"),
        ('methods = ["rome"]\nstep = 3\n', "unknown key 'step' in .*; allowed: "),
        ('methods = ["rome"]', "lacks schedule"),
        ("methods = []\n[schedule]\nretention = 1\n", "needs methods"),
        (
            'methods = ["rome"]\n[hyperparameters.rom]\nclamp = 3\n[schedule]\nretention = 1\n',
            r"\[hyperparameters\] has 'rom', which is not among the methods rome; did you mean 'rome'\?",
        ),
        ('methods = ["rome", "rme"]\n' + rest, r"no method 'rme'; available: .*; did you mean 'rome'\?"),
        (
            'methods = ["rome"]\nhyperparameters = {rome = {clam = 3}}\n' + rest,
            r"ROME has no hyperparameter 'clam'; it has .*; did you mean 'clamp'\?",
        ),
        (
            'methods = ["rome"]\nhyperparameters = {rome = {steps = "ten"}}\n' + rest,
            "steps must be a whole number between 1 and 500, got 'ten'",
        ),
        (
            'methods = ["rome"]\nhyperparameters = {rome = {layer = -1}}\n' + rest,
            "layer must be at least 0, got -1",
        ),
        ('methods = ["rome"]\nkeys = 0\n[schedule]\nretention = 1\n', "keys must be the number of keys"),
        ('methods = ["rome"]\nn = 0\n[schedule]\nretention = 1\n', "n must be the number of facts"),
        ('methods = ["rome"]\n[schedule]\nretention = 0\n', "every 1, 2, ... steps or at a list"),
        ('methods = ["rome"]\n[schedule]\nretention = "often"\n', "got 'often'"),
        ('methods = ["rome"]\n[schedule]\nretention = [0, -1]\n', "at a list of them"),
    ):
        with pytest.raises(ValueError, match=sentence):
            read(text)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"schedule": {"chess": 1}}, "no measure 'chess'"),
        ({"moments": "news"}, "text must be 'auto', 'sample'"),
        ({"moments": "none.npz"}, "no such file of second moments: none.npz"),
        ({"moments": "none.txt"}, "no such text file: none.txt"),
        ({"text": "none.txt"}, "text for perplexity must be"),
        ({"tasks": ("none.json",)}, "cannot read a task from none.json"),
        ({"glue": "none"}, "none"),
    ],
)
def test_what_is_wrong_is_told_before_the_model_is_loaded(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):  # and not that there is no such model
        Experiment(RunConfig(**{"methods": ("rome",), "schedule": {"retention": 1}, **wrong}), (), ModelChoice("no/"))


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
        ValueError, match=rf"n = 9, but only {len(known)} facts.*: {3 - len(known)} of 3 are left out.*known = false"
    ):
        RunConfig(("rome",), {"retention": 1}, n=9).choose(model, facts)
    with pytest.raises(ValueError, match=r"n = 9, but only 3 facts are available$"):
        RunConfig(("rome",), {"retention": 1}, n=9, known=False).choose(model, facts)
    with pytest.raises(ValueError, match="case ids 7"):
        RunConfig(("rome",), {"retention": 1}, n=1, case_ids=(7,)).choose(model, facts)


def test_a_fact_that_the_model_cannot_take_is_left_out_before_the_first_edit(
    gpt2_editor: Editor, facts: list[Fact], caplog: pytest.LogCaptureFixture
) -> None:
    long = replace(facts[0], paraphrase_prompts=("so " * 600,), case_id=9)
    for known in (False, True):
        config = RunConfig(("rome",), {"retention": 1}, n=1, known=known)
        assert config.choose(gpt2_editor.model, [long, *facts]) == config.choose(gpt2_editor.model, facts)
        assert "case 9 is left out: paraphrase prompt 1 and object may be at most 256 tokens" in caplog.text
    with pytest.raises(
        ValueError, match=r"n = 4, but only 3 facts.*: 1 of 4 cannot be edited here \(paraphrase prompt 1"
    ):
        replace(config, n=4, known=False).choose(gpt2_editor.model, [long, *facts])


def test_a_batch_that_contradicts_itself_is_told_before_the_first_edit(gpt2_editor: Editor, facts: list[Fact]) -> None:
    config = RunConfig(("memit",), {"retention": 1}, n=4, batch_size=2, known=False)
    for other, wrong in (
        (facts[2], "are the same"),
        (replace(facts[2], target_new="drums"), "write different objects"),
    ):
        with pytest.raises(ValueError, match=f"edit 2: facts 1 and 2 of the batch {wrong}"):
            config.choose(gpt2_editor.model, [*facts, other])
        assert replace(config, batch_size=1).choose(gpt2_editor.model, [*facts, other])


def test_case_ids_say_how_many_and_in_which_order(gpt2_editor: Editor, facts: list[Fact]) -> None:
    named = [replace(fact, case_id=case) for fact, case in zip(facts, (7, "Q42", 7), strict=True)]

    def chosen(*cases: int | str) -> list[Fact]:
        config = RunConfig(("rome",), {"retention": 1}, known=False, case_ids=cases)
        return config.choose(gpt2_editor.model, named)

    assert chosen("Q42") == [named[1]]
    assert chosen("Q42", "7") == [named[1], named[0], named[2]]  # a row of several facts is all of them


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for place in (folder / "my-model", folder / "gpt2-xl", elsewhere):
        place.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)

    def read(**values: object) -> RunConfig:
        file = folder / "run.json"
        file.write_text(json.dumps({"methods": ["rome"], "schedule": {"retention": 1}, **values}))
        return RunConfig.read(file)

    placed = read(model="my-model", moments="c.npz", facts="f.jsonl", glue="g", text="t.txt", tasks=["t.json"])
    told = (placed.model, placed.moments, placed.facts, placed.glue, placed.text, *placed.tasks)
    assert told == tuple(str(folder / name) for name in ("my-model", "c.npz", "f.jsonl", "g", "t.txt", "t.json"))
    assert read(model="./none").model == str(folder / "none")
    assert read(moments="t.txt").moments == str(folder / "t.txt")
    several = read(moments="h.3.npz, ../h.4.npz").moments
    assert several == f"{folder / 'h.3.npz'},{folder / '../h.4.npz'}"
    for name in ("gpt2-xl", "auto", "org/name"):  # a preset goes before a folder of its name
        assert read(model=name).model == name
    for name in ("auto", "sample", "wikitext"):
        assert read(moments=name, facts="hub", text="wikitext").moments == name


def test_a_run_of_facts_whose_ids_are_names_has_a_table(
    gpt2_editor: Editor, facts: list[Fact], measures: Measures, tmp_path: Path
) -> None:
    named = tuple(replace(fact, case_id=case) for fact, case in zip(facts, ("Q42", 7, None), strict=True))
    session, schedule = Session(gpt2_editor, measures), {"retention": 3}
    try:
        run_sequence(session, Sequenced.of(session, named, "rome", {}, schedule), schedule, RunFolder(tmp_path))
    finally:
        gpt2_editor.model.write([])
    RunFolder(tmp_path).finish()
    for table in (pandas.read_parquet(tmp_path / "table.parquet"), pandas.read_csv(tmp_path / "table.csv", dtype=str)):
        ids = table.groupby(table["step"].astype(int))["case_id"].first()
        assert [ids.get(step) for step in (1, 2)] == ["Q42", "7"]
        assert pandas.isna(ids.get(3))


# --- folders that were damaged ---


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe<html>", b"[" * 100_000])
@pytest.mark.parametrize("name", ["run.json", "base.json", "edits/00001.safetensors"])
def test_a_damaged_file_of_a_run_is_named_and_kept(start: Callable, begun: Path, name: str, content: bytes) -> None:
    (begun / "base.json").touch()
    (begun / name).write_bytes(content)
    if name != "base.json":
        (begun / "base.json").unlink()
    with pytest.raises(ValueError, match=re.escape(str(begun / name))):
        start(begun)
    assert (begun / name).read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"{\n", b"3\n", b'{"step": 0}\n', b'{"told": {}}\n', b'{"step": 7, "measure": "x"}\n']
)
def test_a_damaged_line_of_a_run_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "measured.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=r"measured\.jsonl.*is damaged|damaged measured\.jsonl"):
        read_run(tmp_path)


def test_edits_that_are_not_the_runs_are_not_gone_on_with(start: Callable, tmp_path: Path) -> None:
    start(tmp_path / "run")
    edits = tmp_path / "run" / "edits"
    first = (edits / "00001.safetensors").read_bytes()
    (edits / "00001.safetensors").write_bytes((edits / "00002.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"00001\.safetensors is an edit of another fact than the run's"):
        start(tmp_path / "run")
    (edits / "00001.safetensors").unlink()
    with pytest.raises(ValueError, match=r"does not hold edits 1 to 2: one was taken away"):
        start(tmp_path / "run")
    (edits / "00001.safetensors").write_bytes(first)
    start(tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(ValueError, match=r"its run\.json is gone; choose an empty folder"):
        start(tmp_path / "run")


def test_a_run_of_batches_edits_several_facts_at_a_time_and_resumes(
    gpt2_editor: Editor, facts: list[Fact], measures: Measures, tmp_path: Path
) -> None:
    gpt2_editor.model.write([])
    changes, schedule = {"steps": 2, "layer": 2}, {"retention": 1}

    def begin(some: list[Fact], batch_size: int, report: Callable[[Progress], None] = lambda _: None) -> list[Step]:
        session = Session(gpt2_editor, measures, watches_facts=False)
        wanted = Sequenced.of(session, some, "ft", changes, schedule, batch_size=batch_size)
        run_sequence(session, wanted, schedule, RunFolder(tmp_path), report)
        return list(read_run(tmp_path))

    def kill(progress: Progress) -> None:
        if progress.done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        begin(facts, 2, kill)
    assert RunFolder(tmp_path).edits_made() == 1
    steps = begin(facts, 2)
    assert [step.facts for step in steps[1:]] == [tuple(facts[:2]), tuple(facts[2:])]
    assert [len(entry.facts) for entry in RunFolder(tmp_path).entries()] == [2, 1]
    session = Session(gpt2_editor, watches_facts=False)
    session.edit(facts[:2], "ft", changes)
    session.edit(facts[2:], "ft", changes)
    assert [told.size for told in session.steps()[1:]] == [told.size for told in steps[1:]]
    more = [*facts, Fact("{} is in the continent of", "France", "Asia", "Europe")]
    with pytest.raises(ValueError, match="the facts of the last edit, which is not of 2 there"):
        begin(more, 2)
    with pytest.raises(ValueError, match=r"batch_size \(2 there, 1 here\)"):
        begin(facts, 1)
    gpt2_editor.model.write([])


def test_a_batch_is_of_a_method_that_takes_one() -> None:
    config = RunConfig(("memit", "ft"), {"retention": 1}, n=5, batch_size=2)
    assert (config.n_facts, config.length) == (5, 3)
    with pytest.raises(ValueError, match="batch_size is 2, but ROME edits 1 fact at a time"):
        RunConfig(("memit", "rome"), {"retention": 1}, batch_size=2)
    for wrong in (0, True, "2"):
        with pytest.raises(ValueError, match="batch_size must be the number of facts of one edit"):
            RunConfig(("memit",), {"retention": 1}, batch_size=wrong)


def test_set_changes_hyperparameters_over_the_files() -> None:
    config = RunConfig(("rome", "memit"), {"retention": 1}, hyperparameters={"rome": {"clamp": 2.0, "steps": 3}})
    assert changed(config, ["clamp=3", "memit.layers=1,2"]) == {
        "rome": {"clamp": 3.0, "steps": 3},
        "memit": {"clamp": 3.0, "layers": (1, 2)},
    }
    assert changed(config, []) == config.hyperparameters
    for wrong, sentence in (
        ("layers=1,2", "ROME has no hyperparameter 'layers'"),
        ("emmet.clamp=1", "'emmet' is not among the methods rome, memit"),
        ("clamp", "--set takes NAME=VALUE"),
    ):
        with pytest.raises(ValueError, match=sentence):
            changed(config, [wrong])
