"""The house rules that tools can check."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = (  # the lowest first; an import goes to the same room or to a lower one
    "core",
    "analysis",
    "model",
    "inside",
    "report",
    "measures",
    "methods",
    "editing",
    "session",
    "experiments",
    "lab",
    "serving",
    "remote",
    "page",
    "cli",
)
WITHOUT_TORCH = ("core", "analysis", "page", "remote/client")
LARGE = {"torch", "transformers", "scipy", "pandas", "pyarrow", "datasets"}  # imported where they are used
RENAMED = {  # words that identifiers no longer use -> the words in their place; prose is free to use them
    "acts": "actions",
    "beside": "probe",
    "book": "registry",
    "doing": "running",
    "hands": "actions",
    "knob": "hyperparameter",
    "ledger": "measurements",
    "offer": "catalogue",
}


def files_of(room: str) -> list[Path]:
    return sorted((ROOT / "editlab" / room).rglob("*.py"))


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import in a file, those for type checkers and inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports by a relative name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def upward(room: str, file: Path) -> list[str]:
    """What a file of this room imports from a higher one."""
    higher = ROOMS[ROOMS.index(room) + 1 :]
    return [
        f"{file}:{line}: {room} imports {module}"
        for line, module in imports_of(file)
        if module.startswith("editlab.") and module.split(".")[1] in higher
    ]


def test_every_module_is_in_a_room_that_says_what_it_is_for() -> None:
    package = ROOT / "editlab"
    assert {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ROOMS)
    assert sorted(path.name for path in package.glob("*.py")) == ["__init__.py", "__main__.py"]
    for room in ROOMS:
        purpose = ast.get_docstring(ast.parse((package / room / "__init__.py").read_text(encoding="utf-8")))
        assert purpose, f"editlab/{room}/__init__.py does not say what the room is for"
        assert purpose.splitlines()[0].endswith(".")
        assert f"  {room}/ " in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_goes_up(room: str) -> None:
    assert [found for file in files_of(room) for found in upward(room, file)] == []


def test_an_import_that_goes_up_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "risk.py"
    file.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from editlab.lab.api import Job\n")
    assert len(upward("analysis", file)) == 1
    assert upward("page", file) == []


@pytest.mark.parametrize("room", [*WITHOUT_TORCH, "serving", "cli"])
def test_nothing_large_is_imported_with_these_rooms(room: str) -> None:
    """A visitor's kernel stays small: 90 MB, several hundred with torch. A command starts in half a second."""
    named = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files_of(room)]
    modules = [name.removesuffix(".__init__") for name in named if not name.endswith("page.kernel")]
    script = (
        f"import sys, importlib; [importlib.import_module(m) for m in {modules}]; print({LARGE} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_these_rooms_have_no_use_for_torch(room: str) -> None:
    direct = [(file, module) for file in files_of(room) for _, module in imports_of(file)]
    assert [found for found in direct if found[1].split(".")[0] == "torch"] == []


def identifiers_of(file: Path) -> Iterator[str]:
    """Every name that a file gives or uses, and its own."""
    yield file.stem
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.alias(name=name, asname=asname):
                yield f"{name}.{asname}"


def old_words_in(file: Path) -> set[str]:
    """The identifiers of a file that have one of the renamed words as a part: `JobBook`, `read_ledger`."""
    parts = {name: re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name) for name in identifiers_of(file)}
    return {name for name, words in parts.items() if any(word.lower() in RENAMED for word in words)}


def test_renamed_words_do_not_come_back() -> None:
    found = {str(file.relative_to(ROOT)): old_words_in(file) for room in ROOMS for file in files_of(room)}
    assert {file: names for file, names in found.items() if names} == {}


def test_a_renamed_word_is_found(tmp_path: Path) -> None:
    file = tmp_path / "catalogue.py"
    file.write_text("from a import ledger\n\nclass JobBook:\n    pass\n\n# an offer\nnotebook = show(knob_of=1)\n")
    assert old_words_in(file) == {"ledger.None", "JobBook", "knob_of"}


@pytest.mark.parametrize("room", ["page", "report"])
def test_html_is_escaped_by_its_builders(room: str) -> None:
    """Escaping by hand can be forgotten; `Markup` escapes what is not HTML, at the latest where it is shown."""
    found = [(file, module) for file in files_of(room) for _, module in imports_of(file)]
    assert [each for each in found if each[1] in ("html", "html.escape")] == []


def test_a_share_is_written_in_one_way_only() -> None:
    """By `editlab.core.numbers.percent`: "42 %", never "42%"."""
    files = [file for room in ROOMS for file in files_of(room)]
    assert [file for file in files if re.search(r":[^{}\"']*%\}", file.read_text(encoding="utf-8"))] == []


def test_a_minus_is_written_in_one_way_only() -> None:
    """By `editlab.core.numbers`: "−0.5", never "-0.5"."""
    files = [file for room in ("analysis", "report", "methods", "page") for file in files_of(room)]
    signed = r":(?:\+|\{sign\})\.|(?:cosine|agreement|difference):\.\d"
    assert [file for file in files if re.search(signed, file.read_text(encoding="utf-8"))] == []


def texts_of(file: Path) -> Iterator[tuple[int, str]]:
    """Every text in a file but its docstrings, with its line; of a text with fields, the parts between them."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    told = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in told:
            yield node.lineno, node.value


def test_an_apostrophe_is_written_in_one_way_only() -> None:
    """What the page may show has "’", never "'"; the command line's own texts are in plain letters."""
    rooms = [room for room in ROOMS if room not in ("experiments", "remote", "cli")]
    texts = [(file, *text) for room in rooms for file in files_of(room) for text in texts_of(file)]
    straight = re.compile(r"[a-z]'[a-z]|[a-z]s' ")
    for file in sorted((ROOT / "data" / "tasks").glob("*.json")):
        task = json.loads(file.read_text(encoding="utf-8"))
        texts += [(file, 0, task["title"]), (file, 0, task.get("note", ""))]
    found = [(file.name, line, text) for file, line, text in texts if straight.search(text)]
    assert [each for each in found if each[2] != "can't allocate memory"] == []  # torch's words


BUILDERS = ("app", "follower", "view")  # modules of the page that know both its panels and its controllers


def page_modules() -> dict[str, set[str]]:
    """The modules of the page by their names in it, each with the page's modules that it imports."""
    start, found = "editlab.page.", {}
    for file in files_of("page"):
        name = ".".join(file.relative_to(ROOT / "editlab" / "page").with_suffix("").parts)
        found[name] = {module.removeprefix(start) for _, module in imports_of(file) if module.startswith(start)}
    return found


def test_panels_and_controllers_of_the_page_know_nothing_of_each_other() -> None:
    modules = page_modules()
    controllers = {name for name, imports in modules.items() if "carrying.Controller" in imports} | {"carrying"}
    assert len(controllers) > 10
    for name, imports in modules.items():
        if name.startswith("panels."):
            assert not {each for each in imports if each.split(".")[0] in controllers}, name
        elif name in controllers | {"known", "wants"}:
            assert not {each for each in imports if each.startswith("panels.")}, name


def test_nothing_is_looked_up_late_where_the_page_is_put_together() -> None:
    for name in BUILDERS:
        tree = ast.parse((ROOT / "editlab" / "page" / f"{name}.py").read_text(encoding="utf-8"))
        assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Lambda)], name


@pytest.mark.parametrize("tool", [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)], ids=" ".join)
def test_tools_find_nothing(tool: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_dependency_is_pinned_in_the_constraints() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {canonicalize_name(pin.name): str(pin.specifier) for pin in pinned}
    assert all(specifier.startswith("==") and "+" not in specifier for specifier in versions.values())
    for wanted in map(Requirement, chain(project["dependencies"], *project["optional-dependencies"].values())):
        pin = versions[canonicalize_name(wanted.name)].removeprefix("==")
        assert wanted.specifier.contains(pin), f"constraints.txt has {wanted.name} {pin}, pyproject.toml wants {wanted}"
