"""Follow-up prompts: what else should be so after an edit, each with its right answer, and where files keep them.

Kinds: another relation of the same subject (should stay), another name of the subject, the way back from the object to
the subject, and questions two hops away (should change).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from editlab.core.text import check_text, text_of

RELATION, ALIAS, REVERSE, TWO_HOPS = "relation", "alias", "reverse", "two_hops"
KINDS: Mapping[str, str] = {
    RELATION: "same subject, other relation: should stay",
    ALIAS: "another name of the subject: should change",
    REVERSE: "from the object to the subject: should change",
    TWO_HOPS: "two hops: should change",
}
MAX_CHARACTERS = 2_000

# Columns of published files, and the kind of the prompts in them (KnowEdit, arXiv 2401.01286; RippleEdits, 2307.12976).
BY_KIND: Mapping[str, str] = {
    "Relation_Specificity": RELATION,
    "relation_specificity": RELATION,
    "Subject_Aliasing": ALIAS,
    "Reasoning": TWO_HOPS,
    "Logical_Generalization": TWO_HOPS,
    "Compositionality_I": TWO_HOPS,
    "Compositionality_II": TWO_HOPS,
}
HOLDERS = ("portability", "locality")  # tables of such columns; EVOKE's `portability` is a question itself


@dataclass(frozen=True)
class FollowUp:
    """A prompt whose right answer after an edit is known. Raises ValueError for a wrong kind or a blank text."""

    kind: str  # one of KINDS
    prompt: str
    answer: str  # right after the edit
    before: str | None = None  # right before the edit; None: the same for "relation", the true object for "alias"

    def __post_init__(self) -> None:
        if not (isinstance(self.kind, str) and self.kind in KINDS):
            raise ValueError(f"a follow-up’s kind must be one of {', '.join(KINDS)}, got {self.kind!r:.100}")
        for name in ("prompt", "answer", "before"):
            text = getattr(self, name)
            if name == "before" and text is None:
                continue
            text = check_text(f"a follow-up’s {name}", text, MAX_CHARACTERS)
            if name != "prompt":
                object.__setattr__(self, name, text.strip())

    def unedited(self, target_new: str, target_true: str | None) -> tuple[str, str] | None:
        """The prompt and the right answer for the unedited model; None where the answer is not known.

        On the way back the true object takes the new one's place in the prompt.
        """
        if self.kind == RELATION:
            return self.prompt, self.before or self.answer
        if self.kind == REVERSE:
            if target_true is None or target_new not in self.prompt:
                return None
            return self.prompt.replace(target_new, target_true), self.before or self.answer
        answer = self.before or (target_true if self.kind == ALIAS else None)
        return None if answer is None else (self.prompt, answer)

    @classmethod
    def typed(cls, line: str) -> FollowUp:
        """The follow-up of a typed line, "kind: prompt -> answer" or "kind: prompt -> answer (was: earlier answer)"."""
        kind, colon, rest = line.partition(":")
        prompt, arrow, answers = rest.rpartition("->")
        if not colon or not arrow:
            raise ValueError(f"a follow-up is written as kind: prompt -> answer, got {line.strip()!r:.100}")
        answer, was, before = answers.partition("(was:")
        known = before.strip().removesuffix(")").strip() if was else None
        return cls(kind.strip().replace(" ", "_"), prompt.strip(), answer.strip(), known)

    @property
    def line(self) -> str:
        """The line that `typed` reads."""
        return f"{self.kind}: {self.prompt} -> {self.answer}" + (f" (was: {self.before})" if self.before else "")


def follow_ups_in(row: Mapping[str, Any], used: set[str], subject: str = "") -> tuple[FollowUp, ...]:
    """The follow-ups of a row, in this project's form or that of a published file; adds their columns to `used`.

    Another relation of the subject names the subject; a prompt in the same column that does not is a neighbour.
    Raises ValueError for a wrong one in this project's own column `follow_ups`.
    """
    found: list[FollowUp] = []
    if own := row.get("follow_ups"):
        if not isinstance(own, list | tuple) or not all(isinstance(each, Mapping | FollowUp | str) for each in own):
            raise ValueError("follow_ups must be a list of lines, or of objects with kind, prompt and answer")
        found += [_own(each) for each in own]
        used.add("follow_ups")
    for column, value in row.items():
        if column in HOLDERS and isinstance(value, Mapping):
            some = [*_evoke(value), *(each for name, kind in BY_KIND.items() for each in _asked(kind, value.get(name)))]
        elif column in BY_KIND:
            some = list(_asked(BY_KIND[column], value))
        elif column == "questions" and "new_answer" in row:  # MQuAKE (arXiv 2305.14795)
            asked = value if isinstance(value, list | tuple) else [value]
            some = [each for text in asked for each in _made(TWO_HOPS, text, row["new_answer"], row.get("answer"))]
            used.update(name for name in ("new_answer", "answer") if some and name in row)
        else:
            continue
        some = [each for each in some if each.kind != RELATION or subject in each.prompt]
        found += some
        if some:
            used.add(column)
    return tuple(dict.fromkeys(found))


def _own(value: Any) -> FollowUp:
    if isinstance(value, FollowUp):
        return value
    if isinstance(value, str):
        return FollowUp.typed(value)
    if unknown := sorted(set(value) - {"kind", "prompt", "answer", "before"}):
        raise ValueError(f"a follow-up has kind, prompt, answer and before, not {', '.join(map(str, unknown))}")
    return FollowUp(*(value.get(name) for name in ("kind", "prompt", "answer", "before")))  # type: ignore[arg-type]


def _evoke(value: Mapping[str, Any]) -> Iterator[FollowUp]:
    yield from _made(TWO_HOPS, value.get("New Question"), value.get("New Answer"), value.get("Original Answer"))


def _asked(kind: str, value: Any) -> Iterator[FollowUp]:
    """Prompts with answers, at any depth of lists and tables."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _asked(kind, part)
    elif isinstance(value, Mapping):
        if "test_queries" in value:
            yield from _asked(kind, value["test_queries"])
            return
        answer = next((value[name] for name in ("ground_truth", "answers", "answer", "target") if name in value), None)
        for prompt, right in paired(value.get("prompt"), answer):
            yield from _made(kind, prompt, right, None)


def _made(kind: str, prompt: Any, answer: Any, before: Any) -> Iterator[FollowUp]:
    """A follow-up of these cells, if they hold a prompt and an answer."""
    texts = [_text(prompt), _text(answer), _text(before)]
    if texts[0] and texts[1]:
        yield FollowUp(kind, texts[0], texts[1], texts[2])


def paired(prompts: Any, answers: Any) -> list[tuple[Any, Any]]:
    """Prompts with their answers: of two lists of one length each with its own, else each with all of the answers."""
    if not isinstance(prompts, list | tuple):
        return [(prompts, answers)]
    if isinstance(answers, list | tuple) and len(answers) == len(prompts) > 1:
        return list(zip(prompts, answers, strict=True))
    return [(prompt, answers) for prompt in prompts]


def _text(value: Any) -> str | None:
    """The first text in a cell: a text, a number, a list of aliases, or an object with a value."""
    if isinstance(value, Mapping):
        value = next((value[name] for name in ("value", "str") if name in value), None)
    while isinstance(value, list | tuple):
        value = _text(value[0]) if value else None
    text = text_of(value)
    return text if text and text.strip() and len(text) <= MAX_CHARACTERS else None
