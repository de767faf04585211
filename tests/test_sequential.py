"""Methods that keep what earlier edits wrote, short searches and anchored values: laws, and reference sequences."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from editlab.core.facts import Fact
from editlab.core.records import Trace, ValueTrace
from editlab.editing.anchor import norms_of, trimmed_mean
from editlab.editing.editor import Editor
from editlab.experiments.sequential import METHODS
from editlab.experiments.verify import verify
from editlab.methods import completed, hyperparameters, method_class
from editlab.methods._history import Earlier, HistoryMethod
from editlab.methods._value import STOP_BELOW, SearchMethod
from editlab.methods.rome import ROME
from editlab.model.deltas import Edit, LowRank, edit_from_bytes, edit_to_bytes, load_edit, save_edit
from editlab.session.log import earlier_of
from editlab.session.replay import read, record
from editlab.session.session import Session
from tests.conftest import CONTEXTS, GOLDEN, tiny_editor, tiny_model, tiny_moments
from tests.plain import moment, output_of, stacked_keys, subject_keys, subject_outputs

SEQUENTIAL = GOLDEN / "sequential"
KEEPING = ("memit", "encore", "alphaedit", "emmet")
AGAIN = Fact("{} originated in", "OK Go", "Lima", "Chicago")  # the first of `facts` with another object


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def keeping(name: str, **changes: object) -> HistoryMethod:
    """A method with history, of the tiny models' layers, hyperparameters such that every term matters."""
    weights = {"moment_weight": 20.0, "norm_ridge": 1.0} if name != "alphaedit" else {}
    layers = {"layer": 2} if name == "emmet" else {"layers": (1, 2, 3)}
    method = method_class(name)(history=True, steps=8, **layers, **weights, **changes)
    assert isinstance(method, HistoryMethod)
    return method


# --- the reference code's sequences ---


def test_verify_sees_a_wrong_solve_a_wrong_delta_and_a_wrong_search(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(GOLDEN, wrong, ignore=lambda folder, names: [n for n in names if n.endswith("rome.json")])
    for name in ("memit", "emmet"):
        (wrong / f"{name}.json").unlink()
    for file in (wrong / "sequential").glob("*.json"):
        if file.stem != "emmet-mpes":
            file.unlink()
    tensors = load_file(wrong / "sequential" / "emmet-mpes.safetensors")
    tensors["step2.layer2.residual"] *= 1.001
    tensors["step3.layer2.delta"] *= 1.001
    save_file(tensors, str(wrong / "sequential" / "emmet-mpes.safetensors"))
    told = wrong / "sequential" / "emmet-mpes.json"
    reference = json.loads(told.read_text())
    reference["steps"][3]["search"][0]["hits"][0] += 1
    told.write_text(json.dumps(reference))
    report = verify(wrong)
    assert not report.ok
    solve, delta, searches = report.failures()
    assert solve.startswith("emmet-mpes: ΔW from the reference's keys and residuals is off by 1.0e-03 at step")
    assert delta.startswith("emmet-mpes: ΔW is off by 1.0e-03 at step 3")
    assert searches == "emmet-mpes: forward passes, hits or skipped facts differ in step 4"
    told.write_text(json.dumps(reference | {"model_sha256": "0" * 64}))
    with pytest.raises(ValueError, match="made with another model"):
        verify(wrong)
    told.write_text(json.dumps({name: value for name, value in reference.items() if name != "contexts"}))
    with pytest.raises(ValueError, match=r"emmet-mpes.json, or its tensors, lack 'contexts'"):
        verify(wrong)
    told.write_text(json.dumps(reference | {"method": "mend"}))
    with pytest.raises(ValueError, match=f"'mend'; a sequence may be of {', '.join(METHODS)}"):
        verify(wrong)


def test_the_anchor_is_that_of_the_reference_code() -> None:
    """The reference searches for sixteen pilots at once, with the loss of their mean: Adam's ε then weighs more."""
    anchor = json.loads((SEQUENTIAL / "nas.json").read_text())["anchor"]
    pilots = [Fact(r["prompt"], r["subject"], r["target_new"]["str"]) for r in anchor["pilots"]]
    method = method_class("alphaedit")(layers=(1, 2, 3), clamp=anchor["pilot_hparams"]["clamp_norm_factor"])
    assert isinstance(method, SearchMethod)
    norms = norms_of(tiny_model("gpt2"), method, pilots)
    assert norms == pytest.approx(anchor["pilot_norms"], rel=3e-3)
    assert trimmed_mean(norms) == pytest.approx(anchor["mean_vstar_norm"], rel=2e-4)


# --- the solves ---


def batches(d_in: int, d_out: int) -> list[tuple[tuple[Fact, ...], torch.Tensor, torch.Tensor]]:
    """Facts, keys (d_in, n), float32, that have a part in common, and wanted values (d_out, n) of three steps."""
    generator = torch.Generator().manual_seed(0)
    common, found = torch.randn(d_in, 1, generator=generator), []
    for step, n in enumerate((2, 1, 3)):
        facts = tuple(Fact("{} is", f"Subject {step}.{i}", "this") for i in range(n))
        keys, values = (torch.randn(d, n, generator=generator) for d in (d_in, d_out))
        found.append((facts, 3 * (keys + common), values.double()))
    return found


@pytest.mark.parametrize("name", KEEPING)
def test_with_keys_and_values_held_fixed_the_steps_add_up_to_the_joint_solve(name: str) -> None:
    """Recursive least squares about W₀, whatever the order: so λₙ‖ΔW‖² with history is a ridge on W - W₀. Not EMMET."""
    moments, method = tiny_moments(tiny_model("gpt2")), keeping(name)
    if name == "emmet":
        method = replace(method, moment_weight=1e4)

    def stepped(steps: list[tuple[tuple[Fact, ...], torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        total, earlier = torch.zeros(48, 192, dtype=torch.float64), []
        for facts, keys, values in steps:
            residual = values - total @ keys.double()
            right, _ = method.right(moments, 2, keys.double(), method.kept(2, facts, earlier))
            total = total + residual @ right.T
            earlier.append(Earlier(facts, {2: LowRank(residual, right, keys)}))
        return total

    steps = batches(192, 48)
    facts, keys, values = zip(*steps, strict=True)
    joint = stepped([(tuple(f for some in facts for f in some), torch.cat(keys, 1), torch.cat(values, 1))])
    errors = relative(stepped(steps), joint), relative(stepped(steps[::-1]), joint)
    assert all(error > 0.01 if name == "emmet" else error < 1e-12 for error in errors)


@pytest.mark.parametrize("name", KEEPING)
def test_the_solve_is_that_of_the_dense_matrix(name: str) -> None:
    model = tiny_model("gpt2")
    moments, method = tiny_moments(model), keeping(name)
    *first, (facts, keys, _) = batches(192, 48)
    earlier = [Earlier(f, {2: LowRank(torch.zeros(48, 1), torch.zeros(192, 1), k)}) for f, k, _ in first]
    right, told = method.right(moments, 2, keys.double(), method.kept(2, facts, earlier))
    history = torch.cat([k for _, k, _ in first], 1).double()
    k, eye = keys.double(), torch.eye(192, dtype=torch.float64)
    held = history @ history.T
    assert told["history"] == history.shape[1]
    if name == "alphaedit":
        vectors = torch.linalg.eigh(moments.matrices[2].double()).eigenvectors
        inside = vectors[:, : told["null_dimensions"]]
        p = inside @ inside.T
        expected = torch.linalg.solve(p @ (k @ k.T + held) + method.null_ridge * eye, p @ k)
        assert told["null_dimensions"] == int(0.8 * 192)
        assert told["projected"] == pytest.approx(float(((p @ k).norm(dim=0) / k.norm(dim=0)).min() ** 2))
        assert float((right.T @ vectors[:, told["null_dimensions"] :]).abs().max()) < 1e-12
    else:
        c = 20.0 * moment(moments, 2, 0.0, torch.device("cpu")) + eye
        if name == "emmet":
            solved = torch.linalg.solve(c + held, k)
            expected = solved @ torch.linalg.inv(k.T @ solved + 0.1 * torch.eye(3))
        else:
            expected = torch.linalg.solve(c + held + k @ k.T, k)
        free = (k * torch.linalg.solve(c + held, k)).sum(0) / (k * torch.linalg.solve(c, k)).sum(0)
        assert told["free"] == pytest.approx(float(free.min()))
    assert relative(right, expected) < 1e-10


def test_the_null_space_is_of_a_share_or_below_a_threshold_and_never_empty() -> None:
    moments = tiny_moments(tiny_model("gpt2"))
    values, _ = moments.spectrum(2, torch.device("cpu"))
    _, keys, _ = batches(192, 48)[0]

    def dimensions(**changes: object) -> int:
        method = keeping("alphaedit", **changes)
        return method.right(moments, 2, keys.double(), method.kept(2, (), ()))[1]["null_dimensions"]

    assert dimensions(null_dimensions=0.5) == 96
    assert dimensions(null_space="threshold", null_threshold=0.3) == int((values < 0.3).sum()) == 144  # the golden one
    n = dimensions(null_space="energy", null_energy=0.1)
    assert float(values[:n].sum() / values.sum()) <= 0.1 < float(values[: n + 1].sum() / values.sum())
    with pytest.raises(ValueError, match=r"null space of layer 2 is empty: .* choose a larger null_threshold"):
        dimensions(null_space="threshold", null_threshold=1e-9)


# --- keys in the log ---


def test_every_edit_keeps_its_keys(editor: Editor, facts: list[Fact]) -> None:
    """The averaged key of each fact at each layer, and for ROME the one that it maps to the value."""
    rome, _, _ = editor.compute(facts[:1], editor.method("rome"))
    bare = subject_keys(editor.model, facts[0], CONTEXTS, [2])[2][0]
    assert relative(rome[2].keys[:, 0], bare) < 1e-5
    for name in ("memit", "emmet"):
        edit, _, _ = editor.compute(facts, editor.method(name))
        layer = min(edit)
        assert edit[layer].keys.dtype == torch.float32
        assert relative(edit[layer].keys.double(), stacked_keys(editor.model, facts, CONTEXTS, layer)) < 1e-5


def test_keys_survive_a_file_the_store_and_a_replay_file(session: Session, facts: list[Fact], tmp_path: Path) -> None:
    session.edit(facts, "memit")
    session.edit(facts[:1], "rome")
    (entry, _) = session.log
    save_edit(entry.edit, tmp_path / "edit")
    _, log = read(record(session))
    for found in (load_edit(tmp_path / "edit"), edit_from_bytes(edit_to_bytes(entry.edit)), log[0].edit):
        assert all(torch.equal(found[layer].keys, delta.keys) for layer, delta in entry.edit.items())


def test_history_is_of_the_edits_in_force(session: Session, facts: list[Fact]) -> None:
    """An edit that is undone or off leaves no key: the next is what it would have been had that one not been made."""
    session.edit(facts[0], "rome")
    (alone, _, _) = session.editor.compute([facts[2]], session.editor.method("encore"))
    session.undo()
    first = session.edit(facts[1], "encore")
    assert first.trace.layers[2].history is None
    session.edit(facts[0], "memit")
    session.edit(facts[0], "rome")  # of layer 2 only
    kept = {n: layer.history for n, layer in session.edit(facts[2], "encore").trace.layers.items()}
    assert kept == {1: 1, 2: 2, 3: 1}  # facts[0] was edited again, in layer 2 only
    with_all = session.log[-1].edit
    session.undo()
    for number in (2, 3, 4):  # the first is off since it was undone
        session.toggle(number)
    session.edit(facts[2], "encore")
    bare = Session(session.editor)
    bare.edit(facts[2], "encore")
    for layer, delta in session.log[-1].edit.items():
        assert torch.equal(delta.right, bare.log[-1].edit[layer].right)
        assert not torch.equal(delta.right, with_all[layer].right)
        assert torch.equal(delta.right, alone[layer].right) == (layer == 1)  # ROME's edit of layer 2 changes the rest
    session.undo()
    for number in (2, 3, 4):  # the first is off since it was undone
        session.toggle(number)
    session.edit(facts[2], "encore")
    for layer, delta in session.log[-1].edit.items():
        assert torch.equal(delta.right, with_all[layer].right)


@pytest.mark.parametrize("name", KEEPING)
def test_an_edit_of_the_same_fact_supersedes_the_earlier_key(session: Session, facts: list[Fact], name: str) -> None:
    changes = {"history": True} | ({} if name == "alphaedit" else {"moment_weight": 20.0})
    session.edit(facts, "memit")
    told = {}
    for supersede in (True, False):
        step = session.edit(AGAIN, name, changes | {"supersede": supersede})
        told[supersede] = step.trace.layers[2]
        session.undo()
    assert (told[True].history, told[False].history) == (2, 3)
    assert told[True].free > 1.3 * told[False].free
    other = session.edit(replace(AGAIN, prompt="{} came from"), name, changes)
    assert other.trace.layers[2].history == 3  # another prompt: nothing is superseded
    session.undo()
    session.edit(AGAIN, "memit")
    assert session.edit(facts[1], name, changes | {"supersede": True}).trace.layers[2].history == 2  # AGAIN, facts[2]


def test_an_edit_without_keys_is_told_to_methods_that_want_them(session: Session, facts: list[Fact]) -> None:
    session.edit(facts[0], "rome")
    (entry,) = session.log
    session.restore([replace(entry, edit={n: LowRank(d.left, d.right) for n, d in entry.edit.items()})])
    session.edit(facts[1], "memit")
    with pytest.raises(ValueError, match=r"ENCORE with history needs the keys .* the edit OK Go → Manila has none"):
        session.edit(facts[2], "encore")
    assert len(session.log) == 2
    session.edit(facts[2], "encore", {"history": False})
    session.goto(0)
    session.edit(facts[2], "encore")


@dataclass(frozen=True, kw_only=True)
class Counting(ROME):
    """Another package's method that wants the edits in force."""

    name: ClassVar[str] = "counting"
    needs_earlier_edits: ClassVar[bool] = True
    seen: ClassVar[list[tuple[Earlier, ...]]] = []

    def __call__(self, *arguments: Any, earlier: tuple[Earlier, ...] = (), **named: Any) -> tuple[Edit, Trace]:
        self.seen.append(earlier)
        return super().__call__(*arguments, **named)


def test_another_packages_method_is_given_the_edits_in_force(session: Session, facts: list[Fact]) -> None:
    session.editor.methods["counting"] = Counting(layer=2, steps=3)
    try:
        session.edit(facts[0], "rome")
        session.edit(facts[1:], "memit")
        session.toggle(1)
        session.edit(facts[0], "counting")
    finally:
        del session.editor.methods["counting"]
    ((earlier,),) = Counting.seen
    assert earlier.facts == tuple(facts[1:])
    assert earlier.edit is session.log[1].edit


def test_keys_are_mapped_once_for_as_long_as_they_are_held(session: Session, facts: list[Fact]) -> None:
    moments = session.editor.moments((1, 2, 3))
    session.edit(facts[0], "memit")
    session.edit(facts[1], "encore")
    earlier, solved = earlier_of(session.log), []
    solve = moments.solve

    def counted(layer: int, x: torch.Tensor, ridge: float = 0.0, plus: float = 0.0) -> torch.Tensor:
        solved.append(x.shape[1])
        return solve(layer, x, ridge, plus)

    moments.solve = counted  # type: ignore[method-assign]
    try:
        edit, _, _ = session.editor.compute([facts[2]], session.editor.method("encore"), earlier=earlier)
    finally:
        moments.solve = solve  # type: ignore[method-assign]
    assert len(solved) == 2 * len(edit)  # the new key and the second edit's; the first one's was solved before


# --- the search: early stopping, anchoring ---


def searched(editor: Editor, fact: Fact, name: str, **changes: object) -> ValueTrace:
    settings = {"steps": 20, "learning_rate": 0.5, "clamp": 20.0, "weight_decay": 0.0}
    (value,) = replace(editor.method(name, settings), **changes).values(editor.model, [fact], CONTEXTS)
    return value.trace


@pytest.mark.parametrize("name", ["rome", "memit", "emmet", "alphaedit"])
def test_a_search_stops_after_so_many_steps_that_say_the_object(gpt2_editor: Editor, name: str) -> None:
    for fact, bare in (
        (Fact("The mother tongue of {}", "Danielle Darrieux", "Un follower"), False),  # of two tokens
        (Fact("The owner of {}", "Dodge Dynasty", "sitcom"), True),
    ):
        whole = searched(gpt2_editor, fact, name, stop_counts_bare=bare)
        full = [step for step, hits in enumerate(whole.hits) if hits == whole.hits_of]
        assert full
        assert whole.loss[full[0]] > STOP_BELOW  # or nothing would be tested
        for most in (1, 3):
            short = searched(gpt2_editor, fact, name, stop_counts_bare=bare, stop_after=most)
            end = full[most - 1] + 1 if len(full) >= most else len(whole.loss)
            assert short.loss == whole.loss[:end]
            assert short.hits == whole.hits[:end]


def test_hits_are_all_tokens_in_all_contexts_that_count(gpt2_editor: Editor, facts: list[Fact]) -> None:
    fact = replace(facts[0], target_new="Un follower")  # of two tokens
    model = gpt2_editor.model
    with_bare = searched(gpt2_editor, fact, "memit", stop_after=1)
    without = searched(gpt2_editor, fact, "memit", stop_after=1, stop_counts_bare=False)
    assert (with_bare.hits_of, without.hits_of) == (8, 6)
    ids = model.target_ids(fact.target_new, fact.text)
    rows = [model.tokens(context.replace("{}", fact.text)).ids for context in CONTEXTS]
    batch = model.batch([(*row, *ids[:-1]) for row in rows])
    with torch.no_grad():
        said = model.hf(**batch.inputs(), use_cache=False).logits.argmax(-1)
    hits = [sum(int(said[i, len(row) - 1 + j]) == ids[j] for j in range(2)) for i, row in enumerate(rows)]
    assert (with_bare.hits[0], without.hits[0]) == (sum(hits), sum(hits[1:]))
    alone = gpt2_editor.method("rome", {"stop_counts_bare": False})
    (bare,) = alone.values(model, [fact], ("{}",))
    assert bare.trace.hits_of == 2  # there is no other context to count


@pytest.mark.parametrize("name", ["rome", "r-rome", "memit", "emmet", "alphaedit"])
def test_an_anchored_value_has_the_anchors_norm_and_the_fact_is_asked_again(
    editor: Editor, fact: Fact, name: str
) -> None:
    model, method = editor.model, editor.method(name)
    layer = method.edited_layers[-1]
    mlp = subject_outputs(model, fact, ["{}"], layer, "mlp")[0]
    (free,) = method.values(model, [fact], CONTEXTS)
    norm = float((mlp + free.delta).norm())
    for anchor in (norm / 1.9, norm * 3.0):  # down and up
        anchored = replace(method, anchored=True, anchor_norm=anchor)
        (value,) = anchored.values(model, [fact], CONTEXTS)
        assert float((mlp + value.delta).norm()) == pytest.approx(anchor, rel=1e-5)
        assert torch.allclose((mlp + value.delta) / anchor, (mlp + free.delta) / norm, atol=1e-5)  # its direction
        told = value.trace.anchored
        assert (told.skipped, told.anchor) == (False, anchor)
        assert told.norm == pytest.approx(norm, rel=1e-5)
        assert told.p_new == pytest.approx(said(editor, fact, layer, value.delta), rel=1e-4)
        assert value.trace.loss == free.trace.loss  # the search is the same
    (skipped,) = replace(method, anchored=True, anchor_norm=norm / 2.1).values(model, [fact], CONTEXTS)
    assert skipped.trace.anchored.skipped
    assert not skipped.delta.any()
    assert skipped.trace.anchored.p_new == pytest.approx(free.trace.p_new[0], rel=1e-5)


def said(editor: Editor, fact: Fact, layer: int, delta: torch.Tensor) -> float:
    """Mean over the contexts of P(new) per token, with δ added to the MLP's output at the subject."""
    model, found = editor.model, []
    ids = model.target_ids(fact.target_new, fact.text)
    for context in CONTEXTS:
        text = context.replace("{}", fact.text)
        tokens = model.tokens(text)
        at = tokens.position_of(context.index("{}") + fact.subject_end - 1)

        def add(output: torch.Tensor, at: int = at) -> torch.Tensor:
            output = output.clone()
            output[0, at] += delta
            return output

        with torch.no_grad(), output_of(model, layer, "mlp", add):
            logits = model.hf(**model.batch([(*tokens.ids, *ids[:-1])]).inputs(), use_cache=False).logits
        log_probs = logits[0].log_softmax(-1)
        nll = [-float(log_probs[len(tokens.ids) - 1 + j, ids[j]]) for j in range(len(ids))]
        found.append(torch.tensor(-sum(nll) / len(nll)).exp())
    return float(torch.stack(found).mean())


def test_a_skipped_edit_changes_nothing_and_is_told(session: Session, fact: Fact) -> None:
    step = session.edit(fact, "rome", {"anchored": True, "anchor_norm": 1e-3})
    assert step.trace.values[0].anchored.skipped
    assert session.model.drift(2)[0] == 0.0
    record(session)  # and can be kept


def test_the_anchor_is_measured_once_on_the_unedited_model(
    facts: list[Fact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITLAB_CACHE", str(tmp_path))
    monkeypatch.setattr("editlab.editing.anchor.PILOTS", 12)
    editor = tiny_editor("gpt2")
    session = Session(editor)
    session.edit(facts[0], "rome")
    session.edit(facts[1], "rome", {"anchored": True})
    norm = session.log[-1].made.hyperparameters["anchor_norm"]
    (file,) = tmp_path.glob("moments/*/anchor-*.json")
    assert json.loads(file.read_text()) == {"norm": norm, "pilots": 12}
    editor.model.write([])
    assert editor.anchored(editor.method("rome", {"anchored": True})).anchor_norm == norm
    file.write_text(json.dumps({"norm": 2.0}))
    assert editor.anchored(editor.method("rome", {"anchored": True})).anchor_norm == 2.0  # it was not searched again
    file.write_text("{")
    assert editor.anchored(editor.method("rome", {"anchored": True})).anchor_norm == pytest.approx(norm)
    with pytest.raises(ValueError, match="norm anchoring needs anchor_norm"):
        editor.method("rome", {"anchored": True}).values(editor.model, facts[:1], CONTEXTS).__next__()


def test_hyperparameters_of_before_are_compared_with_todays() -> None:
    now = hyperparameters(method_class("rome")(layer=2, steps=7))
    then = {name: value for name, value in now.items() if not name.startswith(("stop_", "anchor"))}
    assert then != now
    assert completed("rome", then) == now
    assert completed("gone", then) == then
