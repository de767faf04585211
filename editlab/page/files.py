"""The files that the page offers: what was measured as one tidy table, and the session itself."""

from __future__ import annotations

import io
import json

from editlab.records import SessionState
from editlab.table import table_of

TYPES = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet", "json": "application/json"}


def files_of(state: SessionState) -> dict[str, bytes]:
    """Each file's name and content. It imports pandas and may take seconds for a long session."""
    frame, parquet = table_of(state.steps, state.id), io.BytesIO()
    frame.to_parquet(parquet, index=False)
    session = json.dumps(state.to_json(), ensure_ascii=False, indent=1)
    return {
        "editlab-table.csv": frame.to_csv(index=False).encode(),
        "editlab-table.parquet": parquet.getvalue(),
        "editlab-table.json": frame.to_json(orient="records", force_ascii=False).encode(),
        "editlab-session.json": session.encode(),
    }
