"""Where the database is: `sqlite:////var/lib/trien/trien.db` (four slashes: an absolute path)."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trien_server.core.ports import Store

_SQLITE = "sqlite:///"


def sqlite_path(url: str) -> Path:
    """Returns the absolute path of a `sqlite:///` URL. Raises `ValueError` for any other."""
    path = url.removeprefix(_SQLITE)
    if not url.startswith(_SQLITE) or path in ("", ":memory:") or "?" in path:
        raise ValueError("expected a database URL such as sqlite:////var/lib/trien/trien.db")
    return Path(path).absolute()


def open_store(url: str, *, on_fatal: Callable[[str], None]) -> "Store":
    """Opens the database of that URL; `on_fatal` is called once when the process must end.

    Raises `SchemaMismatch` when it needs a migration, `StoreUnavailable` when it cannot be used.
    """
    from trien_server.store.sqlite.store import SqliteStore

    return SqliteStore(sqlite_path(url), on_fatal=on_fatal)
