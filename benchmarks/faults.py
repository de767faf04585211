"""What breaks, on purpose: the backend killed in the middle of an edit, a full disk, clients gone in mid-stream.

Of each run it is told how often, and what of the sessions was lost or changed: that must be nothing but the edit in
flight.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from benchmarks import setting
from benchmarks.serving import PATIENCE_SECONDS, Running, backend, digests, facts_from, recorded
from editlab.core.errors import LabError
from editlab.lab.api import Job
from editlab.remote.client import RemoteLab
from editlab.remote.wire import ENDED, SESSION_HEADER
from editlab.serving.ports import free_port
from editlab.session.recording import Recording

SMALL_DISK = "768k"
LARGER_DISK = "32m"
MOST_EDITS = 200
SETTLE_SECONDS = 20.0


def edits_of(recording: Recording) -> list[str]:
    return [step.id for step in recording.state.steps[1:]]


def killed(model: str, times: int, threads: int, seed: int) -> dict[str, Any]:
    """SIGKILL at a random moment of an edit, again and again on the same session.

    Each backend has the address of the one before, so that a job of that one meets it, and tells what became of it.
    """
    chance, port = random.Random(seed), free_port()
    count = dict.fromkeys(("in_flight", "kept", "lost", "changed", "told"), 0)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "sessions.sqlite"
        with backend(model, store, threads, port) as running:
            key = running.lab.create("killed")
            seconds = running.lab.edit(key, facts_from(0, 1)).result(PATIENCE_SECONDS).seconds
        for number in range(1, times + 1):
            with backend(model, store, threads, port) as running:
                _, before = recorded(running.lab, key)
                job = running.lab.edit(key, facts_from(number, 1))
                while job.status == "queued":
                    time.sleep(0.005)
                time.sleep(chance.uniform(0, seconds))
                count["in_flight"] += job.status == "running"
                running.kill()
            with backend(model, store, threads, port) as running:
                _, after = recorded(running.lab, key)
                count["told"] += _raises_a_sentence(job)
            kept, had = edits_of(after), edits_of(before)
            count["lost"] += kept[: len(had)] != had or len(kept) > len(had) + 1
            count["kept"] += len(kept) == len(had) + 1
            count["changed"] += digests(after)[: len(had) + 1] != digests(before)
    return {
        "kills": times,
        "kills_while_running": count["in_flight"],
        "edits_in_flight_kept": count["kept"],
        "sessions_that_lost_an_edit": count["lost"],
        "sessions_with_other_weights": count["changed"],
        "told_by_the_job": count["told"],
    }


def _raises_a_sentence(job: Job) -> bool:
    try:
        job.result(PATIENCE_SECONDS)
    except LabError as error:
        return bool(str(error))
    return job.status in ENDED  # it was done just before the kill


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
        _, before = recorded(lab, key)
        while not sentence and made < MOST_EDITS:
            _, before = recorded(lab, key)
            try:
                lab.edit(key, facts_from(made, 1)).result(PATIENCE_SECONDS)
                made += 1
            except LabError as error:
                sentence = str(error)
        _, after = recorded(lab, key)
        subprocess.run(["mount", "-o", f"remount,size={LARGER_DISK}", str(disk)], check=True)
        step = lab.edit(key, facts_from(made, 1)).result(PATIENCE_SECONDS)
        return {
            "disk": SMALL_DISK,
            "edits_until_full": made,
            "sentence": sentence,
            "session_as_before": edits_of(after) == edits_of(before) and digests(after) == digests(before),
            "goes_on_with_room": step.index == made + 1,
        }


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


def main(
    model: Annotated[str, typer.Option(help="a model's name or folder")] = "smollm2-135m",
    times: Annotated[int, typer.Option(min=0, max=100, help="kills, and clients gone; 0: neither")] = 10,
    disk: Annotated[bool, typer.Option(help="fill a disk too, which only root can mount")] = True,
    threads: Annotated[int, typer.Option(help="torch's threads of the backend")] = 1,
    seed: Annotated[int, typer.Option(help="of the moments of the kills")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Kill, fill and leave. Exits with 1 where more than an edit in flight was lost."""
    results: dict[str, Any] = {"model": model}
    well = True
    if times:
        results |= killed(model, times, threads, seed) | clients_gone(model, times, threads)
        well = not (results["sessions_that_lost_an_edit"] or results["sessions_with_other_weights"])
        well = well and results["edits_done_nevertheless"] == times and results["told_by_the_job"] == times
    if disk:
        results |= disk_full(model, threads)
        well = well and results["session_as_before"] and results["goes_on_with_room"] and bool(results["sentence"])
    setting.tell(results, as_json)
    if not well:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
