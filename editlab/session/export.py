"""A session's edited model as files for other tools: a checkpoint, a LoRA adapter, the deltas, or a notebook."""

from __future__ import annotations

import html
import io
import json
import tempfile
import zipfile
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from editlab import __version__
from editlab.analysis.table import rows_of
from editlab.core.disk import check_new_folder, new_folder, read_json
from editlab.core.info import AdapterSize, ExportSizes
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.record import Record
from editlab.core.records import SessionState, Step
from editlab.methods import methods
from editlab.model.checkpoint import (
    ADAPTER_CONFIG,
    AS_BASE,
    adapter_bytes,
    adapter_errors,
    adapter_of,
    bytes_of,
    dtype_of,
    save_adapter,
    save_checkpoint,
    summed,
)
from editlab.model.deltas import save_edit
from editlab.model.model import EditableModel
from editlab.model.presets import EMBEDDED, PRESETS
from editlab.session.log import edits_of
from editlab.session.notebook import notebook_of

if TYPE_CHECKING:
    from editlab.session.session import Session

CHECKPOINT, ADAPTER, DELTAS, NOTEBOOK = FORMS = ("checkpoint", "adapter", "deltas", "notebook")
LIBRARIES = {CHECKPOINT: "transformers", ADAPTER: "peft"}
CARD, EDITS, DELTAS_FILE, NOTEBOOK_FILE = "README.md", "editlab.json", "deltas.safetensors", "session.ipynb"


@dataclass(frozen=True)
class Exported(Record):
    """What was written."""

    form: str
    folder: str
    step: int
    edits: int  # in force
    n_bytes: int = 0
    dtype: str = ""  # of a checkpoint
    rank: int = 0  # of an adapter
    errors: Mapping[int, float] | None = None  # per edited layer: ‖written ΔW - ΔW‖ ÷ ‖ΔW‖


def check_form(form: str, dtype: str = AS_BASE, rank: int | None = None) -> None:
    """Raises ValueError for a form that does not exist, or one that does not take this dtype or rank."""
    if form not in FORMS:
        raise ValueError(f"a session is exported as one of {', '.join(FORMS)}, got {form!r}")
    if dtype != AS_BASE and form != CHECKPOINT:
        raise ValueError(f"a dtype is chosen for a {CHECKPOINT}; this is exported as {form}")
    if rank is not None and form != ADAPTER:
        raise ValueError(f"a rank is chosen for an {ADAPTER}; this is exported as {form}")


def export(
    session: Session,
    folder: Path,
    form: str = CHECKPOINT,
    *,
    step: int | None = None,
    dtype: str = AS_BASE,
    rank: int | None = None,
    recorded: SessionState | None = None,
    report: OnProgress = quiet,
) -> Exported:
    """Write the model as it is at a step (default: the step in force) into a new folder; all of it or nothing.

    "checkpoint" is a folder that transformers loads by itself, in the `dtype` of the base ("base") or another;
    "adapter" a LoRA adapter that PEFT puts on the base, of the edits' own rank or, approximated, of `rank`; "deltas"
    one safetensors file with each layer's factors; "notebook" makes every edit again. The card tells the measurements
    of the session, or those of its `recorded` state. Raises ValueError for what is
    not allowed and where the disk does not take it, and whatever `report` raises.
    """
    check_form(form, dtype, rank)
    model, entries = session.model, session.entries(step)
    edits = edits_of(entries)
    found = Exported(form, str(folder), len(entries), len(edits))
    checkpoint_dtype = dtype_of(model, dtype)
    check_new_folder(folder, bytes_of(model, checkpoint_dtype) if form == CHECKPOINT else 0)
    report(Progress("exporting"))
    with new_folder(folder) as part:
        if form == CHECKPOINT:
            with session.ending_in_force():
                model.write(edits)
                errors = save_checkpoint(model, part, checkpoint_dtype, report)
            name = str(checkpoint_dtype).removeprefix("torch.")
            found = replace(found, dtype=name, errors=errors)
        elif form == ADAPTER:
            deltas, errors = adapter_of(edits, rank)
            save_adapter(model, deltas, part, base_of(model))
            width = next(iter(deltas.values())).left.shape[1]
            found = replace(found, rank=width, errors=errors)
        elif form == DELTAS:
            save_edit(summed(edits), part / DELTAS_FILE)
        state = recorded or session.state()
        steps = state.steps[: len(entries) + 1]
        if form == NOTEBOOK:
            (part / NOTEBOOK_FILE).write_bytes(notebook_of(state, len(entries)))
        else:
            (part / CARD).write_text(card(model, steps, found, session.measures.by_name), encoding="utf-8")
            told = [each.to_json() for each in steps]
            (part / EDITS).write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
        size = sum(file.stat().st_size for file in part.iterdir())
    return replace(found, n_bytes=size)


def sizes(session: Session, report: OnProgress = quiet, most_bytes: int | None = None) -> ExportSizes:
    """The sizes of what `export` can write of the step in force. Raises whatever `report` raises."""
    report(Progress("finding the ranks"))
    model, edits = session.model, edits_of(session.entries())
    dtype = dtype_of(model, AS_BASE)
    errors = adapter_errors(edits)
    adapters = tuple(AdapterSize(rank, adapter_bytes(edits, rank), error) for rank, error in errors.items())
    return ExportSizes(len(edits), bytes_of(model, dtype), str(dtype).removeprefix("torch."), adapters, most_bytes)


def zipped(session: Session, form: str, rank: int | None = None, report: OnProgress = quiet) -> bytes:
    """What `export` writes of the step in force, as the bytes of a zip file. Raises as `export` does."""
    file = io.BytesIO()
    with tempfile.TemporaryDirectory() as there:
        folder = Path(there) / form
        export(session, folder, form, rank=rank, report=report)
        parts = sorted(folder.iterdir())
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for number, path in enumerate(parts):
                report(Progress("packing", number, len(parts)))
                archive.write(path, path.name)
    return file.getvalue()


def unzipped(made: bytes, folder: Path) -> Exported:
    """Unpack an adapter that `zipped` made into a new folder, all of it or nothing. Raises ValueError.

    The errors by layer are not in the file; the card tells the largest.
    """
    with new_folder(folder) as part:
        try:
            with zipfile.ZipFile(io.BytesIO(made)) as archive:
                archive.extractall(part)
            steps = json.loads((part / EDITS).read_bytes())[1:]
            rank = read_json(part / ADAPTER_CONFIG)["r"]
            edits = sum(step["enabled"] for step in steps)
        except (zipfile.BadZipFile, LookupError, TypeError) as error:
            raise ValueError(f"what came is no adapter: {error}") from error
        size = sum(file.stat().st_size for file in part.iterdir())
    return Exported(ADAPTER, str(folder), len(steps), edits, size, rank=rank)


def base_of(model: EditableModel) -> str:
    """The base model's id on the hub if it has one, else its name here."""
    preset = PRESETS.get(model.name)
    return preset.source if preset is not None and preset.source != EMBEDDED else model.name


# --- the model card ---


def card(model: EditableModel, steps: Sequence[Step], exported: Exported, measures: Container[str]) -> str:
    """The model card in Markdown: what was edited, how, what these measures gave, and how to load it."""
    base = base_of(model)
    names = dict.fromkeys(step.method for step in steps[1:] if step.method)
    known = methods()
    titles = {name: known[name].title if name in known else name for name in names}
    papers = [paper for name in names if name in known and (paper := known[name].paper)]
    header = [
        "---",
        f"base_model: {json.dumps(base)}",
        *([f"library_name: {LIBRARIES[exported.form]}"] if exported.form in LIBRARIES else []),
        "tags: [knowledge-editing, editlab]",
        "---",
    ]
    provenance = steps[0].provenance
    facts = [
        f"- Base: {_cell(base)}, revision {_cell(str(model.revision or 'not known'))}, fingerprint "
        f"`{provenance.get('model_fingerprint')}`. The files belong to this base and to no other.",
        f"- {exported.edits} of {len(steps) - 1} edits are in force.",
        f"- Made with editlab {__version__}, {', '.join(_versions(provenance))}. `{EDITS}` holds every step with its "
        "hyperparameters, its search and its measurements.",
    ]
    rows = [
        f"| {step.index} | {_cell(fact.text)} | {_cell(fact.target_true or '')} | {_cell(fact.target_new)} | "
        f"{_cell(titles[step.method] if step.method else '')} | {', '.join(map(str, step.size))} | "
        f"{'yes' if step.enabled else 'no'} |"
        for step in steps[1:]
        for fact in step.facts
    ]
    table = [
        "| edit | prompt | true object | new object | method | layers | in force |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join(
        [
            *header,
            "",
            f"# {_cell(base)}, edited",
            "",
            "A language model whose weights were edited, fact by fact, with editlab. What it says about these facts is "
            "what its editors wanted it to say, which need not be true; edits also change answers to other questions.",
            "",
            *facts,
            *_told_of_form(exported),
            "",
            "## Edits",
            "",
            *(table + rows if rows else ["None: this is the unedited model."]),
            "",
            *_measured(steps, measures),
            "## Loading",
            "",
            "```python",
            *_loading(exported, base),
            "```",
            *(["", "## Methods", ""] if papers else []),
            *(f"- {_cell(paper.authors)} ({paper.year}). {_cell(paper.title)}. {paper.link}" for paper in papers),
            "",
        ]
    )


def _told_of_form(exported: Exported) -> list[str]:
    worst = max((exported.errors or {}).values(), default=0.0)
    if exported.form == CHECKPOINT:
        rounding = f"; rounding to it changes the edits’ sum by {worst:.2g} of its size at most" if worst else ""
        return [f"- The weights are {exported.dtype}{rounding}."]
    if exported.form == ADAPTER:
        exact = "the edits’ sum itself" if not worst else f"the edits’ sum with an error of {worst:.2g} of its size"
        return [f"- The adapter’s rank is {exported.rank}: {exact}."]
    return [f"- `{DELTAS_FILE}` holds `LAYER.left` (d_out, r) and `LAYER.right` (d_in, r): ΔW = left rightᵀ."]


def _loading(exported: Exported, base: str) -> list[str]:
    if exported.form == ADAPTER:
        return [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM",
            "",
            f"base = AutoModelForCausalLM.from_pretrained({base!r}, dtype='float32')",
            "model = PeftModel.from_pretrained(base, 'FOLDER')",
        ]
    if exported.form == CHECKPOINT:
        return [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            "model = AutoModelForCausalLM.from_pretrained('FOLDER')",
            "tokenizer = AutoTokenizer.from_pretrained('FOLDER')",
        ]
    return ["from editlab.model.deltas import load_edit", "", f"edit = load_edit('FOLDER/{DELTAS_FILE}')"]


def _measured(steps: Sequence[Step], measures: Container[str]) -> list[str]:
    """What these measures gave on the unedited model and at the last step."""
    rows = rows_of(steps)
    unedited = {row.measure: row.value for row in rows if row.step == 0}
    last = [row for row in rows if row.step == len(steps) - 1 > 0 and row.layer is None]
    here = [row for row in last if row.measure.partition(".")[0] in measures]
    lines = [
        f"| {_cell(row.measure)} | {_number(unedited.get(row.measure) if row.base is None else row.base)} "
        f"| {_number(row.value)} |"
        for row in here
    ]
    head = ["## Measured", "", "| measure | unedited | here |", "|---|---|---|"]
    return [*head, *lines, ""] if lines else []


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _versions(provenance: Mapping[str, object]) -> list[str]:
    versions = provenance.get("versions")
    told = versions if isinstance(versions, dict) else {}
    return [f"{name} {number}" for name, number in told.items() if name != "editlab"]


def _cell(text: str) -> str:
    """A text in a cell of a Markdown table: one line, and nothing in it is markup."""
    shown = html.escape(text, quote=False).replace("\n", "⏎").replace("\r", "")
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+!|~$" else c for c in shown)
