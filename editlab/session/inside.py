"""What is read inside the model at a step of a session: the lens, causal traces, and a fact swept over the layers.

Traces and sweeps are kept among the session's measurements.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from editlab.core.facts import Fact, place_of
from editlab.core.inside import BLOCK, NOISE, REPLACEMENT, TRUE, CausalTrace, LayerSweep, Lens, SweptLayer
from editlab.core.joining import AUTO, check_joint
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.inside.corruption import Replacement, replacements
from editlab.inside.facts import FactTrace, answer_of, check_settings
from editlab.inside.lens import lens
from editlab.measures._measure import State, questions_of
from editlab.measures.preservation import moved, output_power
from editlab.methods import Method
from editlab.model.deltas import LowRank
from editlab.model.reading import object_scores
from editlab.session.log import Entry, earlier_of, layers_of
from editlab.session.measurements import SWEEP, TRACE

if TYPE_CHECKING:
    from editlab.session.session import Session

LAYER = "layer"  # the hyperparameter that a sweep changes


def read_lens(
    session: Session,
    prompt: str,
    *,
    subject: str = "",
    target_new: str = "",
    target_true: str = "",
    joined_by: str = AUTO,
    every_token: bool = True,
    index: int | None = None,
) -> Lens:
    """The lens of any prompt at step `index` (default: the step in force). Raises ValueError.

    Without `subject`, or where the prompt lacks it, the prompt has no subject.
    """
    check_joint(joined_by)
    state = session.measurements.state(session.entries(index))
    start = place_of(subject, prompt) if subject and subject in prompt else None
    with session.ending_in_force():
        state.put_in_force()
        return lens(
            session.model,
            prompt,
            subject=None if start is None else (start, start + len(subject)),
            target_new=target_new or None,
            target_true=target_true or None,
            joined_by=joined_by,
            every_token=every_token,
            edited=sorted(layers_of(state.edits)),
        )


class TraceAttempt:
    """The causal trace of a fact at a step; stopped by an exception, a second call goes on. Raises ValueError."""

    def __init__(
        self,
        session: Session,
        fact: Fact,
        *,
        corruption: str = NOISE,
        kind: str = BLOCK,
        window: int = 1,
        answer: str = TRUE,
        index: int | None = None,
        pool: Sequence[Fact] = (),
    ) -> None:
        """`pool` holds the facts whose subjects may replace this one."""
        window = 1 if kind == BLOCK else window
        check_settings(corruption, kind, window, answer)
        session.model.check(fact)
        if answer == TRUE and fact.target_true is None:
            raise ValueError("the fact has no true object to trace: give one, or trace what the model says")
        self._session, self._fact, self._pool = session, fact, pool
        self._corruption, self._kind, self._window, self._answer = corruption, kind, window, answer
        self._entries = session.entries(index)
        self._trace: FactTrace | None = None
        asked = {"fact": fact.to_json(), "corruption": corruption, "kind": kind, "window": window, "answer": answer}
        self._asked = json.dumps([asked], ensure_ascii=False)

    def __call__(self, report: OnProgress = quiet) -> CausalTrace:
        measurements = self._session.measurements
        if (known := measurements.found_inside(TRACE, self._entries, self._asked)) is not None:
            return known
        state = measurements.state(self._entries)
        with self._session.ending_in_force():
            if self._trace is None:
                self._trace = self._begin(state)
            state.put_in_force()
            found = self._trace(report)
        measurements.keep_inside(TRACE, self._entries, self._asked, found)
        return found

    def _begin(self, state: State) -> FactTrace:
        """Replacements are chosen on the unedited model, so that traces of two steps have the same ones."""
        model, fact = self._session.model, self._fact
        state.put_in_force()
        answer = answer_of(model, fact, self._answer)
        others: tuple[Replacement, ...] = ()
        if self._corruption == REPLACEMENT:
            self._session.measurements.state(()).put_in_force()
            others = replacements(model, fact, answer, self._pool)
            state.put_in_force()
        return FactTrace(model, fact, answer, self._kind, self._window, others, sorted(layers_of(state.edits)))


def check_swept(kind: type[Method]) -> None:
    """Raises ValueError for a method that does not edit one layer."""
    if not hasattr(kind, LAYER):
        raise ValueError(f"{kind.title} edits several layers at once, so it cannot be swept over the layers")


class SweepAttempt:
    """One fact edited at every layer, each time alone on the step in force; nothing is kept of the edits.

    Stopped by an exception, a second attempt at the same goes on with the next layer. Raises ValueError for a method
    that does not edit one layer.
    """

    def __init__(
        self,
        session: Session,
        fact: Fact,
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
        layers: Sequence[int] | None = None,
    ) -> None:
        """`layers` are those to edit; default: all that have a second moment."""
        session.model.check(fact)
        self._session, self._fact = session, fact
        changes = {name: value for name, value in (hyperparameters or {}).items() if name != LAYER}
        check_swept(type(session.editor.method(method, changes)))
        self._layers = session.editor.covered() if layers is None else list(layers)
        self._method, self._changes = method, changes
        self._entries: tuple[Entry, ...] = session.entries()
        asked: dict[str, Any] = {"fact": fact.to_json(), "method": method, "hyperparameters": changes}
        if layers is not None:
            asked["layers"] = self._layers
        self._asked = json.dumps([asked], ensure_ascii=False)

    def __call__(self, report: OnProgress = quiet, steady: OnProgress | None = None) -> LayerSweep:
        """The sweep. `steady` gets the progress while an edit is computed: an exception there throws it away."""
        session, measurements = self._session, self._session.measurements
        if (known := measurements.found_inside(SWEEP, self._entries, self._asked)) is not None:
            return known
        state = measurements.state(self._entries)
        done: dict[int, SweptLayer] = state.cache.unfinished.setdefault(self._asked, {})
        left = [layer for layer in self._layers if layer not in done]
        with session.ending_in_force():
            session.editor.cache_moments(left, steady or report)
            for layer in left:
                progress = Progress("sweeping the layers", len(done), len(self._layers))
                report(progress)
                state.put_in_force()
                method = session.editor.method(self._method, {**self._changes, LAYER: layer})
                done[layer] = self._swept(method, partial(_instead, steady or report, progress))
        found = LayerSweep(self._method, tuple(done[layer] for layer in self._layers))
        measurements.keep_inside(SWEEP, self._entries, self._asked, found)
        state.cache.unfinished.pop(self._asked, None)
        return found

    def _swept(self, method: Method, report: OnProgress) -> SweptLayer:
        """The row of one layer, whose edit is overlaid and never written."""
        session, fact, model = self._session, self._fact, self._session.model
        editor = session.editor.alone()  # keeps no layer's second moment: those of all layers may be large
        edit, _, _ = editor.compute([fact], method, report, earlier=earlier_of(self._entries))
        (layer,) = edit
        prompts = [fact.text, *fact.paraphrase_prompts, *fact.neighborhood_prompts]
        with ExitStack() as overlay:
            overlay.enter_context(model.overlaid(edit))
            scores = {q: s for some in object_scores(model, questions_of(prompts, fact)) for q, s in some.items()}
        new = scores[fact.asks_new]

        def share(texts: Sequence[str], prefers_new: bool) -> float | None:
            """The share of prompts after which the new, or else the true, object is the likelier one."""
            true = fact.target_true
            if not texts or true is None:
                return None
            likelier = [
                scores[fact.question(text, fact.target_new)].nll < scores[fact.question(text, true)].nll
                for text in texts
            ]
            return sum(each == prefers_new for each in likelier) / len(likelier)

        return SweptLayer(
            layer=layer,
            p_new=new.p,
            p_true=None if fact.target_true is None else scores[fact.asks_true].p,
            says_new=new.said,
            paraphrases=share(fact.paraphrase_prompts, True),
            unrelated=share(fact.neighborhood_prompts, False),
            relative_size=edit[layer].norm() / model.base_norm(layer),
            d=self._preservation(layer, edit[layer], editor.moments([layer]).matrices[layer]),
        )

    def _preservation(self, layer: int, delta: LowRank, c: Any) -> float:
        """tr(ΔW C ΔWᵀ) ÷ tr(W₀ C W₀ᵀ) of this edit alone."""
        right, left = delta.right.double().to(c.device), delta.left.double().to(c.device)
        return float(((left.T @ left) * (right.T @ moved(delta, c))).sum()) / output_power(
            self._session.model, layer, c
        )


def _instead(report: OnProgress, progress: Progress, _inner: Progress) -> None:
    """Report the sweep's progress in place of an edit's own."""
    report(progress)
