"""Revocation lists in a folder, for a web server to serve."""

from pathlib import Path

from trien_server.host.files import write_whole


class ListFolder:
    """Implements `core.ports.ListPublication`: `ca-1.crl` is the list of `certificateAuthorities/ca-1`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def published(self, authority: str) -> bytes | None:
        """Returns the file's content, or None when there is none."""
        try:
            return self._path(authority).read_bytes()
        except FileNotFoundError:
            return None

    def publish(self, authority: str, encoded: bytes) -> None:
        """Replaces the file; others may read it."""
        write_whole(self._path(authority), encoded, mode=0o644)

    def _path(self, authority: str) -> Path:
        return self._folder / list_file_name(authority)


def list_file_name(authority: str) -> str:
    """Returns the name of the file that an authority's list is in."""
    return f"{authority.rpartition('/')[2]}.crl"
