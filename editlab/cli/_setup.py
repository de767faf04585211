"""What a command makes its edits with, as its options say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from editlab.core.progress import OnProgress

if TYPE_CHECKING:
    from editlab.core.facts import Fact
    from editlab.editing.editor import Editor


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

    def given(self, fact: Fact, editor: Editor) -> Fact:
        """The fact as the model is given it. Raises ValueError for a chat with a model that has no template."""
        from editlab.model.chat import chat_of

        return chat_of(editor.model).around(fact) if self.chat else fact
