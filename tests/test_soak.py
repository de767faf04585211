"""What a backend keeps does not grow with what was asked of it; for hours of it: `python -m benchmarks.soak`."""

from __future__ import annotations

import gc
import sys
from collections import OrderedDict, deque
from functools import cache
from itertools import count
from typing import Any

import httpx
import pytest

from benchmarks.soak import growth
from editlab.core.facts import Fact
from editlab.lab.lab import Lab
from editlab.remote.server import create_app
from editlab.remote.wire import SESSION_HEADER
from tests.conftest import tiny_editor
from tests.serving import serving

BOUNDS = {
    "editlab.lab.jobs.REMEMBERED": 4,
    "editlab.lab.sessions.COMPLETIONS_KEPT": 2,
    "editlab.lab.sessions.OBJECTS_KEPT": 10,
    "editlab.lab.sessions.PIECES_KEPT": 10,
    "editlab.editing.moments.FACTORS_KEPT": 3,
    "editlab.remote.server.registry.KEPT": 5,
}
CONTAINERS = (dict, list, set, frozenset, tuple, OrderedDict, deque)
OURS = ("editlab.", "prometheus_client.")


def kept(*roots: Any) -> int:
    """Items in all containers that these objects and editlab's modules hold, caches without a bound included."""
    gc.collect()
    waiting = [*roots, *(vars(module) for name, module in [*sys.modules.items()] if name.startswith(OURS))]
    seen, items = set(), 0
    while waiting:
        each = waiting.pop()
        if id(each) not in seen and _is_looked_into(each):
            seen.add(id(each))
            items += len(each) if isinstance(each, dict | list | set | deque) else 0
            waiting += gc.get_referents(each)
    return items


def _is_looked_into(each: Any) -> bool:
    if isinstance(each, type(cache(len))):
        return each.cache_parameters()["maxsize"] is None
    return isinstance(each, CONTAINERS) or (type(each).__module__.startswith(OURS) and not isinstance(each, type))


def test_what_is_kept_does_not_grow_with_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every visit is of a new session, asks about facts of its own, edits, measures, and is made-up in part."""
    for name, value in BOUNDS.items():
        monkeypatch.setattr(name, value)
    lab = Lab(tiny_editor("gpt2"), {}, [], "none")
    lab.sessions._most_of_base = 2
    numbers, apps = count(), []
    monkeypatch.setattr("tests.serving.create_app", lambda *given: apps.append(create_app(*given)) or apps[-1])
    with serving(lab, requests_per_minute=10**6, sessions_per_hour=10**6) as address:
        client = httpx.Client(base_url=address)

        def visit(lasting: str) -> None:
            number = next(numbers)
            fact = Fact("{} originated in", f"Band {number}", "Manila", "Chicago", generation_prompts=("It rained.",))
            key = client.post("/sessions", json={"name": f"Visit {number}"}).json()["key"]
            headers = {SESSION_HEADER: key}
            job = client.post("/session/preview", json={"fact": fact.to_json()}, headers=headers).json()["id"]
            lab.knows(key, [fact]).result(60)
            lab.edit(key, [fact], hyperparameters={"steps": 1, "ridge": 0.001 + number / 1000}).result(60)
            lab.state(key)
            lab.undo(key)
            lab.probe(lasting, fact, hyperparameters={"steps": 1, "ridge": 0.001 + number / 1000}).result(60)
            lab.state(lasting)
            assert "event: end" in client.get(f"/jobs/{job}/events", headers=headers).text
            assert client.get("/session/state", headers=headers).json()["position"] == 0
            client.get("/session/revision", headers={SESSION_HEADER: lasting})
            client.request(f"METHOD{number}", f"/path/{number}", headers={SESSION_HEADER: f"made up {number}"})
            assert client.delete("/session", headers=headers).status_code == 204

        lasting = lab.create()
        for _ in range(6):
            visit(lasting)
        before = kept(lab, apps[0].state.backend)
        for _ in range(12):
            visit(lasting)
        grown = kept(lab, apps[0].state.backend) - before
        client.close()
    lab.close()
    assert grown < 12, f"{grown} items more after 12 visits"


def test_the_long_form_sees_what_grows_and_not_what_fills_at_first() -> None:
    filling = [min(n, 40) + n % 3 for n in range(200)]
    assert growth(filling) == 0
    assert growth([each + n / 10 for n, each in enumerate(filling)]) == pytest.approx(10, abs=1.5)
