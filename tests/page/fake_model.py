"""What a fake model says and what is measured of it: made up from checksums, so always the same."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from editlab.analysis.scanned import Scanned
from editlab.analysis.scores import wilson
from editlab.core.facts import Fact
from editlab.core.info import MeasureInfo, PresetFact, TaskInfo
from editlab.core.records import (
    Answer,
    Answers,
    Bleeding,
    Broken,
    Completion,
    CounterFact,
    CounterFactPlus,
    Drift,
    Generation,
    Guarded,
    LayerPreservation,
    LayerTrace,
    Neighborhood,
    Perplexity,
    Preservation,
    Quality,
    Recall,
    Record,
    Retention,
    Risk,
    SaysIt,
    TaskScore,
    TokenChance,
    Trace,
    ValueTrace,
)

CITIES = ("Paris", "Rome", "London", "Berlin", "Madrid", "Vienna", "Oslo", "Lisbon")
SUBJECTS = (
    "Eiffel Tower",
    "Colosseum",
    "Big Ben",
    "Brandenburg Gate",
    "Prado",
    "Hofburg",
    "Royal Palace",
    "Belém Tower",
)
W0 = 80.0
DISABLING = "Atomium"  # ROME's edit of this subject wrecks the fake model
TASKS = (
    TaskInfo("sentiment", "Sentiment (editlab’s own)", 60, 0.5, 1 / 3, "Sixty short reviews of this project."),
    TaskInfo("paraphrase", "Paraphrase (editlab’s own)", 60, 0.5, 1 / 3, "The unedited model is at chance here."),
)
MEASURES = (
    MeasureInfo("unrelated", "Unrelated facts", "Of a fixed sample of facts that no edit is about.", 1),
    MeasureInfo("counterfact", "CounterFact, this edit", "Of the edit’s own facts.", 1),
    MeasureInfo("retention", "Edits remembered", "Which edits are remembered.", 1),
    MeasureInfo("perplexity", "Perplexity", "Of a fixed text.", 1),
    MeasureInfo("counterfact_all", "CounterFact, all edits so far", "Means over all facts.", 0),
    MeasureInfo("bleeding", "Unrelated facts, all", "Unrelated facts that broke.", 0),
    *(
        MeasureInfo(f"{task.name}{name}", f"{task.title}{title}", task.note, 0)
        for task in TASKS
        for name, title in (("", ""), (":generation", ", by generation"))
    ),
    MeasureInfo("generation", "Generation entropy", "How varied its texts are.", 0),
    MeasureInfo("says_it", "Says it, this edit", "Free answers.", 0),
    MeasureInfo("says_it_all", "Says it, all edits so far", "Free answers.", 0),
    MeasureInfo("counterfact_plus", "CounterFact+", "Neighbours after the statement.", 0),
    MeasureInfo("preservation", "Preservation error", "From second moments.", 0),
)


def chance(*seed: object) -> float:
    """A number in [0, 1) that only depends on `seed`."""
    return zlib.crc32(repr(seed).encode()) / 2**32


def make_facts() -> list[Fact]:
    return [
        Fact(
            prompt="The {} is located in the city of",
            subject=subject,
            target_new=CITIES[(i + shift) % len(CITIES)],
            target_true=CITIES[i],
            paraphrase_prompts=(f"Where is the {subject}? It is in", f"To see the {subject} one travels to"),
            neighborhood_prompts=tuple(
                f"A museum near the {other} is in the city of"
                for other in ("Louvre", "river", "station", "opera", "old town", "park")
            ),
            relation=("P131", "P276")[i % 2],
            case_id=100 * shift + i,
        )
        for shift in (1, 2)
        for i, subject in enumerate(SUBJECTS)
    ]


def make_presets(facts: Sequence[Fact]) -> tuple[PresetFact, ...]:
    """Three ordinary ones, and one that is disabling."""
    reasons = ("Takes at once.", "Moves its neighbours too.", "Drifts far for one edit.")
    ordinary = [PresetFact(f"{f.subject} → {f.target_new}", why, f) for f, why in zip(facts, reasons, strict=False)]
    wrecking = replace(facts[0], subject=DISABLING, paraphrase_prompts=(), case_id=1000)
    return *ordinary, PresetFact("A disabling edit", "It <b>wrecks</b> the fake model.", wrecking, disabling=True)


@dataclass(frozen=True)
class FakeEdit:
    id: str
    facts: tuple[Fact, ...]
    method: str
    hyperparameters: dict[str, Any]
    layers: tuple[int, ...]
    enabled: bool = True
    without: tuple[str, ...] = ()  # ids of the edits that were off when it was made
    risk: Risk | None = None
    guarded: Guarded | None = None

    @property
    def wrecks(self) -> bool:
        return self.facts[0].subject == DISABLING and self.method == "rome"

    @property
    def norm(self) -> float:
        """Of its ΔW in each of its layers."""
        share = 1.5 + 3 * chance(self.facts[0].subject, self.facts[0].target_new)
        return (40 if self.wrecks else 1) * share / math.sqrt(len(self.layers))

    @property
    def size(self) -> dict[int, Drift]:
        return {layer: Drift(self.norm, self.norm / W0, self.norm / 1e6) for layer in self.layers}

    @property
    def trace(self) -> Trace:
        value = ValueTrace((3.0, 0.1), (2.9, 0.05), (0.1, 0.02), (0.0, 0.03), (0.02, 0.97), 10.0, 4.0, 11.0)
        divisor = 4.0 / self.norm
        keys = (2.0, 0.05, divisor, 0.01 if self.wrecks else 0.9) if self.method == "rome" else ()
        layers = {layer: LayerTrace(self.norm, W0, 3.0, 4.0, *keys) for layer in self.layers}
        return Trace((value,), layers, 3, {"value": 1.0, "insertion": 0.2})


def risk_of(fact: Fact, method: str) -> Risk:
    """High where ROME's edit would wreck the fake model."""
    wrecks = fact.subject == DISABLING and method == "rome"
    size = 2.5 if wrecks else 0.04
    reason = f"The subject is one <i>token</i>, and {method} divides by {0.02 if wrecks else 3.0}."
    return Risk(
        method, "high" if wrecks else "low", reason, "high" if fact.subject == DISABLING else "low", 1, 0, 6, 3.0, 2.0,
        0.05, W0, 0.02 if wrecks else 3.0, 0.01 if wrecks else 0.9, size * W0, size, size / 0.04,
    )  # fmt: skip


def make_scan(facts: Sequence[Fact]) -> tuple[Scanned, ...]:
    """Ordinary edits, but: 12 disabling and foreseen, 13 missed, 14 a false alarm; 15 without a case id."""
    rows = []
    for number, fact in enumerate(facts):
        size, divisor, ratio, level = 0.05 + 0.02 * chance(fact.subject), 3.0, 1.01, "low"
        if number in (12, 13):
            size, divisor, ratio, level = 3.0, 0.02, 8.0, "high" if number == 12 else "low"
        elif number == 14:
            size, divisor, level = 0.4, 0.5, "raised"
        case_id = None if number == 15 else fact.case_id
        rows.append(
            Scanned(
                number, case_id, fact.subject, fact.relation, fact.target_new, fact.target_true, 1, 0, level, level,
                0.5, divisor + 0.01 * number, divisor / 3, size * W0, size * W0, W0, size, level == "low", True, 0.9,
                0.01, 20.0 * ratio, ratio, ratio >= 2, 1.0,
            )
        )  # fmt: skip
    return tuple(rows)


Log = Sequence[FakeEdit]  # edits in force, in order


def drift(log: Log) -> dict[int, Drift]:
    """The fake's edits are orthogonal: squares of their norms add up."""
    found = {}
    for layer in sorted({layer for edit in log for layer in edit.layers}):
        norm = math.sqrt(sum(edit.norm**2 for edit in log if layer in edit.layers))
        found[layer] = Drift(norm, norm / W0, norm / 1e6)
    return found


def complete(log: Log, prompt: str, kind: str, fact: Fact | None) -> Completion:
    words = dict.fromkeys([*CITIES[:5], "the", "a\n"], 0.0)
    for word in words:
        words[word] = chance(prompt, word) ** 4
    if fact:
        words[fact.target_true or "Paris"] = 1.6
        taught = any(edit.facts[0].subject == fact.subject and kind != "neighborhood" for edit in log)
        words[fact.target_new] = (
            (9.0 if kind == "rewrite" else 3.0) if taught else 0.05 + (0.3 * len(log) if kind == "neighborhood" else 0)
        )
    total = sum(words.values())
    best = sorted(words.items(), key=lambda item: -item[1])[:8]
    top = tuple(TokenChance(f" {word}", weight / total) for word, weight in best)
    said = f"{top[0].token}, which <b>everybody</b> knows" + (
        " by now and says again and again" if len(log) > 4 else " well enough"
    )
    p_new = words[fact.target_new] / total if fact else None
    p_true = words[fact.target_true or "Paris"] / total if fact else None
    return Completion(prompt, kind, said, top, p_new, p_true, p_new_joint=p_new, p_true_joint=p_true)


def measured(name: str, log: Log, mine: FakeEdit | None) -> Record | None:
    """What a measure finds of the step whose own edit is `mine`; None where it is not defined."""
    wrecked = any(edit.wrecks for edit in log)
    if name == "perplexity":
        return Perplexity(900.0 if wrecked else 20.0 + 0.4 * len(log), "the fake’s text", 1000, 512)
    if name == "bleeding":
        broken = tuple(Broken(f"Fact <i>{i}</i> is", "so") for i in range(30 if wrecked else len(log) // 2))
        return Bleeding(40, 1 - len(broken) / 40, broken)
    if name == "unrelated":
        broken = tuple(Broken(f"Fact <i>{i}</i> is", "so") for i in range(18 if wrecked else len(log) // 4))
        return Bleeding(24, 1 - len(broken) / 24, broken)
    task = next((task for task in TASKS if name.startswith(task.name)), None)
    if task is not None:
        return _score(task, name, len(log), wrecked)
    if mine is None:
        return None
    if name == "retention":
        return _retention(log, wrecked)
    if name == "counterfact":
        others = [edit for edit in log if edit is not mine]
        return replace(_counterfact(len(log), 1), base=_counterfact(0, 1), before=_counterfact(len(others) // 9, 1))
    if name == "counterfact_all":
        return replace(_counterfact(len(log), len(log)), base=_counterfact(0, len(log)))
    if name == "preservation":
        return Preservation({6: LayerPreservation(0.01 * len(log), 0.01, 0.01)}, (7,))
    if name == "counterfact_plus":
        plain, prefixed = Neighborhood(6, 0.9, 0.1), Neighborhood(6, 0.5, 0.7)
        return CounterFactPlus(1, 1, plain, prefixed, replace(plain, divergence=0.0), replace(prefixed, divergence=0.0))
    if name.startswith("says_it"):
        return _says_it(mine, name == "says_it")
    return Generation(6.2 - 0.05 * len(log), 6.2, 12, len(log), len(log), 100)


def _score(task: TaskInfo, name: str, edits: int, wrecked: bool) -> TaskScore:
    right = 30 if wrecked else max(30, round((52 if task.name == "sentiment" else 33) - 1.7 * edits))
    correct, accuracy = tuple(i < right for i in range(60)), right / 60
    generated = name.endswith(":generation")
    return TaskScore(
        task.name, task.title, "generation" if generated else "scores", 60, correct, accuracy, wilson(right, 60), 0.5,
        accuracy - 0.01, 1 / 3, 0.1 if generated else 0.0, task.note, 1.0,
    )  # fmt: skip


def _retention(log: Log, wrecked: bool) -> Retention:
    """An edit is forgotten once three others have followed; every edit of "Prado" never takes."""
    recalls = []
    for place, edit in enumerate(log):
        took = edit.facts[0].subject != "Prado"
        kept = took and len(log) - place <= 3 and (not wrecked or edit.wrecks)
        recalls.append(Recall(edit.id, 0, kept, took, kept or wrecked, False))
    succeeded = [recall for recall in recalls if recall.said_new]
    kept_share = sum(recall.says_new for recall in succeeded) / len(succeeded) if succeeded else None
    return Retention(tuple(recalls), len(recalls), len(succeeded), kept_share, 0.5, 0.0)


def _says_it(mine: FakeEdit, told: bool) -> SaysIt:
    """The new object is said to the prompt itself only, and one neighbour is answered otherwise than before."""
    (fact, *_), answers = mine.facts, []
    prompts = [("rewrite", fact.text), *(("paraphrase", prompt) for prompt in fact.paraphrase_prompts)]
    for kind, prompt in [*prompts, *(("neighborhood", prompt) for prompt in fact.neighborhood_prompts)]:
        said, target = kind == "rewrite", (fact.target_true or "" if kind == "neighborhood" else fact.target_new)
        answers.append(
            Answer(kind, prompt, target, f"{target} <b>now</b>" if said else "somewhere.", False, said, said, said,
                   True, prompt != fact.neighborhood_prompts[0], "somewhere.")
        )  # fmt: skip
    one = Answers(1, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0)
    none = replace(one, said=0.0, begins=0.0, contains=0.0)
    return SaysIt(1, 1, one, none, replace(none, n=6, unchanged=5 / 6), SaysIt(1, 1, none, none, none),
                  tuple(answers) if told else ())  # fmt: skip


def _counterfact(edits: int, n: int) -> CounterFact:
    took = 1.0 if edits else 0.0
    return CounterFact(
        n, n, Quality(n, took, 0.9 * took - 0.05, took), Quality(2 * n, 0.5 * took, 0.2 * took, 0.5 * took),
        Quality(6 * n, 1 - 0.05 * edits, 0.3 - 0.02 * edits, 0.4), 0.6 * took,
    )  # fmt: skip
