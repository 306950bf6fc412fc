"""`trien certificates`: what the installation's own CA issues."""

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import operating, options
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import CommandError

if TYPE_CHECKING:
    from trien.v1.credential_service_pb2 import IssuedCertificate

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Issue and revoke certificates of the server's own CA.",
)

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A certificate: certificateAuthorities/…/certificates/…, as `list` shows it."),
]
_NAME = re.compile(r"certificateAuthorities/[a-z0-9-]{1,63}/certificates/[a-z0-9-]{1,63}", re.ASCII)


class Reason(StrEnum):
    """Why a certificate is revoked."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key-compromise"
    AFFILIATION_CHANGED = "affiliation-changed"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessation-of-operation"


@operating.command(app)
def issue(
    me: Officer,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="The key that the certificate is for.")],
    signer: Annotated[str, typer.Option("--signer", metavar="SIGNER", help="The signer whose name it carries.")],
    days: Annotated[int, typer.Option("--days", metavar="N", min=1, max=1825, help="How long it is valid.")] = 365,
) -> None:
    """Propose a certificate for an enabled key.

    Its subject is made from the signer's record. Once another security officer has approved it, the token signs it in a
    moment.

    \b
    Example:
      trien certificates issue --key hoang-trinh-don-2 --signer hoang-trinh-don
    """
    from trien.v1 import credential_service_pb2

    request = credential_service_pb2.IssueCertificateRequest(
        key=options.full_name("keys", key), signer=options.full_name("signers", signer), valid_days=days
    )
    me.propose(me.client.credentials.IssueCertificate, request)


@operating.command(app, "list")
def list_certificates(me: Officer) -> None:
    """List certificates that were issued, or wait to be signed.

    \b
    Example:
      trien certificates list
    """
    from trien.v1 import credential_service_pb2

    request = credential_service_pb2.ListIssuedCertificatesRequest()
    found = me.pages(me.client.credentials.ListIssuedCertificates, request, "issued_certificates")
    me.show_all(found, _text, empty="The installation's own CA has issued no certificate.")


@operating.command(app)
def show(
    me: Officer,
    name: Name,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the certificate and the CA's above it there, PEM."),
    ] = None,
) -> None:
    """Show a certificate, and write its chain to a file.

    \b
    Examples:
      trien certificates show certificateAuthorities/ca-1/certificates/4f…
      trien certificates show certificateAuthorities/ca-1/certificates/4f… --out chain.pem
    """
    from trien.v1 import credential_service_pb2

    request = credential_service_pb2.GetIssuedCertificateRequest(name=_name(name))
    issued = me.client.call(me.client.credentials.GetIssuedCertificate, request)
    if out is not None:
        if not issued.certificate_chain:
            raise CommandError("The certificate is not signed yet: try again in a moment.")
        out.write_bytes(b"".join(_pem(encoded) for encoded in issued.certificate_chain))
    me.show(issued, _text)


@operating.command(app)
def revoke(
    me: Officer,
    name: Name,
    reason: Annotated[Reason, typer.Option("--reason", help="Why: it stands in the CRL.")] = Reason.UNSPECIFIED,
) -> None:
    """Revoke a certificate for ever, at once.

    No second operator is asked. Credentials of it that look at the revocation status sign no more, and the next CRL has
    it.

    \b
    Example:
      trien certificates revoke certificateAuthorities/ca-1/certificates/4f… --reason key-compromise
    """
    from trien.v1 import credential_service_pb2

    value = "REVOCATION_REASON_UNSPECIFIED" if reason is Reason.UNSPECIFIED else reason.name
    request = credential_service_pb2.RevokeIssuedCertificateRequest(
        name=_name(name), reason=credential_service_pb2.RevocationReason.Value(value)
    )
    me.show(me.client.call(me.client.credentials.RevokeIssuedCertificate, request), _text)


def _name(value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise CommandError(
            f"{value!r} is not the name of an issued certificate: give it as `trien certificates list` shows it."
        )
    return value


def _pem(encoded: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import load_der_x509_certificate

    return load_der_x509_certificate(encoded).public_bytes(Encoding.PEM)


def _text(issued: "IssuedCertificate") -> str:
    from cryptography.x509 import load_der_x509_certificate
    from cryptography.x509.oid import NameOID

    revoked = ""
    if issued.HasField("revoke_time"):
        why = operating.value_name(issued, "revoke_reason").lower().replace("_", " ")
        revoked = operating.moment(issued.revoke_time) + ("" if not issued.revoke_reason else f", {why}")
    subject = ""
    if issued.certificate_chain:
        name = load_der_x509_certificate(issued.certificate_chain[0]).subject
        subject = name.rfc4514_string({NameOID.TITLE: "title"})
    return operating.block(
        issued.name,
        ("state", operating.value_name(issued, "state")),
        ("revoked", revoked),
        ("key", issued.key),
        ("signer", issued.signer),
        ("subject", subject),
        ("valid until", f"{operating.moment(issued.expire_time)}{_left(issued)}"),
    )


def _left(issued: "IssuedCertificate") -> str:
    """Returns how few days are left, when it is time to think of another certificate."""
    from datetime import UTC, datetime

    days = (issued.expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)).days
    if days < 0:
        return " (over)"
    return f" (in {days} day{'' if days == 1 else 's'})" if days <= 30 else ""
