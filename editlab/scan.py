"""Many facts, each edited alone on the unedited model: risk foreseen, size, efficacy, and whether the model survives.

Kept in a folder: `scan.json` (the settings), `scan.jsonl` (a line per fact, on the disk once it is done) and at the end
`scan.parquet`. It may be killed at any moment and goes on where it was.

Whether an edit is disabling is told by its outcome: under it the perplexity of a fixed text, the first tokens of the
project's own, at least doubles.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editlab.api import Progress
from editlab.assess import assess, reference_for, subject_place
from editlab.disk import JsonLines, write_json
from editlab.editor import Editor
from editlab.facts import Fact
from editlab.measures.perplexity import PROBE_TOKENS, HealthProbe
from editlab.methods import Method, hyperparameters
from editlab.model import EditableModel
from editlab.precision import in_full_float32
from editlab.progress import Report, quiet
from editlab.reading import ObjectScore, object_scores
from editlab.records import Trace
from editlab.risk import Risk
from editlab.scanned import Scanned, frame_of
from editlab.table import write_table

if TYPE_CHECKING:
    from pandas import DataFrame

DISABLING = 2.0  # times the unedited perplexity
FACTS_AT_ONCE = 64  # whose risks are read, and values searched for, together

log = logging.getLogger(__name__)


def scan(
    editor: Editor,
    facts: Sequence[Fact],
    method: Method,
    folder: Path,
    probe_tokens: int = PROBE_TOKENS,
    report: Report = quiet,
) -> DataFrame:
    """Scan the facts, or go on with the scan in `folder`; the table that is also written there.

    Raises ValueError if there are no facts or `folder` holds a scan with other settings, and whatever an edit or
    `report` raises; then the folder is as if the process had been killed.
    """
    if not facts:
        raise ValueError("no fact to scan: none fulfils what was asked for")
    editor.moments(method.edited_layers, report).warm(method.edited_layers, method.ridge, editor.model.device)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, _settings(editor, facts, method, probe_tokens))
    lines = JsonLines(folder / "scan.jsonl")
    begun = len(lines.read())
    with editor.model.unedited(), in_full_float32():
        for row in _scan(editor, facts, method, begun, probe_tokens, report):
            lines.append(row.to_json())
    frame = frame_of([Scanned.from_json(line) for line in lines.read()])
    write_table(frame, folder / "scan.parquet")
    return frame


def _scan(
    editor: Editor, facts: Sequence[Fact], method: Method, begun: int, probe_tokens: int, report: Report
) -> Iterator[Scanned]:
    """The rows from number `begun` on. The model is unedited whenever a row is given."""
    model, contexts, moments = editor.model, editor.contexts(method), editor.moments(method.edited_layers)
    probe = HealthProbe(model, probe_tokens, min(method.edited_layers))
    base = probe()
    since = time.perf_counter()
    for start in range(begun, len(facts), FACTS_AT_ONCE):
        some = facts[start : start + FACTS_AT_ONCE]
        progress = Progress("scanning", start - begun, len(facts) - begun)  # of what is left: the time left is right

        def tell(_inner: Progress, progress: Progress = progress) -> None:
            report(progress)

        risks = assess(editor, some, method, tell)
        values = method.values(model, some, contexts, tell)
        for number, (fact, risk, value) in enumerate(zip(some, risks, values, strict=True), start):
            report(Progress("scanning", number - begun, len(facts) - begun))
            edit, trace = method(model, [fact], moments=moments, contexts=contexts, report=tell, values=[value])
            with model.overlaid(edit):
                new, true = _scores(model, fact)
                now = probe()
            since, before = time.perf_counter(), since
            yield _row(number, fact, risk, trace, new, true, now, base, since - before)
    report(Progress("scanning", len(facts) - begun, len(facts) - begun))


def _scores(model: EditableModel, fact: Fact) -> tuple[ObjectScore, ObjectScore | None]:
    """How likely the new and the true object are."""
    asked = [(fact.text, target) for target in (fact.target_new, fact.target_true) if target is not None]
    found = {question: score for scores in object_scores(model, asked) for question, score in scores.items()}
    return found[asked[0]], found[asked[1]] if len(asked) > 1 else None


def _row(
    number: int,
    fact: Fact,
    risk: Risk,
    trace: Trace,
    new: ObjectScore,
    true: ObjectScore | None,
    now: float,
    base: float,
    seconds: float,
) -> Scanned:
    largest = max(trace.layers.values(), key=lambda layer: layer.delta_norm / layer.weight_norm)
    return Scanned(
        number=number,
        case_id=fact.case_id,
        subject=fact.subject,
        relation=fact.relation,
        target_new=fact.target_new,
        target_true=fact.target_true,
        subject_tokens=risk.subject_tokens,
        position=risk.position,
        token_level=risk.token_level,
        level=risk.level,
        key_cosine=risk.key_cosine,
        divisor=risk.divisor,
        divisor_ratio=risk.divisor_ratio,
        predicted_norm=risk.predicted_norm,
        delta_norm=largest.delta_norm,
        weight_norm=largest.weight_norm,
        relative_size=largest.delta_norm / largest.weight_norm,
        efficacy_accuracy=new.said,
        efficacy_success=None if true is None else new.nll < true.nll,
        p_new=new.p,
        p_true=None if true is None else true.p,
        perplexity=now,
        perplexity_ratio=now / base,
        disabling=not now / base < DISABLING,  # also where it is not a number
        seconds=seconds,
    )


def _settings(editor: Editor, facts: Sequence[Fact], method: Method, probe_tokens: int) -> dict[str, Any]:
    """What a folder holds a scan of: it goes on only with the same. As JSON reads it back."""
    told = json.dumps([fact.to_json() for fact in facts], ensure_ascii=False)
    reference = reference_for(editor.model, method)
    settings = {
        "facts": f"{len(facts)}, SHA-256 {hashlib.sha256(told.encode()).hexdigest()}",
        "method": method.name,
        "hyperparameters": hyperparameters(method),
        "model": f"{editor.model.name}, {editor.model.fingerprint()}",
        "contexts": list(editor.contexts(method)),
        "second moments": editor.moments(method.edited_layers).provenance,
        "reference": None if reference is None else reference.to_json(),
        "probe": f"the first {probe_tokens} tokens of perplexity.txt, disabling from {DISABLING:g} times on",
    }
    return json.loads(json.dumps(settings))


def _claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note what is scanned here. Raises ValueError if it was something else."""
    file = folder / "scan.json"
    if not file.exists():
        write_json(file, settings)
    held = json.loads(file.read_text(encoding="utf-8"))
    if other := [name for name in settings if held.get(name) != settings[name]]:
        raise ValueError(f"{folder} holds a scan with other settings ({', '.join(other)}); choose an empty folder")


# --- which facts ---

FILTERS: Mapping[str, Callable[[EditableModel, Fact], Any]] = {
    "relation": lambda _model, fact: fact.relation,
    "case_id": lambda _model, fact: fact.case_id,
    "subject_tokens": lambda model, fact: subject_place(model, fact)[0],
    "position": lambda model, fact: subject_place(model, fact)[1],
}


def choose(
    model: EditableModel, facts: Sequence[Fact], where: Sequence[str] = (), limit: int | None = None
) -> list[Fact]:
    """The first facts that fulfil every NAME=VALUE of `where` and that the model can take; at most `limit`.

    Names are those of FILTERS; several values, with commas between them or in a file named @FILE, mean any of them.
    Raises ValueError.
    """
    wanted = [_condition(text) for text in where]

    def fulfils(fact: Fact) -> bool:
        try:
            if any(str(FILTERS[name](model, fact)) not in values for name, values in wanted):
                return False
            model.check(fact)
        except ValueError as error:
            log.warning("case %s is left out: %s", fact.case_id, error)
            return False
        return True

    return list(islice(filter(fulfils, facts), limit))


def check_where(where: Sequence[str]) -> None:
    """Raises ValueError for what `choose` would not understand."""
    for text in where:
        _condition(text)


def _condition(text: str) -> tuple[str, frozenset[str]]:
    name, equals, values = (part.strip() for part in text.partition("="))
    if name not in FILTERS or not equals or not values:
        raise ValueError(f"--where takes NAME=VALUE with a name of {', '.join(FILTERS)}, got {text!r}")
    if values.startswith("@"):
        file = Path(values[1:]).expanduser()
        if not file.is_file():
            raise ValueError(f"--where {text}: no such file")
        values = file.read_text(encoding="utf-8")
    return name, frozenset(values.replace(",", " ").split())
