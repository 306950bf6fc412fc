"""The audit log: its newest checkpoint and entries, and whether it is the one that was published."""

from collections.abc import Iterator

from trien_server.cli.doctor.findings import Finding, NotLookedAt, error, warning
from trien_server.cli.doctor.subject import Subject
from trien_server.core.errors import RecordNotTrusted
from trien_server.services.signed_log import LogFaults

_CHANGED = (
    "Somebody changed the database, or put an older one in its place. Stop the server, keep a copy of the database, "
    "and run `trien-server fsck`; compare with a backup, and with what was published of the log."
)


def log(subject: Subject) -> Iterator[Finding]:
    """Yields what is wrong with the newest part of the log, and with what is published of it."""
    use = subject.instance.use
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
