"""Editor: a model with everything that a method needs besides the fact: hyperparameters, contexts, second moments.

An editor computes edits and keeps no log. It changes weights only to sample from the unedited model, and restores them.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from editlab import __version__
from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, quiet
from editlab.core.records import Trace
from editlab.editing.anchor import anchor_of
from editlab.editing.contexts import check_contexts, contexts_of
from editlab.editing.moments import SecondMoments, cache_moments, cached_moments, moments_as_recorded, moments_of
from editlab.methods import Method, adjusted, method_class, methods_for, named, reaches
from editlab.methods._base import ContextPlan, check_facts
from editlab.methods._history import Earlier
from editlab.methods._stranger import check_method, computed
from editlab.methods._value import SearchMethod
from editlab.model.deltas import Edit
from editlab.model.fast.precision import in_full_float32
from editlab.model.model import EditableModel


class Editor:
    """One model, ready for every method.

    `moments` is a source as `moments_of` takes it, or second moments themselves; `contexts` replaces the sampled ones.
    `methods` holds every method by name, with this model's hyperparameters; the caller may add one.
    Every call leaves the weights as they were, even if it raises.
    """

    def __init__(
        self,
        model: EditableModel,
        *,
        moments: str | SecondMoments = "auto",
        n_keys: int | None = None,
        contexts: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.seed = seed
        self.methods = methods_for(model)
        self._source = moments if isinstance(moments, str) else None
        self._n_keys = n_keys
        self._moments = None if isinstance(moments, str) else moments
        self._given_contexts = None if contexts is None else check_contexts(contexts)
        self._contexts: dict[ContextPlan, tuple[str, ...]] = {}

    def method(self, name: str, changes: Mapping[str, Any] | None = None) -> Method:
        """The method of that name for this model, with some hyperparameters changed. Raises ValueError."""
        if name not in self.methods and not reaches(method_class(name), self.model):
            raise ValueError(
                f"{method_class(name).title} aims at a block’s output, and in {self.model.name} a norm stands between "
                f"an MLP and it; for this model: {', '.join(self.methods)}"
            )
        method = adjusted(named(name, self.methods), changes or {}, self.model.n_layers)
        check_method(method, self.model)
        return method

    def contexts(self, method: Method) -> tuple[str, ...]:
        """The caller's contexts, or those sampled (once) by the method's plan."""
        if self._given_contexts is not None:
            return self._given_contexts
        plan = method.context_plan
        if plan not in self._contexts:
            self._contexts[plan] = contexts_of(self.model, plan, self.seed)
        return self._contexts[plan]

    def moments(self, layers: Sequence[int], report: OnProgress = quiet) -> SecondMoments:
        """Second moments that cover these layers; missing ones are read from the cache or computed."""
        have = self._moments
        missing = [layer for layer in layers if have is None or layer not in have.matrices]
        if missing and self._source is not None:
            found = moments_of(self.model, missing, self._source, self._n_keys, self.seed, report)
            if have is None:
                self._moments = have = found
            else:
                have.add(found)
        assert have is not None
        return have

    def cache_moments(self, layers: Sequence[int], report: OnProgress = quiet) -> None:
        """Fill the cache with the second moments of these layers; none is kept in memory."""
        if self._source is not None:
            cache_moments(self.model, layers, self._source, self._n_keys, self.seed, report)

    def moments_for(self, method: Method, report: OnProgress = quiet) -> SecondMoments:
        """The second moments that a method needs: of its layers, or of none."""
        return self.moments(method.edited_layers, report) if method.needs_moments else SecondMoments({}, {})

    def anchored(self, method: Method, report: OnProgress = quiet) -> Method:
        """The method, with the norm anchor measured where it wants one and has none."""
        if not isinstance(method, SearchMethod) or not method.anchored or method.anchor_norm:
            return method
        return replace(method, anchor_norm=anchor_of(self.model, method, report))

    def resuming(self, layers: Sequence[int], recorded: Mapping[str, Any]) -> Editor:
        """This editor with the second moments that a record names, as far as they are still there.

        The same editor where a number of keys was asked for, or where they are gone.
        """
        if self._source is None or self._n_keys is not None or not recorded:
            return self
        kept = moments_as_recorded(self.model, layers, self._source, self.seed, recorded)
        if kept is None:
            return self
        other = copy(self)
        other._moments = kept
        return other

    def covered(self) -> list[int]:
        """The layers with a second moment: all of them, unless the moments were given."""
        known = None if self._source is not None or self._moments is None else self._moments.matrices
        return [layer for layer in range(self.model.n_layers) if known is None or layer in known]

    def alone(self) -> Editor:
        """This editor with second moments of its own, of no layer yet; this very one if its moments were given."""
        if self._source is None:
            return self
        other = copy(self)
        other._moments = None
        return other

    def moment_at_hand(self, layer: int) -> Tensor | None:
        """A layer's second moment (d_in, d_in) if it is in memory or in the cache; nothing is computed."""
        if self._moments is None or layer not in self._moments.matrices:
            found = cached_moments(self.model, layer, self._source, self._n_keys, self.seed) if self._source else None
            if found is None:
                return None
            if self._moments is None:
                self._moments = found
            else:
                self._moments.add(found)
        return self._moments.matrices[layer]

    def prepare(self, report: OnProgress = quiet) -> None:
        """Compute in advance what the first edit by the first method needs."""
        method = next(iter(self.methods.values()))
        self.model.hold(layer for each in self.methods.values() if each.needs_moments for layer in each.edited_layers)
        self.contexts(method)
        moments = self.moments(method.edited_layers, report)
        for layer in method.edited_layers:
            moments.warm([layer], method.ridge, self.model.device_of(layer))

    def forget(self) -> None:
        """Drop everything that is kept only for speed."""
        self.model.forget()
        if self._moments is not None:
            self._moments.forget()

    def compute(
        self,
        facts: Sequence[Fact],
        method: Method,
        report: OnProgress = quiet,
        contexts: Sequence[str] | None = None,
        earlier: Sequence[Earlier] = (),
    ) -> tuple[Edit, Trace, dict[str, Any]]:
        """A method's edit on the weights in force, its anatomy, and its provenance.

        `contexts` replaces the method's own; `earlier` are the edits in force, in order. Raises ValueError for facts
        that this model or method cannot take or a method that fails, FloatingPointError for a delta that is not finite.
        """
        check_facts(method, self.model, facts)
        method = self.anchored(method, report)
        contexts = self.contexts(method) if contexts is None else check_contexts(contexts)
        moments = self.moments_for(method, report)
        with in_full_float32():
            edit, trace = computed(
                method, self.model, facts, moments=moments, contexts=contexts, report=report, earlier=earlier
            )
        edit = {layer: delta.contiguous() for layer, delta in self.model.placed(edit).items()}
        for layer, delta in edit.items():
            if not delta.is_finite():
                raise FloatingPointError(
                    f"the edit of layer {layer} is not finite and was refused; nothing was changed"
                )
        made = {
            "contexts": list(contexts),
            "second_moments": moments.provenance_of(method.edited_layers),
            "objects_joined_by": [fact.joint for fact in facts],
        }
        return edit, trace, {**self.provenance(), **made}

    def describe(self) -> dict[str, Any]:
        """The model in JSON types: name, family, device, dtype, layers, parameters, reason, revision."""
        model = self.model
        return {
            "name": model.name,
            "family": model.kind,
            "device": devices_named(model.devices),
            "dtype": model.precision,
            "layers": model.n_layers,
            "parameters": model.n_parameters(),
            "reason": model.reason,
            "revision": model.revision,
        }

    def provenance(self) -> dict[str, Any]:
        """The model, the device, the seed and the versions of the software."""
        return {
            "model": self.model.name,
            "model_revision": self.model.revision,
            "model_fingerprint": self.model.fingerprint(),
            "dtype": self.model.precision,
            "device": devices_named(self.model.devices),
            "threads": torch.get_num_threads(),
            "seed": self.seed,
            "versions": dict(_versions()),
        }


@cache
def _versions() -> dict[str, str]:
    """Versions of the software, read once: a page asks for the provenance of step 0 whenever it draws."""
    found = {"python": platform.python_version(), "editlab": __version__}  # a checkout need not be installed
    return {**found, **{name: version(name) for name in ("torch", "transformers")}}


def devices_named(devices: Iterable[torch.device]) -> str:
    """ "CPU", or the name of the GPU; of several, each name with its number."""
    names = Counter(torch.cuda.get_device_name(each) if each.type == "cuda" else each.type.upper() for each in devices)
    return " + ".join(f"{n} × {name}" if n > 1 else name for name, n in names.items())
