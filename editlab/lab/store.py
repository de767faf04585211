"""Sessions on disk, in SQLite or PostgreSQL: each change is one transaction, on disk before the call returns.

A kill loses only unwritten changes; deltas are read back to the last bit. Keys are kept as their SHA-256, so a copy of
the store opens no session. The store itself controls no access.
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

from editlab.core.errors import UnknownSession
from editlab.core.facts import Fact
from editlab.core.record import plain
from editlab.lab.database import Row, Run, connect
from editlab.lab.schema import MIGRATIONS
from editlab.model.deltas import edit_from_bytes, edit_to_bytes
from editlab.session.actions import History
from editlab.session.log import Entry, Made
from editlab.session.measurements import Finding

FORGET = """DELETE FROM found WHERE session = :id AND edit = :edit AND without = :off AND step = :step
    AND name = :name AND about = :about"""
DELETED = "This session was deleted."
END = "DELETE FROM begun WHERE edit = :edit"
LEARN_UNEDITED = """INSERT INTO unedited SELECT fingerprint, :name, :setting, :found FROM sessions WHERE id = :id
    ON CONFLICT (model, name, setting) DO UPDATE SET found = excluded.found"""


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
    version: int = 0  # one more after each change of the session, its log or its measurements
    class_of: str | None = None  # id of the class's session that it belongs to, or its own where it is that session
    invite: str | None = None  # SHA-256 of the key with which to join its class
    teacher: str | None = None  # SHA-256 of the key that only reads, of its class's teacher
    lesson: str = ""

    def values(self) -> dict[str, Any]:
        texts = {"watched": json.dumps(self.watched), "plan": json.dumps(self.plan)}
        return {**vars(self), **texts, "temporary": int(self.temporary)}

    @classmethod
    def of(cls, row: Row) -> Self:
        read = {"watched": tuple(json.loads(row["watched"])), "plan": json.loads(row["plan"])}
        values = {name: value for name, value in dict(row).items() if name != "history"}
        return cls(**{**values, **read, "temporary": bool(row["temporary"])})


@dataclass(frozen=True)
class Begun:
    """An edit that was asked for and has not ended."""

    facts: tuple[Fact, ...]
    method: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


class Store:
    """Sessions, their logs, measurements and edits under way: in a SQLite file, in memory, or in PostgreSQL.

    Any thread may call the store. Only one process at a time may open a file; a PostgreSQL database is shared by all
    processes that name its URL, and a process that changes a session's log claims the session first. Raises LabError
    for a store that cannot be reached, is in use, is not editlab's, or cannot be written; nothing was changed then.
    """

    def __init__(self, place: str | Path = ":memory:") -> None:
        """`place`: a file, or postgresql://USER:PASSWORD@HOST:PORT/DATABASE."""
        self.place = str(place)
        self._database = connect(self.place)
        self.close = self._database.close
        self.claim, self.release = self._database.claim, self._database.release
        self._read, self._transaction = self._database.read, self._database.transaction
        self._database.migrate(MIGRATIONS)

    # --- sessions ---

    def add(self, row: SessionRecord) -> None:
        with self._transaction() as run:
            _insert(run, row)

    def find(self, digest: str) -> SessionRecord | None:
        """The session that a key of this SHA-256 opens."""
        query = "SELECT * FROM sessions WHERE key = :digest OR follow = :digest OR teacher = :digest"
        return self._one(query, digest=digest)

    def find_class(self, digest: str) -> SessionRecord | None:
        """The session of the class that one joins with the key of this SHA-256."""
        return self._one("SELECT * FROM sessions WHERE invite = :digest", digest=digest)

    def by_id(self, id: str) -> SessionRecord | None:
        return self._one("SELECT * FROM sessions WHERE id = :id", id=id)

    def members(self, id: str) -> list[SessionRecord]:
        """The sessions that belong to the class of a session, the oldest first."""
        query = "SELECT * FROM sessions WHERE class_of = :id AND id <> :id ORDER BY created, id"
        return [SessionRecord.of(row) for row in self._read(query, id=id)]

    def admit_teacher(self, digests: Mapping[str, str]) -> None:
        """Let keys of these SHA-256s, by the sessions' ids, read the sessions."""
        with self._transaction() as run:
            for id, digest in digests.items():
                run("UPDATE sessions SET teacher = :digest WHERE id = :id", digest=digest, id=id)

    def count(self) -> int:
        return int(self._read("SELECT count(*) AS n FROM sessions")[0]["n"])

    def length(self, id: str) -> int:
        """The number of edits in a session's log."""
        return int(self._read("SELECT count(*) AS n FROM log WHERE session = :id", id=id)[0]["n"])

    def unused_since(self, time: str, empty: str, temporary: str) -> list[str]:
        """Ids of the sessions last used before `time`.

        Temporary ones: before `temporary`; those with neither an edit nor a name nor a class: before `empty`.
        """
        query = """SELECT id FROM sessions WHERE used < :time OR used < :temporary AND temporary = 1
            OR used < :empty AND name = '' AND invite IS NULL
                AND NOT EXISTS (SELECT 1 FROM log WHERE session = sessions.id)"""
        return [row["id"] for row in self._read(query, time=time, empty=empty, temporary=temporary)]

    def least_missed(self, time: str, bare: str) -> str | None:
        """Id of the session to delete where a new one needs room, the least lately used of its kind; None without any.

        First come sessions that are temporary or have neither an edit nor a name, then others without an edit of their
        own, such as a copy that nothing was done in; they must have been used last before `bare`. All others, and those
        of classes, come last, if before `time`.
        """
        query = """SELECT id FROM (
                SELECT id, used, CASE
                    WHEN invite IS NOT NULL THEN 0
                    WHEN temporary = 1 OR last.edit IS NULL AND name = '' THEN 2
                    WHEN last.edit IS NULL OR branch_of IS NOT NULL
                        AND EXISTS (SELECT 1 FROM log WHERE edit = last.edit AND session <> sessions.id) THEN 1
                    ELSE 0 END AS bareness
                FROM sessions LEFT JOIN log AS last ON last.session = id
                    AND last.number = (SELECT max(number) FROM log WHERE session = sessions.id)
            ) AS candidates
            WHERE used < CASE WHEN bareness > 0 THEN :bare ELSE :time END ORDER BY bareness DESC, used LIMIT 1"""
        found = self._read(query, time=time, bare=bare)
        return found[0]["id"] if found else None

    def renew(self, id: str) -> None:
        """Note that a session is used now."""
        with self._transaction() as run:
            run("UPDATE sessions SET used = :used WHERE id = :id", used=_not_before_any(run, now()), id=id)

    def delete(self, id: str) -> None:
        """Delete a session. If it was a class's, those who joined keep their sessions, in no class."""
        with self._transaction() as run:
            _empty(run, id)
            run("UPDATE sessions SET class_of = NULL, teacher = NULL WHERE class_of = :id AND id <> :id", id=id)
            run("DELETE FROM sessions WHERE id = :id", id=id)

    def copy(self, id: str, row: SessionRecord) -> None:
        """Add a session with another one's log up to `row.position`, measurements included."""
        with self._transaction() as run:
            _insert(run, row)
            run(
                "INSERT INTO log SELECT :new, number, edit, enabled FROM log "
                "WHERE session = :old AND number <= :position",
                new=row.id,
                old=id,
                position=row.position,
            )
            _copy_found(run, id, row.id, self._database.in_order)

    def branch(
        self, id: str, row: SessionRecord, log: Sequence[Entry], kept: int, findings: Iterable[Finding] = ()
    ) -> None:
        """Add a session with this log, whose first `kept` edits are another session's, their measurements included."""
        with self._transaction() as run:
            _insert(run, row)
            for number, entry in enumerate(log, 1):
                if number == kept + 1:
                    _copy_found(run, id, row.id, self._database.in_order)
                if not run("SELECT 1 FROM edits WHERE id = :id", id=entry.id):
                    _insert_edit(run, entry)
                _insert_entry(run, row.id, number, entry)
            _learn(run, row.id, log, findings)

    # --- a session's log ---

    def entries(self, id: str, known: Sequence[Entry] = ()) -> list[Entry]:
        """The log of a session, in order.

        Entries of the log that `known` has at the same place are not read again.
        """
        rows = self._read("SELECT edit, enabled FROM log WHERE session = :id ORDER BY number", id=id)
        same = list(takewhile(lambda pair: pair[0].id == pair[1]["edit"], zip(known, rows, strict=False)))
        entries = [_switched(entry, bool(row["enabled"])) for entry, row in same]
        query = """SELECT made, delta, enabled FROM log JOIN edits ON edits.id = log.edit
            WHERE session = :id AND number > :known ORDER BY number"""
        for row in self._read(query, id=id, known=len(same)) if len(same) < len(rows) else ():
            made = Made.from_json(json.loads(row["made"]))
            entries.append(Entry(edit_from_bytes(row["delta"]), made, bool(row["enabled"])))
        return entries

    def append(
        self,
        id: str,
        log: Sequence[Entry],
        enabled: Mapping[int, bool],
        history: History,
        findings: Iterable[Finding] = (),
        begun: str = "",
    ) -> int:
        """Make `log` the session's log, with no entry undone: the last entry is new, the others are already stored.

        `enabled`: of the numbers of those that are switched, whether each is on now. The edit `begun` is not under way
        any more. Returns the session's version.
        """
        new = log[-1]
        with self._transaction() as run:
            run(END, edit=begun)
            version = _change(run, id, {"position": len(log), "history": history}, enabled)
            _insert_edit(run, new)
            _insert_entry(run, id, len(log), new)
            _learn(run, id, log, findings)
        return version

    def change(self, id: str, enabled: Mapping[int, bool] | None = None, **columns: Any) -> int:
        """Change columns of a session, such as its name or its position, and switch entries of its log.

        Returns the session's version.
        """
        with self._transaction() as run:
            return _change(run, id, columns, enabled or {})

    def history(self, id: str) -> History:
        """The actions on a session's log; none of a log that was stored before they were."""
        (row,) = self._read("SELECT history FROM sessions WHERE id = :id", id=id)
        return History.from_json(json.loads(row["history"]))

    def rename_model(self, id: str, fingerprint: str) -> None:
        """Store the model's fingerprint in this version's form; nothing else of the session changes."""
        with self._transaction() as run:
            run("UPDATE sessions SET fingerprint = :fingerprint WHERE id = :id", fingerprint=fingerprint, id=id)

    # --- edits that were begun ---

    def begin(self, id: str, edit: Begun, lost: Iterable[str] = ()) -> None:
        """Store that an edit of a session was begun, instead of these that were lost. Raises UnknownSession."""
        facts = json.dumps([fact.to_json() for fact in edit.facts])
        with self._transaction() as run:
            if not run("SELECT 1 FROM sessions WHERE id = :id", id=id):
                raise UnknownSession(DELETED)
            for other in lost:
                run(END, edit=other)
            values = {"edit": edit.id, "id": id, "facts": facts, "method": edit.method}
            run("INSERT INTO begun VALUES (:edit, :id, :facts, :method)", **values)

    def end(self, edit: str) -> None:
        """Store that an edit that was begun has ended."""
        with self._transaction() as run:
            run(END, edit=edit)

    def begun(self, id: str) -> list[Begun]:
        """The edits of a session that were begun and have not ended."""
        rows = self._read("SELECT edit, facts, method FROM begun WHERE session = :id", id=id)
        return [Begun(tuple(map(Fact.from_json, json.loads(row["facts"]))), row["method"], row["edit"]) for row in rows]

    # --- measurements ---

    def findings(self, id: str) -> list[Finding]:
        """The findings on a session's states, in the order in which they were stored."""
        log = [row["edit"] for row in self._read("SELECT edit FROM log WHERE session = :id ORDER BY number", id=id)]
        places = {edit: place for place, edit in enumerate(log, 1)}
        rows = self._read(f"SELECT * FROM found WHERE session = :id ORDER BY {self._database.in_order}", id=id)

        @functools.cache  # a state has many findings
        def ids(last: str, without: str) -> tuple[str, ...]:
            off = set(json.loads(without))
            return tuple(edit for edit in log[: places.get(last, 0)] if edit not in off)

        columns = ("step", "name", "setting", "about", "found")
        return [Finding(ids(row["edit"], row["without"]), *(row[name] for name in columns)) for row in rows]

    def learn(self, id: str, log: Sequence[Entry], findings: Iterable[Finding]) -> int:
        """Store findings on states of a session's log. Returns the session's version."""
        with self._transaction() as run:
            version = _change(run, id, {})
            _learn(run, id, log, findings)
        return version

    def unedited(self, fingerprint: str) -> list[Finding]:
        """The findings on an unedited model."""
        rows = self._read("SELECT * FROM unedited WHERE model = :model", model=fingerprint)
        return [Finding((), "", row["name"], row["setting"], "[]", row["found"]) for row in rows]

    def _one(self, query: str, **values: str) -> SessionRecord | None:
        found = self._read(query, **values)
        return SessionRecord.of(found[0]) if found else None


def now() -> str:
    return time_text(datetime.now(UTC))


def time_text(time: datetime) -> str:
    """A UTC time in ISO 8601; later times sort after earlier ones."""
    return time.isoformat(timespec="milliseconds")


def _insert(run: Run, row: SessionRecord) -> None:
    values = {**row.values(), "used": _not_before_any(run, row.used)}
    names = ", ".join(f":{name}" for name in values)
    run(f"INSERT INTO sessions ({', '.join(values)}) VALUES ({names})", **values)


def _not_before_any(run: Run, time: str) -> str:
    """`time`, or the latest use of any session: a clock set back must not let what is in use look long unused."""
    (row,) = run("SELECT max(used) AS latest FROM sessions")
    return max(time, row["latest"] or "")


def _insert_edit(run: Run, entry: Entry) -> None:
    made = json.dumps(entry.made.to_json(), allow_nan=False)
    run("INSERT INTO edits VALUES (:id, :made, :delta)", id=entry.id, made=made, delta=edit_to_bytes(entry.edit))


def _insert_entry(run: Run, id: str, number: int, entry: Entry) -> None:
    values = {"id": id, "number": number, "edit": entry.id, "enabled": int(entry.enabled)}
    run("INSERT INTO log VALUES (:id, :number, :edit, :enabled)", **values)


def _switched(entry: Entry, on: bool) -> Entry:
    return entry if entry.enabled == on else replace(entry, enabled=on)


def _copy_found(run: Run, old: str, new: str, in_order: str) -> None:
    """Copy the measurements of a session's states to another one, which has these edits and no others."""
    run(
        "INSERT INTO found SELECT :new, edit, without, step, name, setting, about, found FROM found "
        "WHERE session = :old AND (edit = '' OR edit IN (SELECT edit FROM log WHERE session = :new)) "
        f"AND (step = '' OR step IN (SELECT edit FROM log WHERE session = :new)) ORDER BY {in_order}",
        old=old,
        new=new,
    )


def _change(run: Run, id: str, columns: Mapping[str, Any], enabled: Mapping[int, bool] | None = None) -> int:
    """Change columns of a session, and switch entries of its log. Returns the session's new version."""
    as_json = ("watched", "plan", "history")
    values = {name: json.dumps(plain(value)) if name in as_json else value for name, value in columns.items()}
    values["used"] = _not_before_any(run, now())
    setting = ", ".join(f"{name} = :{name}" for name in values)
    rows = run(
        f"UPDATE sessions SET {setting}, version = version + 1 WHERE id = :id RETURNING version", **values, id=id
    )
    if not rows:
        raise UnknownSession(DELETED)
    for number, on in (enabled or {}).items():
        statement = "UPDATE log SET enabled = :on WHERE session = :id AND number = :number"
        run(statement, on=int(on), id=id, number=number)
    return int(rows[0]["version"])


def _learn(run: Run, id: str, log: Sequence[Entry], findings: Iterable[Finding]) -> None:
    """Store findings on edits of this log; a state is named by its last edit and by the earlier edits that are off."""
    places = {entry.id: place for place, entry in enumerate(log)}
    for finding in findings:
        if any(edit not in places for edit in (*finding.ids, *filter(None, [finding.step]))):
            continue
        last = finding.ids[-1] if finding.ids else ""
        on, before = set(finding.ids), log[: places[last]] if last else ()
        off = json.dumps([entry.id for entry in before if entry.id not in on])
        measure = {"id": id, "name": finding.name, "setting": finding.setting}
        if last or finding.about != "[]":
            key = {"edit": last, "off": off, "step": finding.step, "about": finding.about, "found": finding.found}
            run(FORGET, **measure, **key)
            run("INSERT INTO found VALUES (:id, :edit, :off, :step, :name, :setting, :about, :found)", **measure, **key)
        else:
            run(LEARN_UNEDITED, **measure, found=finding.found)


def _empty(run: Run, id: str) -> None:
    """Remove all entries from a session's log, and from the store if no other session has them."""
    dropped = run("DELETE FROM log WHERE session = :id RETURNING edit", id=id)
    for row in dropped:
        run(
            "DELETE FROM edits WHERE id = :edit AND NOT EXISTS (SELECT 1 FROM log WHERE log.edit = :edit)",
            edit=row["edit"],
        )
