"""A model's chat template, reduced to the text around a message. Needs no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from editlab.core.facts import Fact
from editlab.core.record import Record


@dataclass(frozen=True)
class ChatFrame(Record):
    """The text that a model's chat template sets around a user's message, up to the start of the answer."""

    before: str
    after: str

    def around(self, fact: Fact) -> Fact:
        """The fact with each prompt framed as a message. Raises ValueError if one is too long or has braces."""

        def framed(prompt: str) -> str:
            return f"{self.before}{prompt}{self.after}"

        return replace(
            fact,
            prompt=framed(fact.prompt),
            paraphrase_prompts=tuple(map(framed, fact.paraphrase_prompts)),
            neighborhood_prompts=tuple(map(framed, fact.neighborhood_prompts)),
            generation_prompts=tuple(map(framed, fact.generation_prompts)),
        )

    def inside(self, fact: Fact) -> Fact | None:
        """The fact before `around` framed it; None for a fact without the frame."""
        if not self.holds(fact.prompt):
            return None

        def bare(prompts: Sequence[str]) -> tuple[str, ...]:
            return tuple(prompt[len(self.before) : len(prompt) - len(self.after)] for prompt in prompts)

        lists = (fact.paraphrase_prompts, fact.neighborhood_prompts, fact.generation_prompts)
        if not all(self.holds(prompt) for prompts in lists for prompt in prompts):
            return None
        paraphrases, neighbours, generation = map(bare, lists)
        return replace(
            fact,
            prompt=bare([fact.prompt])[0],
            paraphrase_prompts=paraphrases,
            neighborhood_prompts=neighbours,
            generation_prompts=generation,
        )

    def holds(self, prompt: str) -> bool:
        """Whether a prompt is a message in this frame."""
        long_enough = len(prompt) > len(self.before) + len(self.after)
        return long_enough and prompt.startswith(self.before) and prompt.endswith(self.after)
