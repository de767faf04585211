"""The databases that a store can be in: a SQLite file of one process, or a PostgreSQL database that many share.

Both take the same SQL with `:name` parameters. Nothing here knows what the tables mean.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from editlab.core.errors import LabError, Unavailable
from editlab.lab.schema import in_postgresql

if TYPE_CHECKING:
    from sqlalchemy import Connection

log = logging.getLogger(__name__)

LOCK_SECONDS = 10.0  # to wait for another process: for the file, or for its transaction to end
SCHEMES = ("postgresql://", "postgres://")
WRITING = "SELECT pg_advisory_xact_lock(0, 0)"  # one transaction of all processes at a time, as in SQLite
VERSION = "CREATE TABLE IF NOT EXISTS editlab_version (version INTEGER NOT NULL)"
CONNECTION = (
    f"lock_timeout={LOCK_SECONDS * 1e3:.0f}",
    *("tcp_keepalives_idle=10", "tcp_keepalives_interval=5", "tcp_keepalives_count=4"),  # a lost machine's claims end
)
NETWORK = {  # a machine that is lost does not keep who waits for its answer
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,  # milliseconds
}
LOST = ("08", "57P")  # how PostgreSQL's codes begin that tell of a lost connection, or of a server that ends or starts

Row = Mapping[str, Any]
Run = Callable[..., Sequence[Row]]  # runs a statement with named values and returns its rows


class Database(Protocol):
    """Statements and transactions. Any thread may call; errors are LabErrors, after which nothing was changed.

    One whose server is away raises Unavailable, and works again once the server is back.
    """

    in_order: str  # the column by which a table without a key of its own has its rows in the order of insertion

    def read(self, statement: str, **values: Any) -> Sequence[Row]:
        """The rows of a query."""

    def transaction(self) -> AbstractContextManager[Run]:
        """A transaction that is on disk when the block ends, or undone if the block raises. One runs at a time."""

    def migrate(self, migrations: Sequence[str]) -> None:
        """Run the migrations that the database has not had. Raises LabError if a newer editlab wrote it."""

    def claim(self, id: str) -> bool:
        """Keep other processes from claiming this session until `release`; False if another process has it.

        A process's claims end with its connection, and it can claim a session more than once. `transaction` raises
        after a lost connection as long as a claim of the lost connection has not been released.
        """

    def release(self, id: str) -> None:
        """Give up one claim."""

    def close(self) -> None: ...


def connect(place: str) -> Database:
    """The database at a PostgreSQL URL, or in a SQLite file, or in memory (":memory:"). Raises LabError."""
    return PostgreSQL(place) if place.startswith(SCHEMES) else SQLite(place)


class SQLite:
    """A file that one process at a time has open."""

    in_order = "rowid"

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._sentences():
            if path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).touch(mode=0o600)
            self.connection = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
            self.connection.row_factory = sqlite3.Row
            for setting in (
                "locking_mode = EXCLUSIVE",
                "journal_mode = WAL",
                "synchronous = FULL",
                "foreign_keys = ON",
                "secure_delete = ON",
            ):
                self._run(f"PRAGMA {setting}")

    def read(self, statement: str, **values: Any) -> Sequence[Row]:
        with self._lock, self._sentences():
            return self._run(statement, **values)

    @contextmanager
    def transaction(self) -> Iterator[Run]:
        with self._lock, self._sentences():
            self._run("BEGIN IMMEDIATE")
            try:
                yield self._run
                self._run("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self._run("ROLLBACK")
                raise

    def migrate(self, migrations: Sequence[str]) -> None:
        with self.transaction() as run:
            version = run("PRAGMA user_version")[0]["user_version"]
            for statement in _statements(migrations, version):
                run(statement)
            run(f"PRAGMA user_version = {len(migrations)}")

    def claim(self, id: str) -> bool:
        return True  # no other process has the file

    def release(self, id: str) -> None:
        pass

    def close(self) -> None:
        with self._lock:
            self.connection.close()

    def _run(self, statement: str, **values: Any) -> Sequence[Row]:
        return self.connection.execute(statement, values).fetchall()

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise LabError(_sentence(error, self.path)) from error


class PostgreSQL:
    """A database of a PostgreSQL server: claims and transactions have one connection, and reads have others.

    Claims are PostgreSQL's advisory locks, which end with their connection: while a transaction can be made on this
    connection, the claims hold.
    """

    in_order = "place"

    def __init__(self, url: str) -> None:
        try:
            import psycopg  # noqa: F401
            import sqlalchemy
            from sqlalchemy.exc import ArgumentError, SQLAlchemyError
        except ImportError as error:
            raise LabError("Sessions in PostgreSQL need further packages: pip install 'editlab[postgres]'.") from error
        self._error, self._text = SQLAlchemyError, sqlalchemy.text
        self._begun = False  # whether the server has ever answered
        try:
            parsed = sqlalchemy.make_url(url)
        except (ArgumentError, ValueError):
            raise LabError("The URL of a store must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE.") from None
        self.place = parsed.render_as_string(hide_password=True)
        options = " ".join((str(parsed.query.get("options", "")), *(f"-c {setting}" for setting in CONNECTION)))
        engine = sqlalchemy.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": round(LOCK_SECONDS),
                "application_name": "editlab",
                "options": options,
                **NETWORK,
            },
        )
        self._readers = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._lock = threading.RLock()  # of the connection that writes
        self._claims = 0
        with self._sentences():
            self._writer: Connection = engine.connect()
        self._begun = True

    def read(self, statement: str, **values: Any) -> Sequence[Row]:
        with self._sentences(), self._readers.connect() as connection:
            return self._run(connection, statement, **values)

    @contextmanager
    def transaction(self) -> Iterator[Run]:
        with self._lock, self._sentences():
            self._check_connection()
            with self._writer.begin():
                self._run(self._writer, WRITING)
                yield partial(self._run, self._writer)

    def migrate(self, migrations: Sequence[str]) -> None:
        with self.transaction() as run:
            run(VERSION)
            version = max((row["version"] for row in run("SELECT version FROM editlab_version")), default=0)
            for statement in _statements([in_postgresql(migration) for migration in migrations], version):
                run(statement)
            run("DELETE FROM editlab_version")
            run("INSERT INTO editlab_version VALUES (:version)", version=len(migrations))

    def claim(self, id: str) -> bool:
        with self._lock, self._sentences():
            self._check_connection()
            with self._writer.begin():
                (row,) = self._run(self._writer, "SELECT pg_try_advisory_lock(:key) AS claimed", key=_key(id))
            self._claims += row["claimed"]
            return bool(row["claimed"])

    def release(self, id: str) -> None:
        with self._lock:
            self._claims -= 1
            with suppress(self._error):  # a lost connection has no claims
                if not self._writer.invalidated:
                    with self._writer.begin():
                        self._run(self._writer, "SELECT pg_advisory_unlock(:key)", key=_key(id))

    def close(self) -> None:
        with self._lock:
            self._writer.close()
            self._writer.engine.dispose()

    def _run(self, connection: Connection, statement: str, **values: Any) -> Sequence[Row]:
        result = connection.execute(self._text(statement), values)
        return [dict(row) for row in result.mappings()] if result.returns_rows else []

    def _check_connection(self) -> None:
        """Raises LabError where claims were lost with the connection; without claims, a lost one is replaced."""
        if self._claims and self._writer.invalidated:
            raise LabError("The connection to PostgreSQL was lost during an edit; nothing was changed.")
        if not self._claims:
            with suppress(self._error), self._writer.begin():  # after a failure, the next statement connects anew
                self._run(self._writer, "SELECT 1")

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            original = getattr(error, "orig", None)
            reason, state = str(original or error).strip().splitlines()[0], getattr(original, "sqlstate", None)
            lost = state is None or state.startswith(LOST) or getattr(error, "connection_invalidated", False)
            if lost and self._begun:
                log.warning("the sessions in %s cannot be reached: %s", self.place, reason)
                raise Unavailable("The database with the sessions does not answer; nothing was changed.") from error
            where = "" if self._begun else f" in {self.place}"  # which is not for visitors
            raise LabError(
                f"The sessions{where} could not be written or read ({reason}); nothing was changed."
            ) from error


def _statements(migrations: Sequence[str], version: int) -> Iterator[str]:
    """The statements that lead from this version of the tables to the newest."""
    if version > len(migrations):
        raise LabError(
            f"The sessions were written by a newer editlab (version {version} of their tables; this one knows "
            f"{len(migrations)}): use that one, or another file."
        )
    for migration in migrations[version:]:
        yield from migration.split(";")


def _key(id: str) -> int:
    """The number of a session's advisory lock: 64 bits with a sign."""
    return int.from_bytes(bytes.fromhex(id)[:8], signed=True)


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
