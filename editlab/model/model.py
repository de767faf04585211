"""EditableModel: the one place that knows module names and weight orientation; tokens.py reads text for it.

Weights = base + the sum of a log's deltas, in order, and only `write` assigns a weight. Everything else reads, or acts
through hooks that last for a `with` block. This module depends on no method, session or measurement.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from editlab.core.errors import LabError
from editlab.model.deltas import Edit, LowRank
from editlab.model.families import FAMILIES, family_of
from editlab.model.fast.attention import use_grouped_heads
from editlab.model.fast.packing import can_pack, pack, unpack
from editlab.model.fast.products import split_products
from editlab.model.fingerprint import digest_of, fingerprint_of
from editlab.model.memory import spare_copy
from editlab.model.partial_sums import WORTH, PartialSums
from editlab.model.shapes import Shape
from editlab.model.tokens import Batch, TextReader

SUM_EVERY = 32  # additions, after which a partial sum may be kept


def check_config(config: Mapping[str, Any], name: str) -> None:
    """Raises ValueError if a model of this configuration cannot be edited."""
    if quantised := config.get("quantization_config"):
        method = (quantised.get("quant_method") if isinstance(quantised, Mapping) else None) or "an unknown method"
        raise ValueError(
            f"{name} is quantised ({method}), and an edit needs weights that it can be added to: load the model that "
            "it was made from, in float32, bfloat16 or float16"
        )
    family_of(config, name)


class WeightsChanged(ValueError):
    """Code that may only read the weights has changed some; the message names them."""


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


class EditableModel(TextReader):
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
        self.stored_dtype: str | None = None  # of the checkpoint that the model was loaded from, if it says
        self.bf16_tail = False  # searches for a value multiply in bfloat16 above their layer
        self.graphs = True  # searches on a GPU replay CUDA graphs
        self.last_graph: Any = None  # the last one, whose memory the next one takes over
        self.packed = False  # products read packed copies of the weights, except of a weight that may be written
        self.reason = ""  # a sentence on why this model was chosen; "" if nothing chose it
        self.kind = kind
        self.family = FAMILIES[kind]
        self.blocks: Sequence[nn.Module] = hf.get_submodule(self.family.blocks)
        self.devices: tuple[torch.device, ...] = tuple(dict.fromkeys(p.device for p in hf.parameters()))
        self._base: dict[int, Tensor] = {}  # layer -> W₀ (d_out, d_in), kept once the layer is first written
        self._raised: dict[int, _Raised] = {}  # edited layers of a half-precision model, which run in float32
        self._written: list[Edit] | None = []  # the edits in the weights; None after an interrupted write
        self._overlaid: list[Edit] = []
        self._use: Callable[[], None] = lambda: None  # see `resting`
        self.sums = PartialSums()
        self._norms: dict[int, float] = {}
        self._lost = ""  # why the unedited weights cannot be had any more
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
    def dtype(self) -> torch.dtype:
        return self.hf.get_input_embeddings().weight.dtype

    @property
    def is_split(self) -> bool:
        """Whether the layers are on several devices; then `device` is that of tokens, hidden states and logits."""
        return len(self.devices) > 1

    @property
    def multiplies_float32_on_a_cpu(self) -> bool:
        return (self.device.type, self.dtype) == ("cpu", torch.float32) and not self.is_split

    @property
    def precision(self) -> str:
        """The dtype as `load` names it."""
        if self.bf16_tail:
            return "bfloat16-tail"
        return "float32-packed" if self.packed else str(self.dtype).removeprefix("torch.")

    def projection(self, layer: int) -> nn.Module:
        """The module whose weight is edited. Raises ValueError if the model has no such layer."""
        if not 0 <= layer < self.n_layers:
            raise ValueError(f"layer must be between 0 and {self.n_layers - 1}, got {layer}")
        return self.blocks[layer].get_submodule(self.family.projection)

    def weight(self, layer: int) -> Tensor:
        """A live view of the present W (d_out, d_in)."""
        stored = self.projection(layer).weight
        return stored.T if self.family.transposed else stored  # type: ignore[union-attr,return-value,operator]

    def device_of(self, layer: int) -> torch.device:
        """The device of a layer's weight, keys and deltas."""
        return self.weight(layer).device

    def placed(self, edit: Edit) -> Edit:
        """The edit with every delta on the device of its layer; itself if that is so already."""
        if all(delta.right.device == self.device_of(layer) for layer, delta in edit.items()):
            return edit
        return {layer: delta.to(self.device_of(layer)) for layer, delta in edit.items()}

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
                self._fingerprint = fingerprint_of(self.hf.config, self.tokenizer, self.tensors())
        return self._fingerprint

    def is_named(self, fingerprint: str) -> bool:
        """Whether a fingerprint, in this version's form or an earlier one's, is this model's."""
        if len(fingerprint) == len(self.fingerprint()):
            return fingerprint == self.fingerprint()
        if self._legacy_fingerprint is None:
            self._legacy_fingerprint = self._sums_of_projections()
        return fingerprint == self._legacy_fingerprint

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
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

        If the edits in force are the first of `edits`, only the rest is added, and likewise to a partial sum that was
        kept: that is bit-equal to starting over. Raises LabError for a model whose unedited weights were lost.
        """
        if self._lost:
            raise LabError(self._lost)
        done, edits = self._written, list(edits)
        extends = (
            done is not None and len(done) <= len(edits) and all(a is b for a, b in zip(done, edits, strict=False))
        )
        if extends and done is not None and len(done) == len(edits):
            return
        if done and not extends:
            self._keep_sum(done)
        begun, weights = self.sums.begin(edits)
        if extends and done is not None and begun <= len(done) + WORTH:
            begun = len(done)
        else:
            self._written = None  # until every layer is written
            self._start_from(weights)
        rest = edits[begun:]
        for layer in {layer for edit in rest for layer in edit}:
            self._keep_base(layer)
        self._written = None
        for n, edit in enumerate(rest, begun + 1):
            for layer, delta in edit.items():
                self._raise(layer)
                self.weight(layer).add_(delta.dense())
            if n % SUM_EVERY == 0 and n < len(edits):
                self._keep_sum(edits[:n])
        self._written = edits

    def _start_from(self, weights: Mapping[int, Tensor]) -> None:
        """Set the weights to a partial sum; layers that it does not touch to their base."""
        for layer, base in self._base.items():
            if layer in weights:
                self._raise(layer)
                self.weight(layer).copy_(weights[layer])
            elif layer in self._raised:
                self._raised.pop(layer).lower()
            elif not self._is_half(layer):
                self.weight(layer).copy_(base)

    def _raise(self, layer: int) -> None:
        """Let an edited layer of a half-precision model run in float32."""
        if self._is_half(layer):
            self._raised[layer] = _Raised(self.projection(layer))

    def _keep_sum(self, edits: Sequence[Edit]) -> None:
        """Keep the present weights, which are the base and these edits, as a partial sum."""
        self.sums.keep(edits, {layer: self.weight(layer) for layer in {layer for edit in edits for layer in edit}})

    def forget(self) -> None:
        """Drop everything that is kept only for speed."""
        self.sums.forget()
        self.last_graph = None

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
    def resting(self, use: Callable[[], None]) -> Iterator[None]:
        """Within the block, long work lends the model to `use` whenever it calls `rest`."""
        before, self._use = self._use, use
        try:
            yield
        finally:
            self._use = before

    def rest(self) -> None:
        """Lend the model to others between two steps of long work; the same weights are in force afterwards.

        To be called where nothing depends on the weights but by their values: no gradient is under way, and no hook is
        set. Others get it only in plain float32 on a CPU, where a search leaves nothing else of the model changed and
        other edits leave the products of a layer as they are.
        """
        written, plain = self._written, not (self.bf16_tail or self.packed or self.is_overlaid)
        if written is None or not plain or not self.multiplies_float32_on_a_cpu:
            return
        self._use()
        self.write(written)

    @contextmanager
    def unedited(self) -> Iterator[None]:
        """Within the block the weights are the base; afterwards the edits are in force again."""
        before = self._written or []
        self.write([])
        try:
            yield
        finally:
            self.write(before)

    @contextmanager
    def read_only(self, layers: Iterable[int]) -> Iterator[None]:
        """A block of code from elsewhere, which must not write a weight; all of them are hashed before and after.

        Raises WeightsChanged after the block if a weight was changed. These layers' edited weights are restored; the
        others cannot be, and then the model refuses further use.
        """
        self.hold(layers)
        written, before = self._written or [], self._digests()
        try:
            with self.resting(lambda: None):
                yield
        finally:
            if changed := self._changed(before):
                self._written = None
                self.write(written)
                if lost := self._changed(before):
                    self._lost = f"the unedited weights of {self.name} are lost ({lost}): load the model again"
                raise WeightsChanged(f"it changed weights itself ({changed}), and may only return its edit")

    def _digests(self) -> dict[str, bytes]:
        return {name: digest_of(tensor) for name, tensor in self.tensors()}

    def _changed(self, before: Mapping[str, bytes]) -> str:
        """The names of the tensors that differ from their digests before; "" if none does."""
        now = self._digests()
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    # --- reading and changing activations ---

    @contextmanager
    def keys(self, layers: Iterable[int]) -> Iterator[dict[int, Tensor]]:
        """Within the block, collects each layer's projection input (n, t, d_in) of the last forward pass."""
        seen: dict[int, Tensor] = {}

        rows: dict[int, torch.Size] = {}  # (n, t) of the block's input, which some MLPs read as n * t rows

        def counting(layer: int) -> Callable:
            def hook(_module: nn.Module, inputs: tuple) -> None:
                rows[layer] = inputs[0].shape[:2]

            return hook

        def keeping(layer: int) -> Callable:
            def hook(_module: nn.Module, inputs: tuple) -> None:
                seen[layer] = inputs[0].detach().view(*rows[layer], -1)

            return hook

        with ExitStack() as hooks:
            for layer in layers:
                hooks.callback(self.blocks[layer].register_forward_pre_hook(counting(layer)).remove)
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
        return self.hf.base_model(**batch.inputs(), use_cache=False).last_hidden_state.to(self.device)

    def log_probs(self, hidden: Tensor) -> Tensor:
        """Log-probabilities (..., vocabulary) of the next token, float32, from the result of `hidden`."""
        return torch.log_softmax(self.logits(hidden), dim=-1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) of the next token, float32, from the result of `hidden`."""
        logits = self.hf.get_output_embeddings()(hidden).to(self.device).float()
        cap = getattr(self.hf.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

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
