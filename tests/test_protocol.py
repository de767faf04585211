"""A call of the lab is said once, by the protocol; whoever answers it takes what is said there, and nothing else."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import pytest

from editlab.analysis.scanned import ScanTable
from editlab.lab.api import Job, LabProtocol
from editlab.lab.jobs import LocalJob
from editlab.lab.lab import Lab
from editlab.remote.client import RemoteLab
from editlab.remote.client.job import RemoteJob
from editlab.remote.server import Loader, create_app
from editlab.remote.wire import ADDRESSES, SESSION_HEADER, call_of
from editlab.remote.workers import WorkerPool
from editlab.remote.workers.job import PoolJob
from editlab.serving.settings import Settings
from tests.page.fake_job import FakeJob
from tests.page.fake_lab import FakeLab

CALLS = [name for name in vars(LabProtocol) if not name.startswith("_")]


def takes(method: Any) -> dict[str, tuple[Any, Any, Any]]:
    """Each parameter's type, kind and default."""
    hints = typing.get_type_hints(method, localns={"ScanTable": ScanTable})
    parameters = inspect.signature(method).parameters.values()
    return {each.name: (hints.get(each.name), each.kind, each.default) for each in parameters}


@pytest.fixture(scope="module")
def api() -> dict[str, Any]:
    """What the backend tells of its routes."""
    return create_app(Loader(lambda _report: FakeLab()), Settings()).openapi()


def test_every_call_is_on_the_wire_but_the_end() -> None:
    assert [*ADDRESSES, "close"] == sorted(CALLS, key=[*ADDRESSES, "close"].index)
    assert len({(address.method, address.path) for address in ADDRESSES.values()}) == len(ADDRESSES)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("lab", [Lab, RemoteLab, WorkerPool, FakeLab])
def test_a_lab_takes_what_the_protocol_says(lab: type, name: str) -> None:
    assert takes(getattr(lab, name)) == takes(getattr(LabProtocol, name))


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_route_takes_what_the_protocol_says(api: dict[str, Any], name: str) -> None:
    call = call_of(name)
    method, path, _ = call.address
    route = api["paths"][path][method.lower()]
    given = {each["name"]: each["required"] for each in route.get("parameters", ()) if each["in"] == "query"}
    if "requestBody" in route:
        schema = route["requestBody"]["content"]["application/json"]["schema"]
        reference = schema.get("$ref") or schema["anyOf"][0]["$ref"]
        body = api["components"]["schemas"][reference.rsplit("/", 1)[-1]]
        given = {field: field in body.get("required", ()) for field in body["properties"]}
        assert body["additionalProperties"] is False
    assert given == {field: each.default is each.empty for field, each in call.takes.items()}
    assert ({"session": []} in route["security"]) == call.of_session
    assert ("202" in route["responses"]) == call.is_job
    assert route["description"].startswith(call.about)


@pytest.mark.parametrize("job", [LocalJob, RemoteJob, PoolJob, FakeJob])
def test_a_job_takes_what_the_protocol_says(job: type) -> None:
    for name in ("cancel", "result"):
        assert takes(getattr(job, name)) == takes(getattr(Job, name))


def test_a_key_is_in_the_header_alone(api: dict[str, Any]) -> None:
    assert api["components"]["securitySchemes"]["session"]["name"] == SESSION_HEADER
    assert all("session" not in call_of(name).takes for name in ADDRESSES)
