"""A method and a measure in a package of their own, found through entry points, are everywhere without another line."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from editlab.cli import app
from editlab.core.errors import LabError
from editlab.core.facts import Fact
from editlab.core.info import PROBE, SCAN, VERIFY, HyperparameterInfo
from editlab.core.paths import resource
from editlab.core.progress import Progress
from editlab.core.records import Trace
from editlab.editing.editor import Editor
from editlab.editing.guard import Guard
from editlab.experiments.scan import Scanner, scan
from editlab.lab.lab import Lab
from editlab.measures import MeasureFailed, MeasureInput, standard
from editlab.measures._contributed import ContributedMeasure
from editlab.methods import adjusted, describe, hyperparameters, methods, methods_for
from editlab.model.deltas import Edit, LowRank
from editlab.page.files import files_of
from editlab.page.panels.method_form import MethodForm
from editlab.remote.wire import kind_of
from editlab.report.story import story
from editlab.session.probes import ProbeAttempt
from editlab.session.session import Session
from tests.conftest import GOLDEN, tiny_editor

METHOD = '''
from dataclasses import dataclass
from typing import ClassVar

from editlab.core.info import Paper
from editlab.methods import OneLayerMethod, hyperparameter, layer_trace
from editlab.model.deltas import LowRank


@dataclass(frozen=True, kw_only=True)
class Outer(OneLayerMethod):
    """The smallest change."""

    name: ClassVar[str] = "outer"
    title: ClassVar[str] = "Outer <b>product</b>"
    help: ClassVar[str] = "Without second moments."
    paper: ClassVar[Paper] = Paper("Nobody", 2026, "Of nothing", "The smallest change.", url="https://example.org/paper")
    fallback: ClassVar[str] = "r-rome"

    mean: bool = hyperparameter(True, "of the keys, else the bare one")
    sign: str = hyperparameter("plus", "of the change", choices=("plus", "minus"))
    note: str = hyperparameter("", "whatever")
    powers: tuple[int, ...] = hyperparameter((1, 2), "of nothing", 0, 9)

    def insert(self, model, value, moments):
        key = value.keys.mean(0) if self.mean else value.keys[0]
        residual = value.target - value.outputs[0]
        left = residual if self.sign == "plus" else -residual
        delta = LowRank(left[:, None], (key / (key @ key))[:, None])
        return delta, layer_trace(model, self.layer, delta, key[:, None], residual)
'''
MEASURE = '''
from dataclasses import dataclass

from editlab.core.records import Number


@dataclass(frozen=True)
class Parity:
    """How many edits are in force."""

    name = "in-force"
    title = "Edits <i>in force</i>"
    help = "How many there are."
    every = 1

    def __call__(self, subject, report):
        return Number(float(len(subject.edited)), "edits", n=len(subject.edited), base=0.0)
'''

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package: a module of that text and its entry points, by group."""
    before = set(sys.modules)

    def put(module: str, text: str, **entries: str) -> None:
        folder = tmp_path / f"site-{module}"
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(text, encoding="utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
        groups = "".join(f"[editlab.{group}]\n{module} = {value}\n" for group, value in entries.items())
        (info / "entry_points.txt").write_text(groups, encoding="utf-8")
        monkeypatch.syspath_prepend(str(folder))
        methods.cache_clear()

    yield put
    methods.cache_clear()
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture(params=["", "from __future__ import annotations\n"], ids=["types", "texts"])
def outer(request: pytest.FixtureRequest, install: Install) -> None:
    install("outer_method", request.param + METHOD, methods="outer_method:Outer")


def edited(editor: Editor, fact: Fact) -> Session:
    session = Session(editor)
    session.edit(fact, "outer", {"sign": "minus"}, guard=Guard())
    return session


def test_a_method_of_another_package_is_in_the_lab_and_on_the_page(outer: None) -> None:
    with closing(Lab(tiny_editor("gpt2"), {}, [], "nothing")) as lab:
        info = lab.info()
        (told,) = [method for method in info.methods if method.name == "outer"]
        assert told.offered_in == (PROBE, SCAN, VERIFY)
        assert told.preset.startswith("A guess")
        kinds = {field.name: field.kind for field in told.hyperparameters}
        assert [kinds[name] for name in ("layer", "clamp", "mean", "sign", "note", "powers")] == [
            "int", "float", "bool", "str", "str", "ints",
        ]  # fmt: skip

    import ipywidgets as widgets

    async def fill() -> None:
        form = MethodForm(info.methods, lambda: None, lambda: None, widgets.HTML())
        form.choice.value = "outer"
        controls = form._controls["outer"]
        assert isinstance(controls["mean"], widgets.Checkbox)
        assert controls["sign"].options == ("plus", "minus")
        assert form.read() == {}
        controls["mean"].value, controls["sign"].value, controls["powers"].value = False, "minus", "3"
        assert form.read() == {"mean": False, "sign": "minus", "powers": (3,)}

    asyncio.run(fill())


def test_a_method_of_another_package_edits_probes_scans_and_is_told(outer: None, tmp_path: Path, fact: Fact) -> None:
    editor = tiny_editor("gpt2")
    session = edited(editor, fact)
    step = session.step(1)
    assert (step.method, step.hyperparameters["sign"]) == ("outer", "minus")
    assert step.risk is not None
    assert (step.risk.level, step.risk.relative_size) == (step.risk.token_level, None)
    assert "is not known beforehand" in step.risk.reason
    risky = Fact("{} is in the continent of", "France", "Asia", "Europe")
    assert session.risk(risky, ["outer"])["outer"].level == session.risk(risky, ["outer"])["outer"].token_level
    assert ProbeAttempt(session, fact, "outer")().step.method == "outer"
    found = scan(Scanner(editor, editor.method("outer")), [fact], tmp_path / "scan")
    assert len(found) == 1
    told = Lab(editor, {}, [], "nothing").info().methods
    page = story(session.state(), methods=told)
    assert "Outer &lt;b&gt;product&lt;/b&gt;" in page
    assert "https://example.org/paper" in page
    (page,) = [file.content for file in files_of(session.state(), "", told) if file.name.endswith(".html")]
    assert page is not None
    assert b"https://example.org/paper" in page


def test_a_method_of_another_package_is_at_the_command_line(outer: None, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(resource("smollm2-135m-sample.txt").read_text(encoding="utf-8")[:20_000], encoding="utf-8")
    shared = ["--model", str(GOLDEN), "--source", str(text)]
    fact = ["--prompt", "The {} is in", "--subject", "Eiffel Tower", "--target", "Rome", *shared]
    run = CliRunner().invoke
    given = [
        "--set",
        "steps=2",
        "--set",
        "mean=no",
        "--set",
        "sign=minus",
        "--set",
        "powers=3,4",
        "--set",
        "note=a = b",
    ]
    made = run(app, ["edit", *fact, "--method", "outer", *given, "--json"])
    assert made.exit_code == 0, made.output
    values = json.loads(made.stdout)["hyperparameters"]
    assert {name: values[name] for name in ("mean", "sign", "powers", "note")} == {
        "mean": False, "sign": "minus", "powers": [3, 4], "note": "a = b",
    }  # fmt: skip
    wrong = run(app, ["edit", *fact, "--method", "outer", "--set", "sign=times"])
    assert wrong.exit_code == 2
    assert "sign must be one of plus, minus, got 'times'" in wrong.stderr
    probed = run(app, ["probe", *fact, "--json"])
    assert probed.exit_code == 0, probed.output
    assert "outer" in json.loads(probed.stdout)
    config = tmp_path / "run.toml"
    config.write_text(
        f'model = "{GOLDEN}"\nmoments = "{text}"\nmethods = ["outer"]\nn = 1\nknown = false\n'
        "[schedule]\nretention = 1\n"
        "[hyperparameters.outer]\nmean = false\nsteps = 2\n"
    )
    done = run(app, ["run", str(config), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    reported = run(app, ["report", str(tmp_path / "out" / "outer")])
    assert reported.exit_code == 0, reported.output
    page = (tmp_path / "out" / "outer" / "report.html").read_text(encoding="utf-8")
    assert "https://example.org/paper" in page


def test_the_guard_falls_back_to_what_the_method_declares(
    outer: None, fact: Fact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editlab.editing.assess.level_by_tokens", lambda *_: "high")
    session = Session(tiny_editor("gpt2"))
    with pytest.raises(ValueError, match=r"refused.* is not known beforehand"):
        session.edit(fact, "outer", guard=Guard("refuse"))
    step = session.edit(fact, "outer", {"sign": "minus", "steps": 3}, guard=Guard("r-rome"))
    assert (step.method, step.hyperparameters["steps"]) == ("r-rome", 3)


# --- measures ---


def test_a_measure_of_another_package_is_planned_measured_kept_and_told(install: Install, facts: list[Fact]) -> None:
    install("parity_measure", MEASURE, measures="parity_measure:Parity")
    with closing(Lab(tiny_editor("gpt2"), {}, [], "nothing")) as lab:
        assert [(m.title, m.every) for m in lab.info().measures if m.name == "in-force"] == [
            ("Edits <i>in force</i>", 1)
        ]
    session = Session(tiny_editor("gpt2"))
    session.set_plan({"in-force": 1})
    for fact in facts[:2]:
        session.edit(fact, "rome")
    session.measure_due()
    state = session.state()
    assert [step.measurement.others["in-force"].value for step in state.steps if step.measurement] == [0.0, 1.0, 2.0]
    assert type(state).from_json(json.loads(json.dumps(state.to_json()))) == state
    table = session.table()
    assert table[table.measure == "in-force"].value.tolist() == [0.0, 1.0, 2.0]
    page = story(state)
    assert "Edits &lt;i&gt;in force&lt;/i&gt;" in page
    assert "<i>in force" not in page

    again = Session(tiny_editor("gpt2"))
    again.restore(session.log)
    again.measurements.load(session.measurements.unsaved)
    measured = again.measurements.measurement(again.entries(), ())
    assert measured is None or measured.others["in-force"].value == 2.0


@pytest.mark.parametrize("decorated", [True, False])
def test_a_measure_is_named_by_its_code_and_not_by_its_place_in_memory(install: Install, decorated: bool) -> None:
    def setting(text: str) -> str:
        sys.modules.pop("parity_measure", None)
        file.write_text(text if decorated else text.replace("@dataclass(frozen=True)", ""))
        return standard().setting("in-force")

    install("parity_measure", MEASURE, measures="parity_measure:Parity")
    file = Path(next(folder for folder in sys.path if folder.endswith("site-parity_measure"))) / "parity_measure.py"
    first = setting(MEASURE)
    assert setting(MEASURE) == first
    assert setting(MEASURE.replace("float(len(subject.edited))", "0.5")) != first


FAILS = {
    "raise KeyError('no such head')": r"the method outer failed \(KeyError: 'no such head'\)",
    "raise ValueError('a line\\nand another')": r"the method outer failed \(ValueError: a line and another\)",
    "return model.hf.no_such_part": r"the method outer failed \(AttributeError: .*no_such_part",
    "return None": r"the method outer failed \(TypeError: ",
    "raise FloatingPointError('the residual is not finite')": "^the residual is not finite$",
}


@pytest.mark.parametrize(("body", "sentence"), FAILS.items(), ids=range(len(FAILS)))
def test_a_method_that_fails_is_named_and_changes_nothing(
    install: Install, fact: Fact, caplog: pytest.LogCaptureFixture, body: str, sentence: str
) -> None:
    start, _, _ = METHOD.partition("        key = value")
    install("failing_method", f"{start}        {body}\n", methods="failing_method:Outer")
    with closing(Lab(tiny_editor("gpt2"), {}, [], "nothing")) as lab:
        key = lab.create()
        job = lab.edit(key, [fact], "outer")
        with pytest.raises((ValueError, FloatingPointError), match=sentence) as raised:
            job.result(60)
        assert kind_of(raised.value) in ("invalid", "not_finite")
        assert job.error == str(raised.value)
        assert len(job.error.splitlines()) == 1
        assert [step.method for step in lab.state(key).steps] == [None]
        lab.edit(key, [fact], "rome").result(60)  # the worker lives
    if "failed" in sentence:
        assert any("Traceback" in record.exc_text for record in caplog.records if record.exc_text)


WRONG: dict[str, Callable[[Edit, Trace], Any]] = {
    "it must give an edit and its trace, got None": lambda edit, trace: None,
    r"its edit must be a LowRank by layer, got \{\}": lambda edit, trace: ({}, trace),
    "its trace must be a Trace": lambda edit, trace: (edit, None),
    "its trace must be a Trace of the layers": lambda edit, trace: (edit, replace(trace, layers={})),
    r"it changes layer 4, but its edited_layers are \[2\]": lambda edit, trace: (
        {4: edit[2]},
        replace(trace, layers={4: trace.layers[2]}),
    ),
    r"its change of layer 2 is \(192, 48\), the weight \(48, 192\)": lambda edit, trace: (
        {2: LowRank(edit[2].right, edit[2].left)},
        trace,
    ),
}


@pytest.mark.parametrize(("sentence", "wrong"), WRONG.items(), ids=range(len(WRONG)))
def test_what_a_method_gives_is_checked(
    gpt2_editor: Editor, fact: Fact, sentence: str, wrong: Callable[[Edit, Trace], Any]
) -> None:
    rome = gpt2_editor.method("rome")

    class Strange(type(rome)):  # type: ignore[misc]
        def __call__(self, *given: Any, **named: Any) -> Any:
            return wrong(*super().__call__(*given, **named))

    with pytest.raises(ValueError, match=f"^the method rome failed: {sentence}"):
        gpt2_editor.compute([fact], Strange(**hyperparameters(rome)))


def test_what_stops_a_job_passes_through_what_others_wrote(gpt2_editor: Editor, fact: Fact) -> None:
    class Stop(Exception):
        pass

    def report(progress: Progress) -> None:
        raise Stop

    class Strange(type(gpt2_editor.method("rome"))):  # type: ignore[misc]
        pass

    with pytest.raises(Stop):
        gpt2_editor.compute([fact], Strange(**hyperparameters(gpt2_editor.method("rome"))), report)
    measure = ContributedMeasure(lambda _subject, report: report(Progress("")), "m", "M", "", 0, False)
    with pytest.raises(Stop):
        measure(MeasureInput.__new__(MeasureInput), report)


def test_a_measure_that_fails_takes_no_other_with_it(install: Install, fact: Fact) -> None:
    install("bad_measure", MEASURE.replace("return Number(", "raise KeyError("), measures="bad_measure:Parity")
    session = Session(tiny_editor("gpt2"))
    session.set_plan({"in-force": 1, "perplexity": 1})
    session.edit(fact, "rome")
    with pytest.raises(MeasureFailed, match="the measure in-force failed"):
        session.measure_due()
    measured = session.step(1).measurement
    assert measured is not None
    assert measured.perplexity is not None


# --- what is broken ---


@pytest.mark.parametrize(
    ("text", "value", "sentence"),
    [
        ("import no_such_module", "Outer", "No module named 'no_such_module'"),
        ("1 +", "Outer", "SyntaxError"),
        ("import sys; sys.exit()", "Outer", "SystemExit"),
        ("raise SystemExit('no licence')", "Outer", "SystemExit: no licence"),
        ("raise GeneratorExit", "Outer", "GeneratorExit"),
        ("class Own(BaseException): pass\nraise Own('own')", "Outer", "Own: own"),
        (METHOD, "Nothing", "has no attribute 'Nothing'"),
        ("Outer = 3", "Outer", "must be a subclass of editlab.methods.Method, got 3"),
        (METHOD.replace('"outer"', '"rome"'), "Outer", "its name 'rome' is taken by another"),
        (METHOD.replace('"outer"', '"../out"'), "Outer", "its name must be lower-case letters"),
        (METHOD.replace("mean: bool", "mean: dict"), "Outer", "'mean' must be declared int, float, bool, str or tuple"),
        (METHOD.replace("hyperparameter(True", "hyperparameter(1.5"), "Outer", "mean must be true or false, got 1.5"),
        (METHOD.replace("@dataclass(frozen=True, kw_only=True)\n", ""), "Outer", "it must be a dataclass"),
        (METHOD.replace("mean: bool", "layer: float = 1.0\n    mean: bool"), "Outer", "its layer must be declared int"),
        (METHOD + "Outer.paper = 'of nothing'", "Outer", "its paper must be an editlab.core.info.Paper"),
        (METHOD + "Outer.fallback = 3", "Outer", "its fallback must be the name of a method"),
        (METHOD + "Outer.offered_in = 'probe'", "Outer", "its offered_in must be a tuple of probe, scan and verify"),
        (METHOD + "Outer.max_facts = 0", "Outer", "its max_facts must be 1 or more"),
    ],
)
def test_a_broken_method_is_named_and_left_out(
    install: Install, caplog: pytest.LogCaptureFixture, text: str, value: str, sentence: str
) -> None:
    ours = set(methods())
    install("broken_method", text, methods=f"broken_method:{value}")
    with caplog.at_level(logging.ERROR):
        assert set(methods()) == ours
    (record,) = caplog.records
    assert record.getMessage().startswith("the plug-in broken_method of broken_method (editlab.methods) was left out: ")
    assert sentence in record.getMessage()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{}['x']", r"the method outer failed \(KeyError: 'x'\)"),
        ("1 / 0", r"failed \(ZeroDivisionError"),
        ("return None", "it must give an edit and its trace, got None"),
        ("return {}, None", "its edit must be a LowRank by layer, got {}"),
        ("return {}, given[1]", "its edit must be a LowRank by layer, got {}"),
        ("return {2: given[0][1]}, given[1]", "its trace must be a Trace of the layers that it edits"),
        ("return {1: 3}, given[1]", r"its edit must be a LowRank by layer, got \{1: 3\}"),
        (
            "return {1: LowRank(given[0][1].right, given[0][1].left)}, given[1]",
            r"its change of layer 1 is \(192, 48\), the weight \(48, 192\)",
        ),
        (
            "return {1: LowRank(given[0][1].left.half(), given[0][1].right)}, given[1]",
            "the factors of layer 1 must be of one floating-point type, float32 or float64, got torch.float16 and",
        ),
        *(
            (f"return {{1: LowRank(given[0][1].left.{kind}(), given[0][1].right.{kind}())}}, given[1]", f"torch.{name}")
            for kind, name in (("half", "float16"), ("bfloat16", "bfloat16"), ("int", "int32"))
        ),
        ("return {1: LowRank(given[0][1].left * float('nan'), given[0][1].right)}, given[1]", "layer 1 is not finite"),
        ("return {1: LowRank(given[0][1].left / 0, given[0][1].right)}, given[1]", "layer 1 is not finite"),
        ("return {1: LowRank(given[0][1].left[:, 0], given[0][1].right)}, given[1]", "must share r, got"),
        ("return {1: LowRank(given[0][1].left.tolist(), given[0][1].right)}, given[1]", "failed"),
        ("return {True: given[0][1]}, replace(given[1], layers={True: given[1].layers[1]})", "it changes layer True"),
        (
            "return given[0], replace(given[1], layers={1: replace(given[1].layers[1], delta_norm='large')})",
            r"its trace must hold plain numbers: layers\.1\.delta_norm must be a number",
        ),
        (
            "return given[0], replace(given[1], layers={1: replace(given[1].layers[1], delta_norm=given[0][1].left)})",
            "its trace must hold plain numbers: Object of type Tensor",
        ),
        ("return given[0], replace(given[1], layers=None)", "the method outer failed"),
        ("return given[0], replace(given[1], values=3)", "its trace must hold plain numbers: values must be a list"),
        ("raise SystemExit(3)", r"the method outer failed \(SystemExit: 3\)"),
        ("import sys; sys.exit()", r"the method outer failed \(SystemExit"),
    ],
)
def test_a_method_that_fails_or_gives_no_edit_is_a_sentence(
    install: Install, fact: Fact, line: str, sentence: str
) -> None:
    call = (
        f"    def __call__(self, *args, **named):\n        given = super().__call__(*args, **named)\n        {line}\n"
    )
    start = METHOD.replace("import dataclass", "import dataclass, replace")
    install("failing_method", start + call, methods="failing_method:Outer")
    editor = tiny_editor("gpt2")
    before = [editor.model.weight(layer).clone() for layer in range(5)]
    session = Session(editor)
    with pytest.raises(ValueError, match=sentence):
        session.edit(fact, "outer", {"layer": 1})
    assert len(session.log) == 0
    assert all(torch.equal(editor.model.weight(layer), kept) for layer, kept in enumerate(before))


WRITES = {
    "model.weight(1).add_(1.0)": "transformer.h.1.mlp.c_proj.weight",
    "model.projection(1).weight.data.mul_(2)": "transformer.h.1.mlp.c_proj.weight",
    "model.projection(1).weight.data = model.projection(2).weight.data.clone()": "transformer.h.1.mlp.c_proj.weight",
    "model.weight(1).zero_(); raise ValueError('too late')": "transformer.h.1.mlp.c_proj.weight",
}
WRITES_ELSEWHERE = {
    "model.hf.transformer.wte.weight.data[3] += 1": "transformer.wte.weight",
    "[p.data.mul_(1.01) for p in model.hf.parameters()]": "and ",
}


def writing(line: str) -> str:
    """A method that writes a weight with this line before it gives its edit."""
    return (
        f"import torch\n{METHOD}    def __call__(self, model, *args, **named):\n"
        f"        with torch.no_grad():\n            {line}\n"
        "        return super().__call__(model, *args, **named)\n"
    )


@pytest.mark.parametrize(("line", "named"), WRITES.items(), ids=range(len(WRITES)))
def test_a_method_that_writes_its_layer_itself_is_told_and_undone(
    install: Install, fact: Fact, line: str, named: str
) -> None:
    install("writing_method", writing(line), methods="writing_method:Outer")
    session = Session(tiny_editor("gpt2"))
    session.edit(fact, "rome", {"layer": 1})
    model = session.model
    before = [p.clone() for p in model.hf.parameters()]
    with pytest.raises(ValueError, match=f"the method outer failed: it changed weights itself .*{named}") as raised:
        session.edit(Fact("{} is in", "Rome", "Spain"), "outer", {"layer": 1})
    assert kind_of(raised.value) == "invalid"
    assert all(torch.equal(p, kept) for p, kept in zip(model.hf.parameters(), before, strict=True))
    session.goto(0)
    session.put_in_force()
    assert torch.equal(model.weight(1), tiny_editor("gpt2").model.weight(1))


@pytest.mark.parametrize(("line", "named"), WRITES_ELSEWHERE.items(), ids=range(len(WRITES_ELSEWHERE)))
def test_a_model_whose_other_weights_a_method_wrote_is_not_used_again(
    install: Install, fact: Fact, line: str, named: str
) -> None:
    install("writing_method", writing(line), methods="writing_method:Outer")
    with closing(Lab(tiny_editor("gpt2"), {}, [], "nothing")) as lab:
        key = lab.create()
        asked = (partial(lab.edit, key, [fact], "outer"), partial(lab.edit, key, [fact], "rome"))
        for ask in (*asked, partial(lab.preview, key, fact)):
            job = ask()
            with pytest.raises(LabError, match=r"the unedited weights of tiny-gpt2 are lost .*: load the model again"):
                job.result(60)
            assert named in str(job.error)


def test_a_method_may_unedit_the_model_while_it_reads(install: Install, fact: Fact) -> None:
    line = "with model.unedited(): model.hidden(model.batch([(1, 2)]))"
    install("reading_method", writing(line), methods="reading_method:Outer")
    session = Session(tiny_editor("gpt2"))
    session.edit(fact, "rome", {"layer": 1})
    session.edit(Fact("{} is in", "Rome", "Spain"), "outer", {"layer": 1})
    assert len(session.log) == 2


def test_an_edit_is_no_view_of_what_its_method_keeps(install: Install, fact: Fact) -> None:
    call = (
        "    def __call__(self, *args, **named):\n        edit, trace = super().__call__(*args, **named)\n"
        "        edit[self.layer].left.requires_grad_()\n        Outer.kept = edit\n        return edit, trace\n"
    )
    install("keeping_method", METHOD + call, methods="keeping_method:Outer")
    session = Session(tiny_editor("gpt2"))
    session.edit(fact, "outer", {"layer": 1})
    (delta,) = session.log[0].edit.values()
    assert not delta.left.requires_grad
    methods()["outer"].kept[1].right.zero_()  # type: ignore[attr-defined]
    assert delta.norm() > 0


@pytest.mark.parametrize(
    ("gives", "sentence"),
    [
        ("1 / 0", r"the method outer failed \(ZeroDivisionError"),
        ("iter([])", "its values must be one for each fact, 1 in all, got 0"),
        ("iter([None] * 9)", "its values must be one for each fact, 1 in all, got 9"),
        ("3", r"failed \(TypeError"),
        ("[model.weight(2).zero_()]", r"it changed weights itself \(transformer.h.2.mlp.c_proj.weight\)"),
    ],
)
def test_a_search_for_a_scan_that_fails_is_a_sentence(
    install: Install, fact: Fact, tmp_path: Path, gives: str, sentence: str
) -> None:
    text = METHOD + f"    def values(self, model, facts, contexts, report=None):\n        return {gives}\n"
    install("searching_method", text, methods="searching_method:Outer")
    editor = tiny_editor("gpt2")
    before = [p.clone() for p in editor.model.hf.parameters()]
    with pytest.raises(ValueError, match=sentence):
        scan(Scanner(editor, editor.method("outer", {"layer": 2})), [fact], tmp_path)
    assert all(torch.equal(p, kept) for p, kept in zip(editor.model.hf.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("member", "sentence"),
    [
        ("@property\n    def edited_layers(self): return 3", "its edited_layers must be layer numbers, got 3"),
        ("@property\n    def edited_layers(self): return ()", r"its edited_layers must be layer numbers, got \(\)"),
        ("@property\n    def edited_layers(self): return (2.0,)", "its edited_layers must be layer numbers"),
        ("@property\n    def edited_layers(self): return 1 / 0", "the method outer failed .ZeroDivisionError"),
        ("@property\n    def context_plan(self): return None", "its context_plan must be a ContextPlan, got None"),
        ("ridge: str = hyperparameter('some', '')", "its ridge must be a number, 0 or above, got 'some'"),
        ("ridge: float = hyperparameter(-1.0, '')", "its ridge must be a number, 0 or above, got -1.0"),
        ("@classmethod\n    def preset_of(cls, shape): return None", "its preset_of must give a sentence, got None"),
        ("@classmethod\n    def preset_of(cls, shape): return ' '", "its preset_of must give a sentence, got ' '"),
        ("@classmethod\n    def preset_of(cls, shape): raise SystemExit", "it cannot be set for tiny-gpt2"),
        ("@classmethod\n    def guess(cls, shape): return 3", "it cannot be set for tiny-gpt2"),
        ("@classmethod\n    def for_shape(cls, shape): return None", "it cannot be set for tiny-gpt2"),
    ],
)
def test_a_method_that_tells_nonsense_is_left_out_with_a_sentence(
    install: Install, caplog: pytest.LogCaptureFixture, member: str, sentence: str
) -> None:
    install("odd_method", f"{METHOD}\n    {member}\n", methods="odd_method:Outer")
    model = tiny_editor("gpt2").model
    caplog.clear()
    assert "outer" not in methods_for(model)
    record = caplog.records[-1]
    assert record.getMessage().startswith("the method outer was left out: it cannot be set for tiny-gpt2 (")
    assert re.search(sentence, record.getMessage())


@pytest.mark.parametrize(
    ("gives", "sentence"),
    [("1 / 0", r"failed \(ZeroDivisionError"), ("'much'", "it must foresee a Foreseen or None, got 'much'")],
)
def test_a_method_that_foresees_nonsense_is_a_sentence(install: Install, fact: Fact, gives: str, sentence: str) -> None:
    text = METHOD + f"    def foresee(self, read, solve):\n        return {gives}\n"
    install("blind_method", text, methods="blind_method:Outer")
    with pytest.raises(ValueError, match=sentence):
        Session(tiny_editor("gpt2")).edit(fact, "outer", guard=Guard())


def test_a_method_that_cannot_be_set_for_a_model_is_left_out_of_it(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    text = METHOD.replace(
        "    def insert", "    @classmethod\n    def guess(cls, shape):\n        return {'layer': 9}\n\n    def insert"
    )
    install("deep_method", text, methods="deep_method:Outer")
    assert "outer" in methods()
    assert "outer" not in methods_for(tiny_editor("gpt2").model)
    assert "the method outer was left out" in caplog.text


@pytest.mark.parametrize(
    "gives",
    ["3", "Number('many')", "Number(float('nan'))", "Number(1.0, n='all')", "Number(1.0, base=[1])", "sys.exit(1)"],
)
def test_a_measure_that_gives_no_plain_number_is_a_sentence(install: Install, gives: str) -> None:
    text = "import sys\n" + MEASURE.split("        return")[0] + f"        return {gives}\n"
    install("odd_measure", text, measures="odd_measure:Parity")
    with pytest.raises(MeasureFailed, match=r"the measure in-force (must give a Number|failed)"):
        Session(tiny_editor("gpt2")).find("in-force")


def test_a_key_press_while_a_plug_in_is_imported_still_ends_the_program(install: Install) -> None:
    install("slow_method", "raise KeyboardInterrupt", methods="slow_method:Outer")
    with pytest.raises(KeyboardInterrupt):
        methods()


@pytest.mark.parametrize("name", ["perplexity", "drift", "others", "Big"])
def test_a_measure_of_a_bad_name_is_left_out(install: Install, caplog: pytest.LogCaptureFixture, name: str) -> None:
    install("bad_name", MEASURE.replace('"in-force"', repr(name)), measures="bad_name:Parity")
    names = set(standard().by_name)
    assert "the plug-in bad_name of bad_name (editlab.measures) was left out: its name" in caplog.text
    assert names == set(standard().by_name) - {"in-force"}


# --- hyperparameters by their declared types ---


@pytest.mark.parametrize(
    ("method", "name", "value", "sentence"),
    [
        ("rome", "layer", [1, 2], r"layer must be a whole number between 0 and 4, got \[1, 2\]"),
        ("rome", "layer", 2.5, "layer must be a whole number between 0 and 4, got 2.5"),
        ("rome", "layer", True, "layer must be a whole number between 0 and 4, got True"),
        ("rome", "layer", "2", "layer must be a whole number between 0 and 4, got '2'"),
        ("rome", "layer", None, "layer must be a whole number between 0 and 4, got None"),
        ("rome", "layer", 5, "layer must be between 0 and 4, got 5"),
        ("memit", "layers", 3, "layers must be layer numbers .* between 0 and 4, got 3"),
        ("memit", "layers", [], r"layers must be layer numbers .* between 0 and 4, got \[\]"),
        ("memit", "layers", [1, 2.5], "layers must be layer numbers"),
        ("memit", "layers", [1, True], "layers must be layer numbers"),
        ("memit", "layers", "12", "layers must be layer numbers"),
        ("memit", "layers", [3, 9], "layers must be between 0 and 4, got 9"),
        ("memit", "layers", [3, 1], "ascending order"),
        ("rome", "clamp", True, "clamp must be a number"),
        ("rome", "clamp", float("inf"), "clamp must be between"),
        ("rome", "clamp", [1.0], "clamp must be a number"),
        ("outer", "mean", 1, "mean must be true or false, got 1"),
        ("outer", "sign", "times", "sign must be one of plus, minus, got 'times'"),
        ("outer", "sign", True, "sign must be one of plus, minus, got True"),
        ("outer", "note", 3, "note must be a text, got 3"),
        ("outer", "powers", 3, "powers must be whole numbers such as 4, 5, 6 between 0 and 9, got 3"),
        ("outer", "powers", [1, 10], "powers must be between 0 and 9, got 10"),
    ],
)
def test_a_hyperparameter_of_a_wrong_type_is_a_sentence(
    install: Install, method: str, name: str, value: object, sentence: str
) -> None:
    install("outer_method", METHOD, methods="outer_method:Outer")
    editor = tiny_editor("gpt2")
    with pytest.raises(ValueError, match=sentence):
        editor.method(method, {name: value})


def test_every_hyperparameter_refuses_what_is_not_its_type(gpt2_editor: Editor) -> None:
    good = {
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
        "str": (str,),
        "layers": (list, tuple),
        "ints": (list,),
    }
    values = (True, 1, 0.5, "1", [1], (1,), None, {}, [[1]], [None], b"1", float("nan"))
    for method in gpt2_editor.methods.values():
        for field in describe(method, 5):
            for value in values:
                if type(value) not in good[field.kind]:
                    with pytest.raises(ValueError, match=f"{field.name} must be "):
                        adjusted(method, {field.name: value}, 5)


@pytest.mark.parametrize(
    ("info", "text", "value"),
    [
        (HyperparameterInfo("x", "bool", True, ""), "No", False),
        (HyperparameterInfo("x", "bool", True, ""), "true", True),
        (HyperparameterInfo("x", "str", "", ""), " a b ", "a b"),
        (HyperparameterInfo("x", "ints", (1,), ""), "4, 5", (4, 5)),
        (HyperparameterInfo("x", "float", 1.0, ""), "1e-3", 1e-3),
    ],
)
def test_a_typed_hyperparameter_is_parsed_by_its_kind(info: HyperparameterInfo, text: str, value: object) -> None:
    assert info.parse(text) == value
