"""The files that the page offers, made from a session's state: story, tables, figures, the state itself."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from editlab.analysis.table import table_of
from editlab.core.info import MethodInfo
from editlab.core.records import SessionState
from editlab.report.story import story
from editlab.report.story.figures import figures_archive
from editlab.report.story.papers import bibtex, papers_of_steps
from editlab.session.notebook import notebook_of

log = logging.getLogger(__name__)

TYPES = {
    "html": "text/html",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "json": "application/json",
    "zip": "application/zip",
    "bib": "text/x-bibtex",
    "ipynb": "application/x-ipynb+json",
}
ABOUT_STORY = "The session’s story with its charts: opens from disk, prints, needs no network."
ABOUT_REFERENCES = "BibTeX of what the session rests on: its methods, its measures, and editlab."
REPLAY_ABOUT = (
    "The session itself: editlab replay applies its edits again, to the last bit, and editlab export makes a "
    "checkpoint of it that transformers loads: editlab export editlab-replay.zip --to FOLDER"
)
CLASS = "editlab-class.csv"
CLASS_ABOUT = "A row per edit: who made it, the fact, and what the model said before and after."
ADAPTER = "editlab-adapter.zip"
ADAPTER_ABOUT = "The edits in force as a LoRA adapter: unpack it, and PEFT puts it on the unedited model."


@dataclass(frozen=True)
class File:
    """One file, or why it could not be made."""

    name: str
    about: str
    content: bytes | None
    problem: str = ""
    address: str = ""  # where the page's server has it; otherwise the link holds the content

    @property
    def type(self) -> str:
        return TYPES[self.name.rpartition(".")[2]]


def files_of(state: SessionState, title: str = "", methods: Sequence[MethodInfo] = ()) -> list[File]:
    """All that is made without the model; one that fails takes no other with it. It may take seconds.

    `methods` are the lab's, for their titles and papers.
    """
    known = {method.name: method for method in methods}
    papers = papers_of_steps(state.steps, known)
    page = _made("editlab-report.html", ABOUT_STORY, lambda: story(state, title, methods).encode())
    references = _made("editlab-references.bib", ABOUT_REFERENCES, lambda: bibtex(papers).encode())
    return [page, references, *(_made(name, about, partial(make, state)) for name, about, make in _MAKERS)]


def _made(name: str, about: str, make: Callable[[], bytes]) -> File:
    try:
        return File(name, about, make())
    except Exception as error:
        log.exception("%s could not be made", name)
        return File(name, about, None, f"It could not be made ({type(error).__name__}: {error}).")


def _figures(state: SessionState) -> bytes:
    return figures_archive(state)


def _csv(state: SessionState) -> bytes:
    return table_of(state.steps, state.id).to_csv(index=False).encode()


def _parquet(state: SessionState) -> bytes:
    file = io.BytesIO()
    table_of(state.steps, state.id).to_parquet(file, index=False)
    return file.getvalue()


def _json_table(state: SessionState) -> bytes:
    return table_of(state.steps, state.id).to_json(orient="records", force_ascii=False).encode()


def _session(state: SessionState) -> bytes:
    return json.dumps(state.to_json(), ensure_ascii=False, indent=1).encode()


_MAKERS: tuple[tuple[str, str, Callable[[SessionState], bytes]], ...] = (
    ("editlab-figures.zip", "The charts of the story, as SVG.", _figures),
    ("editlab-table.csv", "Every number: a row per edit, measure and layer, with interval, n and unit.", _csv),
    ("editlab-table.parquet", "The same table, with its types, for pandas, R or DuckDB.", _parquet),
    ("editlab-table.json", "The same table, as a list of rows.", _json_table),
    ("editlab-session.json", "All edits with their facts, hyperparameters, traces and words; no weights.", _session),
    ("editlab-session.ipynb", "A notebook that makes every edit again, through the Python API.", notebook_of),
)
