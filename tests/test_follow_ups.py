"""Follow-ups of a fact: in files, and the two measures of them against whole prompts asked one at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from editlab.core.answers import judged
from editlab.core.fact_files import facts_of_row, read_facts
from editlab.core.facts import Fact
from editlab.core.follow_ups import FollowUp
from editlab.core.progress import quiet
from editlab.core.records import Measurement
from editlab.editing.editor import Editor
from editlab.measures.counterfact import OfAll
from editlab.measures.counterfact_plus import CounterFactPlusOfAll
from editlab.measures.overfit import OverfitOfAll
from editlab.measures.portability import Asked, PortabilityOfAll, _Found, ripples
from editlab.measures.says_it import SaysItOfAll
from tests.conftest import attempt
from tests.test_counterfact_plus import mean_nll
from tests.test_says_it import inputs_of, plain_answer

FOLLOW_UPS = (
    FollowUp("relation", "The mother of OK Go is", "Eve"),
    FollowUp("alias", "The band originated in", "Manila"),
    FollowUp("reverse", "The band from Manila is", "OK Go"),
    FollowUp("two_hops", "The band is from the country of", "Peru", "Chile"),
    FollowUp("two_hops", "Where is the band from?", "New York City"),  # nobody knows what it was
)
FACT = Fact("{} originated in", "OK Go", "Manila", "Chicago", (), ("Wilco is from",), follow_ups=FOLLOW_UPS)
REWRITE = {"prompt": "{} is in", "subject": "Rome", "target_new": "Peru", "target_true": "Italy"}


def test_they_survive_json_and_are_typed_as_lines() -> None:
    assert Fact.from_json(json.loads(json.dumps(FACT.to_json()))) == FACT
    for each in FOLLOW_UPS:
        assert FollowUp.typed(each.line) == each
    assert FollowUp.typed("two hops: It is in -> Peru").kind == "two_hops"


@pytest.mark.parametrize("line", ["It is in Peru", "alias: It is in", "cousin: It is in -> Peru", "alias: -> Peru"])
def test_a_wrong_line_is_refused_in_a_sentence(line: str) -> None:
    with pytest.raises(ValueError, match="a follow-up"):
        FollowUp.typed(line)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((["alias"], "a", "b"), "kind must be one of relation"),
        (("alias", "\ud800", "b"), "prompt must be Unicode text"),
        (("alias", "a", "b\udcff"), "answer must be Unicode text"),
        (("alias", "a", "b", "\ud800"), "before must be Unicode text"),
        (("alias", "a", 3), "answer must be text, got int"),
        (("alias", "a" * 2_001, "b"), "prompt must be at most 2000 characters"),
        (("alias", "a", "b", " "), "before must not be blank"),
    ],
)
def test_a_wrong_one_is_refused_and_so_is_its_row(values: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        FollowUp(*values)
    row = {**REWRITE, "follow_ups": [dict(zip(("kind", "prompt", "answer", "before"), values, strict=False))]}
    with pytest.raises(ValueError, match=sentence):
        facts_of_row(row)


def test_the_unedited_version_of_each_kind() -> None:
    versions = [each.unedited("Manila", "Chicago") for each in FOLLOW_UPS]
    assert versions == [
        ("The mother of OK Go is", "Eve"),
        ("The band originated in", "Chicago"),
        ("The band from Chicago is", "OK Go"),
        ("The band is from the country of", "Chile"),
        None,
    ]
    assert FOLLOW_UPS[1].unedited("Manila", None) is None
    assert FOLLOW_UPS[2].unedited("Manila", None) is None


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (
            {"portability": {"New Question": "What food?", "New Answer": "Rice", "Original Answer": "Pasta"}},
            [FollowUp("two_hops", "What food?", "Rice", "Pasta")],
        ),
        (
            {"relation_specificity": {"prompt": "The mother of Rome is", "answer": {"value": "Eve", "aliases": ["E"]}}},
            [FollowUp("relation", "The mother of Rome is", "Eve")],
        ),
        (
            {
                "portability": {
                    "Subject_Aliasing": [{"prompt": "The city is in", "ground_truth": [["Peru"]]}],
                    "Reasoning": [{"prompt": "It speaks", "ground_truth": ["Spanish"]}],
                },
                "locality": {"Relation_Specificity": [{"prompt": "Rome began in", "ground_truth": "753 BC"}]},
            },
            [
                FollowUp("alias", "The city is in", "Peru"),
                FollowUp("two_hops", "It speaks", "Spanish"),
                FollowUp("relation", "Rome began in", "753 BC"),
            ],
        ),
        (
            {"questions": ["Who rules it?", "Its head is who?"], "answer": "A", "new_answer": "B"},
            [FollowUp("two_hops", "Who rules it?", "B", "A"), FollowUp("two_hops", "Its head is who?", "B", "A")],
        ),
        (
            {
                "portability": {
                    "Reasoning": {"prompt": ["It speaks", "It eats"], "ground_truth": ["Spanish", ["Rice", "x"]]}
                }
            },
            [FollowUp("two_hops", "It speaks", "Spanish"), FollowUp("two_hops", "It eats", "Rice")],
        ),
        ({"questions": "Who rules it?", "new_answer": 7}, [FollowUp("two_hops", "Who rules it?", "7")]),
        ({"follow_ups": ["alias: The city is in -> Peru"]}, [FollowUp("alias", "The city is in", "Peru")]),
        ({"portability": "nothing that is known"}, []),
    ],
)
def test_rows_of_published_files(columns: dict[str, Any], found: list[FollowUp]) -> None:
    (fact,), unused = facts_of_row({**REWRITE, **columns})
    assert list(fact.follow_ups) == found
    assert unused == ([] if found else ["portability"])


def test_what_follows_from_several_rewrites_follows_from_the_last_one() -> None:
    row = {
        "requested_rewrite": [REWRITE, {**REWRITE, "subject": "Oslo"}],
        "questions": ["Who?"],
        "answer": "A",
        "new_answer": "B",
    }
    facts, _ = facts_of_row(row)
    assert [len(fact.follow_ups) for fact in facts] == [0, 1]


def test_a_row_of_ripple_edits() -> None:
    begin = "The name of the country of citizenship of Ann Is is"
    edit = {
        "prompt": f"{begin} Syria.",
        "relation": "COUNTRY_OF_CITIZENSHIP",
        "original_fact": {"prompt": f"{begin} Sweden."},
    }
    asked = [{"test_queries": [{"prompt": "The mother of Ann Is is", "answers": [{"value": "Eve", "aliases": []}]}]}]
    (fact,), unused = facts_of_row({"edit": edit, "Relation_Specificity": asked})
    assert (fact.text, fact.subject) == (begin, "Ann Is")
    assert (fact.target_new, fact.target_true) == ("Syria", "Sweden")
    assert fact.follow_ups == (FollowUp("relation", "The mother of Ann Is is", "Eve"),)
    assert unused == []
    with pytest.raises(ValueError, match="cannot be told"):
        facts_of_row({"edit": {**edit, "relation": "MOTHER"}})


def test_evoke_has_questions_one_hop_on(test_data: Path) -> None:
    facts = read_facts(test_data / "evoke" / "evoke-120.json")
    asked = [each for fact in facts for each in fact.follow_ups]
    assert len(asked) > 80
    assert all(each.kind == "two_hops" and each.before for each in asked)
    (first,) = read_facts(test_data / "evoke" / "evoke-subject-120.json")[0].follow_ups
    assert first.kind == "relation"


# --- the measures ---


def test_overfitting_is_what_whole_prompts_give(editor: Editor) -> None:
    inputs = inputs_of(editor.model, (FACT,))
    found = OverfitOfAll()(inputs, quiet)
    assert found is not None
    assert {kind: (each.n, each.n_original) for kind, each in found.kinds.items()} == {
        "prefix": (1, 0),
        "relation": (1, 0),
        "reverse": (1, 0),
        "two_hops": (2, 1),
    }  # an alias's right answer is the new object
    asked = {
        "prefix": [("OK Go originated in Manila. Wilco is from", "Chicago", None)],
        "relation": [("The mother of OK Go is", "Eve", None)],
        "reverse": [("The band from Manila is", "OK Go", None)],
        "two_hops": [(each.prompt, each.answer, each.before) for each in FOLLOW_UPS[3:]],
    }
    for state, kinds in ((inputs.now, found.kinds), (inputs.base, found.base)):
        state.put_in_force()
        for kind, prompts in asked.items():
            right = [mean_nll(editor.model, prompt, answer) for prompt, answer, _ in prompts]
            new = [mean_nll(editor.model, prompt, "Manila") for prompt, _, _ in prompts]
            assert kinds[kind].eos == sum(a < b for a, b in zip(right, new, strict=True)) / len(prompts)
            p = float(torch.tensor(right, dtype=torch.float64).neg().exp().mean())
            assert kinds[kind].correct == pytest.approx(p, rel=1e-3)
        before = mean_nll(editor.model, FOLLOW_UPS[3].prompt, "Chile")
        assert kinds["two_hops"].ams == float(mean_nll(editor.model, FOLLOW_UPS[3].prompt, "Peru") < before)
    assert Measurement.read("overfit", found.to_json()) == found
    assert all(reading.forced and reading.n for reading in found.readings())


def test_portability_is_what_a_plain_loop_says_and_counts_what_was_known(gpt2_editor: Editor) -> None:
    model = gpt2_editor.model
    model.write([])
    known = plain_answer(model, "The mother of OK Go is")[1].split()[0]  # so this one qualifies
    follow_ups = (FollowUp("relation", "The mother of OK Go is", known), *FOLLOW_UPS)
    fact = Fact("{} originated in", "OK Go", "Manila", "Chicago", follow_ups=follow_ups)
    inputs = inputs_of(model, (fact,))
    found = PortabilityOfAll()(inputs, quiet)
    assert found is not None
    inputs.now.put_in_force()
    for kind, told in found.kinds.items():
        some = [each for each in follow_ups if each.kind == kind]
        says = [judged(plain_answer(model, each.prompt)[1], each.answer).says(each.prompt) for each in some]
        with model.unedited():
            passed = [
                version is not None and judged(plain_answer(model, version[0])[1], version[1]).says(version[0])
                for each in some
                for version in [each.unedited("Manila", "Chicago")]
            ]
        assert (told.asked, told.n) == (len(some), sum(passed))
        assert told.said_of_all == sum(says) / len(says)
        counted = [say for say, ok in zip(says, passed, strict=True) if ok]
        assert told.said == (sum(counted) / len(counted) if counted else None)
    assert found.kinds["relation"].n == 1
    assert found.base["relation"].said == 1.0
    assert Measurement.read("portability", found.to_json()) == found
    assert PortabilityOfAll()(inputs_of(model, ()), quiet) is None
    model.write([])


def test_shares_are_over_those_that_the_unedited_model_passes() -> None:
    yes, no = (_Found("alias", True, said, False, said, said) for said in (True, False))
    unknown = _Found("alias", False, True, False, True, None)
    found = ripples([yes, no, unknown])["alias"]
    assert (found.asked, found.n, found.said, found.preferred, found.said_of_all) == (3, 2, 0.5, 0.5, 2 / 3)
    assert ripples([unknown])["alias"].said is None
    assert Asked(FOLLOW_UPS[2], ("The band from Chicago is", "OK Go")).before is None


def test_whatever_fact_a_model_takes_can_be_measured(gpt2_editor: Editor) -> None:
    """Prompts of every length up to the model's: what is too long is told when the fact is taken, not by a measure."""
    model, taken = gpt2_editor.model, 0
    model.write([])
    for n in (60, 61, 62, 63):
        text = "x y " * n
        follow_up = FollowUp("two_hops", text, "Peru", "Chile")
        fact = Fact("{} is in", "Rome", "Peru", "Italy", (text,), (text,), (text,), follow_ups=(follow_up,))
        if isinstance(attempt(model.check, fact), str):
            continue
        taken += 1
        inputs = inputs_of(model, (fact,))
        for measure in (OverfitOfAll(), PortabilityOfAll(), CounterFactPlusOfAll(), SaysItOfAll(), OfAll()):
            assert measure(inputs, quiet) is not None
    assert 0 < taken < 4
    model.write([])
