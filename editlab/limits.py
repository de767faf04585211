"""How much one lab gives to its visitors; each limit is a setting. Knows nothing of where they are checked."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """What a lab allows. Who meets one gets `editlab.api.LimitReached` with a sentence."""

    sessions: int = 1_000  # kept in all
    sessions_in_memory: int = 64  # the others are read from the store when they are used again
    edits: int = 500  # in the log of one session
    facts: int = 100  # in one edit
    characters: int = 2_000  # in any one text that is given: a prompt, a subject, an object, a name
    watched: int = 20  # prompts of a session's own
    queue: int = 200  # jobs that wait, of all sessions
    queue_per_session: int = 8
    job_seconds: float = 900.0  # of work, after which a job is stopped
    days: float = 30.0  # without use, after which a session is deleted

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be above 0, got {getattr(self, field.name)}")
