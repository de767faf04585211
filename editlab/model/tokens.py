"""How a model reads text: token ids of texts and objects, and tokens as text again. No weights are touched."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from editlab.core.facts import Fact
from editlab.core.joining import AUTO, NOTHING, joint

TokenIds = tuple[int, ...]

SHOWN_CHARACTERS = 60  # of a prompt that an error quotes
_TRAILING_BLANKS = re.compile(r"[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+\Z")  # of any width, but no tabs
_BYTE = re.compile("<0x([0-9A-F]{2})>")  # SentencePiece's token of one byte
_UNREADABLE = "\N{REPLACEMENT CHARACTER}"  # stands for bytes that form no whole character


@dataclass(frozen=True)
class Tokens:
    """One text as token ids, with each token's place in the text."""

    ids: TokenIds
    ends: tuple[tuple[int, int], ...]  # (start, end) character offsets; (0, 0) for special tokens

    def position_of(self, character: int) -> int:
        """The index of the (last) token that holds this character. Raises ValueError if none does."""
        found = [i for i, (start, end) in enumerate(self.ends) if start <= character < end]
        if not found:
            raise ValueError(f"no token holds character {character} of the text")
        return found[-1]


@dataclass(frozen=True)
class Batch:
    """Right-padded rows: padding follows the text, so a causal model never attends to it; positions stay the same."""

    input_ids: Tensor  # (n, t)
    attention_mask: Tensor  # (n, t)

    def inputs(self) -> dict[str, Tensor]:
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}


def right_padded(rows: Sequence[Sequence[int]], device: torch.device) -> Batch:
    """Rows of token ids as one batch; padding is token 0, since a tokenizer's pad token need not have an embedding."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return Batch(ids.to(device), mask.to(device))


_ANCHORS = ("a", "\n")  # texts to put before another text when it is tokenized


class TextReader:
    """A causal language model with its tokenizer, as far as text goes: what `EditableModel` knows of tokens."""

    hf: Any
    tokenizer: Any
    name: str

    @property
    def device(self) -> torch.device:
        return self.hf.get_input_embeddings().weight.device

    @property
    def max_tokens(self) -> int:
        """The longest row in which every layer sees all, by angles that do not depend on the row's length.

        It is bounded by the positions, by the window of sliding attention, and by the length up to which LongRoPE takes
        its short factors: beyond, a row would read differently alone and beside a longer one.
        """
        config = self.hf.config
        window = getattr(config, "sliding_window", None) or sys.maxsize
        rope = getattr(config, "rope_parameters", None) or {}
        short = rope["original_max_position_embeddings"] if rope.get("rope_type") == "longrope" else sys.maxsize
        return min(int(config.max_position_embeddings), window, short)

    @property
    def n_vocabulary(self) -> int:
        """The number of tokens with an embedding; the tokenizer may have fewer or more."""
        return int(self.hf.get_input_embeddings().weight.shape[0])

    @property
    def start_id(self) -> int:
        """The token before the start of a text: the end-of-text token, or else the tokenizer's first special token."""
        end_of_text = self.tokenizer.get_vocab().get("<|endoftext|>")
        ids = (end_of_text, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, 0)
        return next(i for i in ids if i is not None and i < self.n_vocabulary)

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end a text, by the tokenizer and by the model's configuration."""
        named = self.hf.generation_config.eos_token_id if self.hf.generation_config else None
        ids = {self.tokenizer.eos_token_id, *(named if isinstance(named, list | tuple) else [named])}
        return frozenset(i for i in ids if i is not None)

    def tokens(self, text: str) -> Tokens:
        """Token ids of a text that will be continued: with the tokenizer's special tokens before it, without those
        after it.

        Raises ValueError for a token without an embedding in the model.
        """
        encoded = self.tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
        ids, added = encoded["input_ids"], encoded["special_tokens_mask"]
        end = max((i + 1 for i, special in enumerate(added) if not special), default=0)
        self._check_embedded(ids[:end])
        return Tokens(tuple(ids[:end]), tuple(map(tuple, encoded["offset_mapping"][:end])))

    def target_ids(self, target: str, prompt: str = "", joined_by: str = AUTO) -> TokenIds:
        """Token ids of an object after its prompt, joined as `core.joining` says, without special tokens.

        If the object changes the prompt's own tokens, the object is tokenized alone. Raises ValueError for an object
        without tokens.
        """
        target = target.strip()
        text = joint(prompt, target, joined_by) + target
        ids = next(filter(None, (self._ids_after(before, text) for before in (prompt[-1:], *_ANCHORS) if before)), ())
        ids = ids or tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if not ids:
            raise ValueError(f"the object {target!r} has no tokens in this model’s vocabulary")
        self._check_embedded(ids)
        return ids

    def blanks_told(self, prompt: str, target: str, joined_by: str = AUTO) -> str:
        """A sentence where the blanks at a prompt's end change the tokens of what follows; else ""."""
        bare = _TRAILING_BLANKS.sub("", prompt)
        if bare in (prompt, ""):
            return ""
        as_typed = (*self.tokens(prompt).ids, *self.target_ids(target, prompt, joined_by))
        usual = AUTO if joined_by == NOTHING else joined_by
        as_usual = (*self.tokens(bare).ids, *self.target_ids(target, bare, usual))
        if as_typed == as_usual:
            return ""
        pairs = zip(as_typed, as_usual, strict=False)
        first = next((i for i, (one, other) in enumerate(pairs) if one != other), len(as_usual))
        typed, expected = (" + ".join(repr(self.token_text(i)) for i in ids[first:]) for ids in (as_typed, as_usual))
        count = len(prompt) - len(bare)
        blanks, them = ("a blank", "it") if count == 1 else (f"{count} blanks", "them")
        return (
            f"The prompt ends in {blanks}, so the model reads on with {typed}, and not with {expected} as in running "
            f"text: leave {them} out unless you mean {them}."
        )

    def _ids_after(self, before: str, text: str) -> TokenIds:
        """Token ids of a text that follows `before`; () if the text changes the tokens of `before`.

        Some tokenizers put a blank before every input, so the text is never tokenized without something before it.
        """
        head, whole = self.tokenizer([before, before + text], add_special_tokens=False)["input_ids"]
        return tuple(whole[len(head) :]) if whole[: len(head)] == head else ()

    def continuation(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """The text that tokens add to those before them, with its blanks and without special tokens."""
        head, whole = (self._decoded(row, skip_special_tokens=True) for row in (before, [*before, *ids]))
        shared = next((i for i, (a, b) in enumerate(zip(head, whole, strict=False)) if a != b), len(head))
        return whole[shared:]

    def token_text(self, token: int) -> str:
        """A token's text within a longer text; bytes that form no whole character appear as ⟨E2 82⟩.

        An id that the tokenizer does not know appears as a number.
        """
        piece = self.tokenizer.convert_ids_to_tokens(token)
        if piece is None:
            return f"⟨token {token}⟩"
        anchor = self.tokenizer(_ANCHORS[0], add_special_tokens=False)["input_ids"]
        head, whole = self._decoded(anchor), self._decoded([*anchor, token])
        text = whole[len(head) :] if whole.startswith(head) else self._decoded([token])
        return _with_bytes_told(piece, text) if _UNREADABLE in text or self._is_a_twin(piece, text) else text

    def _is_a_twin(self, piece: str, text: str) -> bool:
        """Whether a token is a single byte, and another token is the character of that byte."""
        if not _BYTE.fullmatch(piece):
            return False
        letter = text.replace(" ", "▁")
        known = self.tokenizer.convert_tokens_to_ids(letter)
        return known is not None and self.tokenizer.convert_ids_to_tokens(known) == letter

    def _decoded(self, ids: Sequence[int], **options: Any) -> str:
        return self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False, **options)

    def batch(self, rows: Sequence[Sequence[int]]) -> Batch:
        """Rows of token ids as one right-padded batch on the model's device. Raises ValueError as `check_row` does."""
        for row in rows:
            self.check_row(row)
        return right_padded(rows, self.device)

    def check_row(self, row: Sequence[int]) -> None:
        """Raises ValueError for a row that is empty, too long for the model, or has a token without an embedding."""
        if not 0 < len(row) <= self.max_tokens:
            raise ValueError(f"a text must have 1 to {self.max_tokens} tokens for {self.name}, got {len(row)}")
        self._check_embedded(row)

    def _check_embedded(self, ids: Sequence[int]) -> None:
        highest = max(ids, default=0)
        if highest >= self.n_vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(highest)
            raise ValueError(f"{self.name} has no embedding for the token {token!r}, which its tokenizer has")

    def check(self, fact: Fact) -> None:
        """Raises ValueError if this model cannot read the fact, or one of the fact's prompts."""
        self.tokens(fact.text).position_of(fact.subject_end - 1)
        targets = [target for target in (fact.target_new, fact.target_true) if target is not None]
        # Contexts are set before the prompt itself, and texts after it.
        self._check_prompt("prompt", fact, fact.text, targets, self.max_tokens // 2)
        for name in ("paraphrase", "neighborhood", "generation"):
            for number, text in enumerate(getattr(fact, f"{name}_prompts"), 1):
                objects = [] if name == "generation" else targets
                self._check_prompt(f"{name} prompt {number}", fact, text, objects, self.max_tokens)
        if fact.target_true is not None:
            for number, text in enumerate(fact.neighborhood_prompts, 1):
                which = f"neighborhood prompt {number} behind the edited statement"
                self._check_prompt(which, fact, fact.behind(text), targets, self.max_tokens)
        for number, each in enumerate(fact.follow_ups, 1):
            objects = [*targets, each.answer, *([] if each.before is None else [each.before])]
            self._check_prompt(f"follow-up {number}", fact, each.prompt, objects, self.max_tokens)
            if unedited := each.unedited(fact.target_new, fact.target_true):
                self._check_prompt(f"follow-up {number}, unedited,", fact, unedited[0], [], self.max_tokens)

    def _check_prompt(self, which: str, fact: Fact, prompt: str, targets: Sequence[str], room: int) -> None:
        longest = max((len(self.target_ids(target, prompt, fact.joined_by)) for target in targets), default=0)
        n = len(self.tokens(prompt).ids)
        if not n:
            raise ValueError(f"{which} has no tokens in {self.name}'s vocabulary: {shortened(prompt)}")
        if n + longest > room:
            with_object = " and object" if targets else ""
            raise ValueError(
                f"{which}{with_object} may be at most {room} tokens for {self.name}, got {n + longest}: "
                f"{shortened(prompt)}"
            )


def shortened(text: str) -> str:
    """A text in quotes for a sentence, cut off if it is long."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…")


def _with_bytes_told(piece: str, text: str) -> str:
    """A token's text, with hexadecimal digits for bytes that form no whole character."""
    if single := _BYTE.fullmatch(piece):
        return f"⟨{single[1]}⟩"
    if any(letter not in _letters() for letter in piece):
        return text
    content = bytes(_letters()[letter] for letter in piece)
    decoded = content.decode("utf-8", "surrogateescape")
    return re.sub(r"[\udc80-\udcff]+", lambda run: f"⟨{_bytes_of(run[0]).hex(' ').upper()}⟩", decoded)


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@cache
def _letters() -> dict[str, int]:
    """The letter for every byte in tokens such as GPT-2's: visible characters stand for themselves."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
