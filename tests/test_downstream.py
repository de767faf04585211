"""Tasks scored fast are tasks scored one by one, whatever was edited in between, and what was kept is never stale."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.progress import Progress
from editlab.editing.editor import Editor
from editlab.measures import standard
from editlab.measures._task import task_measures
from editlab.measures.downstream import GENERATED_TOKENS, ByGeneration, ByOptions, ByScores
from editlab.measures.tasks import Example, Task
from editlab.model.deltas import Edit, LowRank
from editlab.model.fast.prompts import Budget, Prompts
from editlab.model.model import EditableModel
from editlab.session.session import Session
from tests import plain
from tests.conftest import tiny_model

WORDS = ("four", "five and a half", "six", "seven or nearly eight of them", "a")


def task_of(labels: Sequence[str], shots: int = 2, n: int = len(WORDS)) -> Task:
    examples = [Example({"text": text}, i % len(labels)) for i, text in enumerate(WORDS)]
    return Task(
        "parity", "Parity", "The number {text} is even:", tuple(labels), tuple(examples[:shots]), tuple(examples[:n])
    )


TASKS = {
    "two words": task_of(("no", "yes")),
    "three words, no shots": task_of(("no", "yes", "perhaps"), shots=0),
    "words that begin alike": task_of(("in Paris", "in Rome", "Berlin")),
    "one example": task_of(("no", "yes"), n=1),
}  # fmt: skip


@pytest.fixture(autouse=True)
def several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editlab.model.fast.prompts.BATCH_TOKENS", {"cpu": 40})
    monkeypatch.setattr("editlab.model.fast.prompts.SLOT_TOKENS", 20)
    monkeypatch.setattr("editlab.model.fast.prompts.BATCHES_GOING_ON", 1)


class Kept:
    """One task, prepared once by each rule, and asked again in every state of the weights."""

    def __init__(self, model: EditableModel, task: Task, keep_bytes: int = 2**24) -> None:
        self.model, self.task = model, task
        self.budget = Budget(keep_bytes)
        self.scores, self.generation = ByScores(model, task, self.budget), ByGeneration(model, task, self.budget)

    def check(self) -> None:
        prompts = [self.task.prompt(example) for example in self.task.examples]
        expected = torch.tensor([plain.label_log_probs(self.model, prompt, self.task.labels) for prompt in prompts])
        assert torch.allclose(self.scores.log_probs(), expected, atol=1e-4)
        assert self.scores.answers() == expected.argmax(1).tolist()
        tokens = [plain.continuation(self.model, prompt, GENERATED_TOKENS) for prompt in prompts]
        assert self.generation.tokens() == tokens
        assert self.generation.answers() == [self.task.label_in(self.model.tokenizer.decode(row)) for row in tokens]


def test_as_one_by_one_after_every_edit(editor: Editor, facts: list[Fact]) -> None:
    """One-layer and multi-layer edits, a layer below those edited so far, undone, switched off and on again."""
    session = Session(editor)
    kept = [Kept(editor.model, task) for task in TASKS.values()]

    def check() -> None:
        session.put_in_force()
        for each in kept:
            each.check()

    session.edit(facts[0], "rome", {"layer": 2})
    check()
    session.edit(facts[1], "memit", {"layers": [1, 2, 3]})
    check()
    session.toggle(2)
    check()
    session.toggle(2)
    session.toggle(1)
    check()
    session.goto(0)
    check()


def random_edit(model: EditableModel, layer: int, seed: int) -> Edit:
    random = torch.Generator().manual_seed(seed)
    d_out, d_in = model.weight(layer).shape
    return {layer: LowRank(torch.randn(d_out, 1, generator=random) / 4, torch.randn(d_in, 1, generator=random) / 4)}


@pytest.fixture(scope="module", params=["gpt2", "llama", "gptj"])
def model(request: pytest.FixtureRequest) -> EditableModel:
    return tiny_model(request.param)


@settings(max_examples=8, deadline=None)
@given(
    states=st.lists(st.lists(st.integers(0, 4), max_size=2), min_size=2, max_size=4),
    keep_bytes=st.sampled_from([0, 9_000, 2**24]),
)
def test_what_is_kept_is_what_would_be_computed(model: EditableModel, states: list[list[int]], keep_bytes: int) -> None:
    """In any order of states, each with edits of any layers: the same bits as by one who comes anew."""
    kept = Kept(model, TASKS["two words"], keep_bytes)
    for number, layers in enumerate(states):
        model.write([random_edit(model, layer, 10 * number + layer) for layer in layers])
        fresh = Kept(model, TASKS["two words"], 0)
        assert torch.equal(kept.scores.log_probs(), fresh.scores.log_probs())
        assert kept.generation.tokens() == fresh.generation.tokens()
    model.write([])


def blocks_run(model: EditableModel, side: object) -> list[int]:
    """How many tokens went through each block."""
    counts = [0] * model.n_layers
    handles = [
        block.register_forward_pre_hook(
            lambda _module, inputs, layer=layer: counts.__setitem__(layer, counts[layer] + inputs[0].shape[:-1].numel())
        )
        for layer, block in enumerate(model.blocks)
    ]
    try:
        side()
    finally:
        for handle in handles:
            handle.remove()
    return counts


def test_blocks_below_the_lowest_edited_layer_are_run_once(model: EditableModel) -> None:
    kept = Kept(model, TASKS["two words"])
    try:
        model.write([random_edit(model, 2, 0)])
        first = blocks_run(model, kept.scores.log_probs)
        again = blocks_run(model, kept.scores.log_probs)
        assert len(set(first)) == 1
        assert again == [0, 0, *first[2:]]
        with model.overlaid(random_edit(model, 1, 0)):  # a lower one, in force without being written
            assert blocks_run(model, kept.scores.log_probs) == first
        assert blocks_run(model, kept.scores.log_probs) == [0, *first[1:]]
        assert first[0] < sum(len(model.tokens(kept.task.prompt(e)).ids) for e in kept.task.examples)
    finally:
        model.write([])


def test_generation_runs_a_new_token_once(model: EditableModel) -> None:
    kept = Kept(model, TASKS["two words"])
    scores = blocks_run(model, kept.scores.log_probs)
    generation = blocks_run(model, kept.generation.tokens)
    new = (GENERATED_TOKENS - 1) * len(WORDS)
    assert all(before + new <= after < before + 2 * new for before, after in zip(scores, generation, strict=True))


def test_what_is_kept_stays_within_the_budget(model: EditableModel) -> None:
    try:
        for n_bytes in (0, 9_000, 2**24):
            kept = Kept(model, TASKS["two words"], n_bytes)
            for layer in (3, 1, 2):
                model.write([random_edit(model, layer, 0)])
                kept.scores.answers()
                kept.generation.answers()
                assert 0 <= kept.budget.left <= n_bytes
            assert (kept.budget.left < n_bytes) == (n_bytes > 0)
    finally:
        model.write([])


def test_a_continuation_ends_where_the_text_does(model: EditableModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [model.tokens(text).ids for text in WORDS]
    whole = Prompts(model, rows, Budget(0)).generate(4)
    monkeypatch.setattr(model.hf.generation_config, "eos_token_id", [whole[0][1]])
    ended = Prompts(model, rows, Budget(0)).generate(4)
    assert ended[0] == whole[0][:1]
    assert ended == [plain.continuation(model, text, 4) for text in WORDS]


class TestMeasure:
    def test_a_score_by_hand(self, model: EditableModel) -> None:
        task = TASKS["two words"]
        by_scores, by_generation = (measure.score(model) for measure in task_measures([task]))
        answers = ByScores(model, task, Budget(0)).answers()
        assert by_scores.correct == tuple(a == e.label for a, e in zip(answers, task.examples, strict=True))
        assert by_scores.accuracy == sum(by_scores.correct) / 5
        assert (by_scores.rule, by_scores.invalid, by_scores.n) == ("scores", 0, 5)
        assert (by_scores.chance, by_scores.chance_f1) == pytest.approx((3 / 5, 3 / 5 * 6 / 8))
        # Random weights say none of the label words.
        assert (by_generation.rule, by_generation.invalid, by_generation.accuracy) == ("generation", 1, 0)
        assert by_generation.f1 == 0

    def test_either_rule_is_asked_for_by_name(self, editor: Editor) -> None:
        session = Session(editor, standard({"parity": TASKS["two words"]}))
        scores = session.measure(["parity", "parity:generation"]).measurement.tasks
        assert {name: score.rule for name, score in scores.items()} == {
            "parity": "scores",
            "parity:generation": "generation",
        }
        with pytest.raises(ValueError, match="no measure 'parity:guess'"):
            session.measure(["parity:guess"])

    def test_a_prompt_that_is_too_long_is_refused_in_a_sentence(self, model: EditableModel) -> None:
        task = Task("long", "Long", "{text}", ("no", "yes"), (), (Example({"text": "word " * model.max_tokens}, 0),))
        with pytest.raises(ValueError, match=f"example 1 of Long is .* reads at most {model.max_tokens}"):
            ByScores(model, task, Budget(0))

    def test_a_label_word_that_begins_another_is_refused(self, model: EditableModel) -> None:
        with pytest.raises(ValueError, match="'no' of Parity begins another"):
            ByScores(model, task_of(("no", "no one")), Budget(0))

    def test_a_cancelled_score_leaves_nothing_wrong(self, model: EditableModel) -> None:
        def cancel(progress: Progress) -> None:
            if progress.done:
                raise Cancelled

        try:
            for measure, fresh in zip(*(task_measures([TASKS["two words"]]) for _ in range(2)), strict=True):
                model.write([random_edit(model, 2, 0)])
                with pytest.raises(Cancelled):
                    measure.score(model, cancel)
                model.write([random_edit(model, 3, 0)])
                assert measure.score(model).correct == fresh.score(model).correct
        finally:
            model.write([])


def test_options_are_scored_by_their_mean_log_likelihood_as_one_by_one(editor: Editor) -> None:
    """Whole texts, one option at a time."""
    options = (("even", "odd"), ("it is even", "odd", "neither of these"), ("yes", "no"), ("a", "b b b"), ("c", "d"))
    examples = tuple(
        Example({"text": text}, i % 2, chosen) for i, (text, chosen) in enumerate(zip(WORDS, options, strict=True))
    )
    task = Task("parity", "Parity", "{text} is", (), examples[:1], examples, rules=("scores",))
    (measure,) = task_measures([task])
    for edits in ([], [{2: LowRank(torch.ones(48, 1), torch.ones(editor.model.weight(2).shape[1], 1) / 9)}]):
        editor.model.write(edits)
        expected = []
        for example in task.examples:
            prompt = task.prompt(example)
            ids = list(editor.model.tokens(prompt).ids)
            scores = []
            for option in example.options:
                target = editor.model.target_ids(option, prompt)
                with torch.no_grad():
                    said = editor.model.hf(torch.tensor([[*ids, *target]])).logits[0].log_softmax(-1)
                scores.append(sum(float(said[len(ids) - 1 + i, t]) for i, t in enumerate(target)) / len(target))
            expected.append(scores)
        found = ByOptions(editor.model, task, Budget(10**6)).log_likelihoods()
        for ours, theirs in zip(found, expected, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)
        score = measure.score(editor.model)
        assert score.correct == tuple(row.index(max(row)) == e.label for row, e in zip(expected, examples, strict=True))
        assert score.chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 2 + 1 / 2 + 1 / 2) / 5)
    editor.model.write([])


def test_a_budget_can_be_raised_and_is_never_lowered() -> None:
    budget = Budget(10)
    assert budget.take(8)
    budget.allow(20)
    assert budget.left == 12
    budget.allow(5)
    assert budget.left == 12
    budget.reset()
    assert budget.left == 20
