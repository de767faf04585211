"""A lab without a model: deterministic, quick, and with every state the page has to show.

A job advances by one tick whenever its status is read, so nothing in here depends on time.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from editlab.api import (
    Cancelled,
    Completion,
    HyperparameterInfo,
    LabInfo,
    MethodInfo,
    PresetFact,
    Progress,
    Step,
    TaskInfo,
)
from editlab.facts import Fact, search_facts
from editlab.records import Drift, LayerTrace, Measurement, SessionState, TaskScore, TokenChance, Trace, ValueTrace

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


class FakeJob:
    def __init__(self, stages: Sequence[Progress], finish: Callable[[], Any], ahead: int = 0) -> None:
        self._stages, self._finish, self._tick = list(stages), finish, -ahead
        self._status, self._result, self._exception = "queued", None, None

    @property
    def status(self) -> str:
        if self._status in ("queued", "running"):
            self._tick += 1
            self._status = "running" if self._tick > 0 else "queued"
            if self._tick > len(self._stages):
                try:
                    self._result = self._finish()
                    self._status = "done"
                except Exception as error:
                    self._exception, self._status = error, "failed"
        return self._status

    @property
    def ahead(self) -> int:
        return max(0, -self._tick)

    @property
    def progress(self) -> Progress:
        return self._stages[min(max(self._tick - 1, 0), len(self._stages) - 1)]

    @property
    def error(self) -> str | None:
        return str(self._exception) if self._exception else None

    def cancel(self) -> None:
        if self._status in ("queued", "running"):
            self._status, self._exception = "cancelled", Cancelled()

    def result(self, timeout: float | None = None) -> Any:
        while self.status in ("queued", "running"):
            pass
        if self._exception:
            raise self._exception
        return self._result


class FakeLab:
    """Implements LabProtocol. An edit of a subject that contains "impossible" fails; `ahead` jobs come before each."""

    def __init__(self, ahead: int = 0, steps: int = 12) -> None:
        self.ahead, self.edit_steps = ahead, steps
        self.facts = make_facts()
        self.sessions: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[Any, ...]] = []

    def info(self) -> LabInfo:
        methods = tuple(
            MethodInfo(
                name,
                title,
                text,
                (
                    HyperparameterInfo("layers", "layers", layers, "Where the weights change.", 0, 29),
                    HyperparameterInfo("learning_rate", "float", 0.5, "Of the value's optimisation.", 0.0, 10.0),
                    HyperparameterInfo("steps", "int", 25, "Gradient steps for the value.", 1, 200),
                ),
            )
            for name, title, text, layers in (
                ("rome", "ROME", "One rank-one change of one layer.", (6,)),
                ("memit", "MEMIT", "The change spread over several layers.", (4, 5, 6)),
            )
        )
        tasks = (
            TaskInfo("sentiment", "Sentiment (editlab’s own)", 60, 0.5, 1 / 3, "Sixty short reviews of this project."),
            TaskInfo(
                "paraphrase", "Paraphrase (editlab’s own)", 60, 0.5, 1 / 3, "The unedited model is at chance here."
            ),
        )
        presets = tuple(
            PresetFact(f"{fact.subject} → {fact.target_new}", why, fact)
            for fact, why in zip(
                self.facts[:3], ("Takes at once.", "Moves its neighbours too.", "Drifts far for one edit."), strict=True
            )
        )
        return LabInfo(
            model={"name": "fake-1m", "device": "cpu"},
            methods=methods,
            tasks=tasks,
            presets=presets,
            relations=("P131", "P276"),
            facts_source="eight sights, invented",
            n_facts=len(self.facts),
        )

    def create(self) -> str:
        name = f"s{len(self.sessions) + 1}"
        self.sessions[name] = {"log": [], "position": 0, "watched": (), "measured": {}, "made": 0}
        return name

    # what a fake model says

    def _log_in_force(self, session: dict[str, Any], index: int) -> list[dict[str, Any]]:
        return [edit for edit in session["log"][:index] if edit["enabled"]]

    def _complete(self, log: list[dict[str, Any]], prompt: str, kind: str, fact: Fact | None) -> Completion:
        words = dict.fromkeys([*CITIES[:5], "the", "a\n"], 0.0)
        for word in words:
            words[word] = chance(prompt, word) ** 4
        if fact:
            words[fact.target_true or "Paris"] = 1.6
            taught = any(edit["facts"][0].subject == fact.subject and kind != "neighborhood" for edit in log)
            words[fact.target_new] = (
                (9.0 if kind == "rewrite" else 3.0)
                if taught
                else 0.05 + (0.3 * len(log) if kind == "neighborhood" else 0)
            )
        total = sum(words.values())
        top = tuple(
            TokenChance(f" {word}", weight / total)
            for word, weight in sorted(words.items(), key=lambda item: -item[1])[:8]
        )
        said = f"{top[0].token}, which <b>everybody</b> knows" + (
            " by now and says again and again" if len(log) > 4 else " well enough"
        )
        p_new = words[fact.target_new] / total if fact else None
        p_true = words[fact.target_true or "Paris"] / total if fact else None
        return Completion(prompt, kind, said, top, p_new, p_true)

    def _measure(self, session: dict[str, Any], index: int, tasks: Sequence[str] = ()) -> Measurement:
        log = self._log_in_force(session, index)
        prompts: list[tuple[str, str, Fact | None]] = []
        mine = session["log"][index - 1] if index else None
        if mine:
            fact = mine["facts"][0]
            prompts.append((fact.text, "rewrite", fact))
            prompts += [(text, "paraphrase", fact) for text in fact.paraphrase_prompts]
            prompts += [(text, "neighborhood", fact) for text in fact.neighborhood_prompts]
        prompts += [(prompt, "own", None) for prompt in session["watched"]]

        def complete(state: list[dict[str, Any]]) -> tuple[Completion, ...]:
            return tuple(self._complete(state, *prompt) for prompt in prompts)

        before = complete([edit for edit in log if edit is not mine]) if mine else ()
        layers = sorted({layer for edit in log for layer in edit["layers"]})
        drift = {}
        for layer in layers:
            norm = math.sqrt(sum(edit["size"] ** 2 for edit in log if layer in edit["layers"]))
            drift[layer] = Drift(norm, norm / W0, norm / 1e6)
        old = session["measured"].get(index)
        scores = dict(old.tasks) if old else {}
        for name in tasks:
            right = max(30, round((52 if name == "sentiment" else 33) - 1.7 * len(log)))
            accuracy = right / 60
            info = next(task for task in self.info().tasks if task.name == name)
            scores[name] = TaskScore(
                name, info.title, "scores", 60, tuple(i < right for i in range(60)), accuracy,
                (accuracy - 0.11, min(1.0, accuracy + 0.08)), 0.5, accuracy, 1 / 3, 0.0, seconds=1.0,
            )  # fmt: skip
        return Measurement(drift, complete(log), before, complete([]) if mine else (), scores)

    # state

    def state(self, session: str) -> SessionState:
        s = self.sessions[session]
        for index in [i for i, m in s["measured"].items() if i]:  # the fake measures all but tasks for nothing
            s["measured"][index] = self._measure(s, index)
        if 0 in s["measured"]:
            s["measured"][0] = self._measure(s, 0)
        steps = [Step(0, "", (), None, {}, None, True, True, s["measured"].get(0), {}, 0.0)]
        for number, edit in enumerate(s["log"], 1):
            steps.append(
                Step(
                    number,
                    edit["id"],
                    edit["facts"],
                    edit["method"],
                    edit["hyperparameters"],
                    edit["trace"],
                    edit["enabled"],
                    edit["enabled"] and number <= s["position"],
                    s["measured"].get(number),
                    {"model": "fake-1m"},
                    1.2,
                )
            )
        return SessionState(session, tuple(steps), s["position"], s["watched"], self.info().model)

    def preview(self, session: str, fact: Fact) -> FakeJob:
        s = self.sessions[session]
        log = self._log_in_force(s, s["position"])
        return FakeJob([Progress("asking")], lambda: (self._complete(log, fact.text, "rewrite", fact),))

    def edit(
        self,
        session: str,
        facts: Sequence[Fact],
        method: str = "rome",
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> FakeJob:
        self.calls.append(("edit", session, tuple(facts), method, dict(hyperparameters or {})))
        total = self.edit_steps
        stages = [
            Progress("optimising the value", i, total, p_new=0.02 + 0.95 * (i / total) ** 2) for i in range(total + 1)
        ]
        return FakeJob(
            stages, lambda: self._edited(session, tuple(facts), method, dict(hyperparameters or {})), self.ahead
        )

    def _edited(self, session: str, facts: tuple[Fact, ...], method: str, hyperparameters: dict[str, Any]) -> Step:
        if "impossible" in facts[0].subject:
            raise ValueError(f"the subject {facts[0].subject!r} cannot be edited by the fake lab")
        s = self.sessions[session]
        layers = tuple(hyperparameters.get("layers", (6,) if method == "rome" else (4, 5, 6)))
        size = (1.5 + 3 * chance(facts[0].subject, facts[0].target_new)) / math.sqrt(len(layers))
        value = ValueTrace((3.0, 0.1), (2.9, 0.05), (0.1, 0.02), (0.0, 0.03), (0.02, 0.97), 10.0, 4.0, 11.0)
        trace = Trace(
            (value,), {layer: LayerTrace(size, W0, 3.0, 4.0) for layer in layers}, 3, {"value": 1.0, "insertion": 0.2}
        )
        s["made"] += 1
        edit = {
            "id": f"e{s['made']}",
            "facts": facts,
            "method": method,
            "hyperparameters": hyperparameters,
            "trace": trace,
            "enabled": True,
            "layers": layers,
            "size": size,
        }
        s["log"] = [*s["log"][: s["position"]], edit]
        s["position"] = len(s["log"])
        s["measured"] = {i: m for i, m in s["measured"].items() if i < s["position"]}
        s["measured"][s["position"]] = self._measure(s, s["position"])
        return self.state(session).steps[-1]

    def measure(self, session: str, tasks: Sequence[str] = (), index: int | None = None) -> FakeJob:
        self.calls.append(("measure", session, tuple(tasks)))
        s = self.sessions[session]
        index = s["position"] if index is None else index

        def finish() -> Step:
            if index <= len(s["log"]):
                s["measured"][index] = self._measure(s, index, tasks)
            return self.state(session).steps[min(index, len(s["log"]))]

        return FakeJob(
            [Progress(f"measuring {', '.join(tasks) or 'prompts'}", i, 60) for i in range(0, 61, 20)], finish
        )

    def undo(self, session: str) -> SessionState:
        return self.goto(session, max(0, self.sessions[session]["position"] - 1))

    def redo(self, session: str) -> SessionState:
        s = self.sessions[session]
        return self.goto(session, min(len(s["log"]), s["position"] + 1))

    def goto(self, session: str, index: int) -> SessionState:
        s = self.sessions[session]
        if not 0 <= index <= len(s["log"]):
            raise ValueError(f"step must be between 0 and {len(s['log'])}, got {index}")
        s["position"] = index
        return self.state(session)

    def toggle(self, session: str, index: int) -> SessionState:
        s = self.sessions[session]
        s["log"][index - 1]["enabled"] ^= True
        s["measured"] = {i: m for i, m in s["measured"].items() if i < index}
        return self.state(session)

    def watch(self, session: str, prompts: Sequence[str]) -> SessionState:
        s = self.sessions[session]
        s["watched"] = tuple(prompts)
        return self.state(session)

    def search(
        self, text: str = "", *, relation: str | None = None, case_id: int | None = None, limit: int = 20
    ) -> list[Fact]:
        return search_facts(self.facts, text, relation=relation, case_id=case_id, limit=limit)

    def random(self, seed: int) -> Fact:
        return random.Random(seed).choice(self.facts)

    def close(self) -> None:
        self.calls.append(("close",))
