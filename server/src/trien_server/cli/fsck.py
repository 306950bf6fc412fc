"""`trien-server fsck`: what was changed behind the server's back, and what to do about it."""

import json
import textwrap
from collections.abc import Mapping
from contextlib import suppress

import typer

from trien_server.cli.pace import Pace
from trien_server.config import Config
from trien_server.core.errors import LogNotTrusted, StoreUnavailable
from trien_server.host.log import Log
from trien_server.services.findings import Fault, Finding
from trien_server.store.schema import SchemaMismatch
from trien_server.wiring import Instance

DATABASE = "DATABASE"

ADVICE: Mapping[str, str] = {
    DATABASE: "Not everything was looked at. When the schema was changed, find out who did it, and undo it or restore a"
    " backup: no server works on it.",
    Fault.ROW: "The server refuses this row. Find out who wrote it; restore the row, or make what it stood for anew.",
    Fault.DELETED: "Somebody deleted the row, or put an older database in place. Compare with a backup.",
    Fault.REFERENCE: "Somebody deleted what the row names. Compare with a backup.",
    Fault.LOG: "Somebody changed the log. Compare it with a backup, and with what was published of it.",
    Fault.DECISION: "Somebody put back one of the two rows. Compare with a backup; look who wrote to the database.",
    Fault.REPLAY_MEMORY: "Somebody put the row back: a code or an authorization may open again. Disable the"
    " authenticator or the client that it is about, and look who wrote to the database.",
    Fault.OUTCOME: "A retry will not get these signatures. Nothing else follows: each is verified before it leaves.",
    Fault.PROPOSAL: "Treat the change as not agreed on: look at its resources and at who was operator then.",
    Fault.KEY_MISSING: "Nothing can be signed with this key. Restore the token, or renew the credential with another"
    " key.",
    Fault.KEY_UNKNOWN: "A crash left it, or another program or installation made it. When it is nobody's, destroy it"
    " with the token's own tools.",
}
"""What to do, by the kind of a finding."""


def check(config: Config, *, as_json: bool, unwrap: bool = False) -> bool:
    """Prints what is wrong; returns whether something is. How long it takes is said on the standard error.

    Raises `BadConfiguration`, `OSError`, `PinRejected`, `NotProvisioned`, `HsmUnavailable`, `StoreUnavailable`.
    """
    told = _Told(as_json=as_json)
    try:
        # What the server would report is among the findings.
        instance = Instance(config, log=Log(form=config.log.format), report=_unheard)
    except SchemaMismatch as fault:
        told.tell(DATABASE, "database", "schema", str(fault))
        told.end({})
        return True
    try:
        with suppress(LogNotTrusted):  # what is wrong with the log is found below
            instance.use.check_start()
        check_integrity = instance.use.check_integrity
        pace = Pace(check_integrity.total(), monotonic=instance.clock.monotonic, quiet=as_json)
        for finding in check_integrity(unwrap=unwrap, looked=pace):
            pace.end()
            told.finding(finding)
        pace.end()
    except StoreUnavailable as fault:
        told.tell(DATABASE, "database", "all", fault.message)
    finally:
        instance.close()
    told.end(instance.use.check_integrity.counts)
    return told.found > 0


class _Told:
    """Prints findings as they come: text line by line, JSON as one object that is never whole in memory."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.found = 0

    def finding(self, finding: Finding) -> None:
        self.tell(finding.fault.value, finding.table, finding.name, finding.text)

    def tell(self, fault: str, table: str, name: str, text: str) -> None:
        advice = ADVICE[fault]
        if self._as_json:
            content = {"fault": fault, "table": table, "name": name, "finding": text, "advice": advice}
            start = '{"findings": [\n' if self.found == 0 else ",\n"
            typer.echo(f"{start}  {json.dumps(content, ensure_ascii=False)}", nl=False)
        else:
            # A name may be what somebody wrote into the database: it must not command the terminal.
            line = f"{table} {name}: {text} [{fault}]"
            typer.echo("".join(character if character.isprintable() else "\ufffd" for character in line))
            typer.echo(f"  {advice}")
        self.found += 1

    def end(self, counts: Mapping[str, int]) -> None:
        if self._as_json:
            start = '{"findings": [' if self.found == 0 else "\n"
            typer.echo(f'{start}], "looked_at": {json.dumps(dict(counts), sort_keys=True)}}}')
            return
        looked_at = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        if looked_at:
            typer.echo(textwrap.fill(f"Looked at: {looked_at}.", 80, subsequent_indent="  "))
        typer.echo("Nothing was found." if self.found == 0 else f"Found: {self.found}.")


def _unheard(event: str, fields: Mapping[str, str]) -> None:
    """What the token or the database reports ends the command by an exception, or is a finding."""
