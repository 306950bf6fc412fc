"""A proxy before a PostgreSQL server that loses what it is told to lose."""

import select
import socket
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

_COMMIT = b"COMMIT\0"
_READS = b"READ ONLY"


class Fate(Enum):
    """What becomes of a COMMIT."""

    ARRIVES = "arrives, and its answer too"
    IS_LOST = "the connection is cut before it reaches the server"
    ANSWER_IS_LOST = "the server answers, and the connection is cut before that reaches the client"
    ANSWER_HANGS = "the server answers, and nothing reaches the client any more"


class PostgresProxy:
    """Listens on a loopback port and passes everything on to a Unix socket; `fate_of` is asked for each COMMIT."""

    def __init__(self, server: Path) -> None:
        self.server = server
        self.fate_of: Callable[[], Fate] = lambda: Fate.ARRIVES
        self.refuses = False
        self.only_writers = False
        """Whether the COMMIT of a transaction that only reads arrives unasked."""
        self.delay = 0.0
        """How long, in seconds, each answer of the server takes."""
        self.fates: list[Fate] = []
        self._mutex = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, database: str, role: str = "trien_server") -> str:
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}?sslmode=disable&gssencmode=disable"

    def cut_all(self) -> None:
        """Cuts every connection, as a failing network does."""
        with self._mutex:
            ends, self._ends = self._ends, set()
        for end in ends:
            _shut(end)

    def close(self) -> None:
        _shut(self._listener)
        self._listener.close()
        self.cut_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        with client, server:
            if self.refuses:
                return
            try:
                server.connect(str(self.server / ".s.PGSQL.5432"))
                with self._mutex:
                    self._ends |= {client, server}
                self._pass_on(client, server)
            except OSError:
                return
            finally:
                with self._mutex:
                    self._ends -= {client, server}

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        fate, reads = Fate.ARRIVES, False
        while True:
            for ready in select.select([client, server], [], [])[0]:
                data = ready.recv(65536)
                if not data:
                    return
                if ready is client:
                    reads = _READS in data or (reads and b"BEGIN" not in data)
                    if data.endswith(_COMMIT) and not (reads and self.only_writers):
                        with self._mutex:
                            fate = self.fate_of()
                            self.fates.append(fate)
                        if fate is Fate.IS_LOST:
                            return
                    server.sendall(data)
                    continue
                time.sleep(self.delay)
                if fate is Fate.ARRIVES:
                    client.sendall(data)
                elif fate is Fate.ANSWER_IS_LOST:
                    return


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
