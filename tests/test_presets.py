from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from editlab.editing.editor import Editor
from editlab.editing.texts import texts_of
from editlab.lab.catalogue import presets_of
from editlab.methods import method_class, methods, methods_for
from editlab.model import embedded
from editlab.model.loading import load_folder
from editlab.model.model import EditableModel
from editlab.model.presets import DEFAULT, LARGE, PRESETS, Preset, choose
from editlab.model.shapes import GPT2_XL, SHAPES, SMOLLM2_135M, Shape
from tests.conftest import GOLDEN


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def put_in_hub_cache(hub: Path, preset: Preset) -> None:
    """What a finished download leaves behind."""
    repository = hub / ("models--" + preset.source.replace("/", "--"))
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name in ("config.json", preset.weights):
        (snapshot / name).touch()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")


def test_auto_follows_device_cache_and_consent(hub: Path) -> None:
    assert choose("auto", cuda=False, allow_download=True) == (
        DEFAULT,
        "SmolLM2 135M Instruct, the small embedded model, because there is no CUDA device",
    )
    preset, reason = choose("auto", cuda=True, allow_download=False)
    assert preset == DEFAULT
    assert "6.4 GB was not agreed to" in reason
    preset, reason = choose("auto", cuda=True, allow_download=True)
    assert preset == LARGE
    assert "6.4 GB was agreed to" in reason
    put_in_hub_cache(hub, LARGE)
    preset, reason = choose("auto", cuda=True, allow_download=False)
    assert preset == LARGE
    assert "weights are on this machine" in reason
    assert choose("auto", cuda=False, allow_download=False)[0] == DEFAULT


def test_local_means_the_weights_are_complete(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = PRESETS["gpt-j-6b"]
    assert not preset.is_local()
    put_in_hub_cache(hub, preset)
    assert preset.is_local()
    next(hub.rglob(preset.weights)).unlink()
    assert not preset.is_local()
    monkeypatch.setattr(embedded, "is_ready", lambda: True)
    assert DEFAULT.is_local()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_by_name_in_any_case_and_by_hub_id(name: str) -> None:
    preset = PRESETS[name]
    assert choose(name, cuda=False, allow_download=False)[0] == preset
    assert choose(f" {name.upper()} ", cuda=False, allow_download=False)[0] == preset
    assert choose(preset.source, cuda=False, allow_download=False)[0] == preset


def test_folders_and_hub_ids_pass_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert choose(str(tmp_path), cuda=False, allow_download=False)[0] == tmp_path
    assert choose("./gpt2", cuda=False, allow_download=False)[0] == Path("gpt2")
    assert choose("gpt2", cuda=False, allow_download=False)[0] == PRESETS["gpt2"]
    assert choose("org/some-name_1.5B", cuda=False, allow_download=False)[0] == "org/some-name_1.5B"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gtp2-xl", "did you mean 'gpt2-xl'"),
        ("smollm2", "did you mean 'smollm2-135m'"),
        ("", "got ''"),
        ("/no/such/folder", "got '/no/such/folder'"),
        ("../org/name", "got '../org/name'"),
        ("a/b/c", "got 'a/b/c'"),
        ("org/na me", "got 'org/na me'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match="model must be one of auto, smollm2-135m, gpt2,") as refused:
        choose(name, cuda=False, allow_download=False)
    assert hint in str(refused.value)


# --- presets of methods belong to a model's architecture and size ---


def sized(shape: Shape, name: str) -> EditableModel:
    """A model of a shape that costs nothing, under a folder's name."""
    family = SimpleNamespace(adds_mlp=True)
    layers = range(shape.n_layers).__getitem__
    return cast(EditableModel, SimpleNamespace(name=name, shape=shape, family=family, projection=layers))


@pytest.mark.parametrize("name", ["gpt2-xl", "GPT2-XL", "my-own", "smollm2-135m"])
def test_a_preset_goes_by_architecture_and_size_not_by_name(name: str) -> None:
    found = methods_for(sized(GPT2_XL, name))
    assert {n: method.edited_layers for n, method in found.items()} == {
        "rome": (17,),
        "r-rome": (17,),
        "memit": (13, 14, 15, 16, 17),
        "emmet": (17,),
        "encore": (13, 14, 15, 16, 17),
        "alphaedit": (13, 14, 15, 16, 17),
        "ft": (1,),
        "ft-l": (0,),
    }
    embedded_model = methods_for(sized(SMOLLM2_135M, name))
    assert (embedded_model["rome"].edited_layers, embedded_model["memit"].moment_weight) == ((6,), 2000.0)
    small = methods_for(sized(Shape("gpt2", 5, 48, 192), name))
    assert all(max(method.edited_layers) < 5 for method in small.values())
    assert small["rome"].preset_of(Shape("gpt2", 5, 48, 192)).startswith("A guess")


def test_every_preset_says_whether_it_was_tried_taken_over_or_guessed() -> None:
    for name, kind in methods().items():
        assert {*kind.sources, *kind.untried} <= {*kind.presets}, name
        assert not {*kind.sources} & {*kind.untried}, name
        for shape in kind.presets:
            told = "A guess" if shape in kind.untried else f"Set for {shape.name or 'this model'}"
            assert kind.preset_of(shape).startswith(told)
        assert kind.preset_of(Shape("opt", 5, 48, 192)).startswith("A guess")
    encore = method_class("encore")
    assert encore.preset_of(SMOLLM2_135M).startswith("Set for smollm2-135m after MEMIT’s preset, and tried")
    assert method_class("memit").preset_of(SMOLLM2_135M) == "Set for smollm2-135m by a trial (docs/presets.md)."
    assert encore.preset_of(GPT2_XL) == "Set for gpt2-xl as in its paper’s own code."


def test_every_shape_is_that_of_the_model_it_is_called_after() -> None:
    assert set(SHAPES) == set(PRESETS)
    assert {name: shape.n_layers for name, shape in SHAPES.items()} == {n: p.n_layers for n, p in PRESETS.items()}
    assert [shape.name for shape in SHAPES.values()] == list(SHAPES)
    assert Shape("gpt2", 48, 1600, 1600).name == ""


def test_a_tiny_model_called_like_a_large_one_is_set_as_a_tiny_one(tmp_path: Path) -> None:
    for name in ("gpt2-xl", "smollm2-135m"):
        folder = tmp_path / name
        folder.symlink_to(GOLDEN)
        model = load_folder(folder)
        assert model.shape == Shape("gpt2", 5, 48, 192)
        assert texts_of("auto", model, 100, 0).name.startswith("sampled from the model")
        assert Editor(model).method("rome").edited_layers == (1,)
        assert not [preset for preset in presets_of(model.shape.name, []) if preset.disabling]
