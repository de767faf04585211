"""Facts to edit: typed by a user, or read from CounterFact in both of its public schemas.

Knows nothing of models or tokens; what only a tokenizer can check is in `EditableModel.check`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from editlab.core.paths import resource

MAX_PROMPT_CHARACTERS = 600
MAX_TARGET_CHARACTERS = 100


def _one_line(name: str, text: object, limit: int) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{name} must be text, got {type(text).__name__}")
    text = " ".join(text.split())
    if not text:
        raise ValueError(f"{name} must not be blank")
    if len(text) > limit:
        raise ValueError(f"{name} must be at most {limit} characters, got {len(text)}")
    return text


@dataclass(frozen=True)
class Fact:
    """One association to write: `prompt` with the subject in it should be continued by `target_new`.

    `prompt` holds ``{}`` exactly once, where `subject` goes. Targets are kept without the leading space.
    `target_true` is what the unedited model should say; paraphrases ask the same in other words, and
    neighborhood prompts ask the same of other subjects whose right answer is `target_true`.
    Raises ValueError with a sentence that says what was given and what is allowed.
    """

    prompt: str
    subject: str
    target_new: str
    target_true: str | None = None
    paraphrase_prompts: tuple[str, ...] = ()
    neighborhood_prompts: tuple[str, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    relation: str | None = None
    case_id: int | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("prompt", _one_line("prompt", self.prompt, MAX_PROMPT_CHARACTERS))
        put("subject", _one_line("subject", self.subject, MAX_PROMPT_CHARACTERS))
        put("target_new", _one_line("new object", self.target_new, MAX_TARGET_CHARACTERS))
        if self.target_true is not None:
            put("target_true", _one_line("true object", self.target_true, MAX_TARGET_CHARACTERS))
        if "{" in self.subject or "}" in self.subject:
            raise ValueError(f"subject must not contain braces, got {self.subject!r}")
        if self.prompt.count("{}") != 1 or self.prompt.count("{") != 1 or self.prompt.count("}") != 1:
            raise ValueError(
                "prompt must contain {} exactly once, where the subject goes, and no other brace, "
                f"got {self.prompt!r}"
            )
        if self.target_new == self.target_true:
            raise ValueError(f"new object and true object must differ, both are {self.target_new!r}")
        for name in ("paraphrase_prompts", "neighborhood_prompts", "generation_prompts"):
            put(name, tuple(_one_line(name, text, MAX_PROMPT_CHARACTERS) for text in getattr(self, name)))

    @property
    def text(self) -> str:
        """The prompt with the subject in its place."""
        return self.prompt.replace("{}", self.subject)

    @property
    def subject_end(self) -> int:
        """Index of the first character after the subject in `text`."""
        return self.prompt.index("{}") + len(self.subject)

    def __str__(self) -> str:
        return f"{self.text} → {self.target_new}"

    @classmethod
    def typed(cls, prompt: str, subject: str, target_new: str, target_true: str | None = None) -> Fact:
        """A Fact from a prompt that holds either ``{}`` or the subject itself (its first occurrence is meant)."""
        prompt = _one_line("prompt", prompt, MAX_PROMPT_CHARACTERS)
        subject = _one_line("subject", subject, MAX_PROMPT_CHARACTERS)
        if "{}" not in prompt:
            if subject not in prompt:
                raise ValueError(f"the subject {subject!r} must occur in the prompt, got {prompt!r}")
            prompt = prompt.replace(subject, "{}", 1)
        return cls(prompt, subject, target_new, (target_true or "").strip() or None)

    @classmethod
    def from_counterfact(cls, row: Mapping[str, Any]) -> Fact:
        """A Fact from a CounterFact row, in the original schema or in the flat one (`ground_truth` and so on)."""
        try:
            if "requested_rewrite" in row:
                rewrite = row["requested_rewrite"]
                return cls(
                    prompt=rewrite["prompt"],
                    subject=rewrite["subject"],
                    target_new=rewrite["target_new"]["str"],
                    target_true=rewrite["target_true"]["str"],
                    paraphrase_prompts=tuple(row.get("paraphrase_prompts", ())),
                    neighborhood_prompts=tuple(row.get("neighborhood_prompts", ())),
                    generation_prompts=tuple(row.get("generation_prompts", ())),
                    relation=rewrite.get("relation_id"),
                    case_id=row.get("case_id"),
                )
            fact = cls.typed(row["prompt"], row["subject"], row["target_new"], row["ground_truth"])
        except KeyError as missing:
            raise ValueError(f"not a CounterFact row: {missing} is missing, got the keys {sorted(row)}") from None
        return replace(
            fact,
            paraphrase_prompts=_texts(row.get("rephrase_prompt")),
            # Only a neighbour with the same right answer measures neighborhood success as the papers define it.
            neighborhood_prompts=_texts(row.get("locality_prompt"))
            if row.get("locality_ground_truth") == row["ground_truth"]
            else (),
            case_id=row.get("case_id"),
        )

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON types; `Fact.from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Fact:
        """The Fact that `to_json` wrote."""
        plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**plain)


def _texts(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if not value else (value,) if isinstance(value, str) else tuple(value)


def read_facts(path: str | Path) -> list[Fact]:
    """Facts of a JSON file of CounterFact rows (a list, in either schema).

    Raises ValueError that names the row when one is not usable.
    """
    path = Path(path).expanduser()
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"no such file of facts: {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from None
    if not isinstance(rows, list):
        raise ValueError(f"{path} must hold a JSON list of CounterFact rows, got {type(rows).__name__}")
    return _facts_of(rows, str(path))


def counterfact_from_hub(split: str = "train") -> list[Fact]:
    """CounterFact from the Hugging Face hub (azhx/counterfact, the original schema); needs a network once."""
    from datasets import load_dataset

    return _facts_of(load_dataset("azhx/counterfact", split=split), "azhx/counterfact")


def facts_of(source: str | Path | None) -> tuple[list[Fact], str]:
    """Facts, and where they are from: "hub" is CounterFact, None the project's own, else a file of CounterFact rows."""
    if source is None:
        return read_facts(resource("facts.json")), "editlab's own facts"
    if source == "hub":
        return counterfact_from_hub(), "CounterFact (Hugging Face hub)"
    return read_facts(source), Path(source).name


def _facts_of(rows: Iterable[Mapping[str, Any]], source: str) -> list[Fact]:
    facts = []
    for number, row in enumerate(rows):
        try:
            facts.append(Fact.from_counterfact(row))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{source}, row {number}: {error}") from None
    return facts


def search_facts(
    facts: Iterable[Fact],
    text: str = "",
    *,
    relation: str | None = None,
    case_id: int | None = None,
    limit: int | None = None,
) -> list[Fact]:
    """Facts whose prompt or objects contain every word of `text` (case ignored), of one relation or case id."""
    words = text.lower().split()
    found = []
    for fact in facts:
        if relation is not None and fact.relation != relation:
            continue
        if case_id is not None and fact.case_id != case_id:
            continue
        where = f"{fact.text} {fact.target_new} {fact.target_true or ''}".lower()
        if all(word in where for word in words):
            found.append(fact)
            if limit is not None and len(found) == limit:
                break
    return found


def random_fact(facts: Sequence[Fact], seed: int) -> Fact:
    """One of `facts`, the same for the same seed."""
    return random.Random(seed).choice(facts)
