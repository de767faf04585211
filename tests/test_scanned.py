"""A scan as it is read for a page: the same from its folder and from its table, and what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from editlab.analysis.scanned import Scanned, frame_of, read_scan
from tests.page.fake_model import make_facts, make_scan

ROWS = make_scan(make_facts())


def write(folder: Path, rows: tuple[Scanned, ...]) -> Path:
    """As `editlab scan` leaves it."""
    folder.mkdir()
    (folder / "scan.json").write_text(json.dumps({"method": "rome"}), encoding="utf-8")
    (folder / "scan.jsonl").write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows), encoding="utf-8")
    frame_of(rows).to_parquet(folder / "scan.parquet", index=False)
    return folder


def test_folder_and_table_give_the_same_rows(tmp_path: Path) -> None:
    unknown = replace(
        ROWS[0], number=len(ROWS), case_id=None, divisor=None, p_true=None, efficacy_success=None, perplexity=math.inf
    )
    folder = write(tmp_path / "start", (*ROWS, unknown))
    whole, table = read_scan(folder), read_scan(folder / "scan.parquet")
    assert whole.rows == table.rows == (*ROWS, unknown)
    assert (whole.name, whole.settings["method"], dict(table.settings)) == ("start", "rome", {})
    assert whole.foresights == table.foresights
    by_keys = next(found for found in whole.foresights if (found.rule, found.alarm) == ("keys", "high"))
    assert (by_keys.disabling, by_keys.foreseen, by_keys.missed, by_keys.false_alarms) == (2, 1, 1, 0)


def test_an_unfinished_scan_is_read_as_far_as_it_is_and_left_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "start", ROWS[:3])
    with (folder / "scan.jsonl").open("a") as file:
        file.write('{"number": 3, "case')
    before = (folder / "scan.jsonl").read_bytes()
    assert read_scan(folder).rows == ROWS[:3]
    assert (folder / "scan.jsonl").read_bytes() == before


def test_what_is_no_scan_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no"):
        read_scan(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has no scan\.json"):
        read_scan(tmp_path)
    (tmp_path / "other.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match="is not a Parquet file"):
        read_scan(tmp_path / "other.parquet")
    frame_of(ROWS).drop(columns=["divisor", "level"]).to_parquet(tmp_path / "part.parquet")
    with pytest.raises(ValueError, match="lacks the columns level, divisor"):
        read_scan(tmp_path / "part.parquet")
    with pytest.raises(ValueError, match="holds no scanned fact yet"):
        read_scan(write(tmp_path / "empty", ()))


def test_reading_a_scan_needs_no_torch() -> None:
    code = "import sys, editlab.analysis.scanned; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0


def test_case_ids_that_are_names_come_back_from_the_table(tmp_path: Path) -> None:
    rows = [replace(ROWS[0], number=n, case_id=case) for n, case in enumerate(("Q42", 7, None))]
    frame_of(rows).to_parquet(tmp_path / "scan.parquet")
    assert [row.case_id for row in read_scan(tmp_path / "scan.parquet").rows] == ["Q42", 7, None]
