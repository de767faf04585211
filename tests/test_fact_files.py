"""Files of facts: every schema as it is published, every format, what is left out, and what is no file of facts."""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from editlab.core.fact_files import COLUMNS, FactFile, SkippedRow, facts_in, facts_of, facts_of_row, read_facts
from editlab.core.facts import Fact
from editlab.core.record import plain, typed
from tests.conftest import attempt

FACT = Fact(
    "The mother tongue of {} is",
    "Ada Example",
    "English",
    "French",
    ("Ada Example spoke the language",),
    ("The mother tongue of Bea Example is",),
    case_id=7,
)
TRUTHS = [["French"]]
COUNTERFACT = {
    "case_id": 7,
    "pararel_idx": 3,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "English", "id": "Q1"},
        "target_true": {"str": "French", "id": "Q2"},
        "subject": "Ada Example",
    },
    "paraphrase_prompts": ["Ada Example spoke the language"],
    "neighborhood_prompts": ["The mother tongue of Bea Example is"],
    "attribute_prompts": ["The mother tongue of Cy Example is"],
    "generation_prompts": ["Ada Example's home is"],
}
FLAT = {
    "case_id": 7,
    "prompt": "The mother tongue of Ada Example is",
    "subject": "Ada Example",
    "target_new": "English",
    "ground_truth": "French",
    "rephrase_prompt": "Ada Example spoke the language",
    "locality_prompt": "The mother tongue of Bea Example is",
    "locality_ground_truth": "French",
}
ZSRE = {
    "subject": "Ada Example",
    "src": "The mother tongue of Ada Example is",
    "pred": "Dutch",
    "rephrase": "Ada Example spoke the language",
    "alt": "English",
    "answers": ["French", "français"],
    "loc": "nq question: who sang it first",
    "loc_ans": "Bea Example",
    "cond": "Dutch >> English || The mother tongue of Ada Example is",
}
KNOWEDIT = {
    "prompt": "The mother tongue of Ada Example is",
    "subject": "Ada Example",
    "target_new": "English",
    "ground_truth": [["French", "français"]],
    "rephrase_prompt": "Ada Example spoke the language",
    "locality": {
        "Relation_Specificity": [
            {"prompt": "The mother tongue of Bea Example is", "ground_truth": [["français", "French"]]},
            {"prompt": "The home of Ada Example is", "ground_truth": [["Lyon"]]},
        ]
    },
    "portability": {"Reasoning": [{"prompt": "The alphabet of Ada Example is", "ground_truth": [["Latin"]]}]},
}
QAEDIT = {
    "id": 1104,
    "source": "NQ",
    "prompt": "what is the mother tongue of ada example?",
    "target": "English",
    "subject": "ada example",
    "rephrase": "Which language did Ada Example speak first?",
    "locality": [{"loc": "who sang it first", "loc_ans": "Bea"}],
}
EVOKE = {
    **COUNTERFACT,
    "portability": {"New Question": "?", "New Answer": "!"},
    "prefix_distraction": ["Ada Example spoke English. Bea spoke"],
}
REWRITE = COUNTERFACT["requested_rewrite"]
MQUAKE = {
    "case_id": 1,
    "requested_rewrite": [
        {**REWRITE, "question": "Which language?"},
        {"subject": "England", "prompt": "{} is in", "target_new": {"str": "Asia"}, "target_true": {"str": "Europe"}},
    ],
    "questions": ["Where is the mother tongue of Ada Example spoken?"],
    "answer": "France",
    "new_answer": "Asia",
}  # fmt: skip


def one(row: Any) -> Fact:
    (fact,), _ = facts_of_row(row)
    return fact


def unused(row: Any) -> list[str]:
    return facts_of_row(row)[1]


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


# --- rows as they are published ---


def test_counterfact_in_both_schemas_is_the_same_fact() -> None:
    original = one(COUNTERFACT)
    assert one(FLAT) == FACT
    assert original == Fact(**{**FACT.to_json(), "relation": "P103", "generation_prompts": ("Ada Example's home is",)})
    assert unused(FLAT) == []
    assert unused(COUNTERFACT) == ["pararel_idx", "attribute_prompts"]


@pytest.mark.parametrize("chosen", ["auto", "blank", "nothing"])
def test_what_joins_an_object_to_its_prompt_is_kept_in_every_form(tmp_path: Path, chosen: str) -> None:
    fact = replace(FACT, joined_by=chosen)
    assert Fact.from_json(json.loads(json.dumps(fact.to_json()))) == fact
    assert typed(Fact, plain(fact)) == fact
    (tmp_path / "facts.json").write_text(json.dumps([fact.to_json()]))
    (tmp_path / "facts.csv").write_text(f"prompt,subject,target_new,joined_by\n{{}} is in,Rome,Italy,{chosen}\n")
    assert read_facts(tmp_path / "facts.json")[0] == fact
    assert read_facts(tmp_path / "facts.csv")[0].joined_by == chosen
    older = {name: value for name, value in fact.to_json().items() if name != "joined_by"}
    assert one(older) == typed(Fact, older) == FACT


@pytest.mark.parametrize("wrong", ["none", 3, ["blank"], {"str": "blank"}])
def test_a_row_with_an_unknown_joint_is_left_out(tmp_path: Path, wrong: object) -> None:
    (tmp_path / "facts.json").write_text(json.dumps([{**FACT.to_json(), "joined_by": wrong}, FACT.to_json()]))
    found = read_facts(tmp_path / "facts.json")
    assert list(found) == [FACT]
    assert "joined_by must be one of auto, blank, nothing" in found.skipped[0].reason


def test_zsre() -> None:
    fact = one(ZSRE)
    assert (fact.text, fact.target_new, fact.target_true) == (ZSRE["src"], "English", "French")
    assert fact.paraphrase_prompts == FACT.paraphrase_prompts
    assert fact.neighborhood_prompts == ()  # its unrelated question has another answer
    assert unused(ZSRE) == ["pred", "loc", "cond"]


def test_knowedit() -> None:
    fact = one(KNOWEDIT)
    assert replace(fact, follow_ups=()) == Fact(**{**FACT.to_json(), "case_id": None})
    assert [each.kind for each in fact.follow_ups] == ["relation", "two_hops"]
    assert unused(KNOWEDIT) == []
    recent = without(KNOWEDIT, "ground_truth", "rephrase_prompt")
    assert one(recent).target_true is None
    neighbour = {"Relation_Specificity": KNOWEDIT["locality"]["Relation_Specificity"][:1]}
    assert unused({**recent, "locality": neighbour}) == ["locality"]


def test_qaedit() -> None:
    fact = one(QAEDIT)
    assert (fact.prompt, fact.subject, fact.target_new) == (
        "what is the mother tongue of {}?",
        "ada example",
        "English",
    )
    assert (fact.paraphrase_prompts, fact.case_id) == ((QAEDIT["rephrase"],), 1104)
    assert unused(QAEDIT) == ["source", "locality"]


def test_evoke() -> None:
    fact = one(EVOKE)
    assert replace(fact, follow_ups=()) == one(COUNTERFACT)
    assert [(each.kind, each.prompt, each.answer) for each in fact.follow_ups] == [("two_hops", "?", "!")]
    assert "prefix_distraction" in unused(EVOKE)
    label = {**without(REWRITE, "relation_id"), "relation_label": "MOTHER TONGUE"}
    assert one({"case_id": 0, "requested_rewrite": label, "relation_specificity": {}}).relation == "MOTHER TONGUE"


def test_mquake_is_a_batch() -> None:
    facts, _ = facts_of_row(MQUAKE)
    assert [str(fact) for fact in facts] == ["The mother tongue of Ada Example is → English", "England is in → Asia"]
    file = facts_in(enumerate([FLAT, MQUAKE, ZSRE], 1), "three rows")
    assert [len(batch) for batch in file.batches] == [1, 2, 1]
    assert file.batches[1] == tuple(facts)
    assert {fact.case_id for fact in facts} == {1}


def test_what_editlab_writes_is_read() -> None:
    assert one(FACT.to_json()) == FACT
    assert one({"before": {"p_new": 0.1}, "fact": FACT.to_json(), "method": "rome", "model": {}}) == FACT


@pytest.mark.parametrize("name", ["ground_truth", "target_true", "answers"])
@pytest.mark.parametrize("truth", [[], [""], [[]], [None], None, "", "  ", float("nan"), {"str": ""}])
def test_a_true_object_may_be_missing_in_every_way(name: str, truth: Any) -> None:
    row = without(FLAT, "ground_truth", "locality_ground_truth")
    assert one(row).target_true is None
    assert one({**row, name: truth}).target_true is None


@pytest.mark.parametrize(
    "truth", ["French", " French ", ["French", "Dutch"], TRUTHS, ["", "French"], {"str": "French"}]
)
def test_a_true_object_may_be_written_in_every_way(truth: Any) -> None:
    assert one({**without(FLAT, "locality_ground_truth"), "ground_truth": truth}) == FACT


@pytest.mark.parametrize(
    ("number", "text"), [(1889, "1889"), (1889.0, "1889"), (-3, "-3"), (2.5, "2.5"), ([1889, "x"], "1889")]
)
def test_an_object_that_is_a_number_is_its_text(number: Any, text: str) -> None:
    other = without(FLAT, "ground_truth", "locality_ground_truth")
    assert one({**other, "target_new": number}).target_new == text
    fact = one({**FLAT, "ground_truth": number, "locality_ground_truth": number})
    assert (fact.target_true, fact.neighborhood_prompts) == (text, FACT.neighborhood_prompts)
    asked = {"Reasoning": [{"prompt": "Ada Example was born in", "ground_truth": number}]}
    assert [each.answer for each in one({**FLAT, "portability": asked}).follow_ups] == [text]


@pytest.mark.parametrize("column", ["target_new", "ground_truth", "locality_ground_truth"])
@pytest.mark.parametrize("cell", [True, float("inf"), b"French", [b"French"], {"str": b"French"}])
def test_an_object_that_is_no_text_is_told(column: str, cell: Any) -> None:
    with pytest.raises(ValueError, match="object must be text, got"):
        one({**FLAT, column: cell})


@pytest.mark.parametrize("name", ["paraphrase_prompts", "rephrase_prompt", "rephrase"])
@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("a text", ("a text",)),
        (["a", "b"], ("a", "b")),
        (None, ()),
        ("", ()),
        ([], ()),
        ([None, "", "a"], ("a",)),
        ("{} too", ("Ada Example too",)),
    ],
)
def test_paraphrases_may_be_one_text_or_several_or_none(name: str, told: Any, kept: tuple[str, ...]) -> None:
    assert one({**without(FLAT, "rephrase_prompt"), name: told}).paraphrase_prompts == kept


def test_neighbours_are_those_with_the_same_right_answer() -> None:
    assert one(without(FLAT, "locality_ground_truth")) == FACT  # at its word
    other = {**FLAT, "locality_ground_truth": "Dutch"}
    assert one(other).neighborhood_prompts == ()
    assert unused(other) == ["locality_prompt"]
    many = {**FLAT, "locality_prompt": ["x is", "y is"], "locality_ground_truth": ["French"]}
    assert one(many).neighborhood_prompts == ("x is", "y is")
    each = {"locality_prompt": ["x is", "y is"], "locality_ground_truth": ["Dutch", ["French", "x"]]}
    assert one({**FLAT, **each}).neighborhood_prompts == ("y is",)  # each has its own answer
    table = {"neighborhood": {"prompt": ["x is", "y is"], "ground_truth": ["French", "Dutch"]}}
    assert one({**without(FLAT, *each), "locality": table}).neighborhood_prompts == ("x is",)
    pairs = [{"prompt": "x is", "target": "French"}, {"prompt": "y is", "target": "Dutch"}, "z is"]
    assert one({**COUNTERFACT, "neighborhood_prompts": pairs}).neighborhood_prompts == ("x is", "z is")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (without(FLAT, "subject"), "the row lacks subject"),
        (without(FLAT, "target_new"), "the row lacks target_new or alt or target"),
        ({**FLAT, "prompt": ""}, "the row lacks prompt or src"),
        ({}, "the row lacks prompt or src, subject, target_new or alt or target; it has nothing"),
        ({**FLAT, "subject": "Rio Grande 463"}, "'Rio Grande 463' must occur in the prompt"),
        ({**FLAT, "subject": 3}, "subject must be text, got 3"),
        ({**FLAT, "case_id": 1.5}, "case_id must be a whole number"),
        ({**FLAT, "rephrase_prompt": [3]}, "rephrase_prompt must be a text or a list of texts, got 3 in it"),
        ({**FLAT, "target_new": "French"}, "must differ"),
        ({**COUNTERFACT, "requested_rewrite": ["x"]}, "requested_rewrite must hold objects, got a text"),
        (["a", "b"], "a row must be an object with named columns, got a list"),
        (None, "a row must be an object with named columns, got nothing"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(row: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        facts_of_row(row)


def test_ids_that_are_no_numbers_are_kept() -> None:
    assert one({**FLAT, "case_id": "Q42"}).case_id == "Q42"
    assert one({**FLAT, "case_id": 7.0}).case_id == one({**FLAT, "case_id": "7.0"}).case_id == 7
    assert one({**without(FLAT, "case_id"), "id": "nq-3"}).case_id == "nq-3"


# --- files in every format ---

ROWS = [FLAT, {**FLAT, "case_id": "Q42", "subject": "Rio", "prompt": "Rio, or Río,\n is in"}]


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    told = [{k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()} for row in rows]
    writer.writerows(told)
    return text.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pandas.DataFrame([{**row, "case_id": str(row["case_id"])} for row in rows]).to_parquet(file)
    return file.getvalue()


FORMATS = {
    "facts.json": json.dumps(ROWS).encode(),
    "pretty.json": json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
    "facts.jsonl": "\n".join(json.dumps(row) for row in ROWS).encode(),
    "lines.json": "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode(),
    "run.json": json.dumps({"facts": [one(row).to_json() for row in ROWS], "method": "rome"}).encode(),
    "facts.csv": as_csv(ROWS),
    "semicolons.csv": as_csv(ROWS, ";"),
    "facts.tsv": as_csv(ROWS, "\t"),
    "facts.parquet": as_parquet(ROWS),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_same_facts(name: str, mark: bytes, zipped: bool, tmp_path: Path) -> None:
    content = FORMATS[name] if name.endswith("parquet") else mark + FORMATS[name]
    path = tmp_path / (name + ".gz" * zipped)
    path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
    file = read_facts(path)
    assert list(file) == [one(row) for row in ROWS]
    assert (file.skipped, file.notice, file.name) == ((), "", path.name)


def test_lists_and_objects_in_csv_and_parquet(tmp_path: Path) -> None:
    rows = [without(COUNTERFACT, "pararel_idx", "attribute_prompts"), {**COUNTERFACT, "case_id": 8}]
    for name, content in (
        ("facts.csv", as_csv([rows[0], without(rows[1], "pararel_idx", "attribute_prompts")])),
        ("facts.parquet", as_parquet(rows)),
    ):
        (tmp_path / name).write_bytes(content)
        assert list(read_facts(tmp_path / name)) == [one(row) for row in rows]  # fmt: skip


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("['Ann plays', \"it's Ann\"]", ("Ann plays", "it's Ann")),  # as Python writes it, and pandas with it
        ('["Ann plays"]', ("Ann plays",)),
        ("[sic] Ann plays", ("[sic] Ann plays",)),
        ("[1 + 1]", ("[1 + 1]",)),
        ("[" * 5_000, None),
    ],
)
def test_a_list_in_a_cell_of_csv(tmp_path: Path, cell: str, texts: tuple[str, ...] | None) -> None:
    (tmp_path / "facts.csv").write_bytes(as_csv([{**FLAT, "paraphrase_prompts": cell}]))
    if texts is None:
        with pytest.raises(ValueError, match="at most 2000 characters"):
            read_facts(tmp_path / "facts.csv")
    else:
        assert read_facts(tmp_path / "facts.csv")[0].paraphrase_prompts == texts


def test_one_object_is_a_file_of_one_row(tmp_path: Path) -> None:
    (tmp_path / "edit.json").write_text(json.dumps({"before": {}, "fact": FACT.to_json(), "seconds": 1.5}, indent=2))
    file = read_facts(tmp_path / "edit.json")
    assert (file[0], len(file), file[:1]) == (FACT, 1, (FACT,))


@pytest.mark.parametrize(("name", "content"), [("a.json", "[]"), ("a.csv", "prompt,subject,target_new\n")])
def test_a_file_without_rows_has_no_facts(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    file = read_facts(tmp_path / name)
    assert (len(file), file.notice, file.batches) == (0, "", ())


def test_usable_rows_are_taken_and_the_others_listed(tmp_path: Path) -> None:
    path = tmp_path / "zsre.json"
    rows = [ZSRE, {**ZSRE, "subject": "Rio Grande 463"}, "no row", ZSRE, *[{}] * 3]
    path.write_text(json.dumps(rows))
    file = read_facts(path)
    assert len(file) == 2
    assert [skipped.row for skipped in file.skipped] == [2, 3, 5, 6, 7]
    assert file.skipped[0].reason.startswith("the subject 'Rio Grande 463' must occur in the prompt")
    assert file.notice.startswith("zsre.json: 5 of 7 rows were left out (row 2: the subject 'Rio Grande 463'")
    assert "; and 2 more); not read: pred, loc, cond" in file.notice


def test_a_damaged_line_is_a_row_that_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(f"{json.dumps(FLAT)}\n\n{json.dumps(FLAT)[:40]}\n{json.dumps(FLAT)}\n")
    file = read_facts(path)
    assert len(file) == 2
    assert file.skipped[0].row == 3
    assert file.skipped[0].reason.startswith("not JSON: ")
    path = tmp_path / "facts.csv"
    path.write_bytes(as_csv([FLAT]) + b"a,b,c,d,e,f,g,h,i,j\r\n")
    assert read_facts(path).skipped == (SkippedRow(2, "the row has more cells than the header"),)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", b"", "is empty"),
        ("a.json", b" \n", "is empty"),
        ("a.json", b"{", "is not a JSON file"),
        ("a.json", b"[" * 100_000, "is not a JSON file: it is nested too deep"),
        ("a.json", b"[" + b"9" * 5_000 + b"]", "is not a JSON file"),
        ("a.json", json.dumps([FLAT]).encode()[:-30], "is not a JSON file"),
        ("a.json", b"<!DOCTYPE html><title>404</title>", "is not a JSON file, nor JSON Lines, CSV"),
        ("a.json", b"\x80abc", "is not text in UTF-8"),
        ("a.json", b'{"a": 1}', "holds no fact that can be used: row 1: the row lacks prompt"),
        ("a.json", b'[{"a": 1}, 2, 3, 4]', r"row 1: the row lacks .*; row 2: a row must be .* got 2; .*; and 1 more"),
        ("a.json.gz", gzip.compress(b"[]", mtime=0)[:-9], "is a damaged gzip file"),
        ("a.json.gz", b"\x1f\x8b broken", "is a damaged gzip file"),
        ("a.csv", b"a,b\n1,2\n", "row 1: the row lacks prompt"),
        ("a.csv", b'a,b\n"1,2\n', "is not a CSV file: line"),
        ("a.csv", b"prompt,prompt ,a\n1,2,3\n", "has several columns called 'prompt'"),
        ("a.parquet", as_parquet(ROWS)[:-20], "is a damaged Parquet file"),
        ("a.parquet", b"PAR1", "is a damaged Parquet file"),
    ],
)
def test_files_that_are_none_are_told_apart(name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        read_facts(tmp_path / name)
    assert name in str(error.value)


def test_places_where_no_file_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file of facts"):
        read_facts(tmp_path / "none.json")
    with pytest.raises(ValueError, match="is a folder"):
        read_facts(tmp_path)
    with pytest.raises(ValueError, match="null byte"):
        read_facts("a\0b")


def test_the_projects_own_facts_are_all_used() -> None:
    file = facts_of(None)
    assert file.name == "editlab’s own facts"
    assert file.notice == ""


def test_real_files_are_read(test_data: Path) -> None:
    def read(name: str) -> FactFile:
        return read_facts(test_data / name)

    flat = read("counterfact/counterfact-val.json")
    assert (len(flat), flat.notice) == (1919, "")
    assert all(fact.neighborhood_prompts and fact.target_true for fact in flat)
    original = read("counterfact/counterfact-full-schema-250.json")
    assert len(original) == 250
    assert all(fact.neighborhood_prompts and fact.relation for fact in original)
    evoke = read("evoke/evoke-120.json")
    assert (len(evoke), sum(bool(fact.follow_ups) for fact in evoke), evoke.unused["portability"]) == (120, 92, 28)
    assert evoke.unused["prefix_distraction"] == 120
    assert len(read("evoke/evoke-subject-120.json")) == 120
    questions = read("qaedit/qaedit-200.json")
    assert [len(questions), *(skipped.row for skipped in questions.skipped)] == [199, 187]
    assert all(len(fact.paraphrase_prompts) == 1 for fact in questions)
    with pytest.raises(ValueError, match="row 1: the row lacks target_new"):
        read("known/known_1000.json")


# --- any rows at all ---

texts = st.sampled_from(
    ["Ada Example", "The mother tongue of Ada Example is", "French", "{}", "", "\ud800", "x" * 2_500]
)
texts |= st.text(st.characters(), max_size=20)
scalars = texts | st.none() | st.booleans() | st.integers() | st.floats()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["str", "prompt", "ground_truth", "loc", "loc_ans", "value"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
SCHEMAS = [COUNTERFACT, FLAT, ZSRE, KNOWEDIT, QAEDIT, EVOKE, MQUAKE, FACT.to_json(), {"fact": FACT.to_json()}]
NAMES = sorted({name for names in COLUMNS.values() for name in names} | {"requested_rewrite", "fact", "loc_ans"})


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A row of some schema in which some cells, of the row or of its rewrite, are anything."""
    row = json.loads(json.dumps(draw(st.sampled_from(SCHEMAS))))
    for _ in range(draw(st.integers(0, 3))):
        table = row
        inner = row.get("requested_rewrite", row.get("fact"))
        if isinstance(inner, dict) and draw(st.booleans()):
            table = inner
        table[draw(st.sampled_from(NAMES) | st.sampled_from(sorted(table) or NAMES))] = draw(values)
    return row


@given(damaged() | values)
def test_any_row_gives_facts_or_a_sentence(row: Any) -> None:
    found = attempt(facts_of_row, row)
    if not isinstance(found, str):
        facts, _ = found
        assert facts
        for fact in facts:
            assert Fact.from_json(json.loads(json.dumps(fact.to_json()))) == fact


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(FORMATS)),
    holes=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), min_size=1, max_size=4),
    end=st.floats(0, 1),
    zipped=st.booleans(),
)
def test_any_damage_to_a_file_gives_facts_or_a_sentence(
    name: str, holes: list[tuple[float, bytes]], end: float, zipped: bool, tmp_path: Path
) -> None:
    content = bytearray(gzip.compress(FORMATS[name], mtime=0) if zipped else FORMATS[name])
    for place, put in holes:
        at = int(place * len(content))
        content[at : at + len(put)] = put
    path = tmp_path / name
    path.write_bytes(content[: int((1 - end**4) * len(content))])
    file = attempt(read_facts, path)
    assert name in file if isinstance(file, str) else file.facts or not file.skipped
