"""README and docs: links lead somewhere, code runs, command lines are the command line's own, the reference builds.

In the pages a comment before a block of code says what it is: `<!-- file: NAME -->` is a file that the page's later
blocks use, `<!-- output -->` what the block before it prints.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token
from typer.exceptions import TyperException

from editlab.cli import app
from editlab.experiments.config import RunConfig
from editlab.measures import standard
from editlab.measures.tasks import OURS
from editlab.methods import methods
from tests.conftest import GOLDEN

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("data/*.md"))]
EMBEDDED = "smollm2-135m"
MEASURES = standard().by_name
MARKED = re.compile(r"<!-- (?P<kind>file|output)(?:: (?P<name>[\w.-]+))? -->")


@dataclass(frozen=True)
class Block:
    """A block of code: its language, and what the comment before it says of it."""

    language: str
    text: str
    line: int
    kind: str | None = None  # "file" or "output"
    name: str | None = None


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def blocks(page: Path) -> list[Block]:
    found, marked = [], None
    for token in tokens(page):
        if token.type == "html_block":
            marked = MARKED.fullmatch(token.content.strip())
        elif token.type in ("fence", "code_block"):
            kind, name = (marked["kind"], marked["name"]) if marked else (None, None)
            found.append(Block(token.info, token.content, (token.map or [0])[0] + 1, kind, name))
            marked = None
        elif token.nesting >= 0:
            marked = None
    return found


def inline(page: Path, kind: str) -> Iterator[Token]:
    for token in tokens(page):
        yield from (child for child in token.children or () if child.type == kind)


WITH_CODE = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]
WITH_OUTPUT = [page for page in WITH_CODE if any(block.kind == "output" for block in blocks(page))]


# --- links ---


def anchors(page: Path) -> set[str]:
    """The headings' anchors, as GitHub makes them."""
    found: set[str] = set()
    heading = False
    for token in tokens(page):
        if token.type == "heading_open":
            heading = True
        elif heading:
            text = "".join(child.content for child in token.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            number = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
            found.add(f"{slug}-{number}" if number else slug)
            heading = False
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    targets = [str(token.attrs["href"]) for token in inline(page, "link_open")]
    targets += [str(token.attrs["src"]) for token in inline(page, "image")]
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name_of(page)} links to {target}"
        assert there.is_relative_to(ROOT), f"{name_of(page)} links out of the repository: {target}"
        assert not anchor or anchor in anchors(there), f"{name_of(page)} links to {target}: no such heading"


def test_every_page_of_the_documentation_can_be_reached_from_its_index() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "docs" / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = (str(token.attrs["href"]).partition("#")[0] for token in inline(page, "link_open"))
        waiting += [(page.parent / link).resolve() for link in links if link and ":" not in link]
    assert set(ROOT.glob("docs/**/*.md")) <= reached


# --- code ---


def install(folder: Path) -> None:
    """The package in a folder, as far as its entry points go."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [line for group, them in groups for line in (f"[{group}]", *(f"{n} = {v}" for n, v in them.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines))
    methods.cache_clear()


def run_blocks(page: Path, folder: Path, model: str = EMBEDDED) -> Iterator[tuple[Block, str]]:
    """Run a page's Python, in order and in one namespace, from a folder that its files are written to.

    Gives every output that the page tells, with what was printed.
    """
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed = ""
    for block in blocks(page):
        text = block.text.replace(f'"{EMBEDDED}"', repr(model))
        if block.kind == "file":
            assert block.name is not None
            (folder / block.name).write_text(text, encoding="utf-8")
            if block.name == "pyproject.toml":
                install(folder)
        elif block.kind == "output":
            yield block, printed
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, f"{name_of(page)}, line {block.line}", "exec"), namespace)
            printed = out.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder as the current one, from which modules can be imported; they are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    methods.cache_clear()
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == tmp_path:
            del sys.modules[name]


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_code_runs_on_a_tiny_model(
    page: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITLAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache-of-docs"))
    for block, printed in run_blocks(page, folder, str(GOLDEN)):
        assert printed, f"{name_of(page)} tells an output before line {block.line}, and nothing was printed"


@pytest.mark.model
@pytest.mark.parametrize("page", WITH_OUTPUT, ids=name_of)
def test_code_prints_what_the_page_says(page: Path, folder: Path) -> None:
    for block, printed in run_blocks(page, folder):
        assert printed == block.text, f"{name_of(page)}, line {block.line}"


# --- command lines ---


def command_lines(page: Path) -> Iterator[str]:
    """Everything that begins with `editlab` and a command: lines of blocks, and code in sentences."""
    for block in blocks(page):
        if block.language in ("", "bash", "console"):
            for line in block.text.replace("\\\n", " ").splitlines():
                yield from (part for part in re.split(r"&&|\|\||;", line.strip()) if part.split()[:1] == ["editlab"])
    for token in inline(page, "code_inline"):
        if re.match(r"editlab [a-z]", token.content):
            yield token.content


def commented_lines() -> Iterator[str]:
    """The command lines in the comments of the experiments' files."""
    for file in sorted(ROOT.glob("docs/experiments/*.toml")):
        yield from re.findall(r"^#\s+(editlab .*)$", file.read_text(encoding="utf-8"), re.MULTILINE)


LINES = sorted({line.strip() for page in PAGES for line in command_lines(page)} | set(commented_lines()))


@pytest.mark.parametrize("line", LINES)
def test_command_lines_are_the_command_lines_own(line: str) -> None:
    _, *words = shlex.split(line, comments=True)
    group = typer.main.get_command(app)
    if words[0].startswith("-"):
        return group.main([*words], standalone_mode=False)
    command = group.commands.get(words[0])  # type: ignore[attr-defined]
    assert command is not None, f"there is no command {words[0]!r}"
    if words[1:] == []:
        return None  # named in a sentence, without what it needs
    try:
        with contextlib.suppress(typer.Exit):  # --help
            command.make_context(words[0], words[1:])
    except TyperException as error:
        pytest.fail(f"{line}: {error.message}")
    return None


# --- the reference ---


@pytest.mark.build
def test_the_reference_of_the_modules_builds(tmp_path: Path) -> None:
    """By the command of its page, of two rooms: all take half a minute."""
    (command,) = (block.text for block in blocks(ROOT / "docs" / "reference.md") if block.text.startswith("pdoc "))
    modules = "editlab/*/[!_]*.py editlab/*/*/[!_]*.py"
    assert modules in command
    command = command.replace(modules, "editlab/methods/[!_]*.py editlab/lab/[!_]*.py")
    done = subprocess.run(
        ["bash", "-c", command.replace("-o site", f"-o {tmp_path}")],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "arXiv 2202.05262" in (tmp_path / "editlab" / "methods" / "rome.html").read_text(encoding="utf-8")
    assert "LabProtocol" in (tmp_path / "editlab" / "lab" / "api.html").read_text(encoding="utf-8")


# --- experiments ---


def test_runs_in_the_pages_and_the_experiments_can_be_read(tmp_path: Path) -> None:
    texts = [block.text for page in PAGES for block in blocks(page) if block.language == "toml" and block.kind is None]
    texts += [file.read_text(encoding="utf-8") for file in sorted(ROOT.glob("docs/experiments/*.toml"))]
    for text in texts:
        (tmp_path / "run.toml").write_text(text, encoding="utf-8")
        config = RunConfig.read(tmp_path / "run.toml")
        assert config.runs()
        measures = {name.strip() for names in config.schedule for name in names.split(",")} - {"everything"}
        tasks = {task for measure in measures for task in [measure.partition(":")[0]] if measure not in MEASURES}
        assert tasks <= {*OURS, *(Path(task).stem for task in config.tasks)}


# --- mathematics ---


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_mathematics_is_written_so_that_github_shows_it(page: Path) -> None:
    """Markdown is read before the mathematics in a line: an escape, an asterisk or a line break in it would be lost."""
    text = "\n\n".join(token.content for token in tokens(page) if token.type == "inline")
    assert "$$" not in text, f"{name_of(page)}: a formula of its own line goes into a block of ```math"
    for formula in re.findall(r"\$([^$]+)\$", re.sub(r"`[^`]*`", "", text)):
        assert not re.search(r"\\[^A-Za-z]|\*|\n", formula), f"{name_of(page)}: {formula}"
