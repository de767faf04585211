"""Records of what is read inside a model: the lens after every block, causal traces, layer sweeps."""

from __future__ import annotations

from dataclasses import dataclass

from editlab.core.record import Record
from editlab.core.records import TokenChance

NOISE, REPLACEMENT = "noise", "replacement"
CORRUPTIONS = (NOISE, REPLACEMENT)
BLOCK, MLP, ATTENTION = "block", "mlp", "attention"
KINDS = (BLOCK, MLP, ATTENTION)
TRUE, NEW, SAID = "true", "new", "said"  # the answer of a trace: an object's first token, or what the model says
ANSWERS = (TRUE, NEW, SAID)
WINDOWS = (10, 1)  # of MLP and attention, in layers
NOISES = 10  # corrupted rows of one trace

Grid = tuple[tuple[float, ...], ...]  # tokens × layers


@dataclass(frozen=True)
class Lens(Record):
    """softmax(unembed(final norm(h))) of the output h of every block, at some tokens of a prompt.

    `words[top[i][l][k]]` is the k-th likeliest next token at token `positions[i]` after block l, and `chances[i][l][k]`
    its probability.
    """

    tokens: tuple[str, ...]  # of the whole prompt
    positions: tuple[int, ...]  # the tokens that were read, in order
    subject_last: int | None  # the subject's last token
    words: tuple[str, ...]
    top: tuple[tuple[tuple[int, ...], ...], ...]
    chances: tuple[Grid, ...]
    p_new: Grid | None = None  # of the first token of the new object
    p_true: Grid | None = None
    edited: tuple[int, ...] = ()  # layers that differ from the unedited model

    def cell(self, row: int, layer: int) -> tuple[TokenChance, ...]:
        """The likeliest next tokens at the token `positions[row]` after a block, best first."""
        pairs = zip(self.top[row][layer], self.chances[row][layer], strict=True)
        return tuple(TokenChance(self.words[word], p) for word, p in pairs)


@dataclass(frozen=True)
class CausalTrace(Record):
    """A causal trace: what restoring one place of the clean run does for the answer in the corrupted runs.

    Corrupted by noise, numbers are probabilities of the answer. Corrupted by replacement, they are shares of the logit
    difference to the replacement's object: 0 in the corrupted run, 1 in the clean one.
    """

    corruption: str
    kind: str  # of the restored output: of a block, an MLP or an attention
    window: int  # layers restored together
    tokens: tuple[str, ...]
    subject: tuple[int, int]  # the subject's first token, and the one after its last
    answer: str  # the token
    clean: float
    low: float  # nothing restored
    scores: Grid  # means over the corrupted runs
    intervals: Grid  # half-widths of the 95 % t intervals of score - low over the corrupted runs; 0 for a single run
    runs: int  # corrupted runs
    known: bool  # the answer is the likeliest next token of the clean run
    noise_level: float | None = None  # standard deviation of the noise
    seed: int | None = None  # of the noise
    replacements: tuple[str, ...] = ()  # the subjects that replaced this one
    edited: tuple[int, ...] = ()  # layers that differ from the unedited model

    @property
    def effects(self) -> Grid:
        """score - low: the indirect effect of every cell."""
        return tuple(tuple(score - self.low for score in row) for row in self.scores)


@dataclass(frozen=True)
class SweptLayer(Record):
    """One fact edited at one layer, alone on the state in force; nothing of it was kept."""

    layer: int
    p_new: float
    p_true: float | None
    says_new: bool  # the new object's tokens are the likeliest ones
    paraphrases: float | None  # share of paraphrases after which the new object is likelier than the true one
    unrelated: float | None  # share of neighbours after which the true object stays likelier
    relative_size: float  # ‖ΔW‖ ÷ ‖W₀‖
    d: float | None  # tr(ΔW C ΔWᵀ) ÷ tr(W₀ C W₀ᵀ), with the layer's second moment C


@dataclass(frozen=True)
class LayerSweep(Record):
    """The same fact edited at every layer."""

    method: str
    layers: tuple[SweptLayer, ...]
