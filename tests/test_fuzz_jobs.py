"""Calls with whatever their declared types allow, and facts of a grammar: none ends, nor does its job, by accident.

The calls are made of the lab itself and over HTTP, with a GPT-2 and with a Llama whose tokenizer is SentencePiece's
kind. Thorough, and the same every time:
`pytest tests/test_fuzz_jobs.py --hypothesis-profile thorough --hypothesis-seed 0`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.testclient import TestClient

from editlab.core.facts import Fact
from editlab.core.guarding import CHOICES
from editlab.core.joining import JOINTS
from editlab.core.record import Record
from editlab.core.records import LEVELS
from editlab.editing.editor import Editor
from editlab.lab.lab import Lab
from editlab.lab.limits import Limits
from editlab.methods import describe, methods
from editlab.remote.server import Loader, create_app
from editlab.remote.server.bodies import request_of
from editlab.remote.wire import ADDRESSES, ENDED, SESSION_HEADER, Call, call_of, kind_of
from editlab.serving.settings import Settings
from tests.conftest import CONTEXTS, tiny_editor, tiny_moments
from tests.serving import Kept
from tests.tokenizing import model_of

CALLS = tuple(name for name in ADDRESSES if name not in ("create", "delete"))
JOBS = tuple(name for name in CALLS if call_of(name).is_job)
SECONDS = 600  # for a job to end, on a machine that is busy with much else
JOB_SECONDS = 30  # after which the lab stops a job
SHARE = 16  # four ways, and four calls an example: a profile's examples are the calls of all
FEWEST = 25  # examples of each way

# --- facts of a grammar ---

WORDS = (
    *("Ann", "annual", "Rome", "piano", "OK Go", "the mother tongue of", "is located in", "1,000", "J.R.R.", "don't"),
    *("法国", "首都是", "ローマ", "กรุงเทพ", "روما", "שלום", "Straße", "e\u0301", "नमस्ते", "\U0001f469\u200d\U0001f467"),
    *("\u200d", "\ufeff", "\x00", "\x1b[31m", "\u202e", "\U000e0041", "<|endoftext|>", "<|im_start|>user"),
    *("\\n", "&lt;", "%s", "…", "«", "("),
)
GAPS = (" ", " ", " ", "", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028")

words = st.sampled_from(WORDS) | st.text(max_size=5)
phrases = st.lists(st.tuples(words, st.sampled_from(GAPS)), min_size=1, max_size=6).map(
    lambda parts: "".join(word + gap for word, gap in parts)
)
long = st.builds(lambda word, times: f"{word} " * times, words, st.sampled_from([20, 55, 60, 63, 64, 120, 130, 400]))
texts = st.one_of(phrases, phrases, phrases, long)


@st.composite
def facts(draw: st.DrawFn) -> dict[str, Any]:
    """A fact as a request holds it: its prompt has {}, the subject itself once or several times, or neither."""
    subject = draw(phrases)
    before, after = draw(st.just("") | texts), draw(texts)
    middle = draw(st.sampled_from(["{}", "{}", "{}", "{}", subject, f"{subject} {subject}", f"{subject}s {{}}", ""]))
    fact = {"prompt": before + middle + after, "subject": subject, "target_new": draw(phrases)}
    several = st.lists(texts, max_size=2)
    others = {
        "target_true": st.none() | phrases,
        "paraphrase_prompts": several,
        "neighborhood_prompts": several,
        "generation_prompts": several,
        "joined_by": st.sampled_from([*JOINTS, *JOINTS, ""]),
        "relation": st.none() | phrases,
        "case_id": st.none() | st.integers() | phrases,
    }
    return {**fact, **draw(st.fixed_dictionaries({}, optional=others))}


@st.composite
def batches(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One fact or two; the second may be the first again, or contradict it."""
    one = draw(facts())
    more = st.lists(facts(), max_size=1) | st.just([one]) | phrases.map(lambda other: [{**one, "target_new": other}])
    return [one, *draw(st.just([]) | more)]


# --- what the declared types allow ---


def of_schema(schema: Mapping[str, Any], known: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a JSON schema; `known` holds the schemas that it refers to."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return facts() if name == "Fact" else of_schema(known[name], known)
    if "anyOf" in schema:
        return st.one_of([of_schema(each, known) for each in schema["anyOf"]])
    kind = schema.get("type")
    if kind == "integer":
        return st.integers(schema.get("minimum"), schema.get("maximum"))
    if kind == "array":
        return st.lists(of_schema(schema["items"], known), max_size=3)
    if kind == "object":
        names = of_schema({"type": "string", **schema.get("propertyNames", {})}, known)
        return st.dictionaries(names, of_schema(schema["additionalProperties"], known), max_size=3)
    simple = {
        "null": st.none(),
        "boolean": st.booleans(),
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "string": st.text(max_size=min(30, schema.get("maxLength", 30))),
    }
    return simple[str(kind)]


METHODS = st.sampled_from([*methods()])
MEASURES = st.sampled_from(["retention", "perplexity", "bleeding", "counterfact", "counterfact_all", "generation"])
STEPS = st.sampled_from(["step 1", "step 2", "step 3"])  # told by their ids where the call is made


def _changes() -> st.SearchStrategy[dict[str, Any]]:
    """Hyperparameters of any method, most of them in their range."""
    of_each = [{info.name: info for info in describe(kind())} for kind in methods().values()]
    fields = {name: info for each in of_each for name, info in each.items()}
    common = set.intersection(*map(set, of_each))
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "bool": st.booleans(),
        "str": st.text(max_size=5),
        "layers": st.lists(st.integers(-1, 5), max_size=4),
        "ints": st.lists(st.integers(-1, 5), max_size=4),
    }
    drawn: dict[str, Any] = {}
    for name, info in fields.items():
        low, high = info.low or 0, min(1e3 if info.high is None else info.high, 1e6)
        whole = st.integers(int(low), 4) | st.sampled_from([int(low) - 1, int(min(high, 12))])
        real = st.sampled_from([low, high, 1e-3, 0.5, 1.0, 10.0, -1.0])
        choices = st.sampled_from(info.choices) if info.choices else kinds.get(info.kind)
        drawn[name] = choices if choices is not None else whole if info.kind == "int" else real
    few = {"steps": st.integers(1, 4)}
    shared = {name: drawn[name] for name in sorted(common - {"steps"})}
    return st.one_of(
        *[st.fixed_dictionaries(few)] * 3,
        st.fixed_dictionaries(few, optional=shared),
        st.fixed_dictionaries({}, optional=drawn),
    )


CHANGES = _changes()
MEANT: Mapping[str, st.SearchStrategy[Any]] = {  # values that mean something, by the name of a parameter
    "facts": batches(),
    "method": METHODS,
    "methods": st.lists(METHODS, max_size=2),
    "hyperparameters": CHANGES,
    "guard": st.sampled_from(CHOICES),
    "guard_level": st.sampled_from(LEVELS[1:]),
    "names": st.lists(MEASURES, max_size=2),
    "every": st.dictionaries(MEASURES, st.integers(0, 3), max_size=2),
    "index": st.integers(0, 4),
    "prompts": st.lists(texts, max_size=3),
    "earlier": st.lists(STEPS, max_size=2),
    "later": st.lists(STEPS, max_size=2),
}


def bodies(call: Call) -> st.SearchStrategy[dict[str, Any]]:
    """What a request for a call may hold, by the schema that the backend tells."""
    request = request_of(call)
    if request is None:
        return st.just({})
    schema = request.model_json_schema()
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for name, each in schema["properties"].items():
        any_of = of_schema(each, schema.get("$defs", {}))
        meant = MEANT.get(name, any_of)
        if call.name == "risk" and name == "hyperparameters":
            meant = st.dictionaries(METHODS, CHANGES, max_size=2)
        fields[name] = st.one_of(meant, meant, meant, any_of)
    needed = schema.get("required", [])  # in its order, so that the same seed draws the same
    optional = {name: field for name, field in fields.items() if name not in needed}
    return st.fixed_dictionaries({name: fields[name] for name in needed}, optional=optional)


@st.composite
def asked(draw: st.DrawFn, calls: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """One of the calls, by its name, and the body of a request for it."""
    name = draw(st.sampled_from(calls))
    return name, draw(BODIES[name])


BODIES = {name: bodies(call_of(name)) for name in CALLS}

PLAIN = (
    "edit",
    {
        "facts": [{"prompt": "{} plays the", "subject": "Toko Yasuda", "target_new": "piano", "target_true": "guitar"}],
        "hyperparameters": {"steps": 2},
    },
)

# --- what may come of it ---


class Way(Protocol):
    """A way to make a call: gives "done", or the kind of its refusal; raises whatever nobody foresaw."""

    def __call__(self, key: str, call: Call, body: dict[str, Any]) -> str: ...


class Direct:
    """Of the lab itself, with arguments as the backend reads them."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def __call__(self, key: str, call: Call, body: dict[str, Any]) -> str:
        request = request_of(call)
        try:
            told = None if request is None else request.model_validate(body)
        except ValidationError:
            return "not of its type"
        given = {} if told is None else {name: getattr(told, name) for name in type(told).model_fields}
        try:
            found = getattr(self._lab, call.name)(*([key] if call.of_session else []), **given)
            if call.is_job:
                found = found.result(SECONDS)
        except Exception as error:
            if kind_of(error) == "failed":
                raise
            refused = error
        else:
            json.dumps(plain(found), allow_nan=False)
            return "done"
        assert str(refused).strip().encode(), refused  # a sentence that can be written
        return kind_of(refused)


class OverHTTP:
    """Of the backend's application, in this process."""

    def __init__(self, client: TestClient) -> None:
        self._client = client

    def __call__(self, key: str, call: Call, body: dict[str, Any]) -> str:
        method, path, _ = call.address
        sent: dict[str, Any] = {"content": json.dumps(body)} if body else {}
        if method == "GET":
            sent = {"params": {name: value for name, value in body.items() if value is not None}}
        headers = {SESSION_HEADER: key, "Content-Type": "application/json"}
        answer = self._client.request(method, path, headers=headers, **sent)
        if answer.status_code >= 400:
            problem = answer.json()
            assert answer.status_code < 500, problem
            assert set(problem) == {"error", "detail"}
            assert problem["detail"].strip()
            return problem["error"]
        report = answer.json() if answer.content else {}
        until = time.monotonic() + SECONDS
        while call.is_job and report["status"] not in ENDED:
            assert time.monotonic() < until, report
            report = self._client.get(f"/jobs/{report['id']}", headers=headers).json()
        if call.is_job and report["status"] != "done":
            assert report["failure"] not in (None, "failed"), report
            assert report["error"].strip()
            return report["failure"]
        return "done"


def plain(found: Any) -> Any:
    """A result as JSON types."""
    if isinstance(found, Record):
        return found.to_json()
    if isinstance(found, Mapping):
        return {str(name): plain(each) for name, each in found.items()}
    return [plain(each) for each in found] if isinstance(found, tuple | list) else str(found)


def editor_of(family: str) -> Editor:
    if family == "gpt2":
        return tiny_editor("gpt2")
    model = model_of("metaspace with EOS", n_positions=128)
    editor = Editor(model, moments=tiny_moments(model), contexts=CONTEXTS)
    editor.methods = {name: type(method)(**_for_tiny(method)) for name, method in editor.methods.items()}
    return editor


def _for_tiny(method: Any) -> dict[str, Any]:
    """Hyperparameters for a model of three layers, as far as the method has them."""
    wanted = {"layer": 1, "layers": (0, 1), "ridge": 1e-2}
    return {name: value for name, value in wanted.items() if name in method.__dataclass_fields__}


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    text: Path = tmp_path_factory.mktemp("fuzz") / "text.txt"
    text.write_text("A short text is enough here. " * 5, encoding="utf-8")
    limits = Limits(edits=3, facts=3, job_seconds=JOB_SECONDS)
    own = [Fact("{} plays the", "Toko Yasuda", "piano", "guitar", case_id=7)]
    with closing(Lab(editor_of(request.param), {}, own, "one fact", str(text), limits=limits)) as made:
        yield made


@pytest.fixture(params=["direct", "over HTTP"])
def way(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Way]:
    if request.param == "direct":
        yield Direct(lab)
        return
    app = create_app(Loader(lambda _report: Kept(lab)), Settings(requests_per_minute=10**9))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.01)
        yield OverHTTP(client)


def test_no_call_and_no_job_ends_by_accident(lab: Lab, way: Way) -> None:
    outcomes: dict[str, set[str]] = {}

    @settings(max_examples=max(FEWEST, settings.default.max_examples // SHARE), suppress_health_check=list(HealthCheck))
    @given(st.tuples(st.just(PLAIN) | asked(("edit",)), asked(CALLS), asked(CALLS), asked(JOBS)))
    def fuzz(calls: tuple[tuple[str, dict[str, Any]], ...]) -> None:
        key = lab.create()
        try:
            for name, body in calls:
                ids = {f"step {step.index}": step.id for step in lab.state(key).steps}
                meant = {
                    field: [ids.get(each, each) for each in value] if field in ("earlier", "later") and value else value
                    for field, value in body.items()
                }
                how = way(key, call_of(name), meant)
                event(f"{name}: {how}")
                outcomes.setdefault(name, set()).add(how)
        finally:
            lab.delete(key)

    fuzz()
    assert {"done", "invalid"} <= outcomes["edit"]
    done = [call for call in CALLS if "done" in outcomes.get(call, ())]
    assert len(done) > len(CALLS) / 4, outcomes  # it got behind the door, too
