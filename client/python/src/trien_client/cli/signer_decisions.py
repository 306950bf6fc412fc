"""`trien signers freeze`, `uses` and `notices`: what a person does alone, by a one-time password."""

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from trien_client.cli import operating, options
from trien_client.cli.outcome import (
    EXIT_CODES,
    CommandError,
    OutputFormat,
    attempts_message,
    is_terminal,
    reported,
    show,
)
from trien_client.cli.signers import app

if TYPE_CHECKING:
    from trien_client._client import Client
    from trien_client._signers import SignatureUse

T = TypeVar("T")

__all__ = ["app"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="The person: hoang-trinh-don.")]
Officers = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="As which operator of the connection file: officers need no code."),
]


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


@app.command("freeze", epilog=EXIT_CODES)
def freeze(
    name: Name,
    otp_file: options.OneTimePasswordFile = None,
    connection: options.Connection = None,
    address: options.Address = None,
    ca_file: options.CaFile = None,
    token_file: options.TokenFile = None,
    timeout: options.Timeout = 30.0,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """Freeze your signature at once, by a one-time password of your own.

    Nothing is signed or approved with it, and no new authenticator can be set up, until two officers undo it. When you
    were told of a new phone that you did not ask for, a code of your old one does it too.

    \b
    Examples:
      trien signers freeze hoang-trinh-don
      trien signers freeze hoang-trinh-don --otp-file -
    """
    with reported(output):
        person = options.full_name("signers", name)
        with _target(connection, address, ca_file, token_file, timeout).connect() as client:
            _with_code(otp_file, person, lambda code: client.freeze_signer(person, one_time_password=code))
        show(output, f"{person} is frozen. Two officers together can undo it.", {"name": person, "state": "FROZEN"})


@app.command("notices", epilog=EXIT_CODES)
def notices(
    name: Name,
    wanted: Annotated[Switch, typer.Argument(metavar="on|off", help="Whether you are told.")],
    otp_file: options.OneTimePasswordFile = None,
    connection: options.Connection = None,
    address: options.Address = None,
    ca_file: options.CaFile = None,
    token_file: options.TokenFile = None,
    timeout: options.Timeout = 30.0,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """Be told of each signature by e-mail and SMS, or no longer.

    \b
    Example:
      trien signers notices hoang-trinh-don on
    """
    with reported(output):
        person, on = options.full_name("signers", name), wanted is Switch.ON
        with _target(connection, address, ca_file, token_file, timeout).connect() as client:
            _with_code(otp_file, person, lambda code: client.set_signature_notices(person, on, one_time_password=code))
        said = f"{person} is told of each signature." if on else f"{person} is no longer told of signatures."
        show(output, said, {"name": person, "signature_notices": on})


@app.command("uses", epilog=EXIT_CODES)
def uses(
    name: Name,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="NUMBER", help="How many at most.")] = 50,
    otp_file: options.OneTimePasswordFile = None,
    operator: Officers = None,
    connection: options.Connection = None,
    address: options.Address = None,
    ca_file: options.CaFile = None,
    token_file: options.TokenFile = None,
    timeout: options.Timeout = 30.0,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """List every use of your signature, newest first, by one one-time password.

    Security officers and auditors see it with --as, without a code.

    \b
    Examples:
      trien signers uses hoang-trinh-don
      trien signers uses hoang-trinh-don --as first --limit 500
    """
    with reported(output, officer=operator is not None):
        person = options.full_name("signers", name)
        if operator is not None:
            found = _uses_for_officer(connection, operator, person, limit, timeout)
        else:
            with _target(connection, address, ca_file, token_file, timeout).connect() as client:
                found = _with_code(otp_file, person, lambda code: _uses(client, person, code, limit))
        text = "\n".join(_line(use) for use in found) or "It was never used."
        show(output, text, [_content(use) for use in found])


def _uses(client: "Client", person: str, code: str, limit: int) -> "list[SignatureUse]":
    from itertools import islice

    listed = client.list_signature_uses(person, one_time_password=code, page_size=min(limit, 100))
    return list(islice(listed, limit))


def _uses_for_officer(
    connection: Path | None, operator: str, person: str, limit: int, timeout: float
) -> "list[SignatureUse]":
    from itertools import islice

    from trien.v1 import signer_service_pb2

    from trien_client._signers import parse_use

    target = operating.Target(
        connection=connection,
        operator=operator,
        address=None,
        ca_file=None,
        certificate_file=None,
        key_file=None,
        timeout=timeout,
    )
    me = operating.Officer(target=target, output=OutputFormat.TEXT)
    try:
        request = signer_service_pb2.ListSignatureUsesRequest(name=person, page_size=min(limit, 100))
        found = me.pages(me.client.signers.ListSignatureUses, request, "uses")
        return [parse_use(use) for use in islice(found, limit)]
    finally:
        me.close()


def _target(
    connection: Path | None, address: str | None, ca_file: Path | None, token_file: Path | None, timeout: float
) -> options.Target:
    return options.Target(
        connection=connection,
        address=address,
        ca_file=ca_file,
        token_file=token_file,
        certificate_file=None,
        key_file=None,
        trust_anchors=None,
        timeout=timeout,
    )


def _with_code(otp_file: str | None, person: str, act: Callable[[str], T]) -> T:
    """Calls `act` with the person's code, again while the person may try another one."""
    from getpass import getpass

    from trien_client._errors import InvalidArgument, OneTimePasswordRejected

    if otp_file is None and not is_terminal():
        raise CommandError("There is no terminal to ask for the one-time password: use --otp-file, or --otp-file -.")
    while True:
        if otp_file == "-":
            code = sys.stdin.readline().strip()
        elif otp_file is not None:
            code = Path(otp_file).read_text(encoding="utf-8").strip()
        else:
            try:
                code = getpass(f"One-time password of {person} (not shown): ", stream=sys.stderr)
            except (KeyboardInterrupt, EOFError):
                typer.echo(err=True)
                raise KeyboardInterrupt from None
        try:
            return act(code)
        except OneTimePasswordRejected as error:
            if otp_file is not None or error.remaining_attempts == 0:
                raise
            typer.echo(f"{attempts_message(error.remaining_attempts)} Wait for the next code of your app.", err=True)
        except InvalidArgument as error:
            if otp_file is not None or error.field != "one_time_password":
                raise
            typer.echo(error.message, err=True)


def _line(use: "SignatureUse") -> str:
    when = use.time.astimezone()
    offset = when.strftime("%z")
    fingerprint = " ".join(use.fingerprint[start : start + 4] for start in range(0, len(use.fingerprint), 4))
    documents = "1 document" if use.item_count == 1 else f"{use.item_count} documents"
    return operating.block(
        f"{when:%Y-%m-%d %H:%M:%S} {offset[:3]}:{offset[3:]}  {documents}, {fingerprint}",
        ("with", use.credential),
        ("for", use.client),
        ("approved by", use.approver),
        ("entry", use.audit_entry),
    )


def _content(use: "SignatureUse") -> dict[str, object]:
    return {
        "time": use.time.isoformat(),
        "credential": use.credential,
        "client": use.client,
        "approver": use.approver,
        "item_count": use.item_count,
        "fingerprint": use.fingerprint,
        "audit_entry": use.audit_entry,
    }
