"""The tables for sessions, version by version: migrations are added, never changed."""

from __future__ import annotations

import sqlite3

from editlab.core.errors import LabError

SESSIONS = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    follow TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    created TEXT NOT NULL,
    used TEXT NOT NULL,
    model TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    position INTEGER NOT NULL,
    watched TEXT NOT NULL,
    plan TEXT NOT NULL,
    branch_of TEXT
);
CREATE TABLE edits (id TEXT PRIMARY KEY, made TEXT NOT NULL, delta BLOB NOT NULL);
CREATE TABLE log (
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
    number INTEGER NOT NULL,
    edit TEXT NOT NULL REFERENCES edits,
    enabled INTEGER NOT NULL,
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
CREATE INDEX log_of_edits ON log (edit)
"""
MEASURED = """
CREATE TABLE found (
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
    edit TEXT NOT NULL,
    without TEXT NOT NULL,
    step TEXT NOT NULL,
    name TEXT NOT NULL,
    setting TEXT NOT NULL,
    about TEXT NOT NULL,
    found TEXT NOT NULL,
    PRIMARY KEY (session, edit, without, step, name, about)
);
CREATE TABLE unedited (
    model TEXT NOT NULL,
    name TEXT NOT NULL,
    setting TEXT NOT NULL,
    found TEXT NOT NULL,
    PRIMARY KEY (model, name, setting)
)
"""
TEMPORARY = "ALTER TABLE sessions ADD COLUMN temporary INTEGER NOT NULL DEFAULT 0"
HISTORY = "ALTER TABLE sessions ADD COLUMN history TEXT NOT NULL DEFAULT '{}'"
MIGRATIONS = (SESSIONS, MEASURED, TEMPORARY, HISTORY)


def migrate(db: sqlite3.Connection) -> None:
    """Bring the tables to the newest version, within the caller's transaction.

    Raises LabError for a file that a newer editlab wrote.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise LabError(
            f"The sessions were written by a newer editlab (version {version} of their tables; this one knows "
            f"{len(MIGRATIONS)}): use that one, or another file."
        )
    for statements in MIGRATIONS[version:]:
        for statement in statements.split(";"):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
