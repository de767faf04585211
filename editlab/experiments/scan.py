"""Many facts, each edited alone on the unedited model: risk beforehand, size, efficacy, and whether the model survives.

The folder of a scan has `scan.json` (the settings), `scan.jsonl` (a line per fact, on disk once the fact is done) and
at the end `scan.parquet`. A scan may be killed at any moment and resumed.

An edit is disabling by its outcome: it at least doubles the perplexity of a fixed text, the first tokens of the
project's own.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from editlab.analysis.outcomes import DISABLING, is_disabling
from editlab.analysis.scanned import Scanned, frame_of
from editlab.analysis.table import write_table
from editlab.core.disk import JsonLines, read_json, read_text, write_json
from editlab.core.facts import Fact, digest_of
from editlab.core.info import SCAN
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.record import Record
from editlab.core.records import Risk, Trace
from editlab.editing.assess import assess, reference_for, subject_place
from editlab.editing.editor import Editor
from editlab.editing.texts import check_source
from editlab.measures._measure import MeasureInput, State, StateCache
from editlab.measures.counterfact import OfStep as CounterFactOfStep
from editlab.measures.perplexity import PROBE_TOKENS, HealthProbe
from editlab.measures.says_it import NEIGHBOURS, SaysItOfStep
from editlab.methods import Method, completed, hyperparameters, method_meant, offered
from editlab.methods._stranger import code_of, computed, values_of
from editlab.model.fast.precision import in_full_float32
from editlab.model.loading import ModelChoice
from editlab.model.model import EditableModel
from editlab.model.reading import ObjectScore, object_scores

if TYPE_CHECKING:
    from pandas import DataFrame

FACTS_AT_ONCE = 64  # whose risks and values are computed together

log = logging.getLogger(__name__)


def scan(scanner: Scanner, facts: Sequence[Fact], folder: Path, report: OnProgress = quiet) -> DataFrame:
    """Scan the facts, or resume the scan in `folder`. Returns the table, which is also written there.

    Raises ValueError if there are no facts or `folder` holds a scan with other settings, and whatever an edit or
    `report` raises; then the folder is as if the process had been killed.
    """
    disk = ScanFolder(folder)
    left = disk.begin(facts, scanner.settings(facts, report))
    for row in scanner.rows(left, report):
        disk.add(row)
    return disk.finish()


class Scanner:
    """Scans facts with one method, each alone on the unedited model."""

    def __init__(
        self, editor: Editor, method: Method, probe_tokens: int = PROBE_TOKENS, standard: bool = False
    ) -> None:
        """`standard`: take the field's measures too. Raises ValueError for a method not offered in scans."""
        check_scannable(type(method))
        self.editor = editor
        self.method = method
        self.probe_tokens = probe_tokens
        self.standard = standard

    @classmethod
    def load(
        cls,
        model: ModelChoice,
        method: str,
        source: str,
        seed: int,
        probe_tokens: int,
        keys: int | None = None,
        changes: Mapping[str, Any] | None = None,
        recorded: Mapping[str, Any] | None = None,
        standard: bool = False,
        report: OnProgress = quiet,
    ) -> Self:
        """A scanner with a newly loaded model, second moments from `source` (see `moments_of`), and `changes`.

        `method`: a name or a file, as `method_meant` takes it.

        `recorded`: the provenance of the second moments that the scan was begun with, where it is resumed. Raises
        ValueError.
        """
        check_source(source)
        method = method_meant(method)
        editor = Editor(model.load(report), moments=source, n_keys=keys, seed=seed)
        chosen = editor.method(method, changes)
        return cls(editor.resuming(chosen.edited_layers, recorded or {}), chosen, probe_tokens, standard)

    def choose(self, facts: Sequence[Fact], where: Sequence[str] = (), limit: int | None = None) -> list[Fact]:
        """See `editlab.experiments.scan.choose`."""
        return choose(self.editor.model, facts, where, limit)

    def settings(self, facts: Sequence[Fact], report: OnProgress = quiet) -> dict[str, Any]:
        """The settings of a scan, as JSON reads them back: a scan is resumed only with equal settings."""
        editor, method = self.editor, self.method
        moments = editor.moments_for(method, report)
        reference = reference_for(editor.model, method)
        settings = {
            "facts": digest_of(facts),
            "method": method.name,
            "hyperparameters": hyperparameters(method),
            "model": f"{editor.model.name}, {editor.model.fingerprint()}",
            "contexts": list(editor.contexts(method)),
            "second moments": moments.provenance_of(method.edited_layers),
            "reference": None if reference is None else reference.to_json(),
            "probe": f"the first {self.probe_tokens} tokens of perplexity.txt, disabling from {DISABLING:g} times on",
        }
        if code := code_of(type(method)):
            settings["code"] = code
        if self.standard:
            settings["standard"] = f"CounterFact's measures and free answers, {NEIGHBOURS} neighbours' at most"
        return json.loads(json.dumps(settings))

    def rows(self, numbered: Sequence[tuple[int, Fact]], report: OnProgress = quiet) -> Iterator[Scanned]:
        """The row of each of these facts, with its number in the scan. The model is unedited whenever a row is yielded.

        Raises whatever an edit or `report` raises.
        """
        editor, model = self.editor, self.editor.model
        method = editor.anchored(self.method, report)
        moments, contexts = editor.moments_for(method, report), editor.contexts(method)
        for layer in moments.matrices.keys() & set(method.edited_layers):
            moments.warm([layer], method.ridge, model.device_of(layer))
        with model.unedited(), in_full_float32():
            probe = HealthProbe(model, self.probe_tokens, min(method.edited_layers))
            base, since = probe(), time.perf_counter()
            unedited = State(model, (), StateCache())
            for done in range(0, len(numbered), FACTS_AT_ONCE):
                some = numbered[done : done + FACTS_AT_ONCE]
                facts = [fact for _, fact in some]
                progress = Progress("scanning", done, len(numbered))  # of those left, for the remaining time

                def tell(_inner: Progress, progress: Progress = progress) -> None:
                    report(progress)

                risks = assess(editor, facts, method, tell)
                values = values_of(method, model, facts, contexts, tell)
                for ready, ((number, fact), risk, value) in enumerate(zip(some, risks, values, strict=True), done):
                    report(Progress("scanning", ready, len(numbered)))
                    edit, trace = computed(
                        method, model, [fact], moments=moments, contexts=contexts, report=tell, values=[value]
                    )
                    with model.overlaid(edit):
                        new, true = _scores(model, fact)
                        now = probe()
                    more: dict[str, Any] = {}
                    if self.standard:
                        more = _standard(State(model, (edit,), StateCache()), unedited, fact, tell)
                        model.write([])
                    since, before = time.perf_counter(), since
                    yield replace(_row(number, fact, risk, trace, new, true, now, base, since - before), **more)
        report(Progress("scanning", len(numbered), len(numbered)))


def _standard(now: State, unedited: State, fact: Fact, report: OnProgress) -> dict[str, Any]:
    """The field's measures of a fact that was edited alone, as a row has them."""
    inputs = MeasureInput(now, unedited, (fact,), ())
    found, answers = CounterFactOfStep()(inputs, report), SaysItOfStep()(inputs, report)
    unedited.cache.objects.clear()  # no other fact asks for them
    assert found is not None
    assert answers is not None
    assert answers.rewrite is not None

    def read(part: Record | None, name: str) -> Any:
        return None if part is None else getattr(part, name)

    return {
        "paraphrase_success": read(found.paraphrase, "success"),
        "paraphrase_accuracy": read(found.paraphrase, "accuracy"),
        "neighborhood_success": read(found.neighborhood, "success"),
        "neighborhood_accuracy": read(found.neighborhood, "accuracy"),
        "says_it": bool(answers.rewrite.said),
        "paraphrase_says_it": read(answers.paraphrase, "said"),
        "neighborhood_says_it": read(answers.neighborhood, "said"),
        "answer": answers.answers[0].answer,
    }


def check_scannable(kind: type[Method]) -> None:
    """Raises ValueError for a method that is not offered in scans."""
    if SCAN not in kind.offered_in:
        raise ValueError(f"{kind.title} cannot be scanned with; available: {', '.join(offered(SCAN))}")


class ScanFolder:
    """A scan on disk: its settings, and the rows so far, in any order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines = JsonLines(folder / "scan.jsonl")

    def second_moments(self) -> Mapping[str, Any]:
        """The provenance of the second moments that the scan was begun with; nothing in a new folder."""
        file = self.folder / "scan.json"
        held = read_json(file).get("second moments") if file.exists() else None
        return held if isinstance(held, Mapping) else {}

    def begin(self, facts: Sequence[Fact], settings: Mapping[str, Any]) -> list[tuple[int, Fact]]:
        """The facts left to scan, each with its number. Raises ValueError if there are no facts at all,
        or if the folder holds a scan with other settings.
        """
        if not facts:
            raise ValueError("no facts match --where")
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "scan.json"
        rows = self._rows()
        if not file.exists():
            if rows:
                raise ValueError(
                    f"{self.folder} holds rows of an unknown scan: its {file.name} is gone; choose an empty folder"
                )
            write_json(file, settings)
        held = read_json(file)
        held.setdefault("code", settings.get("code"))  # before it was kept
        if isinstance(known := held.get("hyperparameters"), dict):  # those that came later change nothing
            held["hyperparameters"] = completed(str(held.get("method")), known)
        if other := [name for name in settings if held.get(name) != settings[name]]:
            raise ValueError(
                f"{self.folder} holds a scan with other settings ({', '.join(other)}); choose an empty folder"
            )
        done = {row.number for row in rows}
        return [(number, fact) for number, fact in enumerate(facts) if number not in done]

    def add(self, row: Scanned) -> None:
        self._lines.append(row.to_json())

    def finish(self) -> DataFrame:
        """Write the table, in the facts' order, and return it."""
        frame = frame_of(sorted(self._rows(), key=lambda row: row.number))
        write_table(frame, self.folder / "scan.parquet")
        return frame

    def _rows(self) -> list[Scanned]:
        try:
            return [Scanned.from_json(line) for line in self._lines.read()]
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{self.folder / 'scan.jsonl'} is damaged: {error}") from None


def _scores(model: EditableModel, fact: Fact) -> tuple[ObjectScore, ObjectScore | None]:
    """The scores of the new and the true object."""
    questions = [fact.asks_new] if fact.target_true is None else [fact.asks_new, fact.asks_true]
    found = {question: score for scores in object_scores(model, questions) for question, score in scores.items()}
    return found[questions[0]], found[questions[1]] if len(questions) > 1 else None


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
    largest = trace.largest_layer
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
        relative_size=largest.relative_size,
        efficacy_accuracy=new.said,
        efficacy_success=None if true is None else new.nll < true.nll,
        p_new=new.p,
        p_true=None if true is None else true.p,
        perplexity=now,
        perplexity_ratio=now / base,
        disabling=is_disabling(now, base),
        seconds=seconds,
        prompt=fact.prompt,
        p_new_joint=new.p_joint,
        p_true_joint=None if true is None else true.p_joint,
    )


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
    """The first facts that match every NAME=VALUE of `where` and that the model can take; at most `limit`.

    Names are those of FILTERS; several values, separated by commas or in a file named @FILE, mean any of them.
    Raises ValueError.
    """
    wanted = [_condition(text) for text in where]

    def matches(fact: Fact) -> bool:
        try:
            if any(str(FILTERS[name](model, fact)) not in values for name, values in wanted):
                return False
            model.check(fact)
        except ValueError as error:
            log.warning("case %s is left out: %s", fact.case_id, error)
            return False
        return True

    return list(islice(filter(matches, facts), limit))


def check_where(where: Sequence[str]) -> None:
    """Raises ValueError for a condition that `choose` would not accept."""
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
        values = read_text(file)
    between = r"[,\r\n]" if name == "relation" else r"[,\s]"  # a relation may be several words
    return name, frozenset(filter(None, map(str.strip, re.split(between, values))))
