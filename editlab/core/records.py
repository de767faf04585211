"""What a session says of itself: frozen records of plain JSON types, no tensors.

They cross process boundaries unchanged (`to_json` and `from_json`), so the page, the command line and exports
read the same thing. Knows nothing of torch, of models or of widgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from editlab.core.facts import CaseId, Fact
from editlab.core.record import Record

LEVELS = ("low", "raised", "high")


@dataclass(frozen=True)
class Risk(Record):
    """What is known of one edit before it is made. Numbers are of the (first) edited layer; None: does not apply."""

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
    weight_norm: float  # ‖W‖
    divisor: float | None = None  # k·u with ‖u‖ = 1, k the key that the method solves for
    divisor_ratio: float | None = None  # (k·u) / (k̄·u); 1 where the keys agree
    predicted_norm: float | None = None  # ‖ΔW‖ at most: δ at its clamp
    relative_size: float | None = None  # the same ÷ ‖W‖
    times_median: float | None = None  # relative size ÷ the reference facts' median; None: not calibrated


@dataclass(frozen=True)
class Guarded(Record):
    """What the guard did, logged with the step."""

    choice: str  # one of CHOICES
    level: str  # at or above which it acts: "raised" or "high"
    asked: str  # the method asked for
    made: str  # the method that the edit was made with
    acted: bool  # the risk was at or above the level
    reason: str  # one sentence


@dataclass(frozen=True)
class ValueTrace(Record):
    """How one fact's value was found: one entry per optimisation step (the first is before any update)."""

    loss: tuple[float, ...]  # nll + kl + decay
    nll: tuple[float, ...]
    kl: tuple[float, ...]
    decay: tuple[float, ...]
    p_new: tuple[float, ...]  # mean over the contexts of exp(-nll per token)
    init_norm: float  # ‖init‖, the vector that δ is added to
    delta_norm: float  # ‖δ‖
    value_norm: float  # ‖v*‖ or ‖z‖


@dataclass(frozen=True)
class LayerTrace(Record):
    """What made one layer's ΔW its size. Norms are Frobenius norms for weights, Euclidean ones for vectors."""

    delta_norm: float  # ‖ΔW‖
    weight_norm: float  # ‖W‖ before this edit
    key_norm: float  # ‖k̄‖, the key averaged over contexts (mean over facts)
    residual_norm: float  # ‖left‖: what the layer is asked to add at the key
    bare_key_norm: float | None = None  # ‖k_bare‖; ROME only from here on
    key_cosine: float | None = None  # cos of the angle between k̄ and k_bare
    divisor: float | None = None  # k_bare·u with ‖u‖ = 1
    divisor_ratio: float | None = None  # (k_bare·u) / (k̄·u); 1 where the two keys agree


@dataclass(frozen=True)
class Trace(Record):
    """The anatomy of one edit, for every method."""

    values: tuple[ValueTrace, ...]  # one per fact
    layers: Mapping[int, LayerTrace]
    subject_position: int  # token index of the (first) fact's subject's last token in the bare prompt
    seconds: Mapping[str, float]  # by stage: "value", "insertion"


@dataclass(frozen=True)
class TokenChance(Record):
    """A next token and its probability."""

    token: str
    p: float


@dataclass(frozen=True)
class Completion(Record):
    """What the model makes of one watched prompt."""

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


@dataclass(frozen=True)
class Drift(Record):
    """How far an edited layer is from where it began; of a single edit (`Step.size`) the same with its own ΔW."""

    norm: float  # ‖W - W₀‖_F
    relative: float  # ÷ ‖W₀‖_F
    per_element: float  # ÷ numel, the paper's |Δ|


@dataclass(frozen=True)
class TaskScore(Record):
    """How one downstream task goes, on the same examples at every step."""

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
    """Two scores on the same examples: what the later one answers rightly and the earlier one did not, and back."""

    task: str
    rule: str
    n: int
    gained: int  # wrong before, right after
    lost: int  # right before, wrong after
    p_value: float  # McNemar's exact test, two-sided


@dataclass(frozen=True)
class Quality(Record):
    """CounterFact's measures over one kind of prompt: means over facts of the mean over a fact's prompts.

    The object asked for is the new one, and on neighborhood prompts the true one; the other is its rival. P is
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
    of: int  # facts there are; more than `n_facts` where a fixed sample was taken
    efficacy: Quality | None
    paraphrase: Quality | None
    neighborhood: Quality | None
    score: float | None  # S, the harmonic mean of the three successes
    base: CounterFact | None = None  # the same prompts on the unedited model
    before: CounterFact | None = None  # and without the step's own edit; None of all edits


@dataclass(frozen=True)
class Recall(Record):
    """What is left of one edited fact."""

    edit: str  # id of its step
    number: int  # of the fact among the step's facts, from 0
    says_new: bool  # the new object is the argmax at every one of its tokens now
    said_new: bool  # the same, when the edit was made
    prefers_new: bool | None  # P(new) > P(true) now; None without a true object
    preferred_new: bool | None  # the same, in the unedited model


@dataclass(frozen=True)
class Retention(Record):
    """Which edited facts of a state are still recalled (forgetting, in the papers), oldest first."""

    recalls: tuple[Recall, ...]
    of: int  # edited facts in force; more than the recalls where a fixed sample was taken
    succeeded: int  # how many of the recalls said the new object when their edit was made
    kept: float | None  # the headline: share of those that still do; None if none succeeded
    prefers_new: float | None  # share with P(new) > P(true) now
    preferred_new: float | None  # the level of that before any edit


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

    Facts of a subject that an edit in force is of are left out.
    """

    n: int
    share: float  # of them still right
    broken: tuple[Broken, ...]


@dataclass(frozen=True)
class Generation(Record):
    """Generation entropy GE in bits: (2/3·H₂ + 4/3·H₃)/2 over words, mean over the generation prompts."""

    entropy: float
    base: float  # of the same prompts in the unedited model
    n: int  # prompts
    n_facts: int
    of: int  # facts there are; more than `n_facts` where only the first were asked
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
class Cost(Record):
    """How long a measurement of the step in force would take."""

    seconds: float
    measured: bool  # from the last time it was done; else from its tokens and the model's size


@dataclass(frozen=True)
class ChangePoint(Record):
    """A step at which a run left its own ways."""

    step: int
    edit: str  # id of the step
    kind: str  # "jump" (catastrophic) or "trend" (gradual: the step from which on it shows)
    measure: str  # "drift", "perplexity", "retention" or a task
    sentence: str


@dataclass(frozen=True)
class Health(Record):
    """What a run's history says of the model in force."""

    status: str  # "healthy", "degrading" or "collapsed"
    reason: str  # one sentence
    changes: tuple[ChangePoint, ...] = ()


@dataclass(frozen=True)
class Measurement(Record):
    """What was measured of one state of the weights. All after `base` is measured by name, later or never.

    `completions` holds the step's own fact first (rewrite, paraphrases, neighbours), then the user's watched prompts;
    `before` (the state without this step) and `base` (the unedited model) hold the same prompts in the same order.
    """

    drift: Mapping[int, Drift]
    completions: tuple[Completion, ...]
    before: tuple[Completion, ...] = ()
    base: tuple[Completion, ...] = ()
    tasks: Mapping[str, TaskScore] = field(default_factory=dict)  # by the name asked for: "sst2", "sst2:generation"
    counterfact: CounterFact | None = None  # of the step's own facts
    counterfact_all: CounterFact | None = None  # of all facts edited so far
    retention: Retention | None = None
    perplexity: Perplexity | None = None
    bleeding: Bleeding | None = None
    generation: Generation | None = None
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
        """With what measures found, by their names."""
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

    @classmethod
    def read(cls, name: str, values: Any) -> Record | None:
        """What the measure of that name found, from its JSON."""
        if name in {f.name for f in fields(cls)}:
            own = {name: values}
        else:
            own = {"tasks" if values is None or "accuracy" in values else "others": {name: values}}
        return cls.from_json({"drift": {}, "completions": (), **own}).get(name)

    def get(self, name: str) -> Record | None:
        """What the measure of that name found, a task's score too; None if it was not measured."""
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
    measurement: Measurement | None  # of the state "steps 1..index, without those switched off"; None: not yet
    provenance: Mapping[str, Any]
    seconds: float  # wall time of the edit
    size: Mapping[int, Drift] = field(default_factory=dict)  # of this edit's own ΔW, per layer
    risk: Risk | None = None  # found before the edit, of the method asked for; of several facts the riskiest
    guarded: Guarded | None = None  # None: the guard was off


@dataclass(frozen=True)
class Probe(Record):
    """One fact edited beside a session, in a log of its own that begins with the unedited model."""

    step: Step  # the fact's, measured as any step, when it was made
    earlier: tuple[str, ...]  # ids of the session's steps whose edits came before it, in this order
    later: tuple[str, ...]  # and after it
    anew: bool  # those edits were computed again; else their ΔW is as the session has it
    last: Step | None = None  # the last of the later edits, measured too; None: nothing came later
    in_the_end: tuple[Completion, ...] = ()  # what the fact's own prompts are answered after the later edits


@dataclass(frozen=True)
class SessionState(Record):
    """All that a page needs to draw a session."""

    id: str
    steps: tuple[Step, ...]  # step 0 first
    position: int  # the step in force: steps after it are undone and can be redone
    watched: tuple[str, ...]  # the user's own prompts
    model: Mapping[str, Any]  # name, device, dtype, parameters, layers, reason
    plan: Mapping[str, int] = field(default_factory=dict)  # measure -> at every so many steps; absent: on demand
    costs: Mapping[str, Cost] = field(default_factory=dict)  # measure -> what it would take of the step in force
    health: Health | None = None  # of the step in force
