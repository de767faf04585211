"""The tables for sessions, version by version: migrations are added, never changed. They are in SQLite's words."""

from __future__ import annotations

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
VERSION = "ALTER TABLE sessions ADD COLUMN version INTEGER NOT NULL DEFAULT 0"
CLASSES = """
ALTER TABLE sessions ADD COLUMN class_of TEXT;
ALTER TABLE sessions ADD COLUMN invite TEXT;
ALTER TABLE sessions ADD COLUMN teacher TEXT;
ALTER TABLE sessions ADD COLUMN lesson TEXT NOT NULL DEFAULT '';
CREATE INDEX sessions_of_class ON sessions (class_of);
CREATE UNIQUE INDEX session_of_invite ON sessions (invite);
CREATE UNIQUE INDEX session_of_teacher ON sessions (teacher)
"""
BEGUN = """
CREATE TABLE begun (
    edit TEXT PRIMARY KEY,
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
    facts TEXT NOT NULL,
    method TEXT NOT NULL
);
CREATE INDEX begun_of_sessions ON begun (session)
"""
MIGRATIONS = (SESSIONS, MEASURED, TEMPORARY, HISTORY, VERSION, CLASSES, BEGUN)

IN_POSTGRESQL = (
    (" BLOB", " BYTEA"),
    (" WITHOUT ROWID", ""),
    (  # whose keys are short
        "    PRIMARY KEY (session, edit, without, step, name, about)\n)",
        "    place BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY\n);\n"
        "CREATE INDEX found_of_edits ON found (session, edit)",
    ),
)


def in_postgresql(migration: str) -> str:
    """A migration in PostgreSQL's words."""
    for ours, theirs in IN_POSTGRESQL:
        migration = migration.replace(ours, theirs)
    return migration
