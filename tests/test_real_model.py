"""The embedded model itself: real edits of real facts, and what the README says of it."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editlab.analysis.anatomy import anatomy
from editlab.core.fact_files import read_facts
from editlab.core.facts import Fact
from editlab.core.paths import resource
from editlab.core.progress import quiet
from editlab.editing.assess import assess, reference_for
from editlab.editing.contexts import sample_contexts
from editlab.editing.editor import Editor
from editlab.editing.guard import Guard
from editlab.measures import standard
from editlab.measures._task import task_measures
from editlab.measures.counterfact_plus import CounterFactPlusOfAll
from editlab.measures.says_it import SaysItOfStep
from editlab.measures.tasks import OURS, load_tasks
from editlab.model.loading import load
from editlab.model.reading import complete, object_nlls, watched_of
from editlab.session.probes import culprit
from editlab.session.session import Session
from tests.test_counterfact_plus import distribution
from tests.test_says_it import inputs_of, plain_answer

pytestmark = pytest.mark.model

EIFFEL = Fact(
    "The {} is located in the city of",
    "Eiffel Tower",
    "Rome",
    "Paris",
    ("Where is the Eiffel Tower? It is in",),
    ("The Louvre is located in the city of",),
)


CONTEXTS = {  # of seed 0, as every release has sampled them
    "rome": (
        "{}",
        "-_A.. {}",
        " -1.. {}",
        "-_22. {}",
        " -222.10.. {}",
        "-_1321111. {}",
        "_to_get_max_max_. {}",
    ),
    "memit": (
        "{}",
        "The-1998-200. {}",
        "Therefore  To create a list of all possible. {}",
        'Because and the "Mafaadu al. {}',
        "I-12345 is 2. {}",
        "You-the-world-to-be-. {}",
    ),
}


@pytest.fixture(scope="module")
def embedded() -> Editor:
    editor = Editor(load("smollm2-135m"))
    editor.prepare()
    return editor


@pytest.fixture
def session(embedded: Editor) -> Session:
    embedded.model.write([])
    yield Session(embedded, standard(load_tasks()))
    embedded.model.write([])


def test_the_references_that_come_with_editlab_are_of_this_model(embedded: Editor) -> None:
    for name in ("rome", "r-rome"):
        assert reference_for(embedded.model, embedded.method(name)).n == 253


@pytest.mark.parametrize("method", ["rome", "r-rome", "memit", "emmet"])
def test_an_edit_takes_and_is_undone_to_the_last_bit(session: Session, method: str) -> None:
    layers = session.editor.methods[method].edited_layers
    before = {layer: session.model.weight(layer).clone() for layer in layers}
    step = session.edit(EIFFEL, method)
    said, now = step.measurement.before[0], step.measurement.completions[0]
    assert said.completion.startswith(" Paris")
    assert said.p_true > said.p_new
    assert now.completion.startswith(" Rome")
    assert now.p_new > 0.5
    assert set(step.measurement.drift) == set(layers)
    session.undo()
    session.put_in_force()
    assert all(torch.equal(session.model.weight(layer), before[layer]) for layer in layers)
    assert complete(session.model, watched_of(EIFFEL))[0].completion == said.completion


@pytest.mark.parametrize("method", ["rome", "memit"])
def test_the_contexts_of_a_seed_stay_what_they_were(embedded: Editor, method: str) -> None:
    assert sample_contexts(embedded.model, embedded.methods[method].context_plan, 0) == CONTEXTS[method]


def test_the_unedited_model_knows_the_projects_facts(embedded: Editor) -> None:
    facts = read_facts(resource("facts.json"))
    asked = [(fact.text, target) for fact in facts for target in (fact.target_new, fact.target_true)]
    nlls = [nll for start in range(0, len(asked), 64) for nll in object_nlls(embedded.model, asked[start : start + 64])]
    assert statistics.fmean(true < new for new, true in zip(nlls[::2], nlls[1::2], strict=True)) > 0.9


def test_the_unedited_model_is_above_chance_in_sentiment(session: Session) -> None:
    score = session.measure(["sentiment"]).measurement.tasks["sentiment"]
    assert score.n >= 60
    assert score.chance == 0.5
    assert score.interval[0] > 0.6


def test_glue_is_read_from_a_folder_and_scored_by_both_rules(embedded: Editor, test_data: Path) -> None:
    tasks = load_tasks(str(test_data / "glue"))
    assert tuple(tasks) == OURS
    assert all(len(tasks[name].examples) == 200 for name in ("sst2", "mrpc", "cola", "rte"))
    embedded.model.write([])
    for measure in task_measures([tasks["sst2"]]):
        score = measure.score(embedded.model)
        assert score.chance == 0.5
        assert score.interval[0] > 0.5
        assert score.invalid < 0.1


def test_edits_of_real_counterfact_take(embedded: Editor, test_data: Path) -> None:
    """Facts that the model knows: three alone by ROME, and two together by MEMIT."""
    facts = read_facts(test_data / "counterfact" / "counterfact-full-schema-250.json")[:40]
    asked = [(fact.text, target) for fact in facts for target in (fact.target_new, fact.target_true)]
    nlls = object_nlls(embedded.model, asked)
    known = [fact for fact, new, true in zip(facts, nlls[::2], nlls[1::2], strict=True) if true < new][:3]
    for name, facts in (*(("rome", [fact]) for fact in known), ("memit", known[:2])):
        edit, _, _ = embedded.compute(facts, embedded.method(name))
        embedded.model.write([edit])
        asked = [(fact.text, target) for fact in facts for target in (fact.target_new, fact.target_true)]
        nlls = object_nlls(embedded.model, asked)
        embedded.model.write([])
        for fact, new, true in zip(facts, nlls[::2], nlls[1::2], strict=True):
            assert new < true, f"{name}: {fact}"


def test_subjects_of_one_token_at_the_start_are_foreseen(embedded: Editor) -> None:
    facts = {fact.case_id: fact for fact in read_facts(resource("facts.json"))}
    some = [facts[case] for case in (900223, 900102, 900240, 900001)]
    assert [risk.level for risk in assess(embedded, some, embedded.method("rome"))] == ["high", "high", "low", "low"]
    for method in ("r-rome", "memit"):
        assert {risk.level for risk in assess(embedded, some, embedded.method(method))} == {"low"}


def test_a_disabling_edit_is_explained_found_and_avoided(session: Session) -> None:
    facts = {fact.case_id: fact for fact in read_facts(resource("facts.json"))}
    few = {"steps": 6}
    for case in (900240, 900001, 900223, 900006):
        session.edit(facts[case], "rome", few)
    disabling = session.step(3)
    told = anatomy(disabling, session.steps())
    assert told.cause == "divisor"
    assert "very first token" in told.sentence
    found = culprit(session)
    assert found.edit == disabling.id
    assert found.restored > 0.9
    session.goto(2)
    instead = session.edit(facts[900223], "rome", few, guard=Guard("r-rome"))
    assert (instead.method, instead.guarded.acted) == ("r-rome", True)
    assert instead.size[6].relative < disabling.size[6].relative / 5


def test_free_answers_and_side_effects_are_those_of_whole_prompts(embedded: Editor) -> None:
    """As on the tiny models: one prompt at a time, from the logits."""
    fact = read_facts(resource("facts.json"))[0]
    inputs = inputs_of(embedded.model, (replace(fact, neighborhood_prompts=fact.neighborhood_prompts[:1]),))
    said, plus = SaysItOfStep()(inputs, quiet), CounterFactPlusOfAll()(inputs, quiet)
    assert said is not None
    assert plus is not None
    inputs.now.put_in_force()
    assert said.answers[0].answer == plain_answer(embedded.model, fact.text)[1]
    prompt = fact.neighborhood_prompts[0]
    after = distribution(embedded.model, prompt)
    with embedded.model.unedited():
        before = distribution(embedded.model, prompt)
    nats = float((before.exp() * (before - after)).sum())
    assert plus.plain.divergence == pytest.approx(nats, rel=1e-2, abs=1e-4)
    embedded.model.write([])
