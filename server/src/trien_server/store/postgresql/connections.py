"""Opens PostgreSQL connections whose waits end, with settings that make a commit durable (P1)."""

import select
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap
from psycopg.types.numeric import Int8BinaryDumper
from psycopg.waiting import Ready, Wait

from trien_server.core.errors import StoreUnavailable

RV = TypeVar("RV")

_OLDEST = 150000
_LONGEST_STATEMENT = "30s"
_LONGEST_PAUSE = "10s"
"""How long a transaction may do nothing: then the server ends it, so that a stopped process frees its locks."""

_UNREACHABLE = "The database cannot be reached."
_DURABLE = ("on", "remote_apply")

_SESSION = f"""
SET client_encoding = 'UTF8'; SET TimeZone = 'UTC';
SET statement_timeout = '{_LONGEST_STATEMENT}'; SET lock_timeout = '{_LONGEST_STATEMENT}';
SET idle_in_transaction_session_timeout = '{_LONGEST_PAUSE}';
SET enable_seqscan = off; SET jit = off
"""
# Reading a whole table would make every serializable transaction that writes to it a conflict: hence enable_seqscan.

_LOOK = """
SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), pg_is_in_recovery(),
    current_setting('transaction_read_only'), current_setting('fsync'), current_setting('full_page_writes'),
    current_setting('synchronous_commit'), current_setting('synchronous_standby_names') <> '',
    (SELECT system_identifier::text FROM pg_control_system()),
    CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
    EXISTS (
        SELECT 1 FROM pg_class c
        WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('audit_entries'))
        AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (
            c.relkind <> 'r' OR c.relrowsecurity OR c.relispartition
            OR EXISTS (SELECT 1 FROM pg_rewrite r WHERE r.ev_class = c.oid)
            OR EXISTS (SELECT 1 FROM pg_inherits h WHERE c.oid IN (h.inhparent, h.inhrelid))
            OR EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
            OR EXISTS (SELECT 1 FROM pg_constraint k WHERE c.oid IN (k.conrelid, k.confrelid) AND k.contype = 'f')
            OR EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> '')
            OR EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid
                AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL))
        )
    ),
    (SELECT quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = to_regclass('audit_entries'))
"""
# The last but one: tables that do something by themselves, or answer with something else than their rows (P5).


class Overdue(psycopg.OperationalError):
    """The server did not answer before the deadline; the connection cannot be used any more."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose waits end at `deadline` (by `monotonic`), whatever the server or the network does."""

    deadline = inf
    looked_at = 0.0
    """When the settings were last looked at."""
    generation = 0
    """Which of the servers it leads to, in the count of `Lineage`."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.warnings: list[str] = []
        self.add_notice_handler(self._note)

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self.warnings.append(notice.message_primary or "")

    def command(self, sql: str) -> str | None:
        """Runs statements without arguments that are not prepared, and returns the last one's status."""
        cursor = self.execute(sql.encode(), prepare=False)
        while cursor.nextset():
            pass
        return cursor.statusmessage

    def wait(self, gen: PQGen[RV], interval: float = 0.0, timeout: float | None = None) -> RV:  # noqa: ARG002
        poll = select.poll()
        try:
            wanted = next(gen)
            poll.register(self.pgconn.socket, _EVENTS[wanted])
            while True:
                left = self.deadline - monotonic()
                found = poll.poll(None if left == inf else max(0, int(left * 1000)))
                if not found:
                    gen.close()
                    self.pgconn.finish()
                    raise Overdue("the server did not answer in time")
                # An error or a hang-up: let libpq find out by reading or writing.
                ready = _READY.get(found[0][1] & _BOTH)
                wanted = gen.send(_READY[_EVENTS[wanted]] if ready is None else ready)
                poll.modify(self.pgconn.socket, _EVENTS[wanted])
        except StopIteration as finished:
            result: RV = finished.value
            return result


_BOTH = select.POLLIN | select.POLLOUT
_EVENTS = {Wait.R: select.POLLIN, Wait.W: select.POLLOUT, Wait.RW: _BOTH}
_READY = {select.POLLIN: Ready.R, select.POLLOUT: Ready.W, _BOTH: Ready.RW}


@dataclass(frozen=True)
class Look:
    """Which server answered, and whether its commits wait for a standby."""

    system_identifier: str
    timeline: int
    synchronous: bool


def connect(conninfo: str, *, deadline: float = inf) -> tuple[Connection, Look]:
    """Opens a connection for the store. Raises `StoreUnavailable` when there is none, or its server cannot keep P1."""
    connection = _connect(conninfo)
    try:
        connection.deadline = deadline
        look = look_at(connection)
        return connection, look
    except BaseException:
        connection.close()
        raise


def connect_any(conninfo: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Opens a plain connection for an operator, whatever the settings. Raises `StoreUnavailable`, in detail."""
    try:
        return psycopg.Connection.connect(conninfo, autocommit=True)
    except psycopg.Error as error:
        refusal = StoreUnavailable(_UNREACHABLE)
        refusal.__cause__ = error
        raise detailed(refusal) from error


def weaknesses_of(conninfo: str) -> list[str]:
    """Returns everything about a server and its database that promise P1 cannot rest on; none for a good one.

    Raises `StoreUnavailable`, in detail, when there is no connection.
    """
    try:
        connection = _connect(conninfo)
    except StoreUnavailable as refusal:
        raise detailed(refusal) from refusal.__cause__
    with closing(connection):
        return list(_weaknesses(_read_settings(connection)))


def look_at(connection: Connection) -> Look:
    """Checks the settings that P1 rests on, as they are now, and pins those of the session.

    Raises `StoreUnavailable` when one is too weak, or the server cannot be written to.
    """
    row = _read_settings(connection)
    for weakness in _weaknesses(row):
        raise StoreUnavailable(weakness)
    try:
        # Names mean the tables that were looked at, and no others that come first for this role.
        path = f"; SET search_path = {row[11]}, pg_temp" if row[11] is not None else ""
        connection.command(f"{_SESSION}; SET synchronous_commit = {row[6]}{path}")
    except psycopg.Error as error:
        raise unavailable(error) from error
    connection.looked_at = monotonic()
    return Look(system_identifier=row[8], timeline=int(row[9], 16), synchronous=row[7])


def _read_settings(connection: Connection) -> tuple[Any, ...]:
    try:
        row = connection.execute(_LOOK).fetchone()
    except psycopg.Error as error:
        raise unavailable(error) from error
    assert row is not None  # noqa: S101
    return row


def _weaknesses(row: tuple[Any, ...]) -> Iterator[str]:
    version, encoding, in_recovery, read_only, fsync, full_page_writes, synchronous_commit = row[:7]
    if version < _OLDEST:
        yield f"PostgreSQL {version // 10000} is too old: 15 or later is needed."
    if encoding != "UTF8":
        yield f"The database's encoding is {encoding}, not UTF8."
    if in_recovery:
        yield "The database server is a standby (in recovery): it cannot be written to."
    # A standby says of its transactions too that they are read-only.
    elif read_only != "off":
        yield "The database's transactions are read-only (default_transaction_read_only)."
    for name, value in (("fsync", fsync), ("full_page_writes", full_page_writes)):
        if value != "on":
            yield f"The database's setting {name} is {value!r}: a crash could lose what was signed for."
    if row[10]:
        yield "The database's schema was changed by something else than a migration."
    if synchronous_commit not in _DURABLE:
        yield f"The database's setting synchronous_commit is {synchronous_commit!r}, neither 'on' nor 'remote_apply'."


def unavailable(error: psycopg.Error, message: str = "The database cannot be used now") -> StoreUnavailable:
    """Returns the refusal for an error. It names no host, user or value: callers may see it."""
    found = StoreUnavailable(f"{message}: {_reason(error)}.")
    found.__cause__ = error
    return found


def detailed(refusal: StoreUnavailable) -> StoreUnavailable:
    """Returns the refusal with its cause in words, which name hosts and roles: for operators, not for callers."""
    cause = refusal.__cause__
    if not isinstance(cause, psycopg.Error):
        return refusal
    found = StoreUnavailable(f"{refusal.message.rstrip('.')} ({' '.join(str(cause).split())}).")
    found.__cause__ = cause
    return found


def is_outage(error: psycopg.Error) -> bool:
    """Tells whether the database failed, not the values of a statement: only the former is `StoreUnavailable`."""
    return not isinstance(error, psycopg.IntegrityError | psycopg.DataError)


def is_conflict(error: psycopg.Error) -> bool:
    """Tells whether the whole transaction was rolled back for another one's sake and may run again."""
    return isinstance(error, psycopg.errors.SerializationFailure | psycopg.errors.DeadlockDetected)


def _reason(error: psycopg.Error) -> str:
    if isinstance(error, Overdue):
        return str(error)
    if error.diag.message_primary:
        return error.diag.message_primary
    return "the connection was lost" if error.pgconn is not None else "no connection"


def _connect(conninfo: str) -> Connection:
    try:
        connection = Connection.connect(
            conninfo, autocommit=True, prepare_threshold=0, cursor_factory=psycopg.RawCursor
        )
    except psycopg.Error as error:
        raise StoreUnavailable(_UNREACHABLE) from error
    connection.prepared_max = 500
    adapters: AdaptersMap = connection.adapters
    # One type for all integers: else a statement would be prepared anew for each combination of sizes.
    adapters.register_dumper(int, Int8BinaryDumper)
    return connection


Opener = Callable[[], Connection]
"""Opens a connection, or raises `StoreUnavailable`. Called from threads of the pool."""
