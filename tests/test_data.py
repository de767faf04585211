"""What the project's own data sets in data/ must hold, whatever model reads them."""

import json
from collections import Counter
from pathlib import Path

import pytest

from editlab.core.fact_files import read_facts
from editlab.core.facts import Fact

DATA = Path(__file__).parents[1] / "data"
SENTENCES = {"sentiment": ("sentence",), "paraphrase": ("sentence1", "sentence2")}


@pytest.fixture(scope="module")
def facts() -> list[Fact]:
    return read_facts(DATA / "facts.json")


def read_task(name: str) -> dict:
    return json.loads((DATA / "tasks" / f"{name}.json").read_text(encoding="utf-8"))


def test_enough_facts_over_enough_relations(facts):
    relations = Counter(fact.relation for fact in facts)
    assert len(facts) >= 150
    assert len(relations) >= 15
    assert None not in relations
    assert max(relations.values()) <= len(facts) / 10, "no relation dominates"


def test_rows_are_in_counterfacts_original_schema():
    for row in json.loads((DATA / "facts.json").read_text(encoding="utf-8")):
        assert set(row) == {
            "case_id",
            "requested_rewrite",
            "paraphrase_prompts",
            "neighborhood_prompts",
            "generation_prompts",
        }
        rewrite = row["requested_rewrite"]
        assert set(rewrite) == {"prompt", "relation_id", "target_new", "target_true", "subject"}
        assert set(rewrite["target_new"]) == set(rewrite["target_true"]) == {"str"}


def test_case_ids_count_up_from_900001(facts):
    assert [fact.case_id for fact in facts] == list(range(900_001, 900_001 + len(facts)))


def test_no_fact_is_there_twice(facts):
    asked = Counter((fact.prompt, fact.subject) for fact in facts)
    assert [pair for pair, times in asked.items() if times > 1] == []


def test_objects_differ_and_do_not_contain_each_other(facts):
    for fact in facts:
        new, true = fact.target_new.lower(), fact.target_true.lower()
        assert new not in true, fact
        assert true not in new, fact


def test_every_object_is_new_for_its_subject(facts):
    true = {(fact.subject, fact.relation, fact.target_true) for fact in facts}
    assert not [fact for fact in facts if (fact.subject, fact.relation, fact.target_new) in true]


def test_each_fact_has_its_prompts_and_none_twice(facts):
    for fact in facts:
        assert len(fact.paraphrase_prompts) >= 2, fact
        assert len(fact.neighborhood_prompts) >= 3, fact
        assert len(fact.generation_prompts) >= 2, fact
        prompts = (fact.text, *fact.paraphrase_prompts, *fact.neighborhood_prompts, *fact.generation_prompts)
        assert len(set(prompts)) == len(prompts), fact


def test_paraphrases_and_generation_prompts_are_about_the_subject(facts):
    for fact in facts:
        for prompt in (*fact.paraphrase_prompts, *fact.generation_prompts):
            assert fact.subject in prompt, (fact, prompt)


def test_neighborhood_prompts_are_about_others(facts):
    for fact in facts:
        for prompt in fact.neighborhood_prompts:
            assert fact.subject.lower() not in prompt.lower(), (fact, prompt)


def test_no_prompt_ends_in_a_stop_or_gives_the_answer_away(facts):
    for fact in facts:
        for prompt in (fact.text, *fact.paraphrase_prompts, *fact.neighborhood_prompts):
            assert prompt[-1].isalnum() or prompt[-1] == ",", prompt
            assert not prompt.endswith(f" {fact.target_true}"), prompt


def test_subjects_stand_in_all_places(facts):
    first = [fact for fact in facts if fact.prompt.startswith("{}")]
    assert len(first) >= len(facts) / 4
    assert len(facts) - len(first) >= len(facts) / 4
    assert sum(" " not in fact.subject for fact in first) >= 10, (
        "single words at the start are what disabling edits need"
    )


@pytest.mark.parametrize(
    ("name", "examples", "shots"), [("sentiment", 80, 4), ("paraphrase", 60, 6)], ids=["sentiment", "paraphrase"]
)
class TestTasks:
    def test_size_and_balance(self, name, examples, shots):
        task = read_task(name)
        assert task["name"] == name
        assert task["license"] == "MIT"
        assert task["note"].strip()
        assert len(task["examples"]) >= examples
        assert len(task["shots"]) == shots
        for rows in (task["examples"], task["shots"]):
            labels = Counter(row["label"] for row in rows)
            assert set(labels) == {0, 1}
            assert labels[0] == labels[1]

    def test_labels_are_interleaved(self, name, examples, shots):
        labels = [row["label"] for row in read_task(name)["examples"]]
        assert all(len(set(labels[i : i + 4])) == 2 for i in range(len(labels) - 3)), "no four equal labels in a row"

    def test_nothing_blank_or_twice(self, name, examples, shots):
        task = read_task(name)
        fields = SENTENCES[name]
        texts = [tuple(row[field] for field in fields) for row in task["examples"]]
        for row in (*task["examples"], *task["shots"]):
            assert set(row) == {*fields, "label"}
            assert all(row[field] == row[field].strip() != "" for field in fields)
            assert all("\n" not in row[field] for field in fields)
        assert len(set(texts)) == len(texts)
        assert not set(texts) & {tuple(row[field] for field in fields) for row in task["shots"]}


def test_unequal_pairs_share_as_many_words_as_equal_ones():
    def overlap(row: dict) -> float:
        first, second = (set(row[field].lower().rstrip(".").split()) for field in SENTENCES["paraphrase"])
        return len(first & second) / len(first | second)

    by_label: dict[int, list[float]] = {0: [], 1: []}
    for row in read_task("paraphrase")["examples"]:
        by_label[row["label"]].append(overlap(row))
    means = {label: sum(values) / len(values) for label, values in by_label.items()}
    assert means[0] >= means[1], "word overlap alone must not solve the task"


def test_text_for_perplexity():
    text = (DATA / "perplexity.txt").read_text(encoding="utf-8")
    assert 900 <= len(text.split()) <= 1300
    assert text.count("\n\n") >= 5
    assert text == text.strip() + "\n"
