from pathlib import Path

import pytest

from editlab.core import paths


def test_cache_dir_is_the_users_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDITLAB_CACHE", str(tmp_path))
    assert paths.cache_dir() == tmp_path
    monkeypatch.setenv("EDITLAB_CACHE", " ")
    assert paths.cache_dir().name == "editlab"
    assert paths.cache_dir().is_absolute()
    assert not tmp_path.joinpath("editlab").exists()


def test_cache_dir_understands_home_and_relative_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDITLAB_CACHE", "here")
    assert paths.cache_dir() == tmp_path / "here"
    monkeypatch.setenv("EDITLAB_CACHE", "~/there")
    assert paths.cache_dir() == Path.home() / "there"


def test_resource_prefers_what_the_package_carries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "editlab"
    beside, inside = tmp_path / "data" / "facts.json", package / "data" / "facts.json"
    for file in (beside, tmp_path / "app.ipynb"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.setattr(paths, "__file__", str(package / "core" / "paths.py"))
    assert paths.resource("facts.json") == beside
    assert paths.resource("app.ipynb") == tmp_path / "app.ipynb"
    inside.parent.mkdir(parents=True)
    inside.touch()
    assert paths.resource("facts.json") == inside


def test_resource_that_is_nowhere_names_both_places() -> None:
    with pytest.raises(FileNotFoundError, match=r"neither at .*nothing\.json nor at .*nothing\.json"):
        paths.resource("nothing.json")
