"""Where the database is.

sqlite:////var/lib/trien/trien.db                   four slashes: an absolute path
postgresql://trien_server@db.example/trien?…        as libpq takes it; without a password, which belongs in a file
postgresql:///trien?host=/run/postgresql            by the socket of this machine
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trien_server.core.ports import Store

_SQLITE = "sqlite:///"
_POSTGRESQL = ("postgresql://", "postgres://")


def is_postgresql(url: str) -> bool:
    """Tells whether a URL is of a PostgreSQL database."""
    return url.startswith(_POSTGRESQL)


def sqlite_path(url: str) -> Path:
    """Returns the absolute path of a `sqlite:///` URL. Raises `ValueError` for any other."""
    path = url.removeprefix(_SQLITE)
    if not url.startswith(_SQLITE) or path in ("", ":memory:") or "?" in path:
        raise ValueError("expected a database URL such as sqlite:////var/lib/trien/trien.db")
    return Path(path).absolute()


def postgresql_conninfo(url: str) -> str:
    """Returns libpq's connection string of a `postgresql://` URL, with defaults that end every wait.

    Raises `ValueError` for any other, and for one with a password in it (P12): name a `passfile` instead.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    if not is_postgresql(url):
        raise ValueError("expected a database URL such as postgresql://trien_server@db.example/trien")
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        raise ValueError("the database URL is not one that libpq understands") from None
    if given.get("password"):
        raise ValueError(
            "the database URL holds a password: put it in a file and name that, ?passfile=/etc/trien/pgpass"
        )
    defaults = {
        "application_name": "trien-server",
        "connect_timeout": "5",
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "3",
        "tcp_user_timeout": "10000",
    }
    if "," in str(given.get("host", "")):
        defaults["target_session_attrs"] = "read-write"
    return make_conninfo("", **{**defaults, **given})


def open_store(url: str, *, on_fatal: Callable[[str], None], read_patience: float = 5.0) -> "Store":
    """Opens the database of that URL; `on_fatal` is called once when the process must end.

    `read_patience` is how many seconds reading may wait for a connection, and on PostgreSQL take in all.

    Raises `SchemaMismatch` when it needs a migration, `StoreUnavailable` when it cannot be used, `ValueError` for a
    URL of no known database.
    """
    if is_postgresql(url):
        from trien_server.store.postgresql.store import PostgresqlStore

        return PostgresqlStore(postgresql_conninfo(url), read_patience=read_patience)
    from trien_server.store.sqlite.store import SqliteStore

    return SqliteStore(sqlite_path(url), on_fatal=on_fatal, read_patience=read_patience)


def weaknesses(url: str) -> list[str]:
    """Returns every setting of a PostgreSQL server that promise P1 cannot rest on; SQLite is set when it is opened.

    Raises `StoreUnavailable`, in detail, when it cannot be reached, `ValueError` for a URL of no known database.
    """
    if not is_postgresql(url):
        sqlite_path(url)
        return []
    from trien_server.store.postgresql.connections import weaknesses_of

    return weaknesses_of(postgresql_conninfo(url))
