"""`trien enrolments`: officers let persons make authenticators of their own."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import operating, options
from trien_client.cli.operating import Officer, block
from trien_client.cli.outcome import CommandError, OutputFormat

if TYPE_CHECKING:
    from trien.v1.signer_service_pb2 import Enrolment, SendEnrolmentCodeResponse

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Let persons set up the app that makes their codes."
)


class Kind(StrEnum):
    """How the authenticator makes its codes."""

    TOTP = "totp"
    HOTP = "hotp"
    OCRA = "ocra"


Name = Annotated[str, typer.Argument(metavar="NAME", help="An enrolment: hoang-trinh-don/phone.")]


@operating.command(app)
def propose(
    me: Officer,
    signers: Annotated[list[str] | None, typer.Argument(metavar="SIGNER", help="The persons: hoang-trinh-don.")] = None,
    from_file: Annotated[
        Path | None, typer.Option("--from-file", metavar="FILE", help="More persons, one a line; # begins a remark.")
    ] = None,
    kind: Annotated[Kind, typer.Option("--kind", help="totp for any authenticator app.")] = Kind.TOTP,
    identifier: Annotated[
        str, typer.Option("--id", metavar="ID", help="What the authenticator's name ends in; new for each person.")
    ] = "phone",
    replaces: Annotated[
        str | None,
        typer.Option(
            "--replaces",
            metavar="NAME",
            help="The authenticator, such as a lost phone's, that ends when this is approved: hoang-trinh-don/phone.",
        ),
    ] = None,
    digits: Annotated[int, typer.Option("--digits", min=0, max=8, help="6 to 8; 0 is the kind's own.")] = 0,
) -> None:
    """Propose that persons set up an authenticator app.

    When another officer has approved, send each person the code with `send-code`. A person who has or had an
    authenticator is told at once, and waits some hours before the new one can begin.

    \b
    Examples:
      trien enrolments propose hoang-trinh-don nguyen-thi-hoa
      trien enrolments propose --from-file ids.txt
      trien enrolments propose hoang-trinh-don --id new-phone --replaces hoang-trinh-don/phone
    """
    from trien.v1 import signer_service_pb2

    persons = [*(signers or ()), *_lines(from_file)]
    if not persons:
        raise CommandError("Say who: SIGNER..., or --from-file FILE.")
    if replaces is not None and len(persons) != 1:
        raise CommandError("--replaces is for one person.")
    wanted = [
        signer_service_pb2.Enrolment(
            name=f"{options.full_name('signers', person)}/enrolments/{identifier}",
            kind=signer_service_pb2.Authenticator.Kind.Value(kind.name),
            digits=digits,
            replaces="" if replaces is None else child_name("authenticators", replaces),
        )
        for person in persons
    ]
    me.propose(me.client.signers.CreateEnrolments, signer_service_pb2.CreateEnrolmentsRequest(enrolments=wanted))


@operating.command(app, "list")
def list_enrolments(
    me: Officer, signer: Annotated[str, typer.Argument(metavar="SIGNER", help="The person: hoang-trinh-don.")]
) -> None:
    """List a person's enrolments.

    \b
    Example:
      trien enrolments list hoang-trinh-don
    """
    from trien.v1 import signer_service_pb2

    request = signer_service_pb2.ListEnrolmentsRequest(parent=options.full_name("signers", signer))
    found = me.pages(me.client.signers.ListEnrolments, request, "enrolments")
    me.show_all(found, text, empty="There is no enrolment.")


@operating.command(app)
def show(me: Officer, name: Name) -> None:
    """Show an enrolment.

    \b
    Example:
      trien enrolments show hoang-trinh-don/phone
    """
    from trien.v1 import signer_service_pb2

    request = signer_service_pb2.GetEnrolmentRequest(name=child_name("enrolments", name))
    me.show(me.client.call(me.client.signers.GetEnrolment, request), text)


@operating.command(app, "send-code")
def send_code(me: Officer, name: Name) -> None:
    """Make a new enrolment code, and send it to the person; it ends the one before.

    Where the person has an address, the whole code goes there and nobody else sees it. Else you get one half of it, to
    be given to the person face to face; the other officer who agreed gets the other half with the same command.

    \b
    Example:
      trien enrolments send-code hoang-trinh-don/phone
    """
    from trien.v1 import signer_service_pb2

    request = signer_service_pb2.SendEnrolmentCodeRequest(name=child_name("enrolments", name))
    sent = me.client.call(me.client.signers.SendEnrolmentCode, request)
    if me.output is OutputFormat.JSON:
        me.show(sent, lambda _: "")
    else:
        typer.echo(_sent(sent))


@operating.command(app)
def cancel(me: Officer, name: Name) -> None:
    """Withdraw an enrolment for good. What it replaced stays disabled.

    \b
    Example:
      trien enrolments cancel hoang-trinh-don/phone
    """
    from trien.v1 import signer_service_pb2

    request = signer_service_pb2.CancelEnrolmentRequest(name=child_name("enrolments", name))
    me.show(me.client.call(me.client.signers.CancelEnrolment, request), text)


def child_name(collection: str, name: str) -> str:
    """Returns the whole name of what belongs to a person: `hoang-trinh-don/phone` may be given for it."""
    parts = name.split("/")
    if len(parts) == 2:
        parts = ["signers", parts[0], collection, parts[1]]
    if len(parts) != 4 or parts[0] != "signers" or parts[2] != collection or not all(parts):
        raise CommandError(f"{name!r} is no name in {collection}: names are like hoang-trinh-don/phone.")
    return "/".join(parts)


def text(enrolment: "Enrolment") -> str:
    """Returns an enrolment for people."""
    return block(
        enrolment.name,
        ("kind", f"{operating.value_name(enrolment, 'kind')}, {enrolment.digits} digits"),
        ("state", operating.value_name(enrolment, "state")),
        ("replaces", enrolment.replaces),
        ("begins", operating.moment_of(enrolment, "start_time")),
        ("ends", operating.moment_of(enrolment, "expire_time")),
    )


def _sent(sent: "SendEnrolmentCodeResponse") -> str:
    if sent.sent_to:
        return f"A new code was sent to {sent.sent_to}; nobody else has it."
    return (
        f"Your half of the code: {sent.half}\n"
        "Give it to the person face to face. The other officer who agreed gets the other\n"
        "half with the same command; the person types the proposer's half first."
    )


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8-sig").splitlines())
    return [line for line in lines if line]
