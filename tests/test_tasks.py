"""Tasks as data: this project's own, GLUE's, and a user's file."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas
import pytest

from editlab.measures.tasks import BY_NAME, GLUE_EXAMPLES, OURS, load_tasks, read_task

ANIMALS: dict[str, Any] = {
    "name": "animals",
    "title": "Animals",
    "note": "words for this test",
    "template": "Word: {word}\nAnimal?",
    "labels": ["No", "Yes"],
    "shots": [{"word": "stone", "label": 0}, {"word": "horse", "label": 1}],
    "examples": [{"word": "otter", "label": 1}, {"word": "chair", "label": 0}, {"word": "eel", "label": 1}],
}
SOURCE = {"file": "words", "split": "test"}
SHOTS = {"sst2": 4, "mrpc": 6, "cola": 6, "rte": 3}  # as many as the paper's


def write(folder: Path, **changes: Any) -> Path:
    file = folder / "animals.json"
    file.write_text(json.dumps({**ANIMALS, **changes}), encoding="utf-8")
    return file


def test_a_task_of_the_users_own(tmp_path: Path) -> None:
    task = load_tasks(extra=[write(tmp_path)])["animals"]
    assert task.prompt(task.examples[0]) == (
        "Word: stone\nAnimal? No\n\nWord: horse\nAnimal? Yes\n\nWord: otter\nAnimal?"
    )
    info = task.info()
    assert (info.name, info.title, info.n, info.note) == ("animals", "Animals", 3, "words for this test")
    assert info.chance == 2 / 3


def test_labels_are_read_from_the_last_to_the_first(tmp_path: Path) -> None:
    task = read_task(write(tmp_path))
    assert task.label_in(" Yes.\n") == 1
    assert task.label_in(" No, or Yes") == 1
    assert task.label_in("Nobody") == 0
    assert task.label_in(" yes") is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"template": ""}, "needs an object with the texts name, title and template"),
        ({"name": "a:generation"}, "name may have letters, digits, - and _, got 'a:generation'"),
        ({"labels": ["Yes"]}, "labels must be two or more words"),
        ({"labels": ["unable", "able"]}, "'unable' must come after 'able', which it contains"),
        ({"template": "{word.__class__}"}, "template must name its fields in braces"),
        ({"template": "Animal?"}, "template must name its fields in braces"),
        ({"template": "{word"}, "expected '}' before end of string"),
        ({"examples": []}, "needs at least one example"),
        ({"examples": {"word": "eel"}}, "examples must be a list"),
        ({"examples": [{"word": "eel", "label": 2}]}, "example 1 needs word and a label from 0 to 1, got .*eel"),
        ({"shots": [{"word": " ", "label": 1}]}, "shot 1 needs word"),
        ({"shots": [{"word": "eel", "label": True}]}, "shot 1 needs word"),
        ({"note": 3}, "note must be text"),
        ({"glue": "qnli"}, "say where GLUE is"),
        ({"examples": [{"word": "eel", "label": 0, "options": ["No", "Yes"]}]}, "not both"),
        ({"labels": [], "examples": [{"word": "e", "label": 0, "options": ["No"]}], "shots": []}, "1 needs options"),
        ({"labels": [], "examples": [{"word": "e", "label": 2, "options": ["a", "b"]}], "shots": []}, "from 0 to 1"),
        ({"rules": ["guessing"]}, "rules must be among scores, generation"),
        ({"rules": [["scores"]]}, "rules must be among scores, generation"),
        ({"source": {"file": "x"}}, "source needs the texts file and split"),
        ({"source": SOURCE}, "fields must say"),
        ({"source": SOURCE, "fields": {"word": "w"}}, "label must say"),
        ({"source": SOURCE, "fields": {"word": "w"}, "label": "y", "sample": 0}, "above 0"),
        ({"source": SOURCE, "fields": {"word": "w"}, "label": "y"}, "say where they are, 'hub' or a folder"),
        (
            {"source": SOURCE, "fields": {"w": "w"}, "label": "y"},
            "fields must say where a row has word, which the template",
        ),
        ({"source": SOURCE, "fields": {"word": "w"}, "label": {"value": 3, "among": "y"}}, "label must say"),
        (
            {"source": SOURCE, "fields": {"word": "w"}, "label": "y", "shots": {"split": "train", "n": -1}},
            "say where they are|shots must be examples, or a split and n",
        ),
        ({"name": "sentiment"}, "two tasks are called 'sentiment'"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_tasks(extra=[write(tmp_path, **changes)])


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{", encoding="utf-8")
    for name in ("x.json", "missing.json"):
        with pytest.raises(ValueError, match=f"cannot read a task from .*{name}"):
            read_task(tmp_path / name)


def test_without_glue_there_are_the_projects_own() -> None:
    assert list(load_tasks()) == ["sentiment", "paraphrase", "questions"]


def rows(name: str, n: int) -> list[dict[str, Any]]:
    fields = ("sentence",) if name in ("sst2", "cola") else ("sentence1", "sentence2")
    return [{**{field: f"{field} {i}" for field in fields}, "label": int(i % 3 == 0), "idx": i} for i in range(n)]


def test_glue_is_balanced_and_always_the_same(tmp_path: Path) -> None:
    for name in SHOTS:
        (tmp_path / f"{name}.json").write_text(json.dumps(rows(name, 500)), encoding="utf-8")
    tasks, again = load_tasks(str(tmp_path)), load_tasks(str(tmp_path))
    assert tuple(tasks) == OURS
    for name, shots in SHOTS.items():
        assert len(tasks[name].shots) == shots
        assert Counter(e.label for e in tasks[name].examples) == {0: GLUE_EXAMPLES / 2, 1: GLUE_EXAMPLES / 2}
        assert tasks[name].examples == again[name].examples
        assert len({tuple(e.fields.values()) for e in tasks[name].examples}) == GLUE_EXAMPLES
        assert (tasks[name].info().chance, tasks[name].info().chance_f1) == pytest.approx((1 / 2, 1 / 3))


def test_glue_as_it_is_shipped(tmp_path: Path) -> None:
    """Tab-separated, with every subset's own columns."""
    (tmp_path / "sst2.tsv").write_text("sentence\tlabel\nit's \" fine\t1\nbad\t0\n", encoding="utf-8")
    (tmp_path / "mrpc.tsv").write_text(
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tA.\tB.\n", encoding="utf-8"
    )
    (tmp_path / "cola.tsv").write_text("gj04\t1\t\tShe left.\ngj04\t0\t*\tLeft she.\n", encoding="utf-8")
    (tmp_path / "rte.tsv").write_text(
        "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n1\tC.\tD.\tentailment\n", encoding="utf-8"
    )
    tasks = load_tasks(str(tmp_path))
    found = {name: {tuple(e.fields.values()): e.label for e in tasks[name].examples} for name in SHOTS}
    assert found == {
        "sst2": {('it\'s " fine',): 1, ("bad",): 0},
        "mrpc": {("A.", "B."): 1},
        "cola": {("She left.",): 1, ("Left she.",): 0},
        "rte": {("A.", "B."): 1, ("C.", "D."): 0},
    }  # fmt: skip


def test_the_same_from_every_kind_of_file(tmp_path: Path) -> None:
    import pandas

    frame = pandas.DataFrame(rows("sst2", 30))
    made = {
        "json": lambda path: frame.to_json(path, orient="records"),
        "jsonl": lambda path: frame.to_json(path, orient="records", lines=True),
        "tsv": lambda path: frame.to_csv(path, sep="\t", index=False),
        "parquet": frame.to_parquet,
    }
    read = []
    for kind, save in made.items():
        folder = tmp_path / kind
        folder.mkdir()
        save(folder / f"sst2.{kind}")
        read.append(load_tasks(str(folder))["sst2"])
    assert all(task == read[0] for task in read)


def test_a_users_task_may_take_its_examples_from_glue(tmp_path: Path) -> None:
    (tmp_path / "qnli.json").write_text(json.dumps([{"word": "eel", "label": 1}, {"word": "rug", "label": 0}]))
    values = copy.deepcopy(ANIMALS)
    del values["examples"]
    (tmp_path / "mine.json").write_text(json.dumps({**values, "glue": "qnli"}))
    task = load_tasks(str(tmp_path), [tmp_path / "mine.json"])["animals"]
    assert {e.fields["word"] for e in task.examples} == {"eel", "rug"}
    (tmp_path / "mine.json").write_text(json.dumps({**values, "glue": "sst2"}))
    with pytest.raises(ValueError, match=r"mine.json: .* needs a file sst2\{.json,.jsonl"):
        load_tasks(str(tmp_path), [tmp_path / "mine.json"])


def test_a_folder_of_glue_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="GLUE must be 'hub' or a folder that exists"):
        load_tasks(str(tmp_path / "nowhere"))


# --- examples with options of their own, and published data sets ---

PUBLISHED = {  # rows as the data sets have them
    "mmlu": lambda i: {"question": f"Q{i}?", "subject": "s", "choices": [f"{c}{i}" for c in "wxyz"], "answer": i % 4},
    "hellaswag": lambda i: {"ctx": f"He {i}", "endings": [f"goes {c} {i}." for c in "wxyz"], "label": str(i % 4)},
    "boolq": lambda i: {"passage": f"P{i}." * (300 if i % 10 == 0 else 1), "question": f"is {i}", "answer": i % 2 == 0},
    "arc_easy": lambda i: {
        "question": f"Q{i}?",
        "choices": {"text": ["a", "b", "c", "d"], "label": ["1", "2", "3", "4"] if i % 2 else ["A", "B", "C", "D"]},
        "answerKey": "3" if i % 2 else "B",
    },
}


@pytest.mark.parametrize("name", BY_NAME)
def test_published_data_sets_are_read_as_they_are(tmp_path: Path, name: str) -> None:
    made = [PUBLISHED[name](i) for i in range(300)]
    (tmp_path / f"{name}.json").write_text(json.dumps(made), encoding="utf-8")
    task, again = (load_tasks(str(tmp_path), [name])[name] for _ in range(2))
    assert task == again
    assert len(task.examples) == 200
    assert len(task.shots) == (4 if name == "boolq" else 5)
    assert not set(map(str, task.shots)) & set(map(str, task.examples))
    (tmp_path / "parquet").mkdir()
    pandas.DataFrame(made).to_parquet(tmp_path / "parquet" / f"{name}.parquet")
    assert load_tasks(str(tmp_path / "parquet"), [name])[name] == task
    assert task.rules == ("scores",)
    words = task.words(task.examples[0])
    assert len(words) == (2 if name == "boolq" else 4)
    example, prompt = task.examples[0], task.prompt(task.examples[0])
    text = prompt.split("\n\n")[-1]
    if name == "boolq":
        assert int(example.fields["question"].split()[1]) % 2 == (0 if words[example.label] == "yes" else 1)
        assert len(text) < 1000  # the long passages are left out
    elif name == "mmlu":
        n = int(example.fields["question"][1:-1])
        assert text == f"Question: Q{n}?\nA. w{n}\nB. x{n}\nC. y{n}\nD. z{n}\nAnswer:"
        assert example.label == n % 4
    elif name == "arc_easy":
        assert example.label == (2 if int(example.fields["question"][1:-1]) % 2 else 1)
        assert task.chance[0] == 0.25
    else:
        assert words[example.label] == f"goes {'wxyz'[example.label]} {example.fields['context'].split()[1]}."
    (tmp_path / f"{name}-{'dev' if name == 'mmlu' else 'train'}.jsonl").write_text(
        "\n".join(json.dumps(PUBLISHED[name](i)) for i in range(1001, 1009)), encoding="utf-8"
    )
    shots = load_tasks(str(tmp_path), [name])[name].shots
    assert all("100" in next(iter(shot.fields.values())) for shot in shots)


def test_a_published_data_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"task file mmlu.json: needs a file mmlu\{"):
        load_tasks(str(tmp_path), ["mmlu"])
    (tmp_path / "mmlu.json").write_text(json.dumps([{"question": "?", "choices": ["a"], "answer": 0}]))
    with pytest.raises(ValueError, match=r"a row has nothing at 'choices\.1'"):
        load_tasks(str(tmp_path), ["mmlu"])


def test_the_projects_own_questions_are_forty_in_balance() -> None:
    task = load_tasks()["questions"]
    assert (len(task.examples), len(task.shots), task.chance[0], task.rules) == (40, 4, 0.25, ("scores",))
    assert Counter(example.label for example in task.examples) == dict.fromkeys(range(4), 10)
    asked = [example.fields["question"] for example in (*task.shots, *task.examples)]
    assert len(set(asked)) == 44
    assert all(len(set(example.options)) == 4 for example in task.examples)
    assert task.prompt(task.examples[0]).startswith("Question: Which of these can fly?\nAnswer: a sparrow\n\n")
