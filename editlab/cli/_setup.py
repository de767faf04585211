"""What a command makes its edits with, as its options say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from editlab.cli._terminal import facts_told
from editlab.core.facts import Fact, case_id_of
from editlab.core.joining import AUTO
from editlab.core.progress import OnProgress

if TYPE_CHECKING:
    from editlab.editing.editor import Editor


@dataclass(frozen=True)
class FactOptions:
    """The options that say which facts are meant: typed texts, a case id in a file of facts, or its first facts."""

    prompt: str | None
    subject: str | None
    target: str | None
    target_true: str | None
    case_id: str | None
    facts: str | None  # the file
    joined_by: str | None  # None: as the fact says
    n: int | None = None

    def read(self) -> tuple[Fact, ...]:
        """The typed fact, the facts of the file's row with this case id, or its first `n`. Raises ValueError."""
        if self.n is not None:
            found = self._first(self.n)
        else:
            found = self._typed() if self.case_id is None else self._of_row(self.case_id)
        return tuple(fact if self.joined_by is None else replace(fact, joined_by=self.joined_by) for fact in found)

    def _first(self, n: int) -> tuple[Fact, ...]:
        if any(text is not None for text in (self.prompt, self.subject, self.target, self.target_true, self.case_id)):
            raise ValueError(
                "--n takes the first facts of a file, so it goes with neither a --case-id nor a typed fact"
            )
        known = facts_told(self.facts)
        if len(known) < n:
            raise ValueError(f"--n is {n}, but {known.name} has only {len(known)} facts")
        return known.facts[:n]

    def _typed(self) -> tuple[Fact, ...]:
        if self.prompt is None or self.subject is None or self.target is None:
            raise ValueError("a fact needs --prompt, --subject and --target, or a --case-id")
        return (Fact.typed(self.prompt, self.subject, self.target, self.target_true, self.joined_by or AUTO),)

    def _of_row(self, case_id: str) -> tuple[Fact, ...]:
        if any(text is not None for text in (self.prompt, self.subject, self.target, self.target_true)):
            raise ValueError("either a --case-id, or --prompt, --subject and --target; got both")
        known, wanted = facts_told(self.facts), case_id_of(case_id)
        rows = [row for row in known.batches if wanted is not None and any(fact.case_id == wanted for fact in row)]
        if not rows:
            raise ValueError(f"no fact with the case id {case_id} in {known.name}")
        if len(rows) > 1:
            raise ValueError(f"{len(rows)} rows of {known.name} have the case id {case_id}: {rows[0][0]}, and others")
        return rows[0]


def single(what: str, facts: Sequence[Fact]) -> Fact:
    """The one fact of a row. Raises ValueError for several."""
    if len(facts) > 1:
        raise ValueError(f"{what} is of one fact, and this row holds {len(facts)}: {facts[0]}, and others")
    return facts[0]


def check_number(name: str, facts: Sequence[Fact]) -> None:
    """Raises ValueError for more facts than the method of that name edits at a time."""
    from editlab.methods import method_class, methods

    kind, n = method_class(name), len(facts)
    if kind.max_facts is not None and n > kind.max_facts:
        several = ", ".join(other.name for other in methods().values() if (other.max_facts or n) >= n)
        raise ValueError(
            f"{kind.title} edits {kind.max_facts} fact at a time, got {n}; for several: {several}; or --one-by-one"
        )


@dataclass(frozen=True)
class Setup:
    """A model, and where its second moments and contexts are from. Nothing is loaded until it is asked for."""

    model: str
    device: str
    dtype: str
    allow_download: bool
    source: str  # of the second moments
    keys: int | None  # how many of them; None: the best there is
    seed: int  # of the contexts
    chat: bool = False  # prompts are set into the model's own chat template

    def editor(self, report: OnProgress) -> Editor:
        """The model, ready to be edited. Raises ValueError."""
        from editlab.editing.editor import Editor
        from editlab.editing.texts import check_source
        from editlab.model.loading import load

        check_source(self.source)
        loaded = load(
            self.model, device=self.device, dtype=self.dtype, allow_download=self.allow_download, report=report
        )
        return Editor(loaded, moments=self.source, n_keys=self.keys, seed=self.seed)

    def given(self, facts: Sequence[Fact], editor: Editor) -> tuple[Fact, ...]:
        """The facts as the model is given them. Raises ValueError for a chat with a model that has no template."""
        from editlab.model.chat import chat_of

        return tuple(map(chat_of(editor.model).around, facts)) if self.chat else tuple(facts)
