"""EditableModel: the one place that knows module names, weight orientation and tokens.

Weights = base + the sum of a log's deltas, in order, and only `write` assigns a weight. Everything else reads, or acts
through hooks that last for a `with` block. This module depends on no method, session or measurement.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from editlab.core.facts import Fact
from editlab.core.joining import joint
from editlab.model.deltas import Edit, LowRank
from editlab.model.families import FAMILIES
from editlab.model.fast.attention import use_grouped_heads
from editlab.model.fast.packing import can_pack, pack, unpack
from editlab.model.fast.products import split_products
from editlab.model.fingerprint import fingerprint_of
from editlab.model.memory import spare_copy
from editlab.model.shapes import Shape

TokenIds = tuple[int, ...]

SHOWN_CHARACTERS = 60  # of a prompt that an error quotes
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


def check_config(config: Mapping[str, Any], name: str) -> None:
    """Raises ValueError if a model of this configuration cannot be edited."""
    if quantised := config.get("quantization_config"):
        method = (quantised.get("quant_method") if isinstance(quantised, Mapping) else None) or "an unknown method"
        raise ValueError(
            f"{name} is quantised ({method}), and an edit needs weights that it can be added to: load the model that "
            "it was made from, in float32, bfloat16 or float16"
        )
    if config.get("model_type") not in list(FAMILIES):
        raise ValueError(
            f"{name} is of the family {config.get('model_type')!r}; editable are {', '.join(sorted(FAMILIES))}"
        )


def right_padded(rows: Sequence[Sequence[int]], device: torch.device) -> Batch:
    """Rows of token ids as one batch; padding is token 0, since a tokenizer's pad token need not have an embedding."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return Batch(ids.to(device), mask.to(device))


_ANCHORS = ("a", "\n")  # texts to put before another text when it is tokenized


class _Enough(Exception):
    """Raised in a hook to end a forward pass early."""


def _norm(weight: Tensor) -> float:
    """The Frobenius norm, summed in float64."""
    return float(torch.linalg.vector_norm(weight, dtype=torch.float64))


class _Raised:
    """One projection in float32 inside a half-precision model: raises its input to float32 and lowers its output."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._half = dict(module.named_parameters())
        outer = next(iter(self._half.values())).dtype
        for name, parameter in self._half.items():
            setattr(module, name, nn.Parameter(parameter.float(), requires_grad=False))
        self._hooks = (
            module.register_forward_pre_hook(lambda _module, inputs: (inputs[0].float(), *inputs[1:]), prepend=True),
            module.register_forward_hook(lambda _module, _inputs, output: output.to(outer), prepend=True),
        )

    def lower(self) -> None:
        """Restore the module's own parameters."""
        for hook in self._hooks:
            hook.remove()
        for name, parameter in self._half.items():
            setattr(self._module, name, parameter)


class EditableModel:
    """A causal language model whose MLP output projections can be edited and restored exactly.

    W is (d_out, d_in) throughout, whatever the architecture stores.
    """

    def __init__(self, hf: Any, tokenizer: Any, name: str, revision: str | None = None) -> None:
        kind = hf.config.model_type
        check_config(hf.config.to_dict(), name)
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(f"{name} needs a fast tokenizer (one with character offsets)")
        use_grouped_heads(hf)
        self.hf: Any = hf.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.revision = revision
        self.bf16_tail = False  # searches for a value multiply in bfloat16 above their layer
        self.graphs = False  # searches replay CUDA graphs (no proven gain)
        self.written_out_on_gpu = False  # searches on a GPU use the CPU's written-out gradients (no proven gain)
        self.packed = False  # products read packed copies of the weights, except of a weight that may be written
        self.reason = ""  # a sentence on why this model was chosen; "" if nothing chose it
        self.kind = kind
        self.family = FAMILIES[kind]
        self.blocks: Sequence[nn.Module] = hf.get_submodule(self.family.blocks)
        self._base: dict[int, Tensor] = {}  # layer -> W₀ (d_out, d_in), kept once the layer is first written
        self._raised: dict[int, _Raised] = {}  # edited layers of a half-precision model, which run in float32
        self._written: list[Edit] | None = []  # the edits in the weights; None after an interrupted write
        self._overlaid: list[Edit] = []
        self._norms: dict[int, float] = {}
        self._fingerprint: str | None = None
        self._legacy_fingerprint: str | None = None
        if self.multiplies_float32_on_a_cpu:
            split_products([hf])

    # --- shape ---

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def shape(self) -> Shape:
        """The model's architecture and size, by which presets are chosen."""
        return Shape(self.kind, self.n_layers, *self.weight(0).shape)

    @property
    def device(self) -> torch.device:
        return self.hf.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.hf.get_input_embeddings().weight.dtype

    @property
    def multiplies_float32_on_a_cpu(self) -> bool:
        return (self.device.type, self.dtype) == ("cpu", torch.float32)

    @property
    def precision(self) -> str:
        """The dtype as `load` names it."""
        if self.bf16_tail:
            return "bfloat16-tail"
        return "float32-packed" if self.packed else str(self.dtype).removeprefix("torch.")

    @property
    def max_tokens(self) -> int:
        return int(self.hf.config.max_position_embeddings)

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

    def projection(self, layer: int) -> nn.Module:
        """The module whose weight is edited. Raises ValueError if the model has no such layer."""
        if not 0 <= layer < self.n_layers:
            raise ValueError(f"layer must be between 0 and {self.n_layers - 1}, got {layer}")
        return self.blocks[layer].get_submodule(self.family.projection)

    def weight(self, layer: int) -> Tensor:
        """A live view of the present W (d_out, d_in)."""
        stored = self.projection(layer).weight
        return stored.T if self.family.transposed else stored  # type: ignore[union-attr,return-value,operator]

    def base_weight(self, layer: int) -> Tensor:
        """A view of the unedited W₀ (d_out, d_in), not to be written to."""
        return self._base[layer] if layer in self._base else self.weight(layer)

    def base_norm(self, layer: int) -> float:
        """‖W₀‖_F."""
        if layer not in self._norms:
            self._norms[layer] = _norm(self.base_weight(layer))
        return self._norms[layer]

    def norm(self, layer: int) -> float:
        """‖W‖_F of the present weight, summed in float64."""
        return _norm(self.weight(layer))

    def fingerprint(self) -> str:
        """A hash of the unedited model: every parameter and saved buffer, the tokenizer and the configuration.

        The same on every device. Computed on the first call, in about 0.1 s per GB.
        """
        if self._fingerprint is None:
            with self.unedited():
                self._fingerprint = fingerprint_of(self.hf.config, self.tokenizer, self._tensors())
        return self._fingerprint

    def is_named(self, fingerprint: str) -> bool:
        """Whether a fingerprint, in this version's form or an earlier one's, is this model's."""
        if len(fingerprint) == len(self.fingerprint()):
            return fingerprint == self.fingerprint()
        if self._legacy_fingerprint is None:
            self._legacy_fingerprint = self._sums_of_projections()
        return fingerprint == self._legacy_fingerprint

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter and saved buffer by name; tied parameters appear once."""
        seen: set[int] = set()
        for name, tensor in self.hf.state_dict(keep_vars=True).items():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, tensor

    def _sums_of_projections(self) -> str:
        """The fingerprint of earlier versions, 16 digits: a hash of the edited projections only."""
        digest = hashlib.sha256(repr((self.kind, self.n_layers, len(self.tokenizer), str(self.dtype))).encode())
        for layer in range(self.n_layers):
            w = self.base_weight(layer).double()
            digest.update(f"{tuple(w.shape)} {float(w.sum()):.9e} {float(w.square().sum()):.9e}".encode())
        return digest.hexdigest()[:16]

    # --- weights ---

    @torch.no_grad()
    def write(self, edits: Sequence[Edit]) -> None:
        """Set the weights to base + Σ deltas, added in order. No other code assigns a weight.

        If the edits in force are the first of `edits`, only the rest is added, which is bit-equal to starting over.
        """
        done = self._written
        extends = (
            done is not None and len(done) <= len(edits) and all(a is b for a, b in zip(done, edits, strict=False))
        )
        rest = list(edits[len(done) :]) if done is not None and extends else list(edits)
        touched = {layer for edit in rest for layer in edit}
        for layer in touched:
            self._keep_base(layer)
        self._written = None  # until every layer is written
        if not extends:
            for layer, base in self._base.items():
                if layer in self._raised:
                    self._raised.pop(layer).lower()
                elif not self._is_half(layer):
                    self.weight(layer).copy_(base)
        for edit in rest:
            for layer, delta in edit.items():
                if self._is_half(layer):
                    self._raised[layer] = _Raised(self.projection(layer))
                self.weight(layer).add_((delta.left @ delta.right.T).to(self.weight(layer).device))
        self._written = list(edits)

    def hold(self, layers: Iterable[int]) -> None:
        """Prepare layers for editing, and keep their base weights."""
        for layer in layers:
            self._keep_base(layer)

    def _keep_base(self, layer: int) -> None:
        if layer in self._base:
            return
        module = self.projection(layer)
        if self.packed:
            unpack(module)
        self._base[layer] = self.weight(layer) if self._is_half(layer) else spare_copy(self.weight(layer))

    def _is_half(self, layer: int) -> bool:
        """Whether a layer is in half precision now; `write` never writes to such a weight."""
        return self.weight(layer).dtype not in (torch.float32, torch.float64)

    def pack(self) -> None:
        """Multiply with packed copies of all weights but those held for editing, which is faster on some CPUs.

        Raises ValueError unless the model runs in float32 on a CPU and torch supports packing.
        """
        if not self.multiplies_float32_on_a_cpu or not can_pack():
            raise ValueError(
                f"weights are packed for float32 on a CPU, by a torch built with oneDNN; {self.name} runs in "
                f"{self.precision} on {self.device.type}"
            )
        held = {self.projection(layer) for layer in self._base}
        pack(module for module in self.hf.modules() if module not in held and not list(module.children()))
        self.packed = True

    @property
    def is_overlaid(self) -> bool:
        return bool(self._overlaid)

    @contextmanager
    def overlaid(self, edit: Edit) -> Iterator[None]:
        """Within the block the model behaves as if `edit` were added to the weights; no weight is changed."""

        def adding(delta: LowRank) -> Callable:
            def hook(_module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
                keys = inputs[0].to(delta.right.dtype)  # (..., d_in)
                return output + ((keys @ delta.right) @ delta.left.T).to(output.dtype)

            return hook

        with ExitStack() as hooks:
            for layer, delta in edit.items():
                hooks.callback(self.projection(layer).register_forward_hook(adding(delta)).remove)
            self._overlaid.append(edit)
            hooks.callback(self._overlaid.pop)
            yield

    @contextmanager
    def unedited(self) -> Iterator[None]:
        """Within the block the weights are the base; afterwards the edits are in force again."""
        before = self._written or []
        self.write([])
        try:
            yield
        finally:
            self.write(before)

    # --- reading and changing activations ---

    @contextmanager
    def keys(self, layers: Iterable[int]) -> Iterator[dict[int, Tensor]]:
        """Within the block, collects each layer's projection input (n, t, d_in) of the last forward pass."""
        seen: dict[int, Tensor] = {}

        def keeping(layer: int) -> Callable:
            def hook(_module: nn.Module, inputs: tuple) -> None:
                seen[layer] = inputs[0].detach()

            return hook

        with ExitStack() as hooks:
            for layer in layers:
                hooks.callback(self.projection(layer).register_forward_pre_hook(keeping(layer)).remove)
            yield seen

    def keys_of(self, batch: Batch, layers: Iterable[int]) -> dict[int, Tensor]:
        """Each layer's projection input (n, t, d_in), from a forward pass that stops at the last of these layers."""
        layers = sorted(layers)

        def stop(_module: nn.Module, _inputs: tuple) -> None:
            raise _Enough

        with self.keys(layers) as seen:
            handle = self.projection(layers[-1]).register_forward_pre_hook(stop)
            try:
                self.hidden(batch)
            except _Enough:
                pass
            finally:
                handle.remove()
        return seen

    def hidden(self, batch: Batch) -> Tensor:
        """The head's input: hidden states after the final norm (n, t, d)."""
        return self.hf.base_model(**batch.inputs(), use_cache=False).last_hidden_state

    def log_probs(self, hidden: Tensor) -> Tensor:
        """Log-probabilities (..., vocabulary) of the next token, float32, from the result of `hidden`."""
        return torch.log_softmax(self.logits(hidden), dim=-1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) of the next token, float32, from the result of `hidden`."""
        return self.hf.get_output_embeddings()(hidden).float()

    # --- tokens ---

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

    def target_ids(self, target: str, prompt: str = "") -> TokenIds:
        """Token ids of an object after its prompt, joined by `core.joining`, without special tokens.

        If the object changes the prompt's own tokens, the object is tokenized alone. Raises ValueError for an object
        without tokens.
        """
        target = target.strip()
        text = joint(prompt, target) + target
        ids = next(filter(None, (self._ids_after(before, text) for before in (prompt[-1:], *_ANCHORS) if before)), ())
        ids = ids or tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if not ids:
            raise ValueError(f"the object {target!r} has no tokens in this model's vocabulary")
        self._check_embedded(ids)
        return ids

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
        self._check_prompt("prompt", fact.text, targets, self.max_tokens // 2)
        for name in ("paraphrase", "neighborhood", "generation"):
            for number, text in enumerate(getattr(fact, f"{name}_prompts"), 1):
                objects = [] if name == "generation" else targets
                self._check_prompt(f"{name} prompt {number}", text, objects, self.max_tokens)

    def _check_prompt(self, which: str, prompt: str, targets: Sequence[str], room: int) -> None:
        longest = max((len(self.target_ids(target, prompt)) for target in targets), default=0)
        n = len(self.tokens(prompt).ids)
        if not n:
            raise ValueError(f"{which} has no tokens in {self.name}'s vocabulary: {shortened(prompt)}")
        if n + longest > room:
            with_object = " and object" if targets else ""
            raise ValueError(
                f"{which}{with_object} may be at most {room} tokens for {self.name}, got {n + longest}: "
                f"{shortened(prompt)}"
            )

    @property
    def lowest_edited(self) -> int:
        """The lowest layer that may differ from the base now; the blocks below it compute as in the unedited model."""
        if self._written is None:
            return 0
        return min((layer for edit in [*self._written, *self._overlaid] for layer in edit), default=self.n_layers)

    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.hf.parameters())

    def drift(self, layer: int) -> tuple[float, float, float]:
        """‖W - W₀‖_F, the same ÷ ‖W₀‖_F, and ÷ numel (the paper's |Δ|)."""
        if layer not in self._base:
            return 0.0, 0.0, 0.0
        weight = self.weight(layer)
        norm = _norm(weight - self._base[layer].to(weight.device))
        if not math.isfinite(norm):
            raise FloatingPointError(f"the weights of layer {layer} are not finite")
        return norm, norm / self.base_norm(layer), norm / weight.numel()


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
