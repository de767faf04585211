"""Plug-ins: objects that other packages add to editlab by entry points, and files of the user's own.

A broken plug-in of a package is logged and left out; a broken file is a sentence.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from editlab.core.progress import OnProgress, Progress

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

T = TypeVar("T")


def plugins(group: str, made: Callable[[Any], T], known: Mapping[str, Any]) -> dict[str, T]:
    """The plug-ins of a `group` of entry points, by their own `name`, in the order of the entry points.

    `made` turns the object that an entry point names into the plug-in, or raises ValueError with the reason why not. A
    plug-in that cannot be loaded, or whose name is taken (by one of `known` or by another plug-in), is left out with a
    sentence in the log.
    """
    found: dict[str, T] = {}
    for label, load in _entries(group):
        try:
            thing = made(load())
            name = name_of(thing)
            if name in known or name in found:
                raise ValueError(f"its name {name!r} is taken by another")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # importing another package's module may raise anything, SystemExit too
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            log.error("the plug-in %s (%s) was left out: %s", label, group, reason)
        else:
            found[name] = thing
    return found


def module_at(path: Path) -> ModuleType:
    """The module in a Python file, imported once; it may import its neighbours. Raises ValueError with the reason."""
    path = path.expanduser().resolve()
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        log.debug("%s cannot be imported", path, exc_info=True)
        raise ValueError(f"{path} cannot be imported ({type(error).__name__}: {error})") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def called(
    what: str,
    work: Callable[[OnProgress], T],
    report: OnProgress,
    failed: Callable[[str], Exception],
    passes: Callable[[BaseException], bool],
) -> T:
    """What a stranger's code gives. Raises `failed` with a sentence about what it raises, and logs the traceback.

    Raised as they are: what `report` raises, and errors that pass.
    """
    reported: list[BaseException] = []

    def reporting(progress: Progress) -> None:
        try:
            report(progress)
        except BaseException as error:
            reported.append(error)
            raise

    try:
        return work(reporting)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a stranger's code raises, SystemExit too
        if passes(error) or any(error is each for each in reported):
            raise
        log.exception("%s, of another package, failed", what)
        told = " ".join(str(error).split())
        raise failed(f"{what} failed ({type(error).__name__}: {told})") from error


def code_of(thing: Any) -> str:
    """A hash of the file that defines a class, a function, or an object's class; "" without one, as in a notebook."""
    try:
        file = inspect.getsourcefile(thing if isinstance(thing, type) or inspect.isroutine(thing) else type(thing))
        return "" if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    except (TypeError, OSError):
        return ""


def check_texts(thing: Any, names: tuple[str, ...]) -> None:
    """Raises ValueError unless each of these attributes is a text that is not empty."""
    for name in names:
        if not isinstance(value := getattr(thing, name, None), str) or not value.strip():
            raise ValueError(f"its {name} must be a text, got {value!r}")


def _entries(group: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name and loader of every entry point of a group; the name includes the package."""
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        package = f" of {entry.dist.name}" if entry.dist is not None else ""
        yield f"{entry.name}{package}", entry.load


def name_of(thing: Any) -> str:
    """A plug-in's name. Raises ValueError unless a command line, an address and a folder can hold the name."""
    name = getattr(thing, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"its name must be lower-case letters, digits, - and _, at most 64, got {name!r}")
    return name
