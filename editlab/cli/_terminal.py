"""Output of the command line: progress on stderr, tables on stdout, and one sentence with an exit code for errors.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import typer
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from editlab.core.errors import Cancelled
from editlab.core.fact_files import FactFile, facts_of
from editlab.core.facts import in_one_line
from editlab.core.progress import Progress
from editlab.core.record import plain
from editlab.model.embedded import FetchError

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
COUNT_IN_THOUSANDS = 10_000  # totals above it are bytes or tokens
LINE_SECONDS = 10.0  # between two lines of one stage, where stderr is no terminal

log = logging.getLogger(__name__)


class Bars:
    """A progress callback that draws one bar per stage on stderr, or writes a line now and then if that is no terminal.

    A short stage has no line: the first one comes after `LINE_SECONDS`.
    """

    def __init__(self) -> None:
        self._stage = ""
        self._bar: tqdm[Any] | None = None
        self._draws = sys.stderr.isatty()
        self._written, self._line = time.monotonic(), ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end()

    def __call__(self, progress: Progress) -> None:
        if not self._draws:
            self._write(progress)
            return
        if progress.stage != self._stage:
            self._end()
            self._stage = progress.stage
            scale = (progress.total or 0) > COUNT_IN_THOUSANDS
            self._bar = tqdm(total=progress.total, desc=progress.stage, unit_scale=scale, unit="", disable=None)
        if self._bar is not None and self._stage:
            self._bar.total = progress.total
            self._bar.n = progress.done
            if progress.p_new is not None:
                self._bar.set_postfix({"P(new)": f"{progress.p_new:.3f}"}, refresh=False)
            self._bar.refresh()

    def _write(self, progress: Progress) -> None:
        now = time.monotonic()
        line = f"{progress.stage}, {progress.done:,} of {progress.total:,}" if progress.total else progress.stage
        if now - self._written >= LINE_SECONDS and line != self._line:
            self._written, self._line = now, line
            typer.echo(line, err=True)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, ""


@contextmanager
def sentences() -> Iterator[None]:
    """Turn errors inside the block into a sentence on stderr and an exit code."""
    try:
        yield
    except (KeyboardInterrupt, Cancelled):
        raise _end("interrupted", INTERRUPTED) from None
    except ValueError as error:
        log.debug("bad input", exc_info=True)
        raise _end(str(error), BAD_INPUT) from None
    except (FetchError, OSError, RuntimeError, ImportError, FloatingPointError) as error:
        log.debug("failed", exc_info=True)
        raise _end(str(error) or type(error).__name__, FAILED) from None


def _end(sentence: str, code: int) -> typer.Exit:
    typer.echo(f"editlab: {' '.join(sentence.split())}", err=True)
    return typer.Exit(code)


def facts_told(source: str | Path | None) -> FactFile:
    """The facts of a source; what was left out of it is told on stderr. Raises ValueError."""
    file = facts_of(source)
    if file.notice:
        typer.echo(f"editlab: {in_one_line(file.notice)}", err=True)
    return file


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """A table on stdout. Text is shown as it is, without markup."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False, emoji=False).print(table)


def show_json(values: Mapping[str, Any]) -> None:
    """One JSON object on stdout; a number that is not finite is a text there, as in records."""
    typer.echo(json.dumps(plain(values), indent=2, ensure_ascii=False, allow_nan=False))


def quoted(text: str) -> str:
    """Text in quotes on one line: leading blanks are visible, and control characters are harmless."""
    return json.dumps(text, ensure_ascii=False)
