"""`trien enrol`: a person makes an authenticator of one's own, on one's own computer."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import options
from trien_client.cli.outcome import CommandError, OutputFormat, attempts_message, is_terminal, reported, show

if TYPE_CHECKING:
    from trien_client.enrolment import BegunEnrolment, EnrolmentClient

CodeFile = Annotated[
    str | None,
    typer.Option(
        "--code-file",
        metavar="FILE",
        help="Read the enrolment code from a file, or the first line of the standard input with `-`. Without it you"
        " are asked, and what you type is not shown. It is never an argument: others could see those.",
    ),
]


def enrol(
    code_file: CodeFile = None,
    connection: options.Connection = None,
    address: options.Address = None,
    ca_file: options.CaFile = None,
    timeout: options.Timeout = 30.0,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """Set up the app that makes your signing codes.

    You need the enrolment code that you were sent, or that two officers gave you in two halves (type the first
    officer's half, then the second's). A QR code is shown, once: scan it with the app on your phone, and type the code
    that the app shows. Nobody else sees what the QR code holds, no officer either.

    \b
    Examples:
      trien enrol --address sign.district.example:8443 --ca-file ca.pem
      trien enrol --connection connection.json --code-file code
    """
    with reported(output):
        from trien_client._errors import EnrolmentNotPending
        from trien_client.enrolment import EnrolmentClient

        where, trusted = _server(connection, address, ca_file)
        code = _code(code_file)
        with EnrolmentClient(where, ca_certificates=trusted, code=code, timeout=timeout) as client:
            try:
                begun = client.begin()
            except EnrolmentNotPending as refusal:
                if "startTime" not in refusal.metadata or not is_terminal():
                    raise
                typer.echo(refusal.message, err=True)
                begun = client.begin(one_time_password=_ask("Code of an app that you have (not shown): "))
            typer.echo(_shown(begun), err=output is OutputFormat.JSON)
            name = _confirmed(client, begun)
        show(output, f"{name} now makes your signing codes.", {"name": name, "kind": begun.kind})


def _server(connection: Path | None, address: str | None, ca_file: Path | None) -> tuple[str, Path]:
    file = None if connection is None else options.load_connection(connection)
    where = address or (None if file is None else file.address)
    trusted = ca_file or (None if file is None else file.ca_file)
    if where is None or trusted is None:
        raise CommandError("Say which server: --address with --ca-file, or --connection FILE.")
    return where, trusted


def _code(code_file: str | None) -> str:
    if code_file is None:
        if not is_terminal():
            raise CommandError("There is no terminal to ask for the enrolment code: use --code-file.")
        return _ask("Enrolment code (not shown): ")
    code = sys.stdin.readline() if code_file == "-" else Path(code_file).read_text(encoding="utf-8")
    code = code.strip()
    if not code:
        raise CommandError("There is no enrolment code: its first line has to be the code.")
    return code


def _shown(begun: "BegunEnrolment") -> str:
    """Returns the QR code for the terminal, and the key for those who type it."""
    from urllib.parse import parse_qs, urlsplit

    from trien_client import qr

    uri = begun.otpauth_uri.reveal()
    key = parse_qs(urlsplit(uri).query)["secret"][0].rstrip("=")
    grouped = " ".join(key[start : start + 4] for start in range(0, len(key), 4))
    lines = [qr.terminal(uri), "", "Scan it with the app on your phone, or type this key into it:", f"  {grouped}"]
    if begun.question:
        lines += ["", "The question that the app answers:", f"  {begun.question.hex()}"]
    return "\n".join(lines)


def _confirmed(client: "EnrolmentClient", begun: "BegunEnrolment") -> str:
    """Asks for the first code until it is right; a person has five tries."""
    from trien_client._errors import InvalidArgument, OneTimePasswordRejected

    prompt = f"The code that the app shows now, {begun.digits} digits (not shown): "
    while True:
        code = _ask(prompt) if is_terminal() else sys.stdin.readline().strip()
        try:
            return client.confirm(begun, code)
        except OneTimePasswordRejected as error:
            if not is_terminal() or error.remaining_attempts == 0:
                raise
            typer.echo(f"{attempts_message(error.remaining_attempts)} Wait for the next code of your app.", err=True)
        except InvalidArgument as error:
            if not is_terminal() or error.field != "one_time_password":
                raise
            typer.echo(error.message, err=True)


def _ask(prompt: str) -> str:
    from getpass import getpass

    try:
        return getpass(prompt, stream=sys.stderr).strip()
    except (KeyboardInterrupt, EOFError):
        typer.echo(err=True)
        raise KeyboardInterrupt from None
