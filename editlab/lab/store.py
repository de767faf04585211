"""Sessions on disk, in SQLite: each change is one transaction, on disk before the call returns.

A kill loses only unwritten changes; deltas are read back to the last bit. Keys are kept as their SHA-256, so a copy of
the file opens no session. The store itself controls no access.
"""

from __future__ import annotations

import functools
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from editlab.core.errors import LabError, UnknownSession
from editlab.core.record import plain
from editlab.lab.schema import migrate
from editlab.model.deltas import edit_from_bytes, edit_to_bytes
from editlab.session.actions import History
from editlab.session.log import Entry, Made
from editlab.session.measurements import Finding

LOCK_SECONDS = 10.0  # to wait for another process to let go of the file


@dataclass(frozen=True)
class SessionRecord:
    """One session in the store, without its log."""

    id: str
    key: str  # SHA-256 of the key that edits
    follow: str  # SHA-256 of the key that only reads
    name: str
    created: str  # ISO 8601, UTC
    used: str
    model: str  # name
    fingerprint: str
    position: int = 0
    watched: tuple[str, ...] = ()
    plan: Mapping[str, int] | None = None
    branch_of: str | None = None
    temporary: bool = False

    def values(self) -> dict[str, Any]:
        return {**vars(self), "watched": json.dumps(self.watched), "plan": json.dumps(self.plan)}

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        read = {"watched": tuple(json.loads(row["watched"])), "plan": json.loads(row["plan"])}
        values = {name: row[name] for name in row.keys() if name != "history"}  # noqa: SIM118  # no mapping
        return cls(**{**values, **read, "temporary": bool(row["temporary"])})


class Store:
    """Sessions, their logs and their measurements, in a file or, without one, in memory.

    Any thread may call the store; only one process at a time may open the file. Raises LabError for a file that is in
    use, is not editlab's, or cannot be written; the store is then as before the call.
    """

    def __init__(self, path: str | Path = ":memory:") -> None:
        self.path = str(path)
        self._lock = threading.RLock()
        with self._sentences():
            if self.path != ":memory:":
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
                Path(self.path).touch(mode=0o600)
            self._db = sqlite3.connect(self.path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            for setting in (
                "locking_mode = EXCLUSIVE",
                "journal_mode = WAL",
                "synchronous = FULL",
                "foreign_keys = ON",
                "secure_delete = ON",
            ):
                self._db.execute(f"PRAGMA {setting}")
            with self._transaction():
                migrate(self._db)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # --- sessions ---

    def add(self, row: SessionRecord) -> None:
        with self._transaction() as db:
            _insert(db, row)

    def find(self, digest: str) -> SessionRecord | None:
        """The session that a key of this SHA-256 opens."""
        found = self._read("SELECT * FROM sessions WHERE key = :digest OR follow = :digest", digest=digest)
        return SessionRecord.of(found[0]) if found else None

    def count(self) -> int:
        return int(self._read("SELECT count(*) AS n FROM sessions")[0]["n"])

    def length(self, id: str) -> int:
        """The number of edits in a session's log."""
        return int(self._read("SELECT count(*) AS n FROM log WHERE session = :id", id=id)[0]["n"])

    def unused_since(self, time: str, empty: str, temporary: str) -> list[str]:
        """Ids of the sessions last used before `time`.

        Temporary ones: before `temporary`; those with neither an edit nor a name: before `empty`.
        """
        query = """SELECT id FROM sessions WHERE used < :time OR used < :temporary AND temporary
            OR used < :empty AND name = '' AND NOT EXISTS (SELECT 1 FROM log WHERE session = sessions.id)"""
        return [row["id"] for row in self._read(query, time=time, empty=empty, temporary=temporary)]

    def least_missed(self, time: str, bare: str) -> str | None:
        """Id of the session to delete where a new one needs room, the least lately used of its kind; None without any.

        First come sessions that are temporary or have neither an edit nor a name, then others without an edit of their
        own, such as a copy that nothing was done in; they must have been used last before `bare`. All others come last,
        if before `time`.
        """
        query = """SELECT id, CASE
                WHEN temporary OR last.edit IS NULL AND name = '' THEN 2
                WHEN last.edit IS NULL OR branch_of IS NOT NULL
                    AND EXISTS (SELECT 1 FROM log WHERE edit = last.edit AND session <> sessions.id) THEN 1
                ELSE 0 END AS bareness
            FROM sessions LEFT JOIN log AS last ON last.session = id
                AND last.number = (SELECT max(number) FROM log WHERE session = sessions.id)
            WHERE used < CASE WHEN bareness THEN :bare ELSE :time END ORDER BY bareness DESC, used LIMIT 1"""
        found = self._read(query, time=time, bare=bare)
        return found[0]["id"] if found else None

    def renew(self, id: str) -> None:
        """Note that a session is used now."""
        with self._transaction() as db:
            db.execute("UPDATE sessions SET used = ? WHERE id = ?", [_not_before_any(db, now()), id])

    def delete(self, id: str) -> None:
        with self._transaction() as db:
            _empty(db, id)
            db.execute("DELETE FROM sessions WHERE id = ?", [id])

    def copy(self, id: str, row: SessionRecord) -> None:
        """Add a session with another one's log up to `row.position`, measurements included."""
        with self._transaction() as db:
            _insert(db, row)
            names = {"new": row.id, "old": id, "position": row.position}
            db.execute(
                "INSERT INTO log SELECT :new, number, edit, enabled FROM log "
                "WHERE session = :old AND number <= :position",
                names,
            )
            _copy_found(db, id, row.id)

    def branch(
        self, id: str, row: SessionRecord, log: Sequence[Entry], kept: int, findings: Iterable[Finding] = ()
    ) -> None:
        """Add a session with this log, whose first `kept` edits are another session's, their measurements included."""
        with self._transaction() as db:
            _insert(db, row)
            for number, entry in enumerate(log, 1):
                if number == kept + 1:
                    _copy_found(db, id, row.id)
                if not db.execute("SELECT 1 FROM edits WHERE id = ?", [entry.id]).fetchone():
                    _insert_edit(db, entry)
                db.execute("INSERT INTO log VALUES (?, ?, ?, ?)", [row.id, number, entry.id, entry.enabled])
            _learn(db, row.id, log, findings)

    # --- a session's log ---

    def entries(self, id: str, device: Any = "cpu") -> list[Entry]:
        """The log of a session, in order, with its deltas on a device."""
        rows = self._read(
            "SELECT made, delta, enabled FROM log JOIN edits ON edits.id = log.edit "
            "WHERE session = :id ORDER BY number",
            id=id,
        )
        return [
            Entry(edit_from_bytes(row["delta"], device), Made.from_json(json.loads(row["made"])), bool(row["enabled"]))
            for row in rows
        ]

    def append(
        self,
        id: str,
        log: Sequence[Entry],
        enabled: Mapping[int, bool],
        history: History,
        findings: Iterable[Finding] = (),
    ) -> None:
        """Make `log` the session's log, with no entry undone: the last entry is new, the others are already stored.

        `enabled`: of the numbers of those that are switched, whether each is on now.
        """
        new = log[-1]
        with self._transaction() as db:
            _change(db, id, {"position": len(log), "history": history}, enabled)
            _insert_edit(db, new)
            db.execute("INSERT INTO log VALUES (?, ?, ?, ?)", [id, len(log), new.id, new.enabled])
            _learn(db, id, log, findings)

    def change(self, id: str, enabled: Mapping[int, bool] | None = None, **columns: Any) -> None:
        """Change columns of a session (name, position, history, watched, plan), and switch entries of its log."""
        with self._transaction() as db:
            _change(db, id, columns, enabled or {})

    def history(self, id: str) -> History:
        """The actions on a session's log; none of a log that was stored before they were."""
        (row,) = self._read("SELECT history FROM sessions WHERE id = :id", id=id)
        return History.from_json(json.loads(row["history"]))

    def rename_model(self, id: str, fingerprint: str) -> None:
        """Store the model's fingerprint in this version's form; nothing else of the session changes."""
        with self._transaction() as db:
            db.execute("UPDATE sessions SET fingerprint = ? WHERE id = ?", [fingerprint, id])

    # --- measurements ---

    def findings(self, id: str) -> list[Finding]:
        """The findings on a session's states."""
        log = [row["edit"] for row in self._read("SELECT edit FROM log WHERE session = :id ORDER BY number", id=id)]
        places = {edit: place for place, edit in enumerate(log, 1)}
        rows = self._read("SELECT * FROM found WHERE session = :id", id=id)

        @functools.cache  # a state has many findings
        def ids(last: str, without: str) -> tuple[str, ...]:
            off = set(json.loads(without))
            return tuple(edit for edit in log[: places.get(last, 0)] if edit not in off)

        columns = ("step", "name", "setting", "about", "found")
        return [Finding(ids(row["edit"], row["without"]), *(row[name] for name in columns)) for row in rows]

    def learn(self, id: str, log: Sequence[Entry], findings: Iterable[Finding]) -> None:
        """Store findings on states of a session's log."""
        with self._transaction() as db:
            _change(db, id, {})
            _learn(db, id, log, findings)

    def unedited(self, fingerprint: str) -> list[Finding]:
        """The findings on an unedited model."""
        rows = self._read("SELECT * FROM unedited WHERE model = :model", model=fingerprint)
        return [Finding((), "", row["name"], row["setting"], "[]", row["found"]) for row in rows]

    # --- SQLite ---

    def _read(self, query: str, **values: Any) -> list[sqlite3.Row]:
        with self._lock, self._sentences():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._sentences():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise LabError(_sentence(error, self.path)) from error


def _sentence(error: Exception, path: str) -> str:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_FULL"):
        return "The disk that holds the sessions is full; nothing was changed."
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return (
            f"The sessions in {path} are in use by another process; only one lab at a time can have them. Stop "
            "that one, or name another file with EDITLAB_STORE."
        )
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return f"{path} holds no sessions that can be read ({error})."
    return f"The sessions could not be written or read ({error}); nothing was changed."


def now() -> str:
    return time_text(datetime.now(UTC))


def time_text(time: datetime) -> str:
    """A UTC time in ISO 8601; later times sort after earlier ones."""
    return time.isoformat(timespec="milliseconds")


def _insert(db: sqlite3.Connection, row: SessionRecord) -> None:
    values = {**row.values(), "used": _not_before_any(db, row.used)}
    db.execute(
        f"INSERT INTO sessions ({', '.join(values)}) VALUES ({', '.join(f':{name}' for name in values)})", values
    )


def _not_before_any(db: sqlite3.Connection, time: str) -> str:
    """`time`, or the latest use of any session: a clock set back must not let what is in use look long unused."""
    (latest,) = db.execute("SELECT max(used) FROM sessions").fetchone()
    return max(time, latest or "")


def _insert_edit(db: sqlite3.Connection, entry: Entry) -> None:
    made = json.dumps(entry.made.to_json(), allow_nan=False)
    db.execute("INSERT INTO edits VALUES (?, ?, ?)", [entry.id, made, edit_to_bytes(entry.edit)])


def _copy_found(db: sqlite3.Connection, old: str, new: str) -> None:
    """Copy the measurements of a session's states to another one, which has these edits and no others."""
    db.execute(
        "INSERT INTO found SELECT :new, edit, without, step, name, setting, about, found FROM found "
        "WHERE session = :old AND (edit = '' OR edit IN (SELECT edit FROM log WHERE session = :new)) "
        "AND (step = '' OR step IN (SELECT edit FROM log WHERE session = :new))",
        {"old": old, "new": new},
    )


def _change(
    db: sqlite3.Connection, id: str, columns: Mapping[str, Any], enabled: Mapping[int, bool] | None = None
) -> None:
    as_json = ("watched", "plan", "history")
    values = {name: json.dumps(plain(value)) if name in as_json else value for name, value in columns.items()}
    values["used"] = _not_before_any(db, now())
    setting = ", ".join(f"{name} = :{name}" for name in values)
    if not db.execute(f"UPDATE sessions SET {setting} WHERE id = :id", {**values, "id": id}).rowcount:
        raise UnknownSession("This session was deleted.")
    for number, on in (enabled or {}).items():
        db.execute("UPDATE log SET enabled = ? WHERE session = ? AND number = ?", [on, id, number])


def _learn(db: sqlite3.Connection, id: str, log: Sequence[Entry], findings: Iterable[Finding]) -> None:
    """Store findings on edits of this log; a state is named by its last edit and by the earlier edits that are off."""
    places = {entry.id: place for place, entry in enumerate(log)}
    for finding in findings:
        if any(edit not in places for edit in (*finding.ids, *filter(None, [finding.step]))):
            continue
        last = finding.ids[-1] if finding.ids else ""
        on, before = set(finding.ids), log[: places[last]] if last else ()
        off = json.dumps([entry.id for entry in before if entry.id not in on])
        measure = (finding.name, finding.setting)
        if last or finding.about != "[]":
            row = [id, last, off, finding.step, *measure, finding.about, finding.found]
            db.execute("INSERT OR REPLACE INTO found VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        else:
            db.execute(
                "INSERT OR REPLACE INTO unedited SELECT fingerprint, ?, ?, ? FROM sessions WHERE id = ?",
                [*measure, finding.found, id],
            )


def _empty(db: sqlite3.Connection, id: str) -> None:
    """Remove all entries from a session's log, and from the store if no other session has them."""
    dropped = db.execute("DELETE FROM log WHERE session = ? RETURNING edit", [id]).fetchall()
    for (edit,) in dropped:
        db.execute("DELETE FROM edits WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM log WHERE edit = ?1)", [edit])
