"""What officers do with credentials: `trien credentials show`, `csr`, `create`, `renew`, `restrict` and so on."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import credentials, operating, options
from trien_client.cli.certificates import Reason
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import CommandError, OutputFormat

if TYPE_CHECKING:
    from trien.v1.credential_service_pb2 import Credential

app = credentials.app

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A credential: credentials/…, as `list` shows it, or what follows credentials/."
    ),
]
Certificates = Annotated[
    list[Path],
    typer.Option(
        "--certificate",
        metavar="FILE",
        help="The certificate chain, PEM or DER: the signer's own first, then the CAs'; all in one file, or one option"
        " for each file.",
    ),
]
Activators = Annotated[
    list[str],
    typer.Option(
        "--activator",
        metavar="SIGNER[@FROM..UNTIL]",
        help="A person who may activate it, from a day or time until before another:"
        " nguyen-thi-hoa@2026-12-01..2027-02-01. For a person's own credential it is that person.",
    ),
]
Clients = Annotated[
    list[str], typer.Option("--client", metavar="CLIENT", help="An application that may ask for its signatures.")
]
MaxItems = Annotated[
    int | None,
    typer.Option("--max-items", metavar="N", min=1, max=1000, help="How many documents one approval may have."),
]


class Kind(StrEnum):
    """A kind of authenticator."""

    TOTP = "totp"
    HOTP = "hotp"
    OCRA = "ocra"
    SMS = "sms"
    EMAIL = "email"


class StatusPolicy(StrEnum):
    """What a signature asks of the revocation status."""

    IGNORE = "ignore"
    REFUSE_REVOKED = "refuse-revoked"
    REQUIRE_GOOD = "require-good"


Kinds = Annotated[
    list[Kind],
    typer.Option(
        "--kind",
        metavar="totp|hotp|ocra|sms|email",
        help="A kind of authenticator whose codes approve; without any: all kinds.",
    ),
]
Hours = Annotated[
    list[str],
    typer.Option(
        "--hours",
        metavar="DAYS HH:MM-HH:MM",
        help="When it may be approved and used, by the server's time zone: 'mon-fri 07:00-17:30'. Several are"
        " alternatives; without any: always.",
    ),
]
Collects = Annotated[
    bool | None,
    typer.Option(
        "--application-otp/--no-application-otp",
        help="Whether the application may collect the one-time password, or the signer's own channel alone.",
    ),
]
Status = Annotated[
    StatusPolicy | None, typer.Option("--status", help="What a signature asks of the certificates' revocation status.")
]


@operating.command(app)
def show(me: Officer, name: Name) -> None:
    """Show a credential, its certificate and its policy.

    \b
    Examples:
      trien credentials show hoang-trinh-don-rsa
      trien credentials show hoang-trinh-don-rsa --output json |
        jq -r '.certificate_chain[0]' | base64 -d | openssl x509 -noout -text
    """
    from trien_client.cli.credential_texts import text

    me.show(_read(me, name), text)


@operating.command(app)
def csr(
    me: Officer,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A credential that is to be renewed with the same key.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="A key without a credential.")] = None,
    signer: Annotated[
        str | None, typer.Option("--signer", metavar="SIGNER", help="With --key: the signer whose name it carries.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it there, PEM; without it to the terminal.")
    ] = None,
) -> None:
    """Make a certificate signing request (PKCS #10).

    The token signs it with the key itself, and the server makes the subject from the signer's record.

    \b
    Examples:
      trien credentials csr --key hoang-trinh-don-2 --signer hoang-trinh-don --out request.pem
      trien credentials csr hoang-trinh-don-rsa --out renewal.pem
      openssl req -in request.pem -noout -verify -text
    """
    from trien.v1 import credential_service_pb2

    from trien_client.cli.credential_texts import request_of

    if (name is None) is (key is None) or (key is None) is not (signer is None):
        raise CommandError("Name either a credential, or --key with --signer.")
    request = credential_service_pb2.GenerateCertificateSigningRequestRequest()
    if name is not None:
        credential = _read(me, name)
        request.key, request.signer = credential.key, credential.signer
    elif key is not None and signer is not None:
        request.key, request.signer = options.full_name("keys", key), options.full_name("signers", signer)
    made = me.client.call(me.client.credentials.GenerateCertificateSigningRequest, request)
    pem = request_of(made.certificate_signing_request)
    if out is not None:
        out.write_text(pem, encoding="ascii")
        pem = f"{out}: the request for {request.key}, in the name of {request.signer}."
    me.show(made, lambda _: pem.rstrip("\n"))


@operating.command(app)
def create(
    me: Officer,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="What the name ends in: credentials/ID.")],
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="The key that the certificate is for.")],
    signer: Annotated[str, typer.Option("--signer", metavar="SIGNER", help="Whose signatures it makes.")],
    title: Annotated[str, typer.Option("--title", metavar="TEXT", help="A title for people.")],
    certificate: Certificates,
    client: Clients = [],  # noqa: B006 - typer copies it
    activator: Activators = [],  # noqa: B006
    max_items: MaxItems = None,
    application_otp: Collects = None,
    kind: Kinds = [],  # noqa: B006
    hours: Hours = [],  # noqa: B006
    status: Status = None,
) -> None:
    """Propose a credential: key, certificate and policy.

    \b
    Example:
      trien credentials create hoang-trinh-don-2 --key hoang-trinh-don-2 \\
        --signer hoang-trinh-don --title 'Chữ ký số của Chủ tịch' \\
        --certificate signer.pem --certificate ca.pem --client e-office \\
        --application-otp --max-items 50 --hours 'mon-fri 07:00-17:30'
    """
    from trien.v1 import credential_service_pb2

    from trien_client.cli.credential_terms import Terms, activators_of, apply
    from trien_client.cli.credential_texts import read_chain

    wanted = credential_service_pb2.Credential(
        key=options.full_name("keys", key),
        signer=options.full_name("signers", signer),
        certificate_chain=read_chain(certificate),
        activators=activators_of(activator),
        clients=[options.full_name("clients", one) for one in client],
    )
    apply(wanted, Terms(title, max_items, application_otp, list(kind), list(hours), status))
    request = credential_service_pb2.CreateCredentialRequest(
        credential_id=identifier.removeprefix("credentials/"), credential=wanted
    )
    me.propose(me.client.credentials.CreateCredential, request)


@operating.command(app)
def renew(
    me: Officer,
    name: Name,
    certificate: Certificates,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="The key that the certificate is for, when it is another."),
    ] = None,
) -> None:
    """Propose another certificate; name and policy stay.

    With the same key, what was approved stays so. With another key every authorization ends, and the old key is
    disabled.

    \b
    Examples:
      trien credentials renew hoang-trinh-don-rsa --certificate renewed.pem
      trien credentials renew hoang-trinh-don-rsa --key hoang-trinh-don-3 --certificate new.pem
    """
    from trien.v1 import credential_service_pb2

    from trien_client.cli.credential_texts import read_chain

    request = credential_service_pb2.RenewCredentialRequest(
        name=options.full_name("credentials", name),
        certificate_chain=read_chain(certificate),
        key="" if key is None else options.full_name("keys", key),
    )
    me.propose(me.client.credentials.RenewCredential, request)


@operating.command(app)
def update(
    me: Officer,
    name: Name,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="Another title.")] = None,
    activator: Activators = [],  # noqa: B006
    remove_activator: Annotated[
        list[str], typer.Option("--remove-activator", metavar="SIGNER", help="Somebody who may activate it no more.")
    ] = [],  # noqa: B006
    client: Clients = [],  # noqa: B006
    remove_client: Annotated[
        list[str], typer.Option("--remove-client", metavar="CLIENT", help="An application that may ask no more.")
    ] = [],  # noqa: B006
    max_items: MaxItems = None,
    application_otp: Collects = None,
    kind: Kinds = [],  # noqa: B006
    any_kind: Annotated[bool, typer.Option("--any-kind", help="Codes of all kinds of authenticator approve.")] = False,
    hours: Hours = [],  # noqa: B006
    any_hours: Annotated[bool, typer.Option("--any-hours", help="At all times.")] = False,
    status: Status = None,
) -> None:
    """Propose other values; what is not said stays.

    --kind and --hours say all of them, --activator and --client one more.

    \b
    Examples:
      trien credentials update seal --activator tran-van-binh@2026-12-01..2027-02-01
      trien credentials update seal --client portal --max-items 200 --any-hours
    """
    from trien.v1 import credential_service_pb2

    from trien_client.cli.credential_terms import Terms, changed

    terms = Terms(title, max_items, application_otp, list(kind), list(hours), status, any_kind, any_hours)
    wanted = changed(_read(me, name), terms, activator, remove_activator, client, remove_client)
    request = credential_service_pb2.UpdateCredentialRequest(credential=wanted)
    me.propose(me.client.credentials.UpdateCredential, request)


@operating.command(app)
def restrict(
    me: Officer,
    name: Name,
    activator: Activators = [],  # noqa: B006
    remove_activator: Annotated[
        list[str], typer.Option("--remove-activator", metavar="SIGNER", help="Somebody who may activate it no more.")
    ] = [],  # noqa: B006
    remove_client: Annotated[
        list[str], typer.Option("--remove-client", metavar="CLIENT", help="An application that may ask no more.")
    ] = [],  # noqa: B006
    max_items: MaxItems = None,
    application_otp: Collects = None,
    kind: Kinds = [],  # noqa: B006
    hours: Hours = [],  # noqa: B006
    status: Status = None,
) -> None:
    """Make a policy stricter at once; what is not said stays.

    No second operator is asked, so it has to be stricter in everything: the server refuses what is not. --activator
    gives somebody who may activate it less time.

    \b
    Examples:
      trien credentials restrict seal --remove-client portal --max-items 20
      trien credentials restrict seal --hours 'mon-fri 07:00-17:30' --kind ocra
    """
    from trien.v1 import credential_service_pb2

    from trien_client.cli.credential_terms import Terms, changed
    from trien_client.cli.credential_texts import text

    terms = Terms(None, max_items, application_otp, list(kind), list(hours), status)
    wanted = changed(_read(me, name), terms, activator, remove_activator, [], remove_client)
    request = credential_service_pb2.RestrictCredentialRequest(credential=wanted)
    me.show(me.client.call(me.client.credentials.RestrictCredential, request), text)


@operating.command(app)
def suspend(me: Officer, name: Name) -> None:
    """Take it out of use at once, until two officers resume it.

    \b
    Example:
      trien credentials suspend hoang-trinh-don-rsa
    """
    from trien.v1 import credential_service_pb2

    from trien_client.cli.credential_texts import line

    request = credential_service_pb2.SuspendCredentialRequest(name=options.full_name("credentials", name))
    me.show(me.client.call(me.client.credentials.SuspendCredential, request), line)


@operating.command(app)
def resume(me: Officer, name: Name) -> None:
    """Propose to take it into use again.

    \b
    Example:
      trien credentials resume hoang-trinh-don-rsa
    """
    from trien.v1 import credential_service_pb2

    request = credential_service_pb2.ResumeCredentialRequest(name=options.full_name("credentials", name))
    me.propose(me.client.credentials.ResumeCredential, request)


@operating.command(app)
def revoke(
    me: Officer,
    name: Name,
    reason: Annotated[Reason, typer.Option("--reason", help="Why.")] = Reason.UNSPECIFIED,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Revoke a credential for ever, at once.

    No second operator is asked. What the installation's own CA issued for its key is revoked too; any other CA has to
    be told.

    \b
    Example:
      trien credentials revoke hoang-trinh-don-rsa --reason key-compromise
    """
    from trien.v1 import credential_service_pb2

    from trien_client.cli.credential_texts import line

    full = options.full_name("credentials", name)
    if not yes and me.output is OutputFormat.TEXT:
        from trien_client.cli.outcome import is_terminal

        if not is_terminal():
            raise CommandError(f"Nobody can be asked whether {full} is to be revoked for ever: give --yes.")
        typer.confirm(f"Revoke {full} for ever?", abort=True, err=True)
    values = credential_service_pb2.RevocationReason
    wanted = "REVOCATION_REASON_UNSPECIFIED" if reason is Reason.UNSPECIFIED else reason.name
    request = credential_service_pb2.RevokeCredentialRequest(name=full, reason=values.Value(wanted))
    me.show(me.client.call(me.client.credentials.RevokeCredential, request), line)


def _read(me: Officer, name: str) -> "Credential":
    from trien.v1 import credential_service_pb2

    request = credential_service_pb2.GetCredentialRequest(name=options.full_name("credentials", name))
    found: Credential = me.client.call(me.client.credentials.GetCredential, request)
    return found
