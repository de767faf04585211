"""A thousand requests that nobody means: none is a fault of the server, none changes somebody's session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from editlab.core.facts import Fact
from editlab.lab.lab import Lab
from editlab.lab.limits import Limits
from tests.conftest import tiny_editor
from tests.serving import serving

pytestmark = pytest.mark.slow

REQUESTS = 1_000
HEADERS = ("Content-Type", "Accept", "If-None-Match", "Origin", "Host", "Authorization", "Accept-Encoding", "X-Any")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["../../etc/passwd", "\x00", "{}", "{} is", "rome", "perplexity", "<script>", "1e400", "ROME\r\nX: y"]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    *(
        "facts",
        "fact",
        "method",
        "hyperparameters",
        "guard",
        "guard_level",
        "methods",
        "earlier",
        "later",
        "anew",
        "temporary",
        "names",
    ),
    *("index", "name", "keys", "prompts", "every", "prompt", "subject", "target_new", "target_true", "case_id"),
)
FACT = {"prompt": "{} plays the", "subject": "Toko Yasuda", "target_new": "piano"}
objects = st.dictionaries(st.sampled_from(FIELDS), values | st.sampled_from([FACT, [FACT]]), max_size=4)
bodies = st.one_of(
    objects.map(json.dumps).map(str.encode),
    values.map(json.dumps).map(str.encode),
    st.binary(max_size=60),
    st.sampled_from(
        [b"", b"{", b"[" * 5_000, b'{"index": ' + b"9" * 5_000 + b"}", b'"\\ud800"', b"NaN", b"\xef\xbb\xbf{}"]
    ),
)
texts = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=30)
header_values = texts | st.sampled_from(["", "*", "a" * 3_000, "é".encode().decode("latin-1"), 'W/"x", "y"'])


class Target:
    """A backend, a session that must stay as it is, and one that the requests may do with as they like."""

    def __init__(self, client: httpx.Client, lab: Lab) -> None:
        paths = client.get("/openapi.json").json()["paths"]
        self.routes = [(method.upper(), path) for path, operations in paths.items() for method in operations]
        self.client, self.lab = client, lab
        self.victim, self.own = lab.create("victim"), lab.create("own")
        self.follow = lab.about(self.victim).follow
        lab.edit(self.victim, list(lab.facts)).result(60)
        self.statuses: list[int] = []

    def picture(self) -> Any:
        """All that is told of the victim's session, and what its edits are to the last bit."""
        edits = self.lab.sessions.open(self.victim).edits()
        bits = [(layer, one.left.tolist(), one.right.tolist()) for edit in edits for layer, one in edit.items()]
        return self.lab.about(self.victim), self.lab.state(self.victim), bits

    def send(
        self, method: str, path: str, whose: str, headers: dict[str, str], query: dict[str, Any], body: bytes
    ) -> None:
        if not self.lab.list_sessions([self.own]):  # one of the requests was to delete it
            self.own = self.lab.create("own")
        key = {"follow": self.follow, "own": self.own}.get(whose, whose)
        told = {"Content-Type": "application/json", "Editlab-Session": key, **headers}
        sent = {name: value.encode("latin-1") for name, value in told.items()}
        answer = self.client.request(method, path, headers=sent, params=query, content=body)
        self.statuses.append(answer.status_code)
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            assert set(answer.json()) == {"error", "detail"}


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    facts = [Fact("{} plays the", "Toko Yasuda", "piano", "guitar")]
    lab = Lab(tiny_editor("gpt2"), {}, facts, "one fact", limits=Limits(sessions=20, edits=3, queue_per_session=2))
    with (
        serving(lab, requests_per_minute=1_000_000, sessions_per_hour=1_000_000) as address,
        httpx.Client(base_url=address) as client,
    ):
        yield Target(client, lab)
    lab.close()


def test_requests_that_nobody_means_are_refused_and_change_no_session(target: Target) -> None:
    before = target.picture()

    @settings(
        max_examples=REQUESTS, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(
        route=st.sampled_from(target.routes),
        job=texts,
        whose=st.sampled_from(["follow", "own", "own", ""]) | header_values,
        headers=st.dictionaries(st.sampled_from(HEADERS), header_values, max_size=2),
        query=st.dictionaries(st.sampled_from(["text", "limit", "seed", "case_id", "relation"]), scalars, max_size=3),
        body=bodies,
    )
    def fuzz(route: tuple[str, str], job: str, whose: str, headers: Any, query: Any, body: bytes) -> None:
        method, path = route
        target.send(method, path.replace("{job}", quote(job, safe="")), whose, headers, query, body)
        assert target.lab.revision(target.follow) == revision

    revision = target.lab.revision(target.follow)
    fuzz()
    assert target.picture() == before
    assert len(target.statuses) >= REQUESTS
    assert {200, 403, 404, 422} <= set(target.statuses)  # it got behind the door, too
