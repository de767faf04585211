"""Files of facts in the published data sets' schemas: JSON, JSON Lines, CSV and Parquet, gzipped or not.

One table, `COLUMNS`, maps columns to a fact's fields. A row that gives no fact is left out and listed with the reason.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, overload

from editlab.core.facts import CaseId, Fact, case_id_of
from editlab.core.follow_ups import follow_ups_in, paired
from editlab.core.joining import AUTO
from editlab.core.paths import resource
from editlab.core.record import Record
from editlab.core.rows import NoRows, json_rows, rows_in
from editlab.core.text import text_of

# The fields of a fact, and the columns that may hold them; the first column that is not empty counts.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "src"),
    "subject": ("subject",),
    "target_new": ("target_new", "alt", "target"),
    "target_true": ("target_true", "ground_truth", "answers"),
    "paraphrase_prompts": ("paraphrase_prompts", "rephrase_prompt", "rephrase"),
    "neighborhood_prompts": ("neighborhood_prompts", "locality_prompt", "loc", "locality"),
    "generation_prompts": ("generation_prompts",),
    "relation": ("relation", "relation_id", "relation_label"),
    "case_id": ("case_id", "id"),
    "joined_by": ("joined_by",),
}
# A prompt of `neighborhood_prompts` may be a table itself, or have its right answer in another column.
ANSWERS = {"locality_prompt": "locality_ground_truth", "loc": "loc_ans"}
NEIGHBOUR, ANSWER = ("prompt", "loc"), ("ground_truth", "loc_ans", "target", "answer")
WRAPPERS = ("requested_rewrite", "fact")  # columns that hold a row, or several, in the row
NEEDED = ("prompt", "subject", "target_new")
TOLD = 3  # reasons quoted in one sentence
NAMED = 10  # columns named in one sentence


@dataclass(frozen=True)
class SkippedRow(Record):
    """A row of a file that gives no fact."""

    row: int  # counted from 1; in JSON Lines the line's number
    reason: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.reason}"


@dataclass(frozen=True)
class FactFile(Sequence[Fact]):
    """The facts of a file, in the file's order, with the rows and columns that were not used."""

    name: str  # in words: "my-facts.json", "editlab's own facts"
    facts: tuple[Fact, ...]
    skipped: tuple[SkippedRow, ...] = ()
    unused: Mapping[str, int] = field(default_factory=dict)  # columns that are not read -> number of rows with them
    rows: tuple[int, ...] = ()  # the number of each fact's row

    @overload
    def __getitem__(self, index: int) -> Fact: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Fact, ...]: ...
    def __getitem__(self, index: int | slice) -> Fact | tuple[Fact, ...]:
        return self.facts[index]

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def batches(self) -> tuple[tuple[Fact, ...], ...]:
        """The facts of each row; several rewrites in one row belong in one edit."""
        pairs = groupby(zip(self.rows, self.facts, strict=True), key=lambda pair: pair[0])
        return tuple(tuple(fact for _, fact in group) for _, group in pairs)

    @property
    def notice(self) -> str:
        """A sentence about the rows and columns that were left out; "" if none were."""
        parts = []
        if self.skipped:
            count, total = len(self.skipped), len(self.skipped) + len(set(self.rows))
            parts.append(f"{count} of {total} rows {'was' if count == 1 else 'were'} left out ({_told(self.skipped)})")
        if self.unused:
            parts.append(f"not read: {_names(self.unused)}")
        return f"{self.name}: {'; '.join(parts)}" if parts else ""


def _told(skipped: Sequence[SkippedRow]) -> str:
    more = len(skipped) - TOLD
    return "; ".join(map(str, skipped[:TOLD])) + (f"; and {more} more" if more > 0 else "")


def _names(columns: Collection[str]) -> str:
    more = len(columns) - NAMED
    return ", ".join(list(columns)[:NAMED]) + (f" and {more} more" if more > 0 else "")


# --- where facts come from ---


def facts_of(source: str | Path | None) -> FactFile:
    """The facts of a source: "hub" is CounterFact, None the project's own, anything else a file. Raises ValueError."""
    if source is None:
        return replace(read_facts(resource("facts.json")), name="editlab’s own facts")
    return counterfact_from_hub() if source == "hub" else read_facts(source)


def counterfact_from_hub(split: str = "train") -> FactFile:
    """CounterFact from the Hugging Face hub (azhx/counterfact, the original schema); needs a network once."""
    from datasets import load_dataset

    return facts_in(enumerate(load_dataset("azhx/counterfact", split=split), 1), "CounterFact (Hugging Face hub)")


def read_facts(path: str | Path) -> FactFile:
    """The facts of a file: JSON, JSON Lines, CSV or Parquet, also gzipped, recognised by its content (CSV by name).

    Raises ValueError for a file that cannot be read, or that has rows but no usable one.
    """
    try:
        path = Path(path).expanduser()
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"no such file of facts: {path}") from None
    except IsADirectoryError:
        raise ValueError(f"a file of facts is needed, {path} is a folder") from None
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    try:
        return facts_in(rows_in(content, path.name), path.name)
    except NoRows as error:
        raise ValueError(f"{path} {error}") from None


def facts_in_text(text: str) -> FactFile:
    """The facts of a pasted text: rows of JSON as in a file, or a line for each, its parts separated by `|`.

    The parts are prompt, subject, new object and, if known, true object. Raises ValueError for a text without a usable
    fact; a blank text has none.
    """
    name = "the list"
    if not text.strip():
        return FactFile(name, ())
    if re.match(r"\s*(\[|\{\s*\")", text):
        try:
            return facts_in(json_rows(text), name)
        except NoRows as error:
            raise ValueError(f"{name} {error}") from None
    lines = ((number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())
    return facts_in(((number, _row_of_parts(line)) for number, line in lines), name)


def _row_of_parts(line: str) -> object:
    """The row of a line of parts; in its place a ValueError where it has too few or too many."""
    parts = [part.strip() for part in line.split("|")]
    if not 3 <= len(parts) <= 4:
        return ValueError(
            f"a line must be prompt | subject | new object, and perhaps | true object; got {len(parts)} "
            f"part{'s' if len(parts) > 1 else ''}"
        )
    return dict(zip(("prompt", "subject", "target_new", "target_true"), parts, strict=False))


# --- from rows to facts ---


def facts_in(rows: Iterable[tuple[int, object]], name: str) -> FactFile:
    """The facts of numbered rows. Raises ValueError if there are rows but none gives a fact."""
    facts: list[Fact] = []
    numbers: list[int] = []
    skipped: list[SkippedRow] = []
    unused: Counter[str] = Counter()
    for number, row in rows:
        try:
            found, ignored = facts_of_row(row)
        except ValueError as error:
            skipped.append(SkippedRow(number, str(error)))
        else:
            facts += found
            numbers += [number] * len(found)
            unused.update(ignored)
    if skipped and not facts:
        raise ValueError(f"{name} holds no fact that can be used: {_told(skipped)}")
    return FactFile(name, tuple(facts), tuple(skipped), dict(unused), tuple(numbers))


def facts_of_row(row: object) -> tuple[list[Fact], list[str]]:
    """The facts of one row, and the columns in it that were not used.

    A row with several rewrites (MQuAKE) gives several facts. Raises ValueError.
    """
    if isinstance(row, ValueError):  # the reader's error, in the place of a row
        raise row
    if not isinstance(row, Mapping):
        raise ValueError(f"a row must be an object with named columns, got {_kind(row)}")
    row = {_printable(name): value for name, value in _ripple(row).items() if not _empty(value)}
    wrapper = next((name for name in WRAPPERS if isinstance(row.get(name), Mapping | list | tuple)), None)
    if wrapper is None:
        rewrites: Sequence[Any] = [{}]
    else:
        held = row.pop(wrapper)
        rewrites = [held] if isinstance(held, Mapping) else held
    used: set[str] = set()
    facts = []
    for rewrite in rewrites:
        if not isinstance(rewrite, Mapping):
            raise ValueError(f"{wrapper} must hold objects, got {_kind(rewrite)}")
        facts.append(_fact({**row, **{name: value for name, value in rewrite.items() if not _empty(value)}}, used))
    # what follows from several rewrites follows from the last one, once the others are made
    facts[:-1] = [replace(fact, follow_ups=()) for fact in facts[:-1]]
    return facts, [name for name in row if name not in used]


def _fact(row: Mapping[str, Any], used: set[str]) -> Fact:
    """The fact of a row without wrappers; adds the names of the columns that it reads to `used`."""
    columns = {name: next((c for c in names if c in row), None) for name, names in COLUMNS.items()}
    if missing := [" or ".join(COLUMNS[name]) for name in NEEDED if columns[name] is None]:
        raise ValueError(f"the row lacks {', '.join(missing)}; it has {_names(row) or 'nothing'}")
    values = {name: row[column] for name, column in columns.items() if column is not None}
    subject = _one("subject", values["subject"]).strip()
    new, true = _first(values["target_new"]), _first(values.get("target_true"))
    if new is None:
        raise ValueError(f"new object must be text, got {_kind(values['target_new'])}")
    fact = Fact.typed(_one("prompt", values["prompt"]), subject, new, true)
    used.update(column for column in columns.values() if column is not None)

    def prompts(name: str) -> tuple[str, ...]:
        texts = _texts(str(columns[name]), values.get(name))
        return tuple(text.replace("{}", fact.subject) for text in texts)

    neighbours, dropped = _neighbours(row, columns["neighborhood_prompts"], fact.target_true, used)
    if dropped and not neighbours:
        used.discard(str(columns["neighborhood_prompts"]))
    relation = values.get("relation")
    return replace(
        fact,
        paraphrase_prompts=prompts("paraphrase_prompts"),
        neighborhood_prompts=tuple(neighbours),
        generation_prompts=prompts("generation_prompts"),
        relation=relation if relation is None or isinstance(relation, str) else str(relation),
        case_id=_case_id(values.get("case_id")),
        joined_by=values.get("joined_by", AUTO),
        follow_ups=follow_ups_in(row, used, subject),
    )


def _ripple(row: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """A row of RippleEdits in named columns; any other row as it is.

    Its edit is two whole sentences, "The name of the mother of Ann is Eve." and what was true: the prompt is what they
    begin with, up to " is ", and the subject follows the relation's words. Raises ValueError where that cannot be told.
    """
    edit = row.get("edit")
    if not isinstance(edit, Mapping) or not isinstance(original := edit.get("original_fact"), Mapping):
        return row
    new, true, relation = (str(x or "") for x in (edit.get("prompt"), original.get("prompt"), edit.get("relation")))
    differ = next((i for i, pair in enumerate(zip(new, true, strict=False)) if pair[0] != pair[1]), 0)
    end = new.rfind(" is ", 0, differ) + 3
    words = relation.replace("_", " ").casefold() + " of "
    at = new.casefold().find(words) + len(words)
    if end < 3 or at < len(words) or not new[at : end - 3].strip():
        raise ValueError(f"the subject of RippleEdits’ edit cannot be told from its sentence {new!r:.100}")
    rest = {name: value for name, value in row.items() if name != "edit"}
    prompt, subject = f"{new[:at]}{{}}{new[end - 3 : end]}", new[at : end - 3]
    target_new, target_true = (text[end:].strip().rstrip(".") for text in (new, true))
    named = {"prompt": prompt, "subject": subject, "target_new": target_new, "target_true": target_true}
    return {**rest, **named, "relation": relation}


def _neighbours(row: Mapping[str, Any], column: str | None, true: str | None, used: set[str]) -> tuple[list[str], int]:
    """The neighbours in a column, and the number that were dropped.

    Neighborhood success as the papers define it takes only neighbours whose right answer is the true object. A
    neighbour without an answer is kept.
    """
    if column is None:
        return [], 0
    pairs: list[tuple[str, Any]] = []
    if (answered := ANSWERS.get(column)) is not None:
        used.add(answered)
        answer = row.get(answered)
        pairs += [(text, right) for some, right in paired(row[column], answer) for text in _texts(column, some)]
    else:
        pairs += _pairs(column, row[column])
    kept = [prompt for prompt, answer in pairs if answer is None or (true and true in _answers(answer))]
    return kept, len(pairs) - len(kept)


def _pairs(column: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Prompts with their answers (None without one), at any depth of lists and tables."""
    if isinstance(value, str):
        yield value, None
    elif isinstance(value, Mapping):
        prompt = next((value[name] for name in NEIGHBOUR if name in value), None)
        if prompt is None:  # lists by kind: {"Relation_Specificity": [...]}
            for part in value.values():
                yield from _pairs(column, part)
        elif not _empty(prompt):
            answer = next((value[name] for name in ANSWER if name in value), None)
            for some, right in paired(prompt, answer):
                for text in _texts(column, some):
                    yield text, right
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _pairs(column, part)
    elif not _empty(value):
        raise ValueError(f"{column} must hold texts, got {_kind(value)}")


def _answers(value: Any) -> list[str]:
    """All texts in an answer (a text, a number, or lists of aliases), stripped. Raises ValueError for anything else."""
    if _empty(value):
        return []
    if isinstance(value, Mapping):
        return _answers(next((value[name] for name in ("str", "value") if name in value), None))
    if isinstance(value, list | tuple):
        return [text for part in value for text in _answers(part)]
    if (text := text_of(value)) is None:
        raise ValueError(f"an object must be text, got {_kind(value)}")
    return [text.strip()]


def _first(value: Any) -> str | None:
    """The first text of an answer; None if there is none."""
    return next(iter(_answers(value)), None)


def _one(name: str, value: Any) -> str:
    """The one text of a column: a text, an object's {"str": ...}, or the first text of a list."""
    if isinstance(value, str):
        return value
    text = _first(value) if isinstance(value, Mapping | list | tuple) else None
    if text is None:
        raise ValueError(f"{name} must be text, got {_kind(value)}")
    return text


def _texts(name: str, value: Any) -> list[str]:
    """The texts of a column that holds one, a list of them, or none."""
    parts = [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
    parts = [part for part in parts if not _empty(part)]
    if wrong := [part for part in parts if not isinstance(part, str)]:
        raise ValueError(f"{name} must be a text or a list of texts, got {_kind(wrong[0])} in it")
    return parts


def _case_id(value: Any) -> CaseId | None:
    """The case id in a cell; 7.0, as a table with gaps among its whole numbers has it, is 7."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}\.0", value.strip()):
        value = value.strip()[:-2]
    return case_id_of(int(value) if isinstance(value, float) and value.is_integer() else value)


def _empty(value: object) -> bool:
    """Whether a cell is empty: null, NaN, a blank text or an empty list."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value == [] or (isinstance(value, float) and math.isnan(value))


def _printable(name: object) -> str:
    """A column's name, without halves of surrogate pairs."""
    return str(name).encode(errors="replace").decode()


def _kind(value: object) -> str:
    names: Mapping[type, str] = {dict: "an object", list: "a list", str: "a text", type(None): "nothing"}
    return names.get(type(value), f"{value!r:.100}")
