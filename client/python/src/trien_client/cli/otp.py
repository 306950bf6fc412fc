"""`trien otp`: plays the part of a signer's phone, in a sandbox only."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import options
from trien_client.cli.outcome import CommandError, OutputFormat, reported, show

if TYPE_CHECKING:
    from trien_client._connection import ConnectionFile, SandboxSigner


def otp(
    connection: options.Connection = None,
    signer: Annotated[str | None, typer.Option("--signer", metavar="NAME", help="Whose one-time password.")] = None,
    credential: Annotated[
        str | None,
        typer.Option("--credential", metavar="NAME", help="Instead of --signer: a person who may use this credential."),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Wait for the next code: the server accepts each code once, for 30 seconds."),
    ] = False,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """Print the present one-time password of a sandbox's signer.

    It works only with the connection file of a sandbox. In real life the code is on the signer's own phone, and no
    application ever knows what makes it.

    \b
    Examples:
      trien otp --connection sandbox/connection.json --signer hoang-trinh-don
      trien otp --credential hoang-trinh-don-rsa |
        trien sign pdf in.pdf out.pdf --credential hoang-trinh-don-rsa --otp-file -
    """
    with reported(output):
        if connection is None:
            raise CommandError(
                "Say which sandbox: set TRIEN_CONNECTION to its connection.json, or give --connection FILE."
            )
        file = options.load_connection(connection)
        if not file.sandbox:
            raise CommandError(f"{connection} is not a sandbox's: one-time passwords are on the signer's own phone.")
        code, name, remaining = _code(file, signer, credential, fresh=fresh)
        show(output, code, {"signer": name, "one_time_password": code, "valid_seconds": remaining})
        if output is OutputFormat.TEXT:
            typer.echo(f"The code of {name}, for {remaining} more seconds, once.", err=True)


def _code(file: "ConnectionFile", signer: str | None, credential: str | None, *, fresh: bool) -> tuple[str, str, int]:
    import pyotp

    found = _signer(file, signer, credential)
    try:
        generator = pyotp.parse_uri(found.otpauth_uri.reveal())
    except ValueError:
        raise CommandError(f"What the file says about {found.name} is not an otpauth URI.") from None
    if not isinstance(generator, pyotp.TOTP):
        raise CommandError(f"{found.name} has counted passwords (HOTP): which one is next, only the server knows.")
    interval = int(generator.interval)
    if fresh:
        time.sleep(interval - time.time() % interval + 0.05)
    now = int(time.time())
    return generator.at(now), found.name, interval - now % interval


def _signer(file: "ConnectionFile", signer: str | None, credential: str | None) -> "SandboxSigner":
    wanted: tuple[str, ...]
    if signer is not None:
        wanted = (options.full_name("signers", signer),)
    elif credential is not None:
        name = options.full_name("credentials", credential)
        wanted = next((known.activators for known in file.credentials if known.name == name), ())
        if not wanted:
            raise CommandError(f"The connection file knows no {name}.")
    else:
        wanted = tuple(known.name for known in file.signers)
    matches = [known for known in file.signers if known.name in wanted]
    if not matches:
        raise CommandError(f"The connection file knows no one-time passwords of {', '.join(wanted) or 'anyone'}.")
    if len(matches) > 1 and credential is None:
        raise CommandError(f"Say whose: --signer {' or '.join(known.name for known in matches)}.")
    return matches[0]
