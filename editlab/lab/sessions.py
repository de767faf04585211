"""The sessions of one lab: opened by keys, read from the store on use, written to the store before they change.

Only this module decides what a key allows. Other processes may share the store: what they change is read again, and a
session's log changes only while the session is claimed.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import secrets
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from weakref import WeakValueDictionary

from editlab.core.errors import Busy, LabError, LimitReached, ReadOnly, UnknownSession
from editlab.core.info import Classroom, Member, SessionInfo
from editlab.core.progress import WAITING
from editlab.core.records import EditReport, SessionState
from editlab.editing.editor import Editor
from editlab.lab.limits import Limits
from editlab.lab.store import Begun, SessionRecord, Store, now, time_text
from editlab.measures import Measures
from editlab.session.actions import History
from editlab.session.log import Entry
from editlab.session.session import Session

log = logging.getLogger(__name__)

COMPLETIONS_KEPT = 1_000  # groups of prompts whose completions are kept, per state of the weights
OBJECTS_KEPT = 200_000  # objects whose probabilities in the unedited model are kept
PIECES_KEPT = 20_000  # intermediate results on the unedited model
KEY_BYTES = 24  # of randomness
DAYS_BARE = 1 / 24  # without use, after which a session without an edit of its own makes room if the lab is full
DAYS_TEMPORARY = 1 / 24  # without use, after which a temporary session is deleted
DAYS_RENEWED = 1 / 48  # from one note that a session is being read to the next
LOST = "The server stopped before this edit was made."
READERS = 64  # sessions that can be read from the store at once


def follow_key(key: str) -> str:
    """The key that only follows the session of this key; the editing key cannot be derived from it."""
    return _derived("follow", key)


def join_key(key: str) -> str:
    """The key with which to join the class of this key's session; it opens no session."""
    return _derived("join", key)


def teacher_key(key: str, id: str) -> str:
    """The key with which the teacher, who has the key of the class's session, reads the session of this id."""
    return _derived("teacher", f"{key} {id}")


def _derived(what: str, key: str) -> str:
    return hashlib.sha256(f"{what} {key}".encode()).hexdigest()[:32]


def digest(key: str) -> str:
    """The form in which the store keeps a key."""
    return hashlib.sha256(key.encode()).hexdigest()


class Sessions:
    """Sessions over one editor. Those used last are in memory, one object each.

    Raises UnknownSession for an unknown key, ReadOnly for a key that does not edit, LabError for a session of another
    model, and whatever the store raises.
    """

    def __init__(self, store: Store, editor: Editor, measures: Measures, limits: Limits) -> None:
        self.limits = limits
        self._store, self._editor, self._measures = store, editor, measures
        self._lock = threading.RLock()  # of what is kept here, never while a session or the store is read or written
        self._reading = [threading.Lock() for _ in range(READERS)]
        self._recent: OrderedDict[str, Session] = OrderedDict()
        self._alive: WeakValueDictionary[str, Session] = WeakValueDictionary()  # recent, or used by a job
        self._revisions: dict[str, int] = {}
        self._states: dict[str, SessionState] = {}  # cached until the next revision
        self._versions: dict[str, int] = {}  # of the stored sessions, as far as they are known here
        self._verdicts: dict[str, tuple[int, str | None]] = {}  # of classes' sessions: version and health
        self._begun: set[str] = set()  # ids of the edits that are under way in this process
        self._making = threading.Lock()
        self._most_of_base = COMPLETIONS_KEPT
        self._next_revision = itertools.count(time.time_ns())  # always above the revisions before a restart

    # --- keys ---

    def create(self, name: str) -> str:
        key = _new_key()
        with self._room_for_one():
            self._store.add(self._row(key, name))
        return key

    def about(self, key: str) -> SessionInfo:
        return self._info(key, self._find(key))

    def id_of(self, key: str, editing: bool = False) -> str:
        return self._find(key, editing).id

    def those_of(self, keys: Iterable[str]) -> list[SessionInfo]:
        rows = [(key, self._store.find(digest(key))) for key in keys]
        return [self._info(key, row) for key, row in rows if row is not None and not self._expired(row)]

    def rename(self, key: str, name: str) -> SessionInfo:
        id = self._find(key, editing=True).id
        with self._storing(id) as stored:
            stored(self._store.change(id, name=name))
        return self.about(key)

    def duplicate(self, key: str, index: int | None, name: str, temporary: bool = False) -> str:
        """Key of a copy up to step `index`. Raises ValueError if there is no such step."""
        row = self._find(key)
        length = self._store.length(row.id)
        index = row.position if index is None else index
        if not 0 <= index <= length:
            raise ValueError(f"step must be between 0 and {length}, got {index}")
        copied = _new_key()
        own = row.key == digest(key) and not temporary
        new = self._copy(row, copied, name or f"{row.name} (copy of edit {index})", index, own)
        with self._room_for_one():
            self._store.copy(row.id, replace(new, temporary=temporary))
        return copied

    def branch(self, key: str, made: Session, index: int, name: str) -> str:
        """Key of a new session with the log of `made`, which up to step `index` is that of the session of `key`."""
        row, branched = self._find(key, editing=True), _new_key()
        new = self._copy(row, branched, name or f"{row.name} (edits after {index} made again)", len(made.log), own=True)
        with self._room_for_one():
            self._store.branch(row.id, new, made.log, index, made.measurements.unsaved)
        return branched

    def check_room(self) -> None:
        """Raises LimitReached if no further session can be stored."""
        with self._making:
            self._least_missed()

    def delete(self, key: str) -> str:
        """Delete the session of a key. Returns its id."""
        row = self._find(key, editing=True)
        self._forget(row.id)
        return row.id

    def expire(self) -> None:
        """Delete the sessions that have not been used for too long."""
        limits = self.limits
        for id in self._store.unused_since(_ago(limits.days), _ago(limits.days_empty), _ago(DAYS_TEMPORARY)):
            self._forget(id)

    # --- classes ---

    def open_class(self, key: str) -> Classroom:
        """Let others join the class of a session. Raises LabError for a session that belongs to another one's class."""
        row = self._find(key, editing=True)
        if row.class_of not in (None, row.id):
            raise LabError("This session belongs to a class already: start another class in a session of your own.")
        if row.class_of is None:
            with self._storing(row.id) as stored:
                stored(self._store.change(row.id, class_of=row.id, invite=digest(join_key(key))))
        return self._classroom(key, row.id)

    def classroom(self, key: str) -> Classroom | None:
        """The class of a session; None if nobody can join it."""
        row = self._find(key, editing=True)
        return self._classroom(key, row.id) if row.class_of == row.id else None

    def invitation(self, key: str) -> str:
        """The name of the class that one joins with this key."""
        return self._class(key).name

    def join(self, key: str, name: str) -> str:
        """The key of a new session in the class that one joins with this key."""
        of, joined = self._class(key), _new_key()
        with self._room_for_one():
            self._store.add(replace(self._row(joined, name), class_of=of.id))
        return joined

    def at_lesson(self, key: str, lesson: str) -> SessionInfo:
        """Note where the visitor of a session is in the guided tour."""
        id = self._find(key, editing=True).id
        with self._storing(id) as stored:
            stored(self._store.change(id, lesson=lesson))
        return self.about(key)

    def _class(self, key: str) -> SessionRecord:
        """The session of the class that one joins with a key. Raises UnknownSession."""
        row = self._store.find_class(digest(key))
        if row is None or self._expired(row):
            raise UnknownSession("There is no such class: it was deleted, has expired, or never was.")
        self._renew(row)
        return row

    def _classroom(self, key: str, id: str) -> Classroom:
        rows = [row for row in self._store.members(id) if not self._expired(row)]
        keys = {row.id: teacher_key(key, row.id) for row in rows}
        if new := {row.id: digest(keys[row.id]) for row in rows if row.teacher is None}:
            self._store.admit_teacher(new)
        members = tuple(Member(self._info(keys[row.id], row), self._health(row)) for row in rows)
        return Classroom(join_key(key), members)

    def _health(self, row: SessionRecord) -> str | None:
        """The status of a session's health, judged anew only after a change; None for a session of another model."""
        version, health = self._verdicts.get(row.id, (-1, None))
        if version != row.version:
            health = None
            with suppress(LabError):
                judged = self.state(self._opened(row)).health
                health = judged.status if judged else None
            self._verdicts[row.id] = row.version, health
        return health

    # --- sessions ---

    def open(self, key: str, editing: bool = False) -> Session:
        """The session of a key; every caller gets the same object."""
        return self._opened(self._find(key, editing))

    def _opened(self, row: SessionRecord) -> Session:
        if not self._editor.model.is_named(row.fingerprint):
            raise LabError(f"This session is of {row.model}; this lab runs {self._editor.model.name}.")
        if row.fingerprint != self._fingerprint:
            self._store.rename_model(row.id, self._fingerprint)
        with self._reader(row.id):  # a long session takes a second: others do not wait
            session = self._alive.get(row.id)
            if session is None:
                session = self._read(row)
            elif row.version != self._versions.get(row.id):
                self._refresh(session)
            with self._lock:
                self._alive[row.id] = self._recent[row.id] = session
                self._recent.move_to_end(row.id)
                while len(self._recent) > self.limits.sessions_in_memory:
                    self._states.pop(self._recent.popitem(last=False)[0], None)
        return session

    def forget_unused(self) -> None:
        """Drop all sessions that are not in use from memory."""
        with self._lock:
            self._recent.clear()
            self._states.clear()

    def forget_previews(self, session: Session) -> None:
        """Drop completions of prompts that belong to no step (previews), once there are many.

        A session that is not in memory reads the completions of its own steps from the store when it is opened.
        """
        base = self._measures.base
        session.measurements.keep((entry.id for entry in session.log), session.all_watched, COMPLETIONS_KEPT)
        with self._lock:
            if len(base.completions) > self._most_of_base:
                base.keep(chain.from_iterable(one.all_watched() for one in list(self._alive.values())))
                self._most_of_base = max(COMPLETIONS_KEPT, 2 * len(base.completions))
        if len(base.objects) > OBJECTS_KEPT:
            base.objects.clear()  # no step shows them
        if len(base.pieces) > PIECES_KEPT:
            base.pieces.clear()

    def state(self, session: Session) -> SessionState:
        """A session's state, cached until its revision changes. Only callers of this session wait for each other."""
        with self._lock:
            cached, revision = self._states.get(session.id), self._revisions.get(session.id)
        if cached is not None:
            return cached
        state = session.state()
        with self._lock:
            if self._alive.get(session.id) is session and self._revisions.get(session.id) == revision:
                self._states[session.id] = state
        return state

    def revision(self, key: str) -> int:
        row = self._find(key)
        if row.version != self._versions.get(row.id):
            with self._reader(row.id):
                self._refresh(self._alive.get(row.id) or row.id)
        with self._lock:
            return self._revisions.get(row.id) or self._revise(row.id)

    def claim(self, session: Session) -> None:
        """Keep other processes from changing this session's log until `release`, and take over what they changed.

        Raises Busy while another process has claimed the session.
        """
        if not self._store.claim(session.id):
            raise Busy("This session is being edited at another server: wait for the edit, or cancel it there.")
        try:
            with self._reader(session.id):
                self._refresh(session)
        except BaseException:
            self.release(session)
            raise

    def release(self, session: Session) -> None:
        """Give up a claim."""
        self._store.release(session.id)

    def begin(self, session: Session, edit: Begun) -> None:
        """Store that an edit was begun, so that it can be told if it ends with this process; the session is claimed."""
        self._store.begin(session.id, edit, [other.id for other in self._lost(session.id)])
        self._begun.add(edit.id)

    def end(self, edit: Begun) -> None:
        """Store that an edit has ended without being made; one that was made has ended already."""
        if edit.id in self._begun:
            self._begun.remove(edit.id)
            with suppress(LabError):  # it is told as lost then, which it is
                self._store.end(edit.id)

    def lost(self, key: str) -> EditReport | None:
        """The last edit of a session that ended with its process; None without one."""
        id = self._find(key).id
        lost = self._lost(id)
        if not lost or not self._store.claim(id):  # it is under way in another process
            return None
        self._store.release(id)
        return EditReport(lost[-1].facts, lost[-1].method, "failed", WAITING, error=LOST)

    def _lost(self, id: str) -> list[Begun]:
        return [edit for edit in self._store.begun(id) if edit.id not in self._begun]

    @contextmanager
    def changing(self, session: Session, *fields: str) -> Iterator[None]:
        """Store the block's change of these fields of a session, or undo the change if it cannot be stored."""
        with self._storing(session.id) as stored, session.lock:
            before = {field: getattr(session, field) for field in fields}
            try:
                yield
                now = {field: getattr(session, field) for field in fields}
                if "log" in fields:
                    now["enabled"] = _switched(before["log"], now.pop("log"))
                stored(self._store.change(session.id, **now))
            except BaseException:
                for field, value in before.items():
                    setattr(session, field, value)
                raise
        self.changed(session)

    def append(self, session: Session, edit: Begun, log: Sequence[Entry], history: History) -> None:
        """Store a log that is longer by the edit that was begun, with its history and its measurements."""
        switched = _switched(session.log, log[:-1])
        with self._storing(session.id) as stored:
            stored(self._store.append(session.id, log, switched, history, session.measurements.unsaved, edit.id))
        self._begun.discard(edit.id)
        session.measurements.unsaved.clear()

    def keep_findings(self, session: Session) -> None:
        """Store the measurements since the last call, unless the session was deleted."""
        if session.measurements.unsaved and self._alive.get(session.id) is session:
            with self._storing(session.id) as stored:
                stored(self._store.learn(session.id, session.log, session.measurements.unsaved))
            session.measurements.unsaved.clear()
            self.changed(session)

    def changed(self, session: Session) -> None:
        """Give the session a new revision, because its state has changed."""
        with self._lock:
            self._revise(session.id)

    @property
    def in_memory(self) -> int:
        """The number of sessions in memory."""
        return len(self._alive)

    # --- internals ---

    @property
    def _fingerprint(self) -> str:
        return self._editor.model.fingerprint()

    def _find(self, key: str, editing: bool = False) -> SessionRecord:
        opened_by = digest(key)
        row = self._store.find(opened_by)
        if row is None or self._expired(row):
            raise UnknownSession("There is no such session: it was deleted, has expired, or never was.")
        if editing and row.key != opened_by:
            raise ReadOnly("This link only follows the session; make a copy of it to edit.")
        if row.teacher != opened_by:  # a class tells when its members used their sessions
            self._renew(row)
        return row

    def _renew(self, row: SessionRecord) -> None:
        """Note from time to time that a session is read."""
        if row.used < _ago(DAYS_RENEWED):
            with suppress(LabError):  # a store that cannot be written can still be read
                self._store.renew(row.id)

    def _expired(self, row: SessionRecord) -> bool:
        return row.used < _ago(DAYS_TEMPORARY if row.temporary else self.limits.days)

    @contextmanager
    def _room_for_one(self) -> Iterator[None]:
        """Make room for the session that the block stores. Raises LimitReached."""
        with self._making:
            least = self._least_missed()
            if least is not None:
                log.info("a session made room for another")
                self._forget(least)
            yield

    def _least_missed(self) -> str | None:
        """Id of the session to delete for a new one; None while there is room. Raises LimitReached."""
        self.expire()
        if self._store.count() < self.limits.sessions:
            return None
        least = self._store.least_missed(
            _ago(min(self.limits.days_crowded, self.limits.days)),
            _ago(min(DAYS_BARE, self.limits.days_empty)),
        )
        if least is None:
            raise LimitReached(
                f"This lab keeps {self.limits.sessions} sessions and has them all, each used within the last "
                f"{self.limits.days_crowded:g} days: delete one first."
            )
        return least

    def _copy(self, row: SessionRecord, key: str, name: str, position: int, own: bool) -> SessionRecord:
        """A new session's row, with the settings of another session; one's `own` copy stays in the class."""
        class_of = row.class_of if own and row.class_of != row.id else None
        return replace(
            self._row(key, name.strip()), position=position, watched=row.watched, plan=row.plan, branch_of=row.id,
            model=row.model, fingerprint=row.fingerprint, class_of=class_of,
        )  # fmt: skip

    def _row(self, key: str, name: str) -> SessionRecord:
        id, time = uuid.uuid4().hex, now()
        model, plan = self._editor.model.name, self._measures.default_plan()
        keys = digest(key), digest(follow_key(key))
        return SessionRecord(id, *keys, name, time, time, model, self._fingerprint, plan=plan)

    def _info(self, key: str, row: SessionRecord) -> SessionInfo:
        may_edit = row.key == digest(key)
        follow = follow_key(key) if may_edit else key
        edits = self._store.length(row.id)
        return SessionInfo(
            row.id, row.name, row.created, row.used, edits, row.model, may_edit, follow, row.branch_of, row.class_of,
            row.lesson,
        )  # fmt: skip

    def _reader(self, id: str) -> threading.Lock:
        """Held while a session is read from the store or written to it; taken before the session's own lock."""
        return self._reading[hash(id) % len(self._reading)]

    def _read(self, row: SessionRecord) -> Session:
        session = Session(self._editor, self._measures, id=row.id)
        self._fill(session, row)
        self._versions[row.id] = row.version
        return session

    def _fill(self, session: Session, row: SessionRecord) -> None:
        """Make a session what the store holds."""
        entries = self._store.entries(row.id, session.log)
        findings = [*self._store.unedited(self._fingerprint), *self._store.findings(row.id)]
        history = self._store.history(row.id)
        with session.lock:
            session.restore(entries, row.position)
            session.history = history
            session.watched = row.watched
            session.plan = {name: every for name, every in (row.plan or {}).items() if name in self._measures.by_name}
            session.measurements.load(findings)

    def _refresh(self, session: Session | str) -> None:
        """Take over what another process has changed in a session, in memory or not, since it was last read here."""
        id = session if isinstance(session, str) else session.id
        row = self._store.by_id(id)  # again: this process may have written since
        if row is not None and row.version != self._versions.get(id):
            if isinstance(session, Session):
                self._fill(session, row)
            self._versions[id] = row.version
            with self._lock:
                self._revise(id)

    @contextmanager
    def _storing(self, id: str) -> Iterator[Callable[[int], None]]:
        """Within the block, a session is written. The function given takes the version that it has then.

        If another process wrote in between, the version is not taken over, and the session is read again on its next
        use.
        """

        def stored(version: int) -> None:
            if self._versions.get(id) == version - 1:
                self._versions[id] = version

        with self._reader(id):
            yield stored

    def _forget(self, id: str) -> None:
        with self._lock:
            self._store.delete(id)
            self._recent.pop(id, None)
            self._alive.pop(id, None)
            for kept in (self._states, self._revisions, self._versions, self._verdicts):
                kept.pop(id, None)

    def _revise(self, id: str) -> int:
        self._states.pop(id, None)
        self._revisions[id] = next(self._next_revision)
        return self._revisions[id]


def _new_key() -> str:
    return secrets.token_urlsafe(KEY_BYTES)


def _ago(days: float) -> str:
    return time_text(datetime.now(UTC) - timedelta(days=days))


def _switched(before: Sequence[Entry], now: Sequence[Entry]) -> dict[int, bool]:
    """Of the numbers of entries that were switched, whether each is on now."""
    pairs = enumerate(zip(before, now, strict=True), 1)
    return {number: new.enabled for number, (old, new) in pairs if new.enabled != old.enabled}
