"""Whether the server that answers still has what this process was told is durable."""

import threading
from collections import deque
from dataclasses import dataclass

import psycopg

from trien_server.core.errors import StoreUnavailable
from trien_server.store.postgresql.connections import Connection, Look, unavailable

_REMEMBERED = 256
"""More than can commit at the same time: among the last ones acknowledged is the one that was committed last."""


@dataclass(frozen=True)
class Witness:
    """A row that a transaction wrote; where it is, the transaction was committed."""

    table: str
    key: str
    name: str
    version: int | None

    @property
    def condition(self) -> str:
        """The WHERE of exactly this version."""
        return f'"{self.key}" = $1' + (" AND version = $2" if self.version is not None else "")

    @property
    def arguments(self) -> tuple[str | int, ...]:
        return (self.name,) if self.version is None else (self.name, self.version)


class Lineage:
    """Follows one database through failovers, and refuses a server that may lack acknowledged commits.

    - Another system identifier: another database. Refused until the process is started anew.
    - A lower timeline: the old primary came back. Refused.
    - A higher timeline, a standby was promoted: used when every commit of this lineage waited for a standby and
      the last ones acknowledged here are all there; else refused until the process is started anew, for what was
      acknowledged, here or by another process, may be missing, a used one-time password for example.

    A crash and a restart of the same server change neither. May be called from any thread.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._look: Look | None = None
        self._synchronous = True
        self._acknowledged: deque[Witness] = deque(maxlen=_REMEMBERED)
        self.generation = 0
        """Counts the servers that were used; a connection of an earlier one is used no more."""
        self._refusal: str | None = None

    def refuse_if_over(self) -> None:
        """Raises `StoreUnavailable` when a server was refused for good."""
        if self._refusal is not None:
            raise StoreUnavailable(self._refusal)

    def acknowledged(self, witness: Witness) -> None:
        """Remembers a commit that its caller is told of."""
        self._acknowledged.append(witness)

    def join(self, connection: Connection, look: Look) -> None:
        """Raises `StoreUnavailable` unless this connection's server may be used."""
        with self._mutex:
            self.refuse_if_over()
            if self._look is None:
                self._look = look
            elif look.system_identifier != self._look.system_identifier:
                self._refuse("It is another database than before (system identifier)")
            elif look.timeline < self._look.timeline:
                raise StoreUnavailable(
                    f"The database server is an old primary: timeline {look.timeline}, behind {self._look.timeline}."
                )
            elif look.timeline > self._look.timeline:
                self._follow(connection, look)
            self._synchronous = self._synchronous and look.synchronous
            connection.generation = self.generation

    def _follow(self, connection: Connection, look: Look) -> None:
        if not self._synchronous:
            self._refuse("A standby was promoted that commits did not wait for")
        lost = [witness for witness in tuple(self._acknowledged) if not _is_there(connection, witness)]
        if lost:
            self._refuse(f"A standby was promoted that lacks {len(lost)} of the last acknowledged commits")
        self._look = look
        self._synchronous = True
        self.generation += 1

    def _refuse(self, finding: str) -> None:
        self._refusal = f"{finding}: look at the database, then start the server anew."
        raise StoreUnavailable(self._refusal)


def _is_there(connection: Connection, witness: Witness) -> bool:
    newer = " AND version >= $2" if witness.version is not None else ""
    sql = f'SELECT 1 FROM "{witness.table}" WHERE "{witness.key}" = $1{newer}'  # noqa: S608 - names of our classes
    try:
        return connection.execute(sql.encode(), witness.arguments).fetchone() is not None
    except psycopg.Error as error:
        raise unavailable(error) from error
