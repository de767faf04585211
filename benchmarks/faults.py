"""What breaks, on purpose: processes killed at random moments, a full disk, a store that is read-only or in use, a
clock set back, the cache deleted underneath, clients gone in mid-stream.

Of each fault it is told what the user reads, and what of the sessions was lost or changed: that must be nothing but the
edit in flight.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import httpx
import typer

from benchmarks import earlier, setting
from benchmarks.kills import OF_BACKEND, OF_PAGE, Before, killed
from benchmarks.serving import PATIENCE_SECONDS, Running, backend, facts_from, recorded
from editlab.core.errors import LabError
from editlab.remote.client import RemoteLab
from editlab.remote.wire import SESSION_HEADER

SMALL_DISK = "768k"
LARGER_DISK = "32m"
MOST_EDITS = 200
SETTLE_SECONDS = 20.0
YEAR_SECONDS = 365 * 86_400


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A file system of its own, in memory. Raises LabError where this user may not mount one."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            raise LabError("a small disk cannot be mounted by this user: run this one as root")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def disk_full(model: str, threads: int) -> dict[str, Any]:
    """Edits until the disk is full; then room is made, and it goes on."""
    with small_disk(SMALL_DISK) as disk, backend(model, disk / "sessions.sqlite", threads) as running:
        lab, sentence, made = running.lab, "", 0
        key = lab.create("full")
        before = Before(recorded(lab, key)[1])
        while not sentence and made < MOST_EDITS:
            before = Before(recorded(lab, key)[1])
            try:
                lab.edit(key, facts_from(made, 1)).result(PATIENCE_SECONDS)
                made += 1
            except LabError as error:
                sentence = str(error)
        as_before = before.same(lab, key)
        subprocess.run(["mount", "-o", f"remount,size={LARGER_DISK}", str(disk)], check=True)
        step = lab.edit(key, facts_from(made, 1)).result(PATIENCE_SECONDS)
        return {
            "disk": SMALL_DISK,
            "edits_until_full": made,
            "sentence": sentence,
            "as_before": as_before,
            "goes_on": step.index == made + 1,
        }


def read_only(model: str, threads: int) -> dict[str, Any]:
    """A disk that is read-only when the backend starts, and can be written again for the next one."""
    with small_disk(LARGER_DISK) as disk:
        store = disk / "sessions.sqlite"
        with backend(model, store, threads) as running:
            lab = running.lab
            key = lab.create("read-only")
            lab.edit(key, facts_from(0, 1)).result(PATIENCE_SECONDS)
            before = Before(recorded(lab, key)[1])
        _remount(disk, "ro")
        sentence = refused(model, store, threads)
        _remount(disk, "rw,size=" + LARGER_DISK)
        with backend(model, store, threads) as running:
            as_before = before.same(running.lab, key)
            goes_on = running.lab.edit(key, facts_from(1, 1)).result(PATIENCE_SECONDS).index == 2
    return {"sentence": sentence, "as_before": as_before, "goes_on": goes_on}


def _remount(disk: Path, how: str) -> bool:
    """Mount a disk otherwise; whether that failed."""
    command = ["mount", "-o", f"remount,{how}", str(disk)]
    return bool(subprocess.run(command, capture_output=True, check=False).returncode)


def refused(model: str, store: Path, threads: int) -> str:
    """The sentence that a backend without its sessions tells those who connect; "" if it has them."""
    try:
        with backend(model, store, threads):
            return ""
    except LabError as error:
        return str(error)


def in_use(model: str, threads: int) -> dict[str, Any]:
    """A second backend on the store of one that runs."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "sessions.sqlite"
        with backend(model, store, threads) as running:
            lab = running.lab
            key = lab.create("in use")
            lab.edit(key, facts_from(0, 1)).result(PATIENCE_SECONDS)
            before = Before(recorded(lab, key)[1])
            sentence = refused(model, store, threads)
            as_before = before.same(lab, key)
            goes_on = lab.edit(key, facts_from(1, 1)).result(PATIENCE_SECONDS).index == 2
    return {"sentence": sentence, "as_before": as_before, "goes_on": goes_on}


def clock_back(model: str, threads: int) -> dict[str, Any]:
    """A backend whose clock is a year late, between two whose clock is right: it edits an old session and makes one."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "sessions.sqlite"
        with backend(model, store, threads) as running:
            key = running.lab.create("before")
            running.lab.edit(key, facts_from(0, 1)).result(PATIENCE_SECONDS)
            revision = running.lab.revision(key)
        with patch.dict(os.environ, {earlier.MOVED_SECONDS: str(-YEAR_SECONDS)}):
            late = backend(model, store, threads, module="benchmarks.earlier")
            with late as running:
                lab = running.lab
                another = lab.create("meanwhile")
                for each in (key, another):
                    lab.edit(each, facts_from(1, 1)).result(PATIENCE_SECONDS)
                was_late = lab.about(another).created < lab.about(key).created
                seen_anew = lab.revision(key) != revision
                before = {each: Before(recorded(lab, each)[1]) for each in (key, another)}
        with backend(model, store, threads) as running:
            as_before = all(before[each].same(running.lab, each) for each in (key, another))
            goes_on = running.lab.edit(key, facts_from(2, 1)).result(PATIENCE_SECONDS).index == 3
    return {"clock_was_late": was_late, "seen_anew": seen_anew, "as_before": as_before, "goes_on": goes_on}


def cache_deleted(model: str, threads: int) -> dict[str, Any]:
    """The cache directory deleted while the backend runs; it edits on, and so does the next backend."""
    with tempfile.TemporaryDirectory() as folder:
        store, cache = Path(folder) / "sessions.sqlite", Path(folder) / "cache"
        with patch.dict(os.environ, {"EDITLAB_CACHE": str(cache)}):
            with backend(model, store, threads) as running:
                lab = running.lab
                key = lab.create("without a cache")
                lab.edit(key, facts_from(0, 1)).result(PATIENCE_SECONDS)
                had = sum(1 for each in cache.rglob("*") if each.is_file())
                shutil.rmtree(cache, ignore_errors=True)
                lab.edit(key, facts_from(1, 1)).result(PATIENCE_SECONDS)
                lab.measure(key, ("perplexity",)).result(PATIENCE_SECONDS)
                before = Before(recorded(lab, key)[1])
            shutil.rmtree(cache, ignore_errors=True)
            with backend(model, store, threads) as running:
                as_before = before.same(running.lab, key)
                goes_on = running.lab.edit(key, facts_from(2, 1)).result(PATIENCE_SECONDS).index == 3
    return {"files_in_cache": had, "as_before": as_before, "goes_on": goes_on}


def clients_gone(model: str, times: int, threads: int) -> dict[str, Any]:
    """A client opens the stream of its edit's events, reads one and is gone, without a word."""
    with tempfile.TemporaryDirectory() as folder, backend(model, Path(folder) / "s.sqlite", threads) as running:
        lab = running.lab
        key = lab.create("gone")
        lab.edit(key, facts_from(0, 1)).result(PATIENCE_SECONDS)
        files = _settled(running)
        for number in range(times):
            _leave(lab, key, number)
        revision = -1
        while (now := lab.revision(key)) != revision or lab.state(key).position < times + 1:
            revision = now
            time.sleep(0.5)
        return {
            "clients_gone": times,
            "edits_done_nevertheless": len(lab.state(key).steps) - 2,
            "open_files_left": _settled(running, files) - files,
        }


def _leave(lab: RemoteLab, key: str, number: int) -> None:
    (fact,) = facts_from(number + 1, 1)
    headers = {SESSION_HEADER: key}
    with httpx.Client(base_url=lab.url, headers=headers, timeout=PATIENCE_SECONDS) as client:
        answer = client.post("/session/edit", json={"facts": [fact.to_json()]})
        while answer.status_code == 429:  # its queue is full
            time.sleep(0.2)
            answer = client.post("/session/edit", json={"facts": [fact.to_json()]})
        job = answer.raise_for_status().json()["id"]
        with client.stream("GET", f"/jobs/{job}/events") as events:
            next(events.iter_lines())


def _settled(running: Running, wanted: int = 0) -> int:
    """Open files of the backend, once they are as few as wanted or have had their time."""
    end = time.monotonic() + SETTLE_SECONDS
    while running.open_files > wanted and time.monotonic() < end:
        time.sleep(0.1)
    return running.open_files


SINGLE = {"in use": in_use, "clock back": clock_back, "cache deleted": cache_deleted}
OF_ROOT = {"disk full": disk_full, "read-only": read_only}  # they mount a disk


def main(
    model: Annotated[str, typer.Option(help="a model's name or folder")] = "smollm2-135m",
    kills: Annotated[int, typer.Option(min=0, max=1000, help="how often something is killed; 0: never")] = 10,
    clients: Annotated[int, typer.Option(min=0, max=100, help="clients gone in mid-stream; 0: none")] = 10,
    page: Annotated[bool, typer.Option(help="kill the page's server and kernels too")] = True,
    disk: Annotated[bool, typer.Option(help="fill a disk and make one read-only, which only root can")] = True,
    threads: Annotated[int, typer.Option(help="torch's threads of the backend")] = 1,
    seed: Annotated[int, typer.Option(help="of what is killed, and when")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Kill, fill, forbid and leave. Exits with 1 where more than an edit in flight was lost, or nothing was said."""
    results: dict[str, Any] = {"model": model, "seed": seed}
    well = True
    if kills:
        kinds = (*OF_BACKEND, *OF_PAGE) if page else OF_BACKEND
        tallies, differs = killed(model, kills, threads, seed, kinds, lambda says: typer.echo(says, err=True))
        results |= {
            f"{kind}: {name}": value for kind, tally in tallies.items() for name, value in asdict(tally).items()
        }
        results["other_than_never_killed"] = differs or "nothing"
        well = not differs and all(tally.well for tally in tallies.values())
    if clients:
        results |= (gone := clients_gone(model, clients, threads))
        well = well and gone["edits_done_nevertheless"] == clients
    for name, fault in {**SINGLE, **(OF_ROOT if disk else {})}.items():
        typer.echo(name, err=True)
        told = fault(model, threads)
        results |= {f"{name}: {what}": value for what, value in told.items()}
        well = well and all(value not in ("", False) for value in told.values())
    setting.tell(results, as_json)
    if not well:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
