"""The audit log: its newest checkpoint and entries, and whether it is the one that was published."""

from collections.abc import Iterator

from trien_server.cli.doctor.findings import Finding, NotLookedAt, error, warning
from trien_server.cli.doctor.subject import Subject
from trien_server.core.errors import LogNotSealed, LogNotTrusted, RecordNotTrusted
from trien_server.core.ports import KeyMismatch
from trien_server.core.records import InstallationKeyPurpose, InstallationKeyState
from trien_server.services.sealing_generations import read_generations
from trien_server.services.signed_log import LogFaults

_CHANGED = (
    "Somebody changed the database, or put an older one in its place. Stop the server, keep a copy of the database, "
    "and run `trien-server fsck`; compare with a backup, and with what was published of the log."
)


def log_key(subject: Subject) -> Iterator[Finding]:
    """Yields why the token cannot sign the log: its key is not there, or is another one than the record's."""
    instance = subject.instance
    keys = instance.use.transactions.read(lambda view: read_generations(view, InstallationKeyPurpose.LOG))
    active = [key for key in keys if key.state is InstallationKeyState.ACTIVE and key.object_id is not None]
    if not active:
        raise NotLookedAt("the log has no key yet; a server that runs makes it")
    for key in active:
        try:
            found = instance.hsm.public_key(key.object_id or b"")
        except KeyMismatch as mismatch:
            text = str(mismatch)
        else:
            if found is not None and found == key.public_key:
                continue
            text = "the token has another one" if found is not None else "it is not on the token"
        yield error(
            f"The key that signs the log, {key.name}, cannot be used: {text}.",
            "Restore the token: without this key no checkpoint is signed, and the server refuses what it would have to "
            "tell the log.",
        )


def log(subject: Subject) -> Iterator[Finding]:
    """Yields what is wrong with the newest part of the log, and with what is published of it."""
    use = subject.instance.use
    try:
        use.log_guard.check()
    except LogNotTrusted as refusal:
        yield error(f"No server serves on this log: {refusal.finding}.", _CHANGED)
    except LogNotSealed:
        yield warning(
            "An audit entry has waited for its place in the log for more than a minute.",
            "When no server runs, the next start gives it its place. One that runs refuses to sign meanwhile: look for "
            "the reason in its log.",
        )
    faults = use.examine_log()
    for fault in faults or []:
        yield error(fault, _CHANGED)
    if use.log_publisher is not None:
        try:
            use.log_publisher.check()
        except (*LogFaults, RecordNotTrusted) as fault:
            text = fault.finding if isinstance(fault, RecordNotTrusted) else str(fault)
            yield error(f"audit.tile_folder: {text}.", _CHANGED)
        except OSError as unread:
            yield warning(
                f"audit.tile_folder: what is published there cannot be read ({unread.strerror}).",
                "Make the folder readable and writable for the server's user.",
            )
    if faults is None:
        raise NotLookedAt("no checkpoint was signed yet; a server that runs signs the first within seconds")
