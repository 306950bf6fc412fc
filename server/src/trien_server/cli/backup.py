"""`trien-server backup`: the whole database in one encrypted file."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from trien_server.cli.progress import Progress
from trien_server.config import Config
from trien_server.core.backups import Bringing, KeptRow, Manifest, Reading
from trien_server.host.age import identities_of, read_encrypted, recipients_of, write_encrypted
from trien_server.host.clock import SystemClock
from trien_server.services.backup_excerpts import Excerpt
from trien_server.services.backups import TakeBackup
from trien_server.store.lines import line_of, row_of
from trien_server.store.schema import HEAD
from trien_server.store.urls import open_store

_LONGEST_SECONDS = 24 * 3600.0
"""How long one backup may read the database."""


def take(config: Config, *, out: Path, recipients: Sequence[str]) -> Iterator[str]:
    """Writes a backup and yields what to tell.

    Raises `ValueError` for what is no recipient, `FileExistsError`, `OSError`, `SchemaMismatch`, `Refusal`.
    """
    readers = recipients_of([*recipients, *config.backup.recipients.split()])
    if out.exists():
        raise FileExistsError(f"{out} exists: nothing was written")
    store = open_store(config.store.url, on_fatal=lambda _: None, read_patience=_LONGEST_SECONDS)
    progress = Progress()
    size = 0

    def write(chunks: Iterator[bytes]) -> None:
        nonlocal size
        size = write_encrypted(out, chunks, recipients=readers)

    try:
        manifest = TakeBackup(store=store, schema=HEAD, encode=line_of, clock=SystemClock())(write, progress=progress)
    finally:
        progress.end()
        store.close()
    yield f"backup         {out}, {size:,} bytes, for {len(readers)} recipient{'s' if len(readers) > 1 else ''}"
    yield f"  sha256       {manifest.identity().hex()} (of the manifest, which digests the rest)"
    yield f"  rows         {sum(manifest.tables.values()):,} in {len(manifest.tables)} tables"
    yield from _log_lines(manifest)
    yield from _key_lines(manifest)


def show(path: Path, *, identity: Path, as_json: bool) -> Iterator[str]:
    """Reads a whole backup, checks it, and yields what its manifest says. Raises as `read_backup`."""
    manifest = read_backup(path, identity=identity)
    if as_json:
        yield json.dumps(json.loads(manifest.line()), ensure_ascii=False, indent=2)
        return
    yield f"backup         {path}: whole, every row was read"
    yield f"  sha256       {manifest.identity().hex()}"
    yield f"  made         {manifest.create_time:%Y-%m-%d %H:%M:%S} UTC, schema {manifest.schema}"
    yield f"  installation of {manifest.installation_time:%Y-%m-%d %H:%M:%S} UTC"
    yield from _log_lines(manifest)
    for table, rows in sorted(manifest.tables.items()):
        yield f"  {rows:>10,}  {table}"
    yield from _key_lines(manifest)


def read_backup(path: Path, *, identity: Path) -> Manifest:
    """Returns a backup's manifest once all of it was read and is what the manifest says, also its log.

    Raises `NotDecrypted`, `NotABackup`, `OSError`, `ValueError` for a file that holds no identity.
    """
    progress = Progress()
    excerpt = Excerpt(at=SystemClock().now())
    rows = 0

    def take(row: KeptRow) -> None:
        nonlocal rows
        rows += 1
        excerpt.take(row)
        progress("read", rows)

    reading = Reading(decode=row_of, take=take)
    try:
        read_encrypted(path, reading.feed, identities=identities_of(identity))
    finally:
        progress.end()
    manifest = reading.end()
    excerpt.require_log_of(manifest)
    return manifest


def _log_lines(manifest: Manifest) -> Iterator[str]:
    log = manifest.log
    if log is None:
        yield "  log          not begun"
        return
    yield f"  log          {log.origin}, {log.size:,} entries, and {log.unsealed:,} not sealed yet"
    yield f"               root {log.root.hex()}"


def _key_lines(manifest: Manifest) -> Iterator[str]:
    yield "It is of use with a token that holds these keys, and with no other:"
    for bringing, by in (
        (Bringing.CUSTODIANS, "by the shares of two custodians (trien-server ceremony), or by the vendor's clone"),
        (Bringing.CLONE, "by the vendor's clone alone"),
    ):
        keys = [key for key in manifest.keys if key.bringing is bringing]
        if keys:
            yield f"  {by}:"
        for key in keys:
            found = f"label {key.label!r}" if key.label is not None else f"id {(key.object_id or b'').hex()}"
            yield f"    {key.kind}: {key.name}, {key.state}, {found}"
