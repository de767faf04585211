"""The results of a scan: a record per fact, the table of a whole scan, and reading it from disk. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editlab.analysis.outcomes import Foresight, foresights
from editlab.analysis.table import with_case_ids
from editlab.core.disk import JsonLines, read_json
from editlab.core.facts import CaseId, case_id_of
from editlab.core.record import Record

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Scanned(Record):
    """One fact edited alone: a row of scan.parquet. Sizes are of the layer where ‖ΔW‖ / ‖W‖ is largest."""

    number: int  # among the facts chosen, from 0
    case_id: CaseId | None
    subject: str
    relation: str | None
    target_new: str
    target_true: str | None
    subject_tokens: int
    position: int  # token index of the subject's last token in the bare prompt
    token_level: str  # level of risk, from the tokens alone
    level: str  # level of risk, from the keys
    key_cosine: float
    divisor: float | None
    divisor_ratio: float | None
    predicted_norm: float | None  # upper bound of ‖ΔW‖, known before the edit
    delta_norm: float
    weight_norm: float
    relative_size: float
    efficacy_accuracy: bool  # the new object is the argmax at every one of its tokens
    efficacy_success: bool | None  # P(new) > P(true); None without a true object
    p_new: float
    p_true: float | None
    perplexity: float
    perplexity_ratio: float  # to the unedited model's
    disabling: bool
    seconds: float  # since the fact before; the first of several searched together bears the search
    prompt: str = ""  # with {} for the subject; "" in scans of before
    p_new_joint: float | None = None  # of all the object's tokens together; `p_new` is their geometric mean
    p_true_joint: float | None = None
    # The field's measures, where the scan took them: means over the fact's prompts of a kind, None where it has none.
    paraphrase_success: float | None = None
    paraphrase_accuracy: float | None = None
    neighborhood_success: float | None = None
    neighborhood_accuracy: float | None = None
    says_it: bool | None = None  # the free answer to the fact's own prompt gives the new object
    paraphrase_says_it: float | None = None
    neighborhood_says_it: float | None = None  # the true object
    answer: str | None = None  # to the fact's own prompt


@dataclass(frozen=True)
class ScanTable(Record):
    """A whole scan, or the part that is finished."""

    name: str  # of the folder or file
    settings: Mapping[str, Any]  # method, model, facts, ...; empty if there is only a table
    rows: tuple[Scanned, ...]
    foresights: tuple[Foresight, ...]


def frame_of(rows: Sequence[Scanned]) -> DataFrame:
    """The rows as a DataFrame, with the columns of `Scanned`."""
    from pandas import DataFrame

    frame = DataFrame([vars(row) for row in rows], columns=[f.name for f in fields(Scanned)])
    numbers = [f.name for f in fields(Scanned) if f.type == "float | None"]
    truths = [f.name for f in fields(Scanned) if f.type == "bool | None"]
    return with_case_ids(frame).astype({**dict.fromkeys(truths, "boolean"), **dict.fromkeys(numbers, "float64")})


def read_scan(path: str | Path) -> ScanTable:
    """The scan in a folder of `editlab scan`, finished or not, or in a scan.parquet by itself. Raises ValueError."""
    path = Path(path).expanduser()
    if path.is_dir():
        rows, settings = _read_folder(path)
    elif path.is_file():
        rows, settings = _read_parquet(path), {}
    else:
        raise ValueError(f"a scan must be a folder that editlab scan wrote, or its scan.parquet; there is no {path}")
    if not rows:
        raise ValueError(f"{path} holds no scanned fact yet")
    return ScanTable(path.name, settings, tuple(rows), foresights(frame_of(rows)))


def _read_folder(path: Path) -> tuple[list[Scanned], dict[str, Any]]:
    lines, settings = path / "scan.jsonl", path / "scan.json"
    if not lines.is_file() or not settings.is_file():
        raise ValueError(f"{path} holds no scan: it has no scan.json and scan.jsonl")
    rows = [Scanned.from_json(line) for line in JsonLines(lines).read()]  # a scan may still be writing here
    rows.sort(key=lambda row: row.number)
    return rows, read_json(settings)


def _read_parquet(path: Path) -> list[Scanned]:
    import pandas

    try:
        frame = pandas.read_parquet(path)
        missing = [f.name for f in fields(Scanned) if f.default is MISSING and f.name not in frame]
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a Parquet file: {error}") from error
    if missing:
        raise ValueError(f"{path} is not the table of a scan: it lacks the columns {', '.join(missing)}")
    frame = frame.reindex(columns=[f.name for f in fields(Scanned)]).astype(object)
    optional = [f.name for f in fields(Scanned) if "None" in str(f.type)]
    frame[optional] = frame[optional].where(frame[optional].notna(), None)
    return [Scanned(**{**row, "case_id": case_id_of(row["case_id"])}) for row in frame.to_dict("records")]
