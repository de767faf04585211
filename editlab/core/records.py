"""The state of a session: frozen records of plain JSON types, no tensors.

Records cross process boundaries unchanged (`to_json` and `from_json`), so the page, the command line and exports read
the same thing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from editlab.core.facts import CaseId, Fact
from editlab.core.progress import Progress
from editlab.core.record import Record

LEVELS = ("low", "raised", "high")


@dataclass(frozen=True)
class Risk(Record):
    """The risk of one edit, known before the edit. Numbers are of the (first) edited layer; None: does not apply."""

    method: str
    level: str  # "low", "raised" or "high"
    reason: str  # one sentence
    token_level: str  # the same from the tokens alone
    subject_tokens: int  # of the bare prompt
    position: int  # token index of the subject's last token in the bare prompt
    layer: int
    key_norm: float  # ‖k̄‖, the key averaged over contexts
    bare_key_norm: float  # ‖k_bare‖
    key_cosine: float  # cos of the angle between them
    weight_norm: float  # ‖W₀‖
    divisor: float | None = None  # k·u with ‖u‖ = 1, k the key that the method solves for
    divisor_ratio: float | None = None  # (k·u) / (k̄·u); 1 where the keys agree
    predicted_norm: float | None = None  # ‖ΔW‖ at most: δ at its clamp
    relative_size: float | None = None  # the same ÷ ‖W₀‖
    times_median: float | None = None  # relative size ÷ the reference facts' median; None: not calibrated
    predicted_error: float | None = None  # preservation error at most; None: no prediction, or no second moment


@dataclass(frozen=True)
class Guarded(Record):
    """The guard's decision, logged with the step."""

    choice: str  # one of CHOICES
    level: str  # the level from which on the guard acts: "raised" or "high"
    asked: str  # the requested method
    made: str  # the method that the edit was made with
    acted: bool  # the risk was at or above the level
    reason: str  # one sentence


@dataclass(frozen=True)
class Anchored(Record):
    """What norm anchoring made of one fact's value: the MLP's output v* at the subject's last token."""

    anchor: float  # the norm to which v* is scaled: the mean of the unedited model's own
    norm: float  # ‖v*‖ as the search left it
    skipped: bool  # it was too long, so that the fact was not edited
    p_new: float  # of the new object, asked again with the anchored value; as the trace's `p_new`
    hits: int  # the same of the trace's `hits`


@dataclass(frozen=True)
class ValueTrace(Record):
    """The search for one fact's value: one entry per optimisation step (the first is before any update)."""

    loss: tuple[float, ...]  # nll + kl + decay
    nll: tuple[float, ...]
    kl: tuple[float, ...]
    decay: tuple[float, ...]
    p_new: tuple[float, ...]  # mean over the contexts of exp(-nll per token)
    init_norm: float  # ‖init‖, the vector that δ is added to
    delta_norm: float  # ‖δ‖, before any anchoring
    value_norm: float  # ‖v*‖ or ‖z‖, after it
    hits: tuple[int, ...] = ()  # tokens of the new object that were the argmax, summed over the counted contexts
    hits_of: int = 0  # tokens counted; 0: what was made before hits were counted
    anchored: Anchored | None = None


@dataclass(frozen=True)
class LayerTrace(Record):
    """The numbers behind the size of one layer's ΔW. Norms are Frobenius for weights, Euclidean for vectors."""

    delta_norm: float  # ‖ΔW‖
    weight_norm: float  # ‖W‖ before this edit
    key_norm: float  # ‖k̄‖, the key averaged over contexts (mean over facts)
    residual_norm: float  # ‖left‖: of the vector that the layer has to add at the key
    bare_key_norm: float | None = None  # ‖k_bare‖; ROME only from here on
    key_cosine: float | None = None  # cos of the angle between k̄ and k_bare
    divisor: float | None = None  # k_bare·u with ‖u‖ = 1
    divisor_ratio: float | None = None  # (k_bare·u) / (k̄·u); 1 where the two keys agree
    history: int | None = None  # earlier keys that the solve kept; None: no history
    free: float | None = None  # kᵀ(C′ + C_h)⁻¹k ÷ kᵀC′⁻¹k: near 0, an earlier edit has the same key; least of the facts
    null_dimensions: int | None = None  # of the null space that the edit is projected on; AlphaEdit only
    projected: float | None = None  # ‖Pk‖² ÷ ‖k‖²: the part of the key in it; least of the facts
    keys_per_dimension: float | None = None  # of the second moment that the null space is of

    @property
    def relative_size(self) -> float:
        """‖ΔW‖ ÷ ‖W‖, with the weight as it was before this edit."""
        return self.delta_norm / self.weight_norm


@dataclass(frozen=True)
class Trace(Record):
    """The anatomy of one edit, for every method."""

    values: tuple[ValueTrace, ...]  # one per fact
    layers: Mapping[int, LayerTrace]
    subject_position: int  # token index of the (first) fact's subject's last token in the bare prompt
    seconds: Mapping[str, float]  # by stage: "value", "insertion"

    @property
    def largest_layer(self) -> LayerTrace:
        """The layer of the largest relative size. Raises ValueError where the trace has no layer."""
        return max(self.layers.values(), key=lambda layer: layer.relative_size)


@dataclass(frozen=True, slots=True)  # there are thousands of them in a long session
class TokenChance(Record):
    """A next token and its probability."""

    token: str
    p: float


@dataclass(frozen=True, slots=True)
class Completion(Record):
    """The model's completion of one watched prompt."""

    prompt: str
    kind: str  # "rewrite", "paraphrase", "neighborhood" or "own"
    completion: str  # greedy continuation, without the prompt
    top: tuple[TokenChance, ...]  # most likely next tokens, best first
    p_new: float | None = None  # exp(-mean NLL per token) of the fact's new object; None without a fact
    p_true: float | None = None
    says_new: bool | None = None  # the new object is the argmax at every one of its tokens
    says_true: bool | None = None
    p_new_joint: float | None = None  # of all the object's tokens together; None in what was measured before 0.2
    p_true_joint: float | None = None
    notice: str = ""  # a sentence where the prompt's last blanks change the new object's tokens


@dataclass(frozen=True, slots=True)
class Drift(Record):
    """The distance of an edited layer from its unedited weights; for a single edit (`Step.size`), of its own ΔW."""

    norm: float  # ‖W - W₀‖_F
    relative: float  # ÷ ‖W₀‖_F
    per_element: float  # ÷ numel, the paper's |Δ|


LayerDrift = tuple[int, Drift]  # a layer's number, and how far that layer has moved


def largest(drifts: Mapping[int, Drift]) -> LayerDrift | None:
    """The layer with the largest relative drift; None where there is no layer."""
    return max(drifts.items(), key=lambda item: item[1].relative, default=None)


@dataclass(frozen=True)
class TaskScore(Record):
    """The score of one downstream task, on the same examples at every step."""

    task: str
    title: str
    rule: str  # "scores" (the likelier label word) or "generation" (the label that the continuation names)
    n: int
    correct: tuple[bool, ...]  # one per example, in order: two steps are a paired comparison
    accuracy: float  # the headline
    interval: tuple[float, float]  # of the accuracy: Wilson, 95 %
    chance: float  # accuracy of always giving one label, the best one
    f1: float  # F1 weighted by the labels' frequency: the measure of arXiv 2401.07453
    chance_f1: float  # the same of always giving one label: 0.33 where two labels are in balance
    invalid: float  # share of answers that named no label, and are wrong; 0 under "scores"
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class PairedTest(Record):
    """A paired test of two scores on the same examples: those that only the later, or only the earlier, has right."""

    task: str
    rule: str
    n: int
    gained: int  # wrong before, right after
    lost: int  # right before, wrong after
    p_value: float  # McNemar's exact test, two-sided


@dataclass(frozen=True)
class Quality(Record):
    """CounterFact's measures over one kind of prompt: means over facts of the mean over a fact's prompts.

    The wanted object is the new one, but on neighborhood prompts the true one; the other object is its rival. P is
    exp(-mean NLL per token).
    """

    n: int  # prompts
    success: float | None  # share of prompts where the object is likelier than its rival; None without a true object
    difference: float | None  # mean of P(object) - P(rival): the magnitude of ROME and MEMIT
    accuracy: float | None  # share of prompts where the object is the argmax at every one of its tokens


@dataclass(frozen=True)
class CounterFact(Record):
    """Efficacy, paraphrase and neighborhood of one edit, or means over all edits so far. None: no such prompts."""

    n_facts: int
    of: int  # all facts; more than `n_facts` where a fixed sample was taken
    efficacy: Quality | None
    paraphrase: Quality | None
    neighborhood: Quality | None
    score: float | None  # S, the harmonic mean of the three successes
    base: CounterFact | None = None  # the same prompts, unedited model
    before: CounterFact | None = None  # the same prompts without the step's own edit; None for means over all edits


@dataclass(frozen=True, slots=True)
class Recall(Record):
    """Whether one edited fact is still remembered."""

    edit: str  # id of its step
    number: int  # of the fact among the step's facts, from 0
    says_new: bool  # the new object is the argmax at every one of its tokens now
    said_new: bool  # the same, when the edit was made
    prefers_new: bool | None  # P(new) > P(true) now; None without a true object
    preferred_new: bool | None  # the same, in the unedited model


@functools.lru_cache(maxsize=20_000)
def _shared(recall: Recall) -> Recall:
    """The same object for equal ones: most facts are remembered at a step as they were at the step before."""
    return recall


@dataclass(frozen=True)
class Retention(Record):
    """Which edited facts of a state are remembered (forgetting, in the papers), oldest first."""

    recalls: tuple[Recall, ...]
    of: int  # edited facts in force; more than the recalls where a fixed sample was taken
    succeeded: int  # how many of the recalls said the new object when their edit was made
    kept: float | None  # the headline: share of those that still do; None if none succeeded
    prefers_new: float | None  # share with P(new) > P(true) now
    preferred_new: float | None  # the same share before any edit

    def __post_init__(self) -> None:
        object.__setattr__(self, "recalls", tuple(map(_shared, self.recalls)))


@dataclass(frozen=True)
class Perplexity(Record):
    """exp(mean NLL per token) of a fixed text, read in windows that do not overlap."""

    value: float
    text: str  # which text, in words
    n: int  # tokens scored: all but the first of each window
    window: int  # tokens in a window, at most


@dataclass(frozen=True)
class Broken(Record):
    """An unrelated fact that the unedited model knows and this state does not."""

    prompt: str
    target: str
    case_id: CaseId | None = None


@dataclass(frozen=True)
class Bleeding(Record):
    """Unrelated facts that the unedited model knows: the true object is the argmax at every token.

    Facts about a subject of an edit in force are left out.
    """

    n: int
    share: float  # of these facts, still right
    broken: tuple[Broken, ...]


@dataclass(frozen=True)
class Generation(Record):
    """Generation entropy GE in bits: (2/3·H₂ + 4/3·H₃)/2 over words, mean over the generation prompts."""

    entropy: float
    base: float  # of the same prompts, unedited model
    n: int  # prompts
    n_facts: int
    of: int  # all facts; more than `n_facts` where only the first were taken
    tokens: int  # prompt included, at most


@dataclass(frozen=True)
class Number(Record):
    """What a measure of another package found."""

    value: float
    unit: str = ""
    n: int | None = None  # what the value is over: prompts, examples, facts, tokens
    base: float | None = None  # the same on the unedited model
    low: float | None = None  # of a 95 % interval
    high: float | None = None
    title: str = ""  # the measure's; filled in where it is measured


@dataclass(frozen=True)
class Reading:
    """One number of a measure, with everything that has to stand beside it."""

    name: str  # within the measure: "rewrite.said"
    title: str
    value: float | None
    n: int | None  # what the value is over
    base: float | None  # the same on the unedited model
    rule: str  # how it is computed, in a sentence without its full stop
    unit: str = "share"
    layer: int | None = None
    forced: bool = False  # the object is forced on the model token by token; the model did not say it


class Result(Record):
    """A measure's result that gives its own numbers, so that tables, panels and reports need not know the measure."""

    def readings(self) -> tuple[Reading, ...]:
        """The numbers, the headline first."""
        raise NotImplementedError


def _read(record: Any, name: str) -> Any:
    """A field of a record that may be missing."""
    return None if record is None else getattr(record, name)


@dataclass(frozen=True)
class Answer(Record):
    """A model's free greedy answer to a prompt, judged against the object that is asked for there."""

    kind: str  # "rewrite", "paraphrase" or "neighborhood"
    prompt: str
    target: str
    answer: str
    exact: bool
    begins: bool
    contains: bool
    said: bool  # the verdict that counts: `contains` for a question, `begins` for a cloze
    forced: bool  # the object is the argmax at every one of its tokens when it is forced on the model
    unchanged: bool  # the generated tokens are the unedited model's
    unedited: str  # the unedited model's answer


@dataclass(frozen=True)
class Answers(Record):
    """Shares of free answers to one kind of prompt: means over a fact's prompts, then over facts."""

    n: int  # prompts
    said: float  # the object is said: contained in the answer to a question, at the beginning of that to a cloze
    exact: float
    begins: float
    contains: float
    forced: float  # teacher-forced: the object is the argmax at every one of its tokens
    unchanged: float  # the generated tokens are the unedited model's


ANSWERS = {
    "rewrite": ("Says it", "the new object"),
    "paraphrase": ("Says it elsewhere", "the new object, after paraphrases"),
    "neighborhood": ("Neighbours say the true object", "the true object, after neighbours"),
}
FREELY = "free greedy answer of one sentence, at most 50 tokens"


@dataclass(frozen=True)
class SaysIt(Result):
    """Free answers of one edit's facts, or means over all edits so far. None: no such prompts."""

    n_facts: int
    of: int  # all facts; more than `n_facts` where a fixed sample was taken
    rewrite: Answers | None
    paraphrase: Answers | None
    neighborhood: Answers | None  # the true object is the wanted one
    base: SaysIt | None = None  # the same prompts, unedited model
    answers: tuple[Answer, ...] = ()  # of one edit

    def readings(self) -> tuple[Reading, ...]:
        found = []
        for kind, (title, wanted) in ANSWERS.items():
            now: Answers | None = getattr(self, kind)
            base: Answers | None = _read(self.base, kind)
            if now is None:
                continue

            def reading(
                name: str, title: str, rule: str, kind: str = kind, now: Answers = now, base: Answers | None = base
            ) -> Reading:
                value = getattr(now, name)
                return Reading(f"{kind}.{name}", title, value, now.n, _read(base, name), rule, forced=name == "forced")

            found += [
                reading("said", title, f"{FREELY}; it begins with {wanted}, or to a question contains it"),
                reading("exact", "exactly", f"{FREELY}; it is {wanted}"),
                reading("begins", "begins with it", f"{FREELY}; it begins with {wanted}"),
                reading("contains", "contains it", f"{FREELY}; it contains {wanted}"),
                reading("forced", "teacher-forced", f"teacher-forced: argmax at every token of {wanted}"),
            ]
            if kind == "neighborhood":
                found.append(reading("unchanged", "unchanged", f"{FREELY}; every token is the unedited model’s"))
        return tuple(found)


@dataclass(frozen=True)
class Neighborhood(Record):
    """What became of neighborhood prompts, means over prompts."""

    n: int  # prompts
    success: float  # share where the true object is likelier than the new one
    divergence: float  # KL(unedited ‖ edited) of the next-token distribution, in nats


@dataclass(frozen=True)
class CounterFactPlus(Result):
    """CounterFact+ over the facts edited so far: neighborhood prompts, plain and after the edited statement."""

    n_facts: int
    of: int  # all facts; more than `n_facts` where some have no neighbours, or a fixed sample was taken
    plain: Neighborhood  # NS and NKL
    prefixed: Neighborhood  # NS+ and NKL+
    base_plain: Neighborhood  # the same prompts, unedited model
    base_prefixed: Neighborhood

    def readings(self) -> tuple[Reading, ...]:
        likelier = "teacher-forced: share of {} prompts where the true object is likelier than the new one"
        nats = "KL(unedited ‖ edited) of the next-token distribution after {} prompts, in nats"
        plain, prefixed = "neighborhood", "prefixed neighborhood"
        return (
            Reading("ns_plus", "NS+", self.prefixed.success, self.prefixed.n, self.base_prefixed.success,
                    likelier.format(prefixed), forced=True),
            Reading("ns", "NS", self.plain.success, self.plain.n, self.base_plain.success,
                    likelier.format(plain), forced=True),
            Reading("nkl_plus", "NKL+", self.prefixed.divergence, self.prefixed.n, 0.0, nats.format(prefixed), "nats"),
            Reading("nkl", "NKL", self.plain.divergence, self.plain.n, 0.0, nats.format(plain), "nats"),
        )  # fmt: skip


FOLLOW_UP_KINDS = {
    "prefix": "neighbours after the edited statement",
    "relation": "other relations of the subject",
    "alias": "other names of the subject",
    "reverse": "the way back",
    "two_hops": "questions two hops away",
}


@dataclass(frozen=True)
class Overfitting(Record):
    """How prompts of one kind are answered whose right answer is not the new object."""

    n: int  # prompts
    correct: float  # mean P of the right answer
    eos: float  # share with P(right answer) > P(new object)
    n_original: int  # prompts that had another right answer before the edit
    ams: float | None  # of these, the share with P(right answer) > P(answer before); None: there are none


@dataclass(frozen=True)
class Overfit(Result):
    """Overfitting to the edit, by kind of prompt: one of `FOLLOW_UP_KINDS`."""

    n_facts: int
    of: int  # all facts; more than `n_facts` where a fixed sample was taken
    kinds: Mapping[str, Overfitting]
    base: Mapping[str, Overfitting]  # the same prompts, unedited model

    def readings(self) -> tuple[Reading, ...]:
        share, p = "teacher-forced: share with P(right answer) > P({}), P by mean NLL per token", "probability"
        return tuple(
            Reading(f"{kind}.{name}", f"{title}, {FOLLOW_UP_KINDS[kind]}", value, n, level, rule, unit, forced=True)
            for kind, now in self.kinds.items()
            for name, title, n, rule, unit in (
                ("eos", "EOS", now.n, share.format("new object"), "share"),
                ("ams", "AMS", now.n_original, share.format("answer before the edit"), "share"),
                ("correct", "P(right answer)", now.n, "teacher-forced: mean over prompts, by mean NLL per token", p),
            )
            for value, level in [(getattr(now, name), _read(self.base.get(kind), name))]
            if value is not None
        )


@dataclass(frozen=True)
class Ripple(Record):
    """Follow-up prompts of one kind. Shares are over those that the unedited model passes."""

    asked: int
    n: int  # of these, how many the unedited model answers rightly in their unedited version
    said: float | None  # share whose right answer is said freely; None: n is 0
    exact: float | None
    forced: float | None  # teacher-forced: argmax at every token of the right answer
    preferred: float | None  # share with P(right answer) > P(answer before), where these differ
    said_of_all: float  # share said freely of all that were asked


@dataclass(frozen=True)
class Portability(Result):
    """What follows from the edits, by kind of follow-up."""

    n_facts: int
    of: int  # all facts; more than `n_facts` where some have no follow-ups
    kinds: Mapping[str, Ripple]
    base: Mapping[str, Ripple]  # the same prompts and answers, unedited model

    def readings(self) -> tuple[Reading, ...]:
        found = []
        for kind, now in self.kinds.items():
            named = FOLLOW_UP_KINDS[kind]
            passed = f"of {now.n} of {now.asked} whose unedited version the unedited model answers rightly"
            for name, title, n, rule in (
                ("said", f"Right answer said, {named}", now.n, f"{FREELY}; {passed}"),
                ("exact", "exactly", now.n, f"{FREELY}; {passed}"),
                ("forced", "teacher-forced", now.n, f"teacher-forced: argmax at every token; {passed}"),
                ("preferred", "likelier than before", now.n,
                 f"teacher-forced: P(right answer) > P(answer before the edit); {passed}"),
                ("said_of_all", "said, of all that were asked", now.asked, FREELY),
            ):  # fmt: skip
                value, level = getattr(now, name), _read(self.base.get(kind), name)
                forced = name in ("forced", "preferred")
                found.append(Reading(f"{kind}.{name}", title, value, n, level, rule, forced=forced))
        return tuple(found)


@dataclass(frozen=True)
class LayerPreservation(Record):
    """The preservation error of one edited layer: squared changes of its output on ordinary text ÷ that output²."""

    error: float  # D of all edits in force
    alone: float  # D of the last edit in force by itself
    share: float  # D minus D without the last edit; negative where that edit undoes part of the others' change


@dataclass(frozen=True)
class Preservation(Result):
    """The preservation error D = tr(ΔW C ΔWᵀ) / tr(W₀ C W₀ᵀ) of each edited layer."""

    layers: Mapping[int, LayerPreservation]
    without: tuple[int, ...] = ()  # edited layers whose second moment is not at hand, so that D is not known

    @property
    def largest(self) -> tuple[int, LayerPreservation] | None:
        """The layer with the largest error; None where no layer's is known."""
        return max(self.layers.items(), key=lambda item: item[1].error, default=None)

    @property
    def why_not(self) -> str:
        """A sentence on the layers whose error is not known; "" where it is known of all."""
        if not self.without:
            return ""
        named = f"layer{'s' * (len(self.without) > 1)} {', '.join(map(str, self.without))}"
        return f"The preservation error of {named} is not known: no second moment is in memory or in the cache."

    def readings(self) -> tuple[Reading, ...]:
        rule = "tr(ΔW C ΔWᵀ) ÷ tr(W₀ C W₀ᵀ), exact, from weights and second moments"
        found = []
        for layer, told in sorted(self.layers.items(), key=lambda item: -item[1].error):
            for name, title, how in (
                ("error", "Preservation error D", rule),
                ("share", "the last edit’s share", "D minus D without that edit"),
                ("alone", "the last edit alone", rule),
            ):
                value, unit = getattr(told, name), "of the output²"
                found.append(Reading(name, f"{title}, layer {layer}", value, None, 0.0, how, unit, layer))
        return tuple(found)


@dataclass(frozen=True)
class Cost(Record):
    """The time that a measurement of the step in force would take."""

    seconds: float
    measured: bool  # taken from the last such measurement; else estimated from tokens and model size


@dataclass(frozen=True)
class ChangePoint(Record):
    """A step at which a run's behaviour changed."""

    step: int
    edit: str  # id of the step
    kind: str  # "jump" (catastrophic) or "trend" (gradual: the step from which on it shows)
    measure: str  # "drift", "perplexity", "retention" or a task
    sentence: str


@dataclass(frozen=True)
class Health(Record):
    """The health of the model in force, judged from the run's history."""

    status: str  # "healthy", "unchecked" (nothing says yet how the model fares), "degrading" or "collapsed"
    reason: str  # one sentence
    changes: tuple[ChangePoint, ...] = ()


@dataclass(frozen=True)
class Measurement(Record):
    """The measurements of one state of the weights. Everything after `base` is measured by name, later or never.

    `completions` holds the step's own fact first (rewrite, paraphrases, neighbours), then the user's watched prompts;
    `before` (the state without this step) and `base` (the unedited model) hold the same prompts in the same order.
    """

    drift: Mapping[int, Drift]
    completions: tuple[Completion, ...]
    before: tuple[Completion, ...] = ()
    base: tuple[Completion, ...] = ()
    tasks: Mapping[str, TaskScore] = field(default_factory=dict)  # by measure: "sst2", "sst2:generation"
    counterfact: CounterFact | None = None  # of the step's own facts
    counterfact_all: CounterFact | None = None  # of all facts edited so far
    retention: Retention | None = None
    perplexity: Perplexity | None = None
    bleeding: Bleeding | None = None
    unrelated: Bleeding | None = None  # of a small fixed sample of the same facts
    generation: Generation | None = None
    says_it: SaysIt | None = None  # of the step's own facts
    says_it_all: SaysIt | None = None  # of all facts edited so far
    counterfact_plus: CounterFactPlus | None = None
    overfit: Overfit | None = None
    portability: Portability | None = None
    preservation: Preservation | None = None
    others: Mapping[str, Number] = field(default_factory=dict)  # of other packages' measures, by name

    @classmethod
    def of(
        cls,
        drift: Mapping[int, Drift],
        completions: tuple[Completion, ...] = (),
        before: tuple[Completion, ...] = (),
        base: tuple[Completion, ...] = (),
        found: Mapping[str, Record] | None = None,
    ) -> Self:
        """A measurement with these results of measures, by name."""
        tasks = {name: record for name, record in (found or {}).items() if isinstance(record, TaskScore)}
        others = {name: record for name, record in (found or {}).items() if isinstance(record, Number)}
        own: dict[str, Any] = {name: r for name, r in (found or {}).items() if name not in tasks | others}
        return cls(drift, completions, before, base, tasks, others=others, **own)

    @property
    def found(self) -> dict[str, Record]:
        """What measures found, by their names; tasks and those of other packages last."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Record)} | {
            **self.tasks,
            **self.others,
        }

    @property
    def results(self) -> dict[str, Result]:
        """The results that give their own numbers, by their measures' names."""
        return {name: found for name, found in self.found.items() if isinstance(found, Result)}

    @classmethod
    def read(cls, name: str, values: Any) -> Record | None:
        """What the measure of that name found, from its JSON."""
        if name in {f.name for f in fields(cls)}:
            own = {name: values}
        else:
            own = {"tasks" if values is None or "accuracy" in values else "others": {name: values}}
        return cls.from_json({"drift": {}, "completions": (), **own}).get(name)

    def get(self, name: str) -> Record | None:
        """The result of the measure with this name, or a task's score; None if it was not measured."""
        return self.found.get(name)


@dataclass(frozen=True)
class Step(Record):
    """One row of the timeline. Step 0 is the unedited model: it has no fact and no trace."""

    index: int  # position in the log; 0 is the unedited model
    id: str  # stable while the log changes around it; "" for step 0
    facts: tuple[Fact, ...]
    method: str | None  # registered name: "rome"
    hyperparameters: Mapping[str, Any]
    trace: Trace | None
    enabled: bool  # not switched off by the user
    in_force: bool  # at or before the session's position (not undone) and enabled
    measurement: Measurement | None  # of the state of steps 1 to index, without those switched off; None: not yet
    provenance: Mapping[str, Any]
    seconds: float  # wall time of the edit
    size: Mapping[int, Drift] = field(default_factory=dict)  # of this edit's own ΔW, per layer
    risk: Risk | None = None  # before the edit, for the requested method; of several facts the riskiest one
    guarded: Guarded | None = None  # None: the guard was off

    @property
    def norm(self) -> float | None:
        """‖ΔW‖ of this edit over all its layers; None for the unedited model."""
        return math.sqrt(math.fsum(size.norm**2 for size in self.size.values())) if self.size else None

    @property
    def relative_size(self) -> float | None:
        """‖ΔW‖ ÷ ‖W₀‖ of this edit, in the layer where it is largest; None for the unedited model."""
        found = largest(self.size)
        return found[1].relative if found else None

    @property
    def largest_drift(self) -> LayerDrift | None:
        """The edited layer that has moved most by this step, relative to ‖W₀‖; None where nothing was measured."""
        return largest(self.measurement.drift) if self.measurement else None

    def was_made_upon(self, edit: str) -> bool:
        """Whether an earlier edit, by its step's id, was in force when this one was computed.

        Files of earlier versions name all of those, instead of those that were off.
        """
        upon = self.provenance.get("upon")
        return edit not in self.provenance.get("without", ()) if upon is None else edit in upon


@dataclass(frozen=True)
class Probe(Record):
    """One fact edited in a log of its own, which begins with the unedited model and leaves the session as it is."""

    step: Step  # of the probed fact, measured like any step, right after its edit
    earlier: tuple[str, ...]  # ids of the session's steps whose edits came before, in order
    later: tuple[str, ...]  # ids of those that came after
    anew: bool  # those edits were computed again; else they keep the session's ΔW
    last: Step | None = None  # the last of the later edits, measured too; None: there were none
    in_the_end: tuple[Completion, ...] = ()  # completions of the fact's own prompts after the later edits


@dataclass(frozen=True)
class LogAction(Record):
    """A change of what is in force in a session: an edit, going to a step, or switching an edit."""

    before: int  # the step in force before it
    after: int
    switched: tuple[int, ...] = ()  # numbers of the edits that it switched off, or on again


@dataclass(frozen=True)
class EditReport(Record):
    """An edit of a session that waits or runs, or how the last one ended."""

    facts: tuple[Fact, ...]
    method: str  # that was asked for
    status: str  # "queued", "running", "done", "failed" or "cancelled"
    progress: Progress
    ahead: int = 0  # jobs that run before it
    error: str | None = None  # a sentence, once it has failed
    seconds_left: float | None = None  # if jobs take as long as they did lately; None: unknown

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs."""
        return self.status in ("queued", "running")


@dataclass(frozen=True)
class SessionState(Record):
    """All that a page needs to draw a session."""

    id: str
    steps: tuple[Step, ...]  # step 0 first
    position: int  # the step in force: steps after it are undone
    watched: tuple[str, ...]  # the user's own prompts
    model: Mapping[str, Any]  # name, device, dtype, parameters, layers, reason
    plan: Mapping[str, int] = field(default_factory=dict)  # measure -> at every so many steps; absent: on demand
    costs: Mapping[str, Cost] = field(default_factory=dict)  # measure -> its cost at the step in force
    health: Health | None = None  # of the step in force
    undo: LogAction | None = None  # what `undo` takes back; None: nothing
    redo: LogAction | None = None  # what `redo` does again; None: nothing


@dataclass(frozen=True)
class StateChanges(Record):
    """A session's state for a reader who knows an earlier version of it."""

    version: str  # of this state: what the reader names the next time
    length: int  # number of steps, step 0 included
    state: SessionState  # of its steps those alone that differ from the reader's; others may be in force or no longer
    complete: bool = True  # else more have changed: they are asked for by this version

    def after(self, earlier: StateChanges) -> StateChanges:
        """Both as one, where these changes were asked for by the version of the earlier ones."""
        steps = {step.index: step for step in (*earlier.state.steps, *self.state.steps)}
        return replace(self, state=replace(self.state, steps=tuple(steps.values())))

    def applied_to(self, known: Sequence[Step]) -> SessionState:
        """The whole state, from the steps that the reader knows. Raises ValueError where a step is missing."""
        steps: list[Step | None] = [*known[: self.length], *[None] * (self.length - len(known))]
        for step in self.state.steps:
            if step.index < self.length:
                steps[step.index] = step
        position = self.state.position
        return replace(self.state, steps=tuple(_in_force(step, position) for step in steps))


def _in_force(step: Step | None, position: int) -> Step:
    """The step as it is with the step at `position` in force."""
    if step is None:
        raise ValueError("a step is missing that the reader does not know")
    in_force = step.enabled and step.index <= position
    return step if step.in_force == in_force else replace(step, in_force=in_force)
