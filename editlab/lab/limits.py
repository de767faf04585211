"""The limits of a lab for its visitors; each limit is a setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from editlab.core.errors import LimitReached
from editlab.core.facts import Fact
from editlab.core.numbers import size


@dataclass(frozen=True)
class Limits:
    """A lab's limits. A call beyond one raises `editlab.core.errors.LimitReached` with a sentence."""

    sessions: int = 1_000  # stored in total
    sessions_in_memory: int = 64  # the others are read from the store on use
    edits: int = 1_000  # in the log of one session
    facts: int = 100  # in one edit
    characters: int = 2_000  # in any text from a visitor: a prompt, a subject, an object, a name
    watched: int = 20  # of a session's own prompts
    queue: int = 200  # waiting jobs of all sessions
    queue_per_session: int = 8
    job_seconds: float = 900.0  # of work, after which a job is stopped
    adapter_bytes: int = 256 * 10**6  # of a LoRA adapter that is sent
    days: float = 30.0  # without use, after which a session is deleted
    days_crowded: float = 7.0  # likewise where the lab has all its sessions and a new one needs room
    days_empty: float = 1.0  # likewise for a session without an edit or a name, of a visitor who only looked

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be above 0, got {getattr(self, field.name)}")

    def check_text(self, what: str, text: str) -> None:
        if len(text) > self.characters:
            raise LimitReached(f"The limit for {what} is {self.characters} characters, got {len(text)}.")

    def check_facts(self, facts: Sequence[Fact]) -> None:
        """Check facts that are edited together."""
        if len(facts) > self.facts:
            raise LimitReached(f"The limit for one edit is {self.facts} facts, got {len(facts)}.")
        for fact in facts:
            for text in (fact.text, fact.target_new, fact.target_true or ""):
                self.check_text("a prompt or an object", text)
            for text in (*fact.paraphrase_prompts, *fact.neighborhood_prompts, *fact.generation_prompts):
                self.check_text("a prompt", text)

    def check_watched(self, prompts: Sequence[str]) -> None:
        if len(prompts) > self.watched:
            raise LimitReached(f"The limit for prompts to watch is {self.watched}, got {len(prompts)}.")
        for prompt in prompts:
            self.check_text("a prompt", prompt)

    def check_adapter(self, n_bytes: int) -> None:
        if n_bytes > self.adapter_bytes:
            raise LimitReached(
                f"The limit for an adapter is {size(self.adapter_bytes)}, and this one takes {size(n_bytes)}: take a "
                "lower rank, or make it by editlab export from the session’s replay file."
            )

    def check_length(self, edits: int) -> None:
        """Check that a log may grow by one edit."""
        if edits >= self.edits:
            raise LimitReached(
                f"The limit for one session is {self.edits} edits, and it has them: go on in a copy of an earlier edit."
            )
