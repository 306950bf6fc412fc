"""`trien proposals`: changes that need a second operator."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import operating, options
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import CommandError, ExitCode, OutputFormat, is_terminal

if TYPE_CHECKING:
    from trien.v1.proposal_service_pb2 import Proposal

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Decide on changes that need a second operator.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A proposal: proposals/…, as `list` shows it.")]


class State(StrEnum):
    """Where a proposal stands."""

    PENDING = "pending"
    EXECUTED = "executed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    OUTDATED = "outdated"
    EXPIRED = "expired"
    ALL = "all"


@operating.command(app, "list")
def list_proposals(
    me: Officer,
    state: Annotated[State, typer.Option("--state", help="Only those in this state.")] = State.PENDING,
) -> None:
    """List proposals: without --state those that wait for a decision.

    \b
    Examples:
      trien proposals list
      trien proposals list --state executed --output json
    """
    from trien.v1 import proposal_service_pb2

    from trien_client.cli.statements import line

    states = proposal_service_pb2.Proposal.State
    request = proposal_service_pb2.ListProposalsRequest(
        state=states.Value("STATE_UNSPECIFIED" if state is State.ALL else state.name)
    )
    found = me.pages(me.client.proposals.ListProposals, request, "proposals")
    me.show_all(found, line, empty="No proposal." if state is State.ALL else f"No proposal is {state}.")


@operating.command(app)
def show(me: Officer, name: Name) -> None:
    """Show exactly what a proposal would do, or did.

    What is printed is the statement, whose digest an approval signs. With --output json it is the whole proposal, which
    `verify` can check later, also without the server.

    \b
    Examples:
      trien proposals show proposals/k7m2…
      trien proposals show proposals/k7m2… --output json > proposal.json
    """
    from trien_client.cli.statements import ended, stated

    me.show(_read(me, name), lambda proposal: f"{stated(proposal)}\n\n{ended(proposal)}")


@operating.command(app)
def approve(
    me: Officer,
    name: Name,
    digest: Annotated[
        str | None,
        typer.Option(
            "--digest",
            metavar="HEX",
            help="The digest that `show` printed: approve without being asked, if it is still the same.",
        ),
    ] = None,
) -> None:
    """Approve another operator's proposal; it is carried out at once.

    You see the proposal and are asked. The approval is a signature by your own key over the digest of what you saw; the
    key does not leave this computer.

    \b
    Examples:
      trien proposals approve proposals/k7m2…
      trien proposals approve proposals/k7m2… --digest 8d0c…
    """
    from trien.v1 import proposal_service_pb2

    from trien_client.cli.statements import ended, stated

    wanted = None if digest is None else _digest(digest)
    if wanted is None and not is_terminal():
        raise CommandError("There is no terminal to ask at: give the --digest that trien proposals show printed.")
    proposal = _read(me, name)
    if proposal.state != proposal_service_pb2.Proposal.PENDING:
        raise CommandError(f"{ended(proposal).splitlines()[0]}. It waits for nobody.", exit_code=ExitCode.REFUSED)
    text = stated(proposal)
    if wanted is None:
        typer.echo(f"{text}\n", err=True)
        if not typer.confirm("Approve exactly this?", err=True):
            raise CommandError("Nothing was approved.", exit_code=ExitCode.REFUSED)
    elif wanted != proposal.digest:
        raise CommandError(
            "Nothing was approved: the proposal's digest is not the one that you gave. Read it again with"
            " trien proposals show.",
            exit_code=ExitCode.REFUSED,
        )
    decided = me.client.approve(proposal)
    me.show(decided, ended)
    if decided.state != proposal_service_pb2.Proposal.EXECUTED:
        raise typer.Exit(int(ExitCode.REFUSED))


@operating.command(app, "approve-statement")
def approve_statement(
    me: Officer,
    statement: Annotated[
        Path, typer.Argument(metavar="FILE", help="The statement that trien-server restore wrote.", exists=True)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where your approval goes: a new file.")],
    digest: Annotated[
        str | None,
        typer.Option("--digest", metavar="HEX", help="The digest that you were told: approve without being asked."),
    ] = None,
) -> None:
    """Approve what trien-server restore will do; no server is asked, for none runs.

    You see the statement and are asked. The approval is a signature by your own key over the digest of what you saw;
    the key does not leave this computer. Give the file to whoever restores; a second officer makes another.

    \b
    Example:
      trien proposals approve-statement restores-0a1b….statement.json --out mine.json
    """
    from trien_client.cli.statements import restore_approval, restore_stated

    wanted = None if digest is None else _digest(digest)
    if wanted is None and not is_terminal():
        raise CommandError("There is no terminal to ask at: give the --digest that you were told.")
    if out.exists():
        raise CommandError(f"{out} exists: nothing was approved.")
    content = statement.read_bytes()
    text, found = restore_stated(content)
    if wanted is None:
        typer.echo(f"{text}\n", err=True)
        if not typer.confirm("Approve exactly this?", err=True):
            raise CommandError("Nothing was approved.", exit_code=ExitCode.REFUSED)
    elif wanted != found:
        raise CommandError(
            "Nothing was approved: the statement's digest is not the one that you gave.", exit_code=ExitCode.REFUSED
        )
    certificate, key = me.target.identity()
    out.write_text(restore_approval(content, certificate=certificate.read_bytes(), key=key.read_bytes()))
    typer.echo(f"Your approval is in {out}. Give it to whoever restores.")


@operating.command(app)
def reject(
    me: Officer,
    name: Name,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, for people: at most 200 characters, kept in the log.")
    ] = "",
) -> None:
    """Reject another operator's proposal, for good.

    \b
    Example:
      trien proposals reject proposals/k7m2… --reason "the wrong key"
    """
    from trien.v1 import proposal_service_pb2

    from trien_client.cli.statements import ended

    request = proposal_service_pb2.RejectProposalRequest(name=options.full_name("proposals", name), reason=reason)
    me.show(me.client.call(me.client.proposals.RejectProposal, request), ended)


@operating.command(app)
def cancel(me: Officer, name: Name) -> None:
    """Withdraw your own proposal.

    \b
    Example:
      trien proposals cancel proposals/k7m2…
    """
    from trien.v1 import proposal_service_pb2

    from trien_client.cli.statements import ended

    request = proposal_service_pb2.CancelProposalRequest(name=options.full_name("proposals", name))
    me.show(me.client.call(me.client.proposals.CancelProposal, request), ended)


@operating.command(app)
def verify(
    me: Officer,
    proposal: Annotated[
        str,
        typer.Argument(metavar="FILE|NAME", help="A file that `show --output json` wrote, or a proposal's name."),
    ],
    approver_certificate: Annotated[
        Path | None,
        typer.Option(
            "--approver-certificate",
            metavar="FILE",
            help="The certificate (PEM) that you expect: another one of the same key is good too.",
        ),
    ] = None,
) -> None:
    """Check the approval of a proposal; for a file without any server.

    It checks that the digest is the statement's, and that the signature over it is by the key of the certificate in the
    proposal. Whose certificate that is you see by its SHA-256, or check with --approver-certificate.

    \b
    Examples:
      trien proposals verify proposal.json --approver-certificate second.pem
      trien proposals verify proposals/k7m2…
    """
    from trien_client.cli.statements import verified

    file = Path(proposal)
    read = _from_file(file) if file.is_file() else _read(me, proposal)
    expected = None if approver_certificate is None else approver_certificate.read_bytes()
    found = verified(read, expected)
    text = "\n".join(f"{label + ':':12} {value}" for label, value in found.items())
    typer.echo(operating.as_json(found) if me.output is OutputFormat.JSON else f"The approval is good.\n{text}")


def _read(me: Officer, name: str) -> "Proposal":
    from trien.v1 import proposal_service_pb2

    from trien_client._errors import VerificationError

    full = options.full_name("proposals", name)
    request = proposal_service_pb2.GetProposalRequest(name=full)
    proposal: proposal_service_pb2.Proposal = me.client.call(me.client.proposals.GetProposal, request)
    if proposal.name != full:
        raise VerificationError("The server answered with another proposal.")
    return proposal


def _from_file(file: Path) -> "Proposal":
    from google.protobuf.json_format import ParseDict, ParseError
    from trien.v1 import proposal_service_pb2

    try:
        return ParseDict(json.loads(file.read_text(encoding="utf-8")), proposal_service_pb2.Proposal())
    except (ValueError, ParseError):
        raise CommandError(f"{file} is not a proposal, as `trien proposals show --output json` writes it.") from None


def _digest(text: str) -> bytes:
    try:
        value = bytes.fromhex(text.removeprefix("sha256:"))
    except ValueError:
        value = b""
    if len(value) != 32:
        raise CommandError("--digest must be the 64 hexadecimal digits that trien proposals show prints.")
    return value
