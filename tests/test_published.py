"""`verify PRESET`: a made-up reference for the tiny GPT-2, from the golden records and plain computations."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from editlab.cli import app
from editlab.core.facts import Fact
from editlab.experiments import published
from editlab.experiments.published import (
    AGREES,
    DIFFERS,
    NOT_CHECKED,
    REPORTED,
    FigureCheck,
    Means,
    check,
    exit_code,
    reference_of,
)
from editlab.measures.tasks import Example, Task
from editlab.model.model import EditableModel
from editlab.model.presets import PRESETS
from tests.conftest import GOLDEN, tiny_model, tiny_moments

TASK = Task(
    "sst2",
    "SST-2",
    "Review: {sentence}\nSentiment:",
    (" a", "e"),
    (),
    tuple(Example({"sentence": text}, i % 2) for i, text in enumerate(("good", "bad", "fine", "a bore", "so so"))),
)


def golden_record(method: str, number: int) -> tuple[dict[str, Any], dict[str, Any], dict[int, float]]:
    """A golden file, one of its records, and its ‖ΔW‖_F by layer, from the reference's own tensors."""
    file = json.loads((GOLDEN / f"{method}.json").read_text())
    deltas = load_file(GOLDEN / f"{method}.safetensors")
    norms = {
        int(key.split(".")[1]): float(delta.double().square().sum().sqrt())
        for key, delta in deltas.items()
        if key.startswith(f"{number}.")
    }
    return file, file["records"][number], norms


def fact_of(record: dict[str, Any]) -> Fact:
    (request,) = record["requests"]
    return Fact(
        request["prompt"],
        request["subject"],
        request["target_new"]["str"],
        request["target_true"]["str"],
        case_id=request["case_id"],
    )


def losses_of(record: dict[str, Any]) -> list[float]:
    return [float(line.split()[1]) for line in record["losses"]]


def plain_counts() -> list[int]:
    """Right, wrong and invalid answers of the unedited model, example by example through `generate`."""
    model = tiny_model("gpt2")
    counts = [0, 0, 0]
    for example in TASK.examples:
        ids = torch.tensor([model.tokens(TASK.prompt(example)).ids])
        out = model.hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False)
        said = model.tokenizer.decode(out[0, ids.shape[1] :])
        given = next((i for i in (1, 0) if TASK.labels[i] in said), None)
        counts[2 if given is None else 0 if given == example.label else 1] += 1
    return counts


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    """Right figures: the golden records, sums over the stored weight, transformers' own hidden states."""
    hf = AutoModelForCausalLM.from_pretrained(GOLDEN)
    weight = load_file(GOLDEN / "model.safetensors")["transformer.h.2.mlp.c_proj.weight"].double()
    rome, record, norms = golden_record("rome", 0)
    fact = fact_of(record)
    model = tiny_model("gpt2")
    tokens = model.tokens(fact.text)
    states = hf(torch.tensor([tokens.ids]), output_hidden_states=True).hidden_states
    hidden = float(states[3][0, tokens.position_of(fact.subject_end - 1)].detach().norm())
    memit, spread, spread_norms = golden_record("memit", 0)
    asked = {"prompt": fact.prompt, "subject": fact.subject, "target_new": fact.target_new}
    return {
        "weights": [
            {"layer": 2, "number": "norm", "value": math.sqrt(float(weight.square().sum())), "tolerance": 1e-5},
            {"layer": 2, "number": "sum", "value": float(weight.sum()), "tolerance": 1e-3},
        ],
        "hidden": [{"fact": asked, "layer": 2, "where": "block", "value": hidden, "tolerance": 1e-4}],
        "sequences": [
            {
                "part": "rome",
                "title": "ROME",
                "method": "rome",
                "hyperparameters": {"layer": 2},
                "contexts": rome["contexts"],
                "tolerance": {"numbers": 1e-3, "losses": 1e-3},
                "edits": [{"fact": asked, "losses": losses_of(record), "numbers": {"delta_norm": norms[2]}}],
            },
            {
                "part": "memit",
                "title": "MEMIT",
                "method": "memit",
                "hyperparameters": {"layers": memit["hparams"]["layers"], "moment_weight": 20.0},
                "contexts": memit["contexts"],
                "tolerance": {"numbers": 1e-3, "counts": 0.01},
                "counts_before": plain_counts(),
                "edits": [
                    {"case_id": spread["requests"][0]["case_id"], "drift": spread_norms},
                    {"case_id": 1, "drift": {}},
                ],
            },
        ],
        "sizes": [
            {
                "method": "r-rome",
                "hyperparameters": {"layer": 2},
                "case_ids": [fact.case_id],
                "below": 1e9,
                "published": "small",
            }
        ],
    }


def sourced(reference: dict[str, Any]) -> dict[str, Any]:
    """As it is, each with a source."""
    made = copy.deepcopy(reference)
    for part in made.values():
        for figure in part:
            figure["source"] = "made up"
    return made


@pytest.fixture(scope="module")
def means() -> Means:
    facts = [fact_of(golden_record(name, 0)[1]) for name in ("rome", "memit")]
    second = Fact("{} plays the", "Toko Yasuda", "piano", case_id=1)
    known = {fact.case_id: fact for fact in (*facts, second) if fact.case_id is not None}
    return Means(known, tiny_moments(tiny_model("gpt2")), TASK, task_is_the_sources=True)


@pytest.fixture(scope="module")
def model() -> EditableModel:
    return tiny_model("gpt2")


@pytest.fixture(scope="module")
def right(reference: dict[str, Any], means: Means, model: EditableModel) -> list[FigureCheck]:
    before = model.weight(2).clone()
    rows = list(check(model, sourced(reference), means))
    assert torch.equal(model.weight(2), before)
    return rows


def test_right_figures_of_each_kind_agree(right: list[FigureCheck]) -> None:
    assert {row.part for row in right} == {"weights", "hidden", "rome", "memit", "sizes"}
    assert [row for row in right if row.verdict != AGREES] == []
    assert exit_code(right) == 0
    told = " | ".join(row.figure for row in right)
    for kind in (
        "‖W‖_F of layer 2",
        "sum of W",
        "block output",
        "20 losses",
        "‖ΔW‖_F",
        "‖W - W₀‖_F of",
        "SST-2",
        "|Δ|",
    ):
        assert kind in told


def _of(path: str) -> Callable[[dict[str, Any]], tuple[Any, Any]]:
    keys = [int(key) if key.isdigit() else key for key in path.split("/")]

    def find(values: Any) -> tuple[Any, Any]:
        for key in keys[:-1]:
            values = values[key]
        return values, keys[-1]

    return find


WRONG = {
    "weights/0/value": "‖W‖_F",
    "weights/1/value": "sum of W",
    "hidden/0/value": "block output",
    "sequences/0/edits/0/losses/7": "20 losses",
    "sequences/0/edits/0/numbers/delta_norm": "‖ΔW‖_F",
    "sequences/1/counts_before/0": "SST-2",
    "sizes/0/below": "|Δ|",
}


@pytest.mark.parametrize("path", WRONG)
def test_one_wrong_figure_of_each_kind_differs(
    reference: dict[str, Any], means: Means, model: EditableModel, path: str
) -> None:
    wrong = sourced(reference)
    place, key = _of(path)(wrong)
    place[key] = place[key] * 1.02 + 1 if key != "below" else 1e-12
    part = {"weights": "weights", "hidden": "hidden", "sizes": "sizes"}.get(path.split("/")[0])
    part = part or wrong["sequences"][int(path.split("/")[1])]["part"]
    rows = list(check(model, wrong, means, [part]))
    (differing,) = [row for row in rows if row.verdict == DIFFERS]
    assert WRONG[path] in differing.figure
    assert exit_code(rows) == 1


def test_a_wrong_drift_and_another_number_of_losses_differ(
    reference: dict[str, Any], means: Means, model: EditableModel
) -> None:
    wrong = sourced(reference)
    drift = wrong["sequences"][1]["edits"][0]["drift"]
    layer = next(iter(drift))
    drift[layer] *= 1.01
    wrong["sequences"][0]["edits"][0]["losses"].pop()
    rows = list(check(model, wrong, means, ["memit", "rome"]))
    assert [f"layer {layer}" in row.figure or "19 losses" in row.figure for row in rows if row.verdict == DIFFERS] == [
        True,
        True,
    ]


def test_a_sequence_is_edits_on_top_of_each_other(
    reference: dict[str, Any], means: Means, model: EditableModel
) -> None:
    """The drift after the second edit is that of base + both deltas, each computed with the ones before in force."""
    two = sourced(reference)
    sequence = two["sequences"][1]
    sequence["edits"][1]["drift"] = {2: 1.0}
    (row,) = [row for row in check(model, two, means, ["memit"]) if "edit 2 of 2" in row.figure]
    method = published.Editor(model, moments=means.moments).method("memit", sequence["hyperparameters"])
    editor = published.Editor(model, moments=means.moments, contexts=sequence["contexts"])
    total = torch.zeros_like(model.weight(2))
    for case_id in (sequence["edits"][0]["case_id"], 1):
        edit, _, _ = editor.compute([means.facts[case_id]], method)
        total += edit[2].left @ edit[2].right.T
        with torch.no_grad():
            for layer, delta in edit.items():
                model.weight(layer).add_(delta.left @ delta.right.T)
    norm = float(total.norm())
    fresh = tiny_model("gpt2")
    with torch.no_grad():
        for layer in range(model.n_layers):
            model.weight(layer).copy_(fresh.weight(layer))
    assert row.measured == pytest.approx(norm, rel=1e-4)


def test_the_identity_stands_for_the_second_moment(model: EditableModel, means: Means) -> None:
    """With C = I, u is the averaged key's direction, so ΔW is what that key gives."""
    rome, record, _ = golden_record("rome", 0)
    fact = fact_of(record)
    sequence = {"part": "rome", "title": "ROME", "method": "rome", "hyperparameters": {"layer": 2}, "source": "made up"}
    sequence |= {"second_moments": "identity", "contexts": rome["contexts"], "tolerance": {"numbers": 1e-4}}
    sequence["edits"] = [{"fact": {"prompt": fact.prompt, "subject": fact.subject, "target_new": fact.target_new}}]
    keys = []
    for context in rome["contexts"]:
        tokens = model.tokens(context.replace("{}", fact.text))
        seen = model.keys_of(model.batch([tokens.ids]), [2])[2]
        keys.append(seen[0, tokens.position_of(context.index("{}") + fact.subject_end - 1)])
    mean = torch.stack(keys).mean(0)
    divisor = float(keys[0] @ mean / mean.norm())
    sequence["edits"][0]["numbers"] = {"divisor": divisor, "key_norm": float(mean.norm())}
    rows = list(check(model, {"sequences": [sequence]}, means))
    assert [row.verdict for row in rows] == [AGREES, AGREES]


def test_what_is_missing_is_said_and_ends_in_2(reference: dict[str, Any], model: EditableModel) -> None:
    bare = Means(moments=tiny_moments(model))
    rows = list(check(model, sourced(reference), bare))
    unchecked = [row for row in rows if row.verdict == NOT_CHECKED]
    case = reference["sequences"][1]["edits"][0]["case_id"]
    assert [row.note for row in unchecked[:2]] == [f"CounterFact's case {case} is needed (--facts)"] * 2
    assert unchecked[2].part == "sizes"
    (counts,) = [row for row in rows if row.verdict == REPORTED]
    assert "not measured" in counts.note
    assert exit_code(rows) == 2
    assert exit_code([row for row in rows if row.verdict != NOT_CHECKED]) == 0


def test_counts_of_another_prompt_are_reported_and_not_judged(
    reference: dict[str, Any], means: Means, model: EditableModel
) -> None:
    wrong = sourced(reference)
    wrong["sequences"][1]["counts_before"] = [5, 0, 0]
    ours = Means(means.facts, means.moments, means.task)
    rows = list(check(model, wrong, ours, ["memit"]))
    (counts,) = [row for row in rows if "SST-2" in row.figure]
    assert counts.verdict == REPORTED
    assert counts.measured == plain_counts()
    assert exit_code(rows) == 0


def test_a_part_that_is_not_there_is_named(reference: dict[str, Any], means: Means, model: EditableModel) -> None:
    with pytest.raises(ValueError, match="no part 'rme'; available: weights, hidden, rome, memit, sizes"):
        list(check(model, reference, means, ["rme"]))


def test_figures_of_gpt2_xl_are_whole() -> None:
    """Every figure has what `check` reads, and a source; every number is one that can be read off an edit."""
    reference = reference_of("gpt2-xl")
    assert published.parts_of(reference) == ("weights", "hidden", "rome", "emmet", "memit", "sizes")
    sequences = reference["sequences"]
    assert all(figure["source"] for part in ("weights", "hidden", "sequences", "sizes") for figure in reference[part])
    edits = [edit for sequence in sequences for edit in sequence["edits"]]
    assert {name for edit in edits for name in edit.get("numbers", {})} <= set(published.NUMBERS)
    assert all(("fact" in edit) != ("case_id" in edit) for edit in edits)
    assert [len(edit["losses"]) for edit in edits if "losses" in edit] == [20, 20, 20]
    assert sum("counts" in edit for edit in edits) == 42
    assert all(len(set(sizes["case_ids"])) == 80 for sizes in reference["sizes"])
    with pytest.raises(ValueError, match="no published figures of gpt2; available: gpt2-xl"):
        reference_of("gpt2")


def test_the_command_says_that_the_weights_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    result = CliRunner().invoke(app, ["verify", "gpt2-xl"])
    assert result.exit_code == 2
    assert "is not on this machine; allow its download (6.4 GB) with --yes" in " ".join(result.stderr.split())


def test_the_command_shows_a_table_and_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reference: dict[str, Any], model: EditableModel
) -> None:
    """A preset's name wins over a folder of that name."""
    (tmp_path / "gpt2-xl").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("editlab.model.loading.load", lambda name, **_: model)
    monkeypatch.setattr(published, "reference_of", lambda name: sourced(reference))
    assert "gpt2-xl" in PRESETS
    asked = ["verify", "gpt2-xl", "--only", "weights", "--only", "hidden"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert "3 agrees" in result.stdout
    told = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert told["ok"] is True
    assert {row["part"] for row in told["rows"]} == {"weights", "hidden"}
    facts = tmp_path / "facts.json"
    facts.write_text("[]")
    result = CliRunner().invoke(app, ["verify", "gpt2-xl", "--only", "sizes", "--facts", str(facts)])
    assert result.exit_code == 2
    assert "is needed (--facts)" in " ".join(result.stdout.split())
