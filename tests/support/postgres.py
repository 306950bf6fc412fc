"""A PostgreSQL server of the tests' own, set up as docs/postgresql.md says; a database is copied for each test."""

import atexit
import itertools
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from trien_server.store.schema import migrate

ROOT = Path(__file__).parents[2]
_NUMBERS = itertools.count(1)
_SETTINGS = {
    "listen_addresses": "''",
    "max_connections": "200",
    "max_pred_locks_per_transaction": "256",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "10s",
    "logging_collector": "off",
    "deadlock_timeout": "200ms",
    "recovery_init_sync_method": "syncfs",
}


def programs() -> Path:
    """Returns the folder of PostgreSQL's programs; skips the test when it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    if initdb is None:
        pytest.skip("PostgreSQL is not installed")
    return Path(initdb).parent


def _as_postgres(*command: object) -> list[str]:
    """PostgreSQL refuses to run as root."""
    words = [str(word) for word in command]
    return ["runuser", "-u", "postgres", "--", *words] if os.geteuid() == 0 else words


def documented_sql() -> list[str]:
    """Returns the SQL of docs/postgresql.md: for the administrator, for the owner before and after the migration."""
    text = (ROOT / "docs/postgresql.md").read_text()
    return re.findall(r"```sql\n(.*?)```", text, re.DOTALL)


class PostgresServer:
    """One cluster in a folder of its own, reached by a Unix socket alone."""

    def __init__(self, settings: dict[str, str] | None = None, *, folder: Path | None = None) -> None:
        self._programs = programs()
        self.folder = folder or self.new_folder()
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        if folder is None:
            self._run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        self._settings = {**_SETTINGS, "unix_socket_directories": f"'{self.folder}'", **(settings or {})}
        self.set_base()
        self.start()

    @staticmethod
    def new_folder() -> Path:
        """Makes a folder for a cluster, in memory where there is plenty; a short path, for a socket's is 107 bytes."""
        memory = Path("/dev/shm")
        plenty = memory.is_dir() and shutil.disk_usage(memory).free > 4 * 2**30
        folder = Path(tempfile.mkdtemp(prefix="trien-pg-", dir=memory if plenty else "/tmp"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        return folder

    def set(self, settings: dict[str, str]) -> None:
        """Writes settings, in force from the next start or `reload` on."""
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def set_base(self) -> None:
        """Writes the settings that this server was made with, after `ALTER SYSTEM RESET ALL`."""
        self.set(self._settings)

    def start(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-l", self.log, "-w", "-t", "60", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop", check=False)

    def reload(self) -> None:
        self._run("pg_ctl", "-D", self.data, "reload")

    def promote(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-w", "promote")

    def standby(self, name: str) -> "PostgresServer":
        """Copies the cluster and starts the copy as a standby of that name."""
        folder = self.new_folder()
        self._run("pg_basebackup", "-h", self.folder, "-U", "postgres", "-D", folder / "data", "-R", "-c", "fast")
        primary = f"'host={self.folder} user=postgres application_name={name}'"
        return PostgresServer({"primary_conninfo": primary}, folder=folder)

    @property
    def postmaster(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def url(self, database: str, role: str = "trien_server") -> str:
        return f"postgresql://{role}@/{database}?host={self.folder}"

    def admin(self, sql: str, *arguments: Any, database: str = "postgres", role: str = "postgres") -> list[Any]:
        """Runs one statement, or several without arguments, and returns the rows of the last."""
        with psycopg.connect(self.url(database, role), autocommit=True) as connection:
            cursor = psycopg.RawCursor(connection).execute(sql.encode(), arguments or None, prepare=False)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def set_up(self) -> None:
        """Does what docs/postgresql.md says."""
        for_administrator, before, after = documented_sql()
        for statement in for_administrator.strip().split(";\n"):
            self.admin(statement)
        self.admin(before, database="trien", role="trien_owner")
        migrate(self.url("trien", "trien_owner"))
        self.admin(after, database="trien", role="trien_owner")

    def copy(self) -> str:
        """Makes a new database like the documented one, and returns its name."""
        name = f"copy{next(_NUMBERS)}"
        self.admin(f"CREATE DATABASE {name} TEMPLATE trien OWNER trien_owner")
        return name

    def wait_until(self, sql: str, *arguments: Any, seconds: float = 10, database: str = "postgres") -> None:
        """Waits until a query's first value is true."""
        end = time.monotonic() + seconds
        while not self.admin(sql, *arguments, database=database)[0][0]:
            assert time.monotonic() < end, f"never came true: {sql}"
            time.sleep(0.02)

    def _run(self, program: str, *arguments: object, check: bool = True) -> None:
        finished = subprocess.run(
            _as_postgres(self._programs / program, *arguments), cwd="/", stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=90,
        )  # fmt: skip
        assert not check or finished.returncode == 0, f"{program} failed: {finished.stdout}"


@pytest.fixture(name="postgres", scope="session")
def postgres_fixture() -> Iterator[PostgresServer]:
    """A running server with the documented database, shared by all tests of a session."""
    server = PostgresServer()
    try:
        server.set_up()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
