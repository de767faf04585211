"""Facts to edit, as a user types them, checked. `editlab.core.fact_files` reads files of facts.

This module needs no model: `EditableModel.check` checks what depends on a tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from editlab.core.follow_ups import FollowUp, follow_ups_in
from editlab.core.joining import AUTO, Question, check_joint, is_without_blanks, joined, joint, question
from editlab.core.text import check_text

MAX_PROMPT_CHARACTERS = 2_000  # a chat template's system message among them
MAX_TARGET_CHARACTERS = 100
MAX_NAME_CHARACTERS = 100  # of a relation or a case id
JOINING = ("-", "\u2010", "\u2011", ".", ",")  # join two letters or digits into one word

CaseId = int | str  # a number, or a name such as "Q42"


def _prompts(name: str, texts: object) -> tuple[str, ...]:
    if not isinstance(texts, list | tuple):
        raise ValueError(f"{name} must be a list of texts, got {type(texts).__name__}")
    return tuple(check_text(name, text, MAX_PROMPT_CHARACTERS) for text in texts)


def case_id_of(value: object) -> CaseId | None:
    """A case id as a fact holds it: a whole number of 64 bits (also given as text), or else a text.

    None and a blank text give None. Raises ValueError for anything else.
    """
    if value is None or (type(value) is int and -(2**63) <= value < 2**63):
        return value
    if not isinstance(value, str):
        raise ValueError(f"case_id must be a whole number of 64 bits or a text, got {value!r:.100}")
    text = value.strip()
    if re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text):
        return int(text)
    return check_text("case_id", text, MAX_NAME_CHARACTERS) if text else None


@dataclass(frozen=True)
class Fact:
    """One association to write: the model should continue `prompt`, with the subject in it, by `target_new`.

    `prompt` holds ``{}`` exactly once, where `subject` goes. Prompts keep every character; the subject and the objects
    lose the blanks around them. `target_true` is the unedited model's right answer. Paraphrases ask the same question
    in other words; neighborhood prompts ask it about other subjects whose right answer is `target_true` too. Follow-ups
    ask what else should be so after the edit. `joined_by` chooses what stands between any of these prompts and an
    object: "blank", "nothing", or "auto", which leaves it to the script (`editlab.core.joining`).
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
    case_id: CaseId | None = None
    joined_by: str = AUTO
    follow_ups: tuple[FollowUp, ...] = ()

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        check_text("prompt", self.prompt, MAX_PROMPT_CHARACTERS)
        put("subject", check_text("subject", self.subject, MAX_PROMPT_CHARACTERS).strip())
        put("target_new", check_text("new object", self.target_new, MAX_TARGET_CHARACTERS).strip())
        if self.target_true is not None:
            put("target_true", check_text("true object", self.target_true, MAX_TARGET_CHARACTERS).strip())
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
            put(name, _prompts(name, getattr(self, name)))
        if self.relation is not None:
            check_text("relation", self.relation, MAX_NAME_CHARACTERS)
        put("case_id", case_id_of(self.case_id))
        check_joint(self.joined_by)
        if not isinstance(self.follow_ups, list | tuple) or not all(isinstance(f, FollowUp) for f in self.follow_ups):
            raise ValueError("follow_ups must be a list of prompts with their kinds and answers")
        put("follow_ups", tuple(self.follow_ups))

    @property
    def text(self) -> str:
        """The prompt with the subject in its place."""
        return self.prompt.replace("{}", self.subject)

    @property
    def joint(self) -> str:
        """What stands between the prompt and its new object: "" or " "."""
        return joint(self.text, self.target_new, self.joined_by)

    def behind(self, prompt: str) -> str:
        """A prompt with the edited statement before it: the fact's text, the new object, a full stop."""
        return f"{joined(self.text, self.target_new, self.joined_by)}. {prompt}"

    def question(self, prompt: str, target: str) -> Question:
        """Whether an object follows a prompt, joined as this fact chooses."""
        return question(prompt, target, self.joined_by)

    @property
    def asks_new(self) -> Question:
        """Whether the new object follows the prompt."""
        return self.question(self.text, self.target_new)

    @property
    def asks_true(self) -> Question:
        """Whether the true object follows the prompt. Only of a fact that has one."""
        return self.question(self.text, self.target_true or "")

    @property
    def subject_end(self) -> int:
        """Index of the first character after the subject in `text`."""
        return self.prompt.index("{}") + len(self.subject)

    def __str__(self) -> str:
        return f"{in_one_line(self.text)} → {in_one_line(self.target_new)}"

    @classmethod
    def typed(
        cls, prompt: str, subject: str, target_new: str, target_true: str | None = None, joined_by: str = AUTO
    ) -> Fact:
        """A Fact from a prompt that holds ``{}`` or the subject itself; `place_of` finds the subject."""
        prompt = check_text("prompt", prompt, MAX_PROMPT_CHARACTERS)
        subject = check_text("subject", subject, MAX_PROMPT_CHARACTERS).strip()
        if "{}" not in prompt:
            place = place_of(subject, prompt)
            prompt = f"{prompt[:place]}{{}}{prompt[place + len(subject) :]}"
        return cls(prompt, subject, target_new, (target_true or "").strip() or None, joined_by=joined_by)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON types; `Fact.from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Fact:
        """The Fact that `to_json` wrote."""
        plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        if "follow_ups" in plain:
            plain["follow_ups"] = follow_ups_in({"follow_ups": plain["follow_ups"]}, set())
        return cls(**plain)


def place_of(subject: str, prompt: str) -> int:
    """The index of the subject in a prompt: its last occurrence as whole words, or else its only occurrence.

    In "Annual reports of Ann are read by" the subject Ann is the second one; in "Deutschlands Hauptstadt ist" the
    subject Deutschland is part of a word. Raises ValueError if the prompt lacks the subject, or if the subject only
    occurs inside words, several times: then ``{}`` must say which occurrence is meant.
    """
    places = [at for at in range(len(prompt)) if prompt.startswith(subject, at)]
    if not places:
        raise ValueError(f"the subject {subject!r} must occur in the prompt, got {prompt!r}")
    whole = [at for at in places if not _inside_word(prompt, at) and not _inside_word(prompt, at + len(subject))]
    if not whole and len(places) > 1:
        raise ValueError(
            f"the subject {subject!r} stands {len(places)} times in the prompt, each time as a part of a longer word: "
            f"write {{}} where it is meant, got {prompt!r}"
        )
    return (whole or places)[-1]


def _inside_word(text: str, at: int) -> bool:
    """Whether the characters before and after an index belong to one word, such as "Ann-Marie" or "1,000"."""
    before, after = text[:at], text[at:]
    if before[-1:] in JOINING:
        before = before[:-1]
    elif after[:1] in JOINING:
        after = after[1:]
    return _of_word(before[-1:]) and _of_word(after[:1])


def _of_word(character: str) -> bool:
    """Whether the character is a letter, a digit or a mark on one, in a script that separates words by blanks."""
    return bool(character) and unicodedata.category(character)[0] in "LMN" and not is_without_blanks(character)


def in_one_line(text: str) -> str:
    """Text for a line of a table: a line break is ⏎, a tab ⇥."""
    return text.replace("\r\n", "⏎").replace("\n", "⏎").replace("\r", "⏎").replace("\t", "⇥")


def check_batch(facts: Sequence[Fact]) -> None:
    """Raises ValueError if two facts of one edit have the same prompt and subject."""
    seen: dict[tuple[str, str], tuple[int, Fact]] = {}
    for number, fact in enumerate(facts, 1):
        question = " ".join(fact.text.split()), fact.subject
        if question in seen:
            first, other = seen[question]
            wrong = "are the same" if other.target_new == fact.target_new else "write different objects to one prompt"
            raise ValueError(f"facts {first} and {number} of the batch {wrong}: {other}, and {fact}; leave one out")
        seen[question] = number, fact


def digest_of(facts: Iterable[Fact]) -> str:
    """The number of these facts, and a hash of them in their order: what a scan or traces are of.

    A choice of `joined_by` that is the default is left out, since older scans do not know it.
    """
    listed = [
        {name: value for name, value in fact.to_json().items() if (name, value) != ("joined_by", AUTO)}
        for fact in facts
    ]
    text = json.dumps(listed, ensure_ascii=False)
    return f"{len(listed)}, SHA-256 {hashlib.sha256(text.encode()).hexdigest()}"


def search_facts(
    facts: Iterable[Fact],
    text: str = "",
    *,
    relation: str | None = None,
    case_id: CaseId | None = None,
    limit: int | None = None,
) -> list[Fact]:
    """The facts with every word of `text` (in any case) in the prompt or objects, and this relation or case id."""
    words = text.lower().split()
    wanted = case_id_of(case_id)
    found = []
    for fact in facts:
        if relation is not None and fact.relation != relation:
            continue
        if wanted is not None and fact.case_id != wanted:
            continue
        where = f"{fact.text} {fact.target_new} {fact.target_true or ''}".lower()
        if all(word in where for word in words):
            found.append(fact)
            if limit is not None and len(found) == limit:
                break
    return found


def random_fact(facts: Sequence[Fact], seed: int) -> Fact:
    """One of `facts`, chosen by the seed. Raises ValueError if there are none."""
    if not facts:
        raise ValueError("there are no facts to choose from")
    return random.Random(seed).choice(facts)
