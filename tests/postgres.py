"""A PostgreSQL server of the tests' own, in a temporary folder and on a free port of the loopback address."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

UNSAFE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")  # a test's data need not outlive a crash


def _program(name: str) -> str | None:
    """A PostgreSQL program; Debian keeps them in a folder of the version."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))


def _user() -> str | None:
    """The user that the server runs as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    users = {user.pw_name for user in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in users), None)


@contextmanager
def postgres_server() -> Iterator[Callable[[], str]]:
    """A function that makes a new database and gives its URL. Skips the test where no server can be started."""
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    pytest.importorskip("sqlalchemy", reason="the extra postgres is not installed")
    initdb, postgres = _program("initdb"), _program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("no PostgreSQL server is installed (Debian's package is postgresql)")
    user = _user()
    if os.geteuid() == 0 and user is None:
        pytest.skip("PostgreSQL refuses to run as root, and there is no other user here")
    import psycopg

    folder = Path(tempfile.mkdtemp(prefix="editlab-postgres-"))
    if user is not None:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(folder / "data")
    make = [initdb, "-D", data, "-U", "editlab", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run(make, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
    settings = (*UNSAFE, f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}")
    command = [postgres, "-D", data, *(word for setting in settings for word in ("-c", setting))]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log)
    try:
        url = f"postgresql://editlab@127.0.0.1:{port}"
        _wait(f"{url}/postgres", server)

        def new() -> str:
            name = f"t{uuid.uuid4().hex}"
            with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            return f"{url}/{name}"

        yield new
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: str, server: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    """Until the server answers."""
    import psycopg

    end = time.monotonic() + seconds
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < end
            time.sleep(0.05)
        else:
            return
