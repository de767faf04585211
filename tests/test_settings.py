"""The settings: from variables, over defaults, under arguments; and errors that are one sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from editlab.lab.limits import Limits
from editlab.serving.settings import Settings


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if not k.startswith("EDITLAB_")})


def test_an_argument_goes_before_a_variable_and_that_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Settings().model, Settings().port) == ("auto", 8867)
    monkeypatch.setenv("EDITLAB_MODEL", "gpt2")
    monkeypatch.setenv("EDITLAB_PORT", "9000")
    settings = Settings(port=9001)
    assert (settings.model, settings.port) == ("gpt2", 9001)


def test_each_limit_has_a_variable_and_the_others_keep_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITLAB_LIMITS_SESSIONS_IN_MEMORY", "3")
    monkeypatch.setenv("EDITLAB_LIMITS_DAYS", "0.5")
    assert Settings().limits == Limits(sessions_in_memory=3, days=0.5)


def test_lists_are_separated_by_commas_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITLAB_ALLOWED_ORIGINS", "https://a.example, https://b.example")
    monkeypatch.setenv("EDITLAB_TASKS", json.dumps(["/with, comma.json"]))
    settings = Settings()
    assert settings.allowed_origins == ("https://a.example", "https://b.example")
    assert settings.tasks == ("/with, comma.json",)


def test_settings_survive_the_way_to_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in (
        Settings(),
        Settings(
            model="gpt2-xl",
            dtype="bfloat16",
            allow_download=True,
            facts='/a "b".json',
            seed=7,
            tasks=("/t", "/u,v"),
            methods=("/mine.py",),
            store=Path("/somewhere/s.sqlite"),
            limits=Limits(sessions=5),
            token="a token of some length",
            backend="http://127.0.0.1:8867",
        ),
        Settings(store="postgresql://editlab:secret@db.example.org:5432/sessions?sslmode=require"),
    ):
        assert "secret" not in repr(settings)
        with monkeypatch.context() as other:
            for name, value in settings.to_environment().items():
                other.setenv(name, value)
            assert Settings() == settings


def test_a_token_is_read_from_its_file_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("the secret of this server\n")
    settings = Settings(token_file=file)
    assert settings.token is not None
    assert settings.token.get_secret_value() == "the secret of this server"
    assert "secret of" not in repr(settings)
    file.write_text("\n")
    with pytest.raises(ValueError, match="holds no token"):
        Settings(token_file=file)
    with pytest.raises(ValueError, match=r"cannot be read from .*nowhere"):
        Settings(token_file=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("PORT", "abc", r"^port \(EDITLAB_PORT\): input should be a valid integer"),
        ("PORT", "99999", "less than or equal to 65535"),
        ("LIMITS_EDITS", "0", "edits must be above 0, got 0"),
        ("LIMITS_EDITS", "many", "EDITLAB_LIMITS_EDITS"),
        ("LIMITS_COFFEES", "1", "EDITLAB_LIMITS_COFFEES"),
        ("TASKS", "[bad", "EDITLAB_TASKS"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(f"EDITLAB_{variable}", value)
    with pytest.raises(ValueError, match=sentence) as error:
        Settings()
    assert "\n" not in str(error.value)


def test_a_mistaken_name_is_refused() -> None:
    with pytest.raises(ValueError, match="prot"):
        Settings(prot=1)


@pytest.mark.parametrize("given", [{"workers": 2}, {"ray": "auto"}])
def test_workers_share_a_database(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"share their sessions, which a file cannot be: .* PostgreSQL"):
        Settings(**given)
    assert Settings(**given, store="postgresql://editlab@127.0.0.1/editlab").has_workers
    assert not Settings(workers=1).has_workers
