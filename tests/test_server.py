"""The backend's answers: every kind of error, who may ask, events, tags, and what is counted and logged."""

from __future__ import annotations

import json
import logging
import re
import threading
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from editlab.core.errors import Busy, LimitReached
from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress
from editlab.core.records import Completion
from editlab.lab.jobs import LocalJob, Queue
from editlab.remote.server import Loader, create_app
from editlab.remote.server.bodies import OneFact
from editlab.remote.server.rate import Rate
from editlab.remote.server.registry import JobRegistry
from editlab.remote.wire import SESSION_HEADER
from editlab.serving.settings import Settings
from tests.page.fake_lab import FakeLab
from tests.serving import serving, soon

FACT = {"prompt": "The {} is in", "subject": "Eiffel Tower", "target_new": "Rome"}
TOKEN = "a token of some length"
UNFORESEEN = "what a visitor typed"


class QueuedLab(FakeLab):
    """A fake lab whose previews wait in a real queue: each reports three steps, the second when `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.queue = Queue()

    def preview(self, session: str, fact: Fact) -> LocalJob:  # type: ignore[override]
        self._session(session)

        def work(report: OnProgress) -> tuple[Completion, ...]:
            for step in range(1, 4):
                report(Progress("asking", step, 3))
                while step == 1 and not self.gate.wait(0.005):
                    report(Progress("asking", step, 3))
            return (Completion(fact.text, "rewrite", " Rome", ()),)

        return self.queue.put(session, work)

    def plan(self, session: str, every: Any) -> Any:
        errors = {1: Busy("An edit is under way."), 2: LimitReached("Two are too many."), 3: KeyError(UNFORESEEN)}
        raise errors[every["perplexity"]]

    def close(self) -> None:
        self.queue.close()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[QueuedLab, str]]:
    lab = QueuedLab()
    with serving(lab) as address:
        yield lab, address
    lab.close()


@pytest.fixture
def lab(served: tuple[QueuedLab, str]) -> Iterator[QueuedLab]:
    """With the gate closed, and nothing in its queue."""
    lab, _ = served
    lab.gate.clear()
    yield lab
    lab.gate.set()
    lab.preview(lab.create(), Fact(**FACT)).result(30)


@pytest.fixture
def client(lab: QueuedLab, served: tuple[QueuedLab, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served[1]) as client:
        yield client


def opened(client: httpx.Client) -> dict[str, str]:
    """The header that edits a new session."""
    return {"Editlab-Session": client.post("/sessions").json()["key"]}


def follower(client: httpx.Client, session: dict[str, str]) -> dict[str, str]:
    return {"Editlab-Session": client.get("/session", headers=session).json()["follow"]}


def events(client: httpx.Client, job: str, headers: dict[str, str]) -> list[tuple[str, dict[str, Any]]]:
    lines = client.get(f"/jobs/{job}/events", headers=headers).text.splitlines()
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event:")]
    data = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data:")]
    return list(zip(names, data, strict=True))


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error", "words"),
    [
        ("GET", "/nowhere", None, 404, "not_found", "Not Found"),
        ("PUT", "/session", {}, 405, "method_not_allowed", "Not Allowed"),
        ("GET", "/jobs/nothing", None, 404, "unknown_job", "no job has this id"),
        ("POST", "/session/goto", {"index": 7}, 422, "invalid", "step must be between 0 and 0, got 7"),
        ("POST", "/session/goto", {"index": -1}, 422, "invalid", "index: Input should be greater than or equal to 0"),
        ("POST", "/session/goto", {"index": True}, 422, "invalid", "index"),
        ("POST", "/session/goto", {}, 422, "invalid", "index: Field required"),
        ("POST", "/session/goto", {"index": 0, "indx": 1}, 422, "invalid", "indx: Extra inputs are not permitted"),
        (
            "POST",
            "/session/edit",
            {"facts": [{**FACT, "prompt": "no"}]},
            422,
            "invalid",
            "facts.0: the subject 'Eiffel",
        ),
        ("POST", "/session/edit", {"facts": [{**FACT, "prompt": "{} {}"}]}, 422, "invalid", "facts.0: prompt must"),
        ("POST", "/session/edit", {"facts": [{**FACT, "case_id": True}]}, 422, "invalid", "facts.0: case_id must be a"),
        ("POST", "/session/edit", {"facts": [{**FACT, "case_id": 7.0}]}, 422, "invalid", "facts.0: case_id must be a"),
        ("POST", "/session/edit", {"facts": [{**FACT, "colour": 1}]}, 422, "invalid", "facts.0.colour"),
        ("POST", "/session/edit", {"facts": [FACT], "hyperparameters": {"clamp": {"a": 4}}}, 422, "invalid", "clamp"),
        ("POST", "/session/plan", {"every": {"perplexity": 1}}, 409, "busy", "An edit is under way."),
        ("POST", "/session/plan", {"every": {"perplexity": 2}}, 429, "limit_reached", "Two are too many."),
        ("GET", "/facts?limit=many", None, 422, "invalid", "limit: Input should be a valid integer"),
        ("GET", "/facts/random", None, 422, "invalid", "seed: Field required"),
        ("GET", "/facts?limt=3", None, 422, "invalid", "limt: Extra inputs are not permitted"),
        ("GET", "/session?verbose=1", None, 422, "invalid", "verbose: Extra inputs are not permitted"),
        ("POST", "/session/undo?steps=2", None, 422, "invalid", "steps: Extra inputs are not permitted"),
        ("GET", "/jobs/nothing?wait=1", None, 422, "invalid", "wait: Extra inputs are not permitted"),
    ],
)
def test_every_error_is_a_word_and_a_sentence(
    client: httpx.Client, method: str, path: str, body: Any, status: int, error: str, words: str
) -> None:
    answer = client.request(method, path, json=body, headers=opened(client))
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"error", "detail"}
    assert told["error"] == error
    assert words in told["detail"]
    assert ("Retry-After" in answer.headers) == (status == 429)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ({"prompt": "The Eiffel Tower is in"}, {}),
        ({"paraphrase_prompts": "Where is it?"}, {"paraphrase_prompts": ["Where is it?"]}),
        ({"paraphrase_prompts": None, "neighborhood_prompts": "", "generation_prompts": None}, {}),
        ({"target_true": "", "case_id": " 7 "}, {"case_id": 7}),
        ({"case_id": ""}, {}),
    ],
)
def test_a_fact_may_be_sent_as_one_types_it(client: httpx.Client, typed: dict[str, Any], meant: dict[str, Any]) -> None:
    body = TypeAdapter(OneFact)
    assert body.validate_python({**FACT, **typed}) == body.validate_python({**FACT, **meant})
    answer = client.post("/session/preview", json={"fact": {**FACT, **typed}}, headers=opened(client))
    assert answer.status_code == 202, answer.text


def test_bodies_that_are_no_json_and_keys_that_open_nothing(client: httpx.Client) -> None:
    session = opened(client)
    follow = follower(client, session)
    for sent, status in (
        (client.post("/session/goto", content=b"{", headers=session), 422),
        (client.post("/session/goto", content=b"\xff\xfe", headers=session), 422),
        (client.post("/session/goto", content=b"[" * 100_000, headers=session), 422),
        (client.post("/session/goto", content=b'{"index": 0}', headers={**session, "Content-Type": "text/plain"}), 422),
        (client.post("/session/undo", headers=follow), 403),
        (client.post("/session/undo", headers={"Editlab-Session": "nobody"}), 404),
        (client.post("/session/undo"), 404),
    ):
        assert sent.status_code == status, sent.text
        assert set(sent.json()) == {"error", "detail"}


@pytest.mark.parametrize(
    ("content", "media_type", "words"),
    [
        (b'{"index": }', "application/json", "the body must be JSON: Expecting value, at character 10"),
        (b"", "application/json", "a body is needed: a JSON object"),
        (b"index=0", "application/x-www-form-urlencoded", "header Content-Type: application/json"),
        (b"[1]", "application/json", "the body must be a JSON object"),
    ],
)
def test_what_is_wrong_with_a_body_is_a_sentence(
    client: httpx.Client, content: bytes, media_type: str, words: str
) -> None:
    headers = {**opened(client), "Content-Type": media_type}
    answer = client.post("/session/goto", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
    assert words in answer.json()["detail"]


def test_a_request_may_be_as_short_as_a_call(client: httpx.Client) -> None:
    """A body without its type, no body where all has a default, and a fact whose prompt holds the subject."""
    session = opened(client)
    assert client.post("/session/goto", content=b'{"index": 0}', headers=session).json()["position"] == 0
    assert client.post("/session/duplicate", headers=session).status_code == 201
    fact = {**FACT, "prompt": "The Eiffel Tower is in"}
    job = client.post("/session/edit", json={"facts": [fact], "hyperparameters": None}, headers=session).json()["id"]
    assert events(client, job, session)[-1][1]["result"]["facts"][0]["prompt"] == "The {} is in"


def test_the_root_leads_to_the_documentation(client: httpx.Client) -> None:
    answer = client.get("/", follow_redirects=True)
    assert (answer.status_code, answer.url.path) == (200, "/docs")


def test_what_nobody_foresaw_is_told_without_its_message(client: httpx.Client) -> None:
    answer = client.post("/session/plan", json={"every": {"perplexity": 3}}, headers=opened(client))
    assert answer.status_code == 500
    assert answer.json()["error"] == "failed"
    assert UNFORESEEN not in answer.text


def test_a_long_body_is_refused_however_it_is_sent(lab: QueuedLab) -> None:
    with serving(lab, max_request_bytes=2_000) as address, httpx.Client(base_url=address) as client:
        session = opened(client)
        body = json.dumps({"prompts": ["x" * 3_000]}).encode()
        told = {**session, "Content-Type": "application/json"}
        for content in (body, iter([body[:1_500], body[1_500:]])):  # with its length, and in chunks
            answer = client.post("/session/watch", content=content, headers=told)
            assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
        assert client.post("/session/watch", json={"prompts": ["x"]}, headers=session).status_code == 200


def test_too_many_requests_of_one_session_leave_the_others_alone(lab: QueuedLab) -> None:
    with serving(lab, requests_per_minute=5) as address, httpx.Client(base_url=address) as client:
        mine, yours = opened(client), opened(client)
        answers = [client.get("/session/revision", headers=mine) for _ in range(7)]
        assert [answer.status_code for answer in answers] == [200] * 6 + [429]  # the first shows that the key is one
        assert answers[-1].json()["error"] == "too_many_requests"
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 12
        assert client.get("/session/revision", headers=yours).status_code == 200
        assert client.get("/healthz").status_code == 200


def test_made_up_keys_count_to_the_address_they_come_from(lab: QueuedLab) -> None:
    with serving(lab, requests_per_minute=5) as address, httpx.Client(base_url=address) as client:
        real = opened(client)
        assert client.get("/session", headers=real).status_code == 200
        made_up = [client.get("/session", headers={SESSION_HEADER: f"made up {n}"}).status_code for n in range(5)]
        assert made_up == [404] * 3 + [429] * 2
        answers = [client.post(path, headers={SESSION_HEADER: path}) for path in ("/sessions", "/session/undo")]
        assert [answer.status_code for answer in answers] == [429, 429]
        assert client.get("/session", headers=real).status_code == 200


def test_long_answers_are_compressed_and_streams_are_not(client: httpx.Client, lab: QueuedLab) -> None:
    session = opened(client)
    assert client.get("/openapi.json").headers.get("Content-Encoding") == "gzip"
    assert "Content-Encoding" not in client.get("/openapi.json", headers={"Accept-Encoding": "identity"}).headers
    assert "Content-Encoding" not in client.get("/session/revision", headers=session).headers
    job = client.post("/session/preview", json={"fact": FACT}, headers=session).json()["id"]
    with client.stream("GET", f"/jobs/{job}/events", headers=session) as response:
        assert "Content-Encoding" not in response.headers
        assert next(response.iter_lines()) == "event: progress"  # at once: the job still waits for its gate


def test_a_rate_is_so_many_at_once_and_again_in_each_minute() -> None:
    now = 0.0
    rate = Rate(60, clock=lambda: now, kept=2)
    assert [rate.take("a") for _ in range(60)] == [0.0] * 60
    assert rate.take("a") == pytest.approx(1.0)
    assert rate.take("b") == 0.0
    now = 2.5
    assert [rate.take("a") for _ in range(3)] == [0.0, 0.0, pytest.approx(0.5)]


def test_without_the_token_nothing_is_told_but_that_it_lives(lab: QueuedLab) -> None:
    with serving(lab, token=TOKEN) as address, httpx.Client(base_url=address) as client:
        for path in ("/info", "/loading", "/metrics", "/openapi.json", "/nowhere"):
            for sent in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
                answer = client.get(path, headers=sent)
                assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        assert client.get("/info", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_it_is_not_opened_to_other_machines_without_a_token() -> None:
    loader = Loader(lambda _report: FakeLab())
    for host in ("0.0.0.0", "192.168.1.7", "::", "lab.example.org"):
        with pytest.raises(ValueError, match="takes a token"):
            create_app(loader, Settings(host=host))
        create_app(loader, Settings(host=host, token=TOKEN))
    with pytest.raises(ValueError, match="at least 16 characters"):
        create_app(loader, Settings(token="short"))


def test_pages_of_other_origins_and_names_are_refused(lab: QueuedLab) -> None:
    settings = {"allowed_origins": ("https://lab.example.org",), "allowed_hosts": ("backend",)}
    with serving(lab, **settings) as address, httpx.Client(base_url=address) as client:
        own = address.removeprefix("http://")
        for headers, status in (
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": f"http://{own}"}, 200),
            ({"Origin": "https://lab.example.org"}, 200),
            ({"Host": "evil.example"}, 403),
            ({"Host": "["}, 403),
            ({"Host": "backend:8867"}, 200),
            ({"Host": "localhost"}, 200),
        ):
            answer = client.get("/info", headers=headers)
            assert answer.status_code == status, headers
            if status == 403:
                assert answer.json()["error"] == "forbidden"
        asked = {"Origin": "https://lab.example.org", "Access-Control-Request-Method": "POST"}
        assert client.options("/sessions", headers=asked).status_code == 200
        asked["Origin"] = "https://evil.example"
        assert "Access-Control-Allow-Origin" not in client.options("/sessions", headers=asked).headers
    with serving(lab, token=TOKEN) as address:  # who has the token needs no name
        headers = {"Host": "any.example", "Authorization": f"Bearer {TOKEN}"}
        assert httpx.get(f"{address}/info", headers=headers).status_code == 200


def test_health_is_that_of_the_worker_and_of_the_watch_over_jobs(
    lab: QueuedLab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lab.gate.set()
    silent = 0.0
    monkeypatch.setattr(QueuedLab, "silence", property(lambda _lab: silent), raising=False)
    with serving(lab) as address, httpx.Client(base_url=address) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        for silent, words in ((5_000.0, "has not reported for 5000 s"), (float("inf"), "worker has ended")):  # noqa: B007
            answer = client.get("/healthz")
            assert (answer.status_code, answer.json()["error"]) == (503, "unhealthy")
            assert words in answer.json()["detail"]
        silent = 0.0
        assert client.get("/healthz").status_code == 200
        real, broken = JobRegistry.sweep, threading.Event()

        def sweep(registry: JobRegistry) -> None:
            if broken.is_set():
                raise RuntimeError("a job that cannot be told of")
            real(registry)

        monkeypatch.setattr(JobRegistry, "sweep", sweep)
        broken.set()
        client.post("/session/preview", json={"fact": FACT}, headers=opened(client))
        assert soon(lambda: caplog.text.count("the jobs could not be looked at") > 3)
        monkeypatch.setattr("editlab.remote.server.operation.SWEPT_SECONDS", 0.3)
        assert soon(lambda: client.get("/healthz").status_code == 503)
        assert "have not been watched" in client.get("/healthz").json()["detail"]
        monkeypatch.undo()
        assert soon(lambda: client.get("/healthz").status_code == 200)
        assert soon(lambda: "editlab_queue_length 0.0" in client.get("/metrics").text)


def test_every_answer_has_the_headers_that_keep_it_to_itself(client: httpx.Client) -> None:
    for path in ("/info", "/nowhere", "/session", "/healthz"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert "server" not in headers


def test_until_the_model_is_there_it_tells_how_far_it_is() -> None:
    begun, gate = threading.Event(), threading.Event()

    def load(report: OnProgress) -> FakeLab:
        report(Progress("fetching", 3, 7))
        begun.set()
        assert gate.wait(30)
        return FakeLab()

    with serving(load) as address, httpx.Client(base_url=address) as client:
        assert begun.wait(30)
        for path in ("/info", "/readyz", "/jobs/any", "/facts"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["error"]) == (503, "loading")
            assert answer.json()["detail"] == "the backend is loading its model: fetching, 3 of 7"
            assert answer.headers["Retry-After"] == "2"
        told = client.get("/loading").json()
        assert (told["status"], told["progress"]["done"], told["progress"]["total"]) == ("loading", 3, 7)
        assert client.get("/healthz").status_code == 200
        gate.set()
        assert soon(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/loading").json()["status"] == "ready"


def test_a_model_that_cannot_be_loaded_is_told_in_a_sentence() -> None:
    def load(_report: OnProgress) -> FakeLab:
        raise ValueError("there is no model 'gpt7'")

    with serving(load) as address, httpx.Client(base_url=address) as client:
        assert soon(lambda: client.get("/loading").json()["status"] == "failed")
        assert client.get("/loading").json()["error"] == "there is no model 'gpt7'"
        assert client.get("/info").json()["detail"].endswith("could not load its model: there is no model 'gpt7'")
        assert client.get("/readyz").status_code == 503


def test_a_state_is_sent_again_only_when_it_is_another_one(client: httpx.Client) -> None:
    session = opened(client)
    first = client.get("/session/state", headers=session)
    tag = {"If-None-Match": first.headers["ETag"]}
    again = client.get("/session/state", headers={**session, **tag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    client.post("/session/watch", json={"prompts": ["Rome is"]}, headers=session)
    changed = client.get("/session/state", headers={**session, **tag})
    assert changed.status_code == 200
    assert changed.json()["watched"] == ["Rome is"]
    other = opened(client)
    assert client.get("/session/state", headers=other).json()["watched"] == []


def test_events_tell_each_step_and_then_the_end_once(client: httpx.Client, lab: QueuedLab) -> None:
    session = opened(client)
    first, second = (client.post("/session/preview", json={"fact": FACT}, headers=session) for _ in range(2))
    assert first.status_code == 202
    assert first.headers["Location"] == f"/jobs/{first.json()['id']}"
    assert soon(lambda: client.get(f"/jobs/{first.json()['id']}", headers=session).json()["status"] == "running")
    told: list[list[tuple[str, dict[str, Any]]]] = [[], []]

    def listen(number: int, job: str) -> None:
        told[number] = events(client, job, session)

    threads = [
        threading.Thread(target=listen, args=(number, answer.json()["id"]))
        for number, answer in enumerate((first, second))
    ]
    for thread in threads:
        thread.start()
    threading.Event().wait(0.2)
    lab.gate.set()
    for thread in threads:
        thread.join(30)
    for heard in told:
        assert [name for name, _ in heard].count("end") == 1
        assert heard[-1][0] == "end"
        assert heard[-1][1]["status"] == "done"
        assert heard[-1][1]["result"][0]["prompt"] == "The Eiffel Tower is in"
    assert told[0][0][1]["status"] == "running"
    assert (told[1][0][1]["status"], told[1][0][1]["ahead"]) == ("queued", 1)
    assert events(client, first.json()["id"], session) == told[0][-1:]  # asked late: the end, and no more


def test_a_listener_that_leaves_disturbs_nobody(client: httpx.Client, lab: QueuedLab) -> None:
    session = opened(client)
    job = client.post("/session/preview", json={"fact": FACT}, headers=session).json()["id"]
    with client.stream("GET", f"/jobs/{job}/events", headers=session) as response:
        assert next(response.iter_lines()) == "event: progress"
    lab.gate.set()
    assert soon(lambda: client.get(f"/jobs/{job}", headers=session).json()["status"] == "done")
    assert client.get("/session", headers=session).status_code == 200


def test_a_job_is_cancelled_and_tells_so(client: httpx.Client) -> None:
    session = opened(client)
    job = client.post("/session/preview", json={"fact": FACT}, headers=session).json()["id"]
    assert client.delete(f"/jobs/{job}", headers=session).status_code == 200
    name, told = events(client, job, session)[-1]
    assert (name, told["status"], told["failure"], told["result"]) == ("end", "cancelled", "cancelled", None)


def test_a_job_is_told_to_none_but_who_asked_for_it(client: httpx.Client, lab: QueuedLab) -> None:
    mine, yours = opened(client), opened(client)
    job = client.post("/session/preview", json={"fact": FACT}, headers=mine).json()["id"]
    for headers in (yours, follower(client, mine), {}):
        for method, path in (("GET", f"/jobs/{job}"), ("GET", f"/jobs/{job}/events"), ("DELETE", f"/jobs/{job}")):
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 404
            assert "Eiffel" not in answer.text
    assert client.get(f"/jobs/{job}", headers=mine).json()["status"] == "running"


def test_a_file_is_sent_as_it_is_to_who_asked_for_it(client: httpx.Client) -> None:
    session = opened(client)
    reports = []
    for headers in (session, {**session, "Prefer": "return=minimal"}):
        job = client.post("/session/replay", headers=headers).json()["id"]
        assert soon(lambda job=job: client.get(f"/jobs/{job}", headers=session).json()["status"] == "done")
        reports.append(client.get(f"/jobs/{job}", headers=session).json())
    made = b64decode(reports[0]["result"])
    assert made.startswith(b"replay of ")
    assert reports[1]["result"] is None
    answer = client.get(f"/jobs/{job}/file", headers=session)
    told = ("content-type", "content-length", "content-encoding")
    assert (answer.content, answer.status_code) == (made, 200)
    assert [answer.headers.get(name) for name in told] == ["application/zip", str(len(made)), None]
    other = client.get(f"/jobs/{job}/file", headers=opened(client))
    assert (other.status_code, other.json()["error"]) == (404, "unknown_job")
    asked = client.post("/session/preview", json={"fact": FACT}, headers=session).json()["id"]
    for words in ("the job is (queued|running)", "the job is cancelled"):
        early = client.get(f"/jobs/{asked}/file", headers=session)
        assert (early.status_code, early.json()["error"]) == (409, "refused")
        assert re.search(words, early.json()["detail"])
        client.delete(f"/jobs/{asked}", headers=session)
        assert soon(lambda: client.get(f"/jobs/{asked}", headers=session).json()["status"] == "cancelled")
    sizes = client.post("/session/export-sizes", headers=session).json()["id"]
    assert soon(lambda: client.get(f"/jobs/{sizes}", headers=session).json()["status"] == "done")
    assert "makes no file" in client.get(f"/jobs/{sizes}/file", headers=session).json()["detail"]


def test_jobs_stages_and_requests_are_counted(lab: QueuedLab) -> None:
    with serving(lab) as address, httpx.Client(base_url=address) as client:
        session = opened(client)
        jobs = [client.post("/session/preview", json={"fact": FACT}, headers=session).json()["id"] for _ in range(3)]
        assert "editlab_queue_length 3.0" in client.get("/metrics").text
        client.delete(f"/jobs/{jobs[2]}", headers=session)
        lab.gate.set()
        assert soon(lambda: "editlab_queue_length 0.0" in client.get("/metrics").text)
        told = client.get("/metrics").text
    assert 'editlab_jobs_total{kind="preview",outcome="done"} 2.0' in told
    assert 'editlab_jobs_total{kind="preview",outcome="cancelled"} 1.0' in told
    assert 'editlab_stage_seconds_count{kind="preview",stage="waiting"} 3.0' in told
    assert 'editlab_request_seconds_count{method="DELETE",path="/jobs/{job}",status="200"} 1.0' in told
    assert "process_resident_memory_bytes" in told
    assert "editlab_device_memory_bytes 0.0" in told
    assert not any(job in told for job in jobs)


def test_the_log_holds_no_key_no_token_and_nothing_that_was_typed(
    lab: QueuedLab, caplog: pytest.LogCaptureFixture
) -> None:
    from editlab.remote.server.logs import Discreet

    caplog.set_level(logging.DEBUG)
    with serving(lab, token=TOKEN) as address:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=address, headers=headers) as client:
            session = client.post("/sessions", json={"name": "Zanzibar"}).json()
            key = {"Editlab-Session": "follow-" + session["key"]}
            client.get("/session", headers=key)
            client.get("/facts", params={"text": "Samarkand"})
            client.post("/session/edit", json={"facts": [{**FACT, "prompt": "Timbuktu"}]}, headers=key)
            client.post("/session/plan", json={"every": {"perplexity": 3}}, headers={"Editlab-Session": session["key"]})
    form = Discreet("%(message)s")
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    lines = [form.format(record) for record in ours]
    told = "\n".join(lines)
    assert any(json.loads(line).get("path") == "/facts" for line in lines)
    assert "KeyError: (message withheld)" in told
    for secret in (TOKEN, "follow-", "Zanzibar", "Samarkand", "Timbuktu", UNFORESEEN):
        assert secret not in told, secret


def test_the_api_is_documented_with_examples_that_are_accepted(client: httpx.Client, lab: QueuedLab) -> None:
    api = client.get("/openapi.json").json()
    assert set(api["components"]["securitySchemes"]) == {"token", "session"}
    lab.gate.set()
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], path
            assert operation["description"], path
            if "requestBody" not in operation:
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            body = _example(api, schema)
            session = opened(client)
            lab.edit(session["Editlab-Session"], lab.facts[:1]).result()
            if path.startswith("/class"):
                session = {"Editlab-Session": lab.open_class(session["Editlab-Session"]).join}
            answer = client.request(method, path, json=body, headers=session)
            assert answer.status_code < 300 or answer.json()["error"] == "busy", (path, body, answer.text)


def test_the_documentation_is_a_page_that_fetches_nothing(client: httpx.Client) -> None:
    page = client.get("/docs").text
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in page
    assert "<script" not in page
    assert "src=" not in page


def _example(api: dict[str, Any], schema: dict[str, Any]) -> Any:
    """What the documentation shows for a schema."""
    if "examples" in schema:
        return schema["examples"][0]
    if "anyOf" in schema:
        return _example(api, schema["anyOf"][0])
    if "$ref" in schema:
        return _example(api, api["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]])
    properties = schema.get("properties", {})
    return {
        name: _example(api, properties[name])
        for name in properties
        if name in schema.get("required", ()) or "examples" in properties[name]
    } or {"array": [], "object": {}}.get(schema.get("type", ""), 0)
