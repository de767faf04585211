"""What the deployment page, the Dockerfile and the compose file name exists: settings, commands, options, files."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel, SecretStr
from typer.exceptions import TyperException

from editlab.cli import app
from editlab.core.paths import CACHE_VARIABLE
from editlab.lab.limits import Limits
from editlab.remote.client import backend_of_environment
from editlab.remote.server import Loader, create_app
from editlab.remote.server.operation import OPEN
from editlab.serving.settings import PREFIX, PageSettings, Settings
from tests.page.fake_lab import FakeLab

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = {name: one for name, one in COMPOSE["services"].items() if "build" in one}
BY_USER = ("EDITLAB_STORE",)  # defaults that are another for every user
PROFILES = {"cpu", "cuda", "workers"}


def told(value: Any) -> str:
    """A default as the table has it."""
    if value is None or value == ():
        return ""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else f"{value}"


def settings() -> dict[str, str]:
    """Every variable and its default."""
    found = {CACHE_VARIABLE: ""}

    def add(model: type[BaseModel], prefix: str) -> None:
        for name, field in model.model_fields.items():
            variable = f"{prefix}{name}".upper()
            default = field.get_default(call_default_factory=True)
            if isinstance(default, PageSettings):
                add(PageSettings, f"{variable}_")
            elif isinstance(default, Limits):
                found.update({f"{variable}_{each.name}".upper(): told(each.default) for each in fields(Limits)})
            else:
                found[variable] = told(default)

    add(Settings, PREFIX)
    return found


def table() -> dict[str, str]:
    """The variables and defaults that the deployment page tells."""
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `(EDITLAB_\w+)` \| (?:`([^`]*)`)?[^|]*\|", page, re.MULTILINE))


def test_the_table_has_every_setting_with_its_default() -> None:
    wanted, found = settings(), table()
    assert sorted(found) == sorted(wanted)
    assert {name: found[name] for name in wanted if name not in BY_USER} == {
        name: default for name, default in wanted.items() if name not in BY_USER
    }


@pytest.mark.parametrize("page", ["deployment.md", "server.md", "threats.md"])
def test_variables_that_the_pages_name_are_settings(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert set(re.findall(r"EDITLAB_[A-Z_]+[A-Z]", text)) <= set(settings())


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {name for text in expressions for name in re.findall(r"\b(?:editlab|process)_\w+", text)}
    metrics = create_app(Loader(lambda _report: FakeLab()), Settings()).state.backend.metrics
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", metrics.text().decode(), re.MULTILINE))
    parts = {"histogram": ("_bucket", "_count", "_sum")}
    there = {name + part for name, kind in types.items() for part in parts.get(kind, ("",))}
    assert named <= there
    assert {name for name in types if name.startswith("editlab")} <= {re.sub("_(bucket|count)$", "", n) for n in named}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_asks_for_what_there_is(name: str) -> None:
    service = SERVICES[name]
    assert set(service["profiles"]) <= PROFILES
    assert service["build"] == "."
    assert set(service["secrets"]) <= set(COMPOSE["secrets"])
    assert service["restart"] == "unless-stopped"  # also after the exit code that tells of a failed GPU
    volumes = [volume.split(":") for volume in service.get("volumes", ())]
    assert {source for source, _ in volumes} <= set(COMPOSE["volumes"])
    assert {target for _, target in volumes} <= {"/sessions", "/cache"}
    assert set(service["environment"]) <= set(settings())
    assert service["environment"]["EDITLAB_TOKEN_FILE"] == "/run/secrets/token"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    command, *options = shlex.split(service["command"])
    try:
        group = typer.main.get_command(app)
        context = group.commands[command].make_context(command, options)  # type: ignore[attr-defined]
    except TyperException as error:
        pytest.fail(f"{name}: {error.message}")
    assert context.params["host"] == "0.0.0.0", "a container's loopback address reaches nobody"


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_each_profile_is_one_backend_and_a_page_that_finds_it(profile: str) -> None:
    chosen = {name: service for name, service in SERVICES.items() if profile in service["profiles"]}
    (backend,) = [service for service in chosen.values() if service["command"].startswith("backend")]
    (page,) = [service for service in chosen.values() if service["command"].startswith("serve")]
    (name,) = backend["networks"]["default"]["aliases"]
    port = Settings.model_fields["port"].default
    assert f"--backend http://{name}:{port} " in page["command"]
    kind, program, option, code = backend["healthcheck"]["test"]
    assert (kind, program, option) == ("CMD", "python", "-c")
    compile(code, "healthcheck", "exec")
    assert [f"http://127.0.0.1:{port}{path}" for path in OPEN if path in code] == re.findall(r"http://[^']+", code)
    assert page["ports"] == [f"127.0.0.1:{PageSettings().port}:{PageSettings().port}"]


def test_the_database_is_the_one_that_the_workers_keep_their_sessions_in() -> None:
    database, backend = COMPOSE["services"]["database"], SERVICES["backend-workers"]
    assert database["profiles"] == backend["profiles"] == ["workers"]
    assert list(backend["depends_on"]) == ["database"]
    user, password = (database["environment"][f"POSTGRES_{name}"] for name in ("USER", "PASSWORD"))
    store = backend["environment"]["EDITLAB_STORE"]
    assert store == f"postgresql://{user}:{password}@database/{user}"
    assert Settings(store=store, workers=2).has_workers
    assert [volume.split(":")[0] for volume in database["volumes"]] == ["database"]
    assert "database" in COMPOSE["volumes"]


def test_the_token_file_is_read_as_the_pages_token_for_its_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token.txt").write_text("one of some length\n")
    monkeypatch.setenv("EDITLAB_TOKEN_FILE", str(tmp_path / "token.txt"))
    found = Settings(backend="http://backend:8867")
    assert found.token == SecretStr("one of some length")
    assert backend_of_environment(found.to_environment()) == ("http://backend:8867", "one of some length")


def test_the_dockerfile_copies_what_there_is_and_starts_the_command() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
    assert all((ROOT / source).exists() for sources in copied for source in sources)
    assert {"pyproject.toml", "editlab", "data", "app.ipynb"} <= {source for sources in copied for source in sources}
    assert 'ENTRYPOINT ["editlab"]' in lines
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (install,) = [line for line in lines if "pip install" in line]
    extras = set(re.findall(r"\.\[([\w,]+)\]", install)[0].split(","))
    assert extras == {"postgres", "ray"} <= set(project["optional-dependencies"])
    assert "-c constraints.txt" in install
    assert "constraints.txt" in {source for sources in copied for source in sources}
    (volumes,) = [json.loads(line.removeprefix("VOLUME ")) for line in lines if line.startswith("VOLUME")]
    mounted = {volume.split(":")[1] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert mounted == set(volumes)
    (user,) = [line.removeprefix("USER ") for line in lines if line.startswith("USER")]
    (make,) = [line for line in lines if "useradd" in line]
    assert f"chown {user} {' '.join(volumes)}" in make  # a volume of a name gets the owner of the folder in the image
    (environment,) = [line.split()[1:] for line in lines if line.startswith("ENV")]
    assert {each.partition("=")[0] for each in environment} - {"HF_HOME"} <= set(settings())
