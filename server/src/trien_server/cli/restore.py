"""`trien-server restore`: a backup put back into an empty database, and what people have to do then."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trien_server.cli.progress import Progress
from trien_server.config import Config
from trien_server.core.approval import statement_digest
from trien_server.core.ports import Hsm
from trien_server.core.restores import (
    KnownCheckpoint,
    LostEntry,
    NotRestorable,
    parse_approval,
    parse_known_checkpoint,
    parse_lost_entry,
    restore_name,
    restrictions,
)
from trien_server.host.age import identities_of, read_encrypted
from trien_server.host.files import write_private
from trien_server.host.log import Log
from trien_server.host.published_log import PublishedLog
from trien_server.services.restored_token import missing_lines
from trien_server.services.restores import Done, Examined
from trien_server.store.schema import migrate
from trien_server.wiring import Instance
from trien_server.wiring.restoring import build_restore

Tell = Callable[[str], None]
_ON_TOKEN = "trien log checkpoint"
"""The label of the token's data object that keeps the newest checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is restored, and what is known of what came after it."""

    backup: Path
    identity: Path
    checkpoints: Sequence[Path]
    published: Path | None
    entries: Path | None
    approvals: Sequence[Path]
    folder: Path
    """Where the statement for the officers and the report go."""


def restore(config: Config, wanted: Wanted, *, tell: Tell) -> bool:
    """Restores a backup; returns False when two officers have to agree first, and nothing was changed.

    Raises `NotRestorable`, `NotABackup`, `NotDecrypted`, `ValueError`, `OSError`, `Refusal`, and what opening the
    database and the token raises.
    """
    identities = identities_of(wanted.identity)

    def source(take: Callable[[bytes], None]) -> None:
        read_encrypted(wanted.backup, take, identities=identities)

    lost = [] if wanted.entries is None else list(_lost(wanted.entries))
    log = None if wanted.published is None else PublishedLog(wanted.published)
    migrate(config.store.url)
    progress = Progress()
    instance = Instance(config, log=Log(form=config.log.format))
    try:
        use = build_restore(instance)
        examined = use.examine(
            source,
            known=list(_known(wanted, log, instance.hsm)),
            lost=lost,
            leaves=(lambda _: None) if log is None else log.leaf,
            log_keys=None if log is None else log.keys(),
            progress=progress,
        )
        given = [] if examined.restored else wanted.approvals
        approvals = [parse_approval(path.read_bytes(), examined.statement) for path in given]
        if examined.older and not approvals:
            progress.end()
            _ask_officers(examined, wanted.folder, tell)
            return False
        done = use(source, examined, approvals, progress=progress)
    finally:
        progress.end()
        instance.close()
    _report(examined, done, wanted.folder, tell)
    return True


def _lost(path: Path) -> Iterator[LostEntry]:
    with path.open("rb") as lines:
        for line in lines:
            if line.strip():
                yield parse_lost_entry(line)


def _known(wanted: Wanted, log: PublishedLog | None, hsm: Hsm) -> Iterator[KnownCheckpoint]:
    """Yields every checkpoint that can be asked for: on the token, where the log was published, and in files."""
    for note in hsm.read_data(_ON_TOKEN):
        with suppress(NotRestorable):  # a garbled one says nothing
            yield parse_known_checkpoint(note.decode(errors="replace"), found="the token", on_token=True)
    published = None if log is None else log.checkpoint()
    if published is not None:
        yield parse_known_checkpoint(published, found="the tile folder")
    for path in wanted.checkpoints:
        yield parse_known_checkpoint(path.read_text(encoding="utf-8"), found="a checkpoint file")


def _ask_officers(examined: Examined, folder: Path, tell: Tell) -> None:
    name = restore_name(examined.manifest).replace("/", "-")
    path = folder / f"{name}.statement.json"
    write_private(path, examined.statement.encode())
    count = examined.loss.entries(examined.manifest.log)
    tell(f"The backup is from {examined.manifest.create_time:%Y-%m-%d %H:%M:%S} UTC.")
    if count is None:
        tell("How much of the log came after it is not known: no checkpoint of it can be asked for.")
    else:
        tell(f"It lacks the last {count:,} entries of the log; {len(examined.loss.lost):,} of them were given.")
    for line in missing_lines(examined.token):
        tell(line)
    tell("Nothing was changed. Two security officers have to agree, each on their own computer:")
    tell(f"  trien proposals approve-statement {path} --out approval.json")
    tell(f"  digest sha256:{statement_digest(examined.statement).hex()}")
    tell("Then run this command again with --approval FILE of each.")


def _report(examined: Examined, done: Done, folder: Path, tell: Tell) -> None:
    """Writes what was done and what people have to do, and tells it."""
    path = folder / f"{restore_name(examined.manifest).replace('/', '-')}.report.txt"
    if done.before:
        tell(f"This backup is restored already, as {done.continued}; nothing was done.")
        return
    lines = list(_report_lines(examined, done))
    write_private(path, ("\n".join(lines) + "\n").encode())
    for line in lines:
        tell(line)
    tell(f"This report is in {path}.")


def _report_lines(examined: Examined, done: Done) -> Iterator[str]:
    manifest, loss = examined.manifest, examined.loss
    yield f"Restored: the backup of {manifest.create_time:%Y-%m-%d %H:%M:%S} UTC, sha256 {manifest.identity().hex()}"
    yield f"  rows         {sum(manifest.tables.values()):,}"
    if done.origin:
        yield f"  log          goes on as {done.origin} ({done.continued})"
    for text, count in done.counts.items():
        yield f"  {count:>12,} {text}"
    for text in done.applied:
        yield f"  applied from the lost entries: {text}"
    for text in done.left:
        yield f"  NOT TRUSTED, left as it is, and refused by the server: {text}"
    yield "What people have to do now:"
    yield from (f"  {line}" for line in _tasks(examined))
    subjects = {one.lost.entry.name for one in restrictions(loss.lost)}
    others = [one for one in loss.lost if one.entry.subject is not None and one.entry.name not in subjects]
    if others:
        yield "Changes of the lost entries that were not applied: decide on each anew."
        yield from (f"  {one.entry.time:%Y-%m-%d %H:%M} {one.entry.kind} {one.entry.subject}" for one in others)


def _tasks(examined: Examined) -> Iterator[str]:
    count = examined.loss.entries(examined.manifest.log)
    unknown = None if count is None else count - len(examined.loss.lost)
    yield "Nobody can use a code from before now: wait for the next but one."
    yield "Who has a counter-based (HOTP) device enters two codes in a row once; the first is refused."
    yield "Enrolments, proposals and signatures that were under way are asked for anew."
    if unknown is None or unknown > 0:
        what = "An unknown number of" if unknown is None else f"{unknown:,}"
        yield f"{what} lost entries are not known: ask what was revoked, disabled or frozen since, and do it again."
    yield from missing_lines(examined.token)
    if examined.manifest.log is not None:
        yield "Publish the log in a folder of its own (audit.tile_folder), and keep the old one served."
        yield "Tell whoever checks the log its new name."
    yield "Take a new backup, and look at trien-server fsck."
