"""Credentials as officers see them, and the certificates that they bring as files."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from trien_client.cli import operating
from trien_client.cli.operating import Officer, Target
from trien_client.cli.outcome import CommandError, OutputFormat, plain

if TYPE_CHECKING:
    from trien.v1.credential_service_pb2 import Activator, Credential

_SOON = 30
_DAY = 86_400


def list_all(target: Target, output: OutputFormat) -> None:
    """Prints all credentials that an operator may see."""
    from trien.v1 import credential_service_pb2

    me = Officer(target=target, output=output)
    try:
        request = credential_service_pb2.ListCredentialsRequest(page_size=100)
        found = me.pages(me.client.credentials.ListCredentials, request, "credentials")
        me.show_all(found, line, empty="There is no credential.")
    finally:
        me.close()


def line(credential: "Credential") -> str:
    """Returns a credential in a list."""
    state = operating.value_name(credential, "state")
    kind = operating.value_name(credential, "key_type")
    return "\n".join([plain(f"{credential.name}  {state}  {kind}"), f"  {validity(credential)}"])


def text(credential: "Credential") -> str:
    """Returns all that officers see of a credential."""
    from trien.v1 import signer_service_pb2

    chain = [x509.load_der_x509_certificate(encoded) for encoded in credential.certificate_chain]
    names = signer_service_pb2.Authenticator.Kind.DESCRIPTOR.values_by_number
    kinds = [names[kind].name if kind in names else str(kind) for kind in credential.authenticator_kinds]
    status = credential.certificate_status
    known = operating.value_name(status, "revocation")
    if status.HasField("check_time"):
        known += f", asked {operating.moment(status.check_time)}"
    collected = "may collect the code" if credential.client_collected_otp_allowed else "may not collect the code"
    return operating.block(
        credential.name,
        ("title", credential.display_name),
        ("state", operating.value_name(credential, "state")),
        ("signer", credential.signer),
        ("key", f"{credential.key}, {operating.value_name(credential, 'key_type')}"),
        *_several("certificate", _parts(chain[0].subject) if chain else []),
        *_several("issued by", _parts(chain[0].issuer) if chain else []),
        ("validity", validity(credential)),
        ("revocation", known),
        ("", status.source),
        *_several("activated by", [_activator(activator) for activator in credential.activators] or ["nobody"]),
        *_several("asked by", list(credential.clients) or ["no client"]),
        ("application", collected),
        ("items", f"at most {credential.max_items} an authorization"),
        ("codes of", ", ".join(kinds) or "all kinds of authenticator"),
        *_several("hours", list(credential.hours) or ["always"]),
        ("asks of status", operating.value_name(credential, "revocation_policy")),
        ("made", operating.moment_of(credential, "create_time")),
    )


def validity(credential: "Credential") -> str:
    """Returns until when the chain is valid."""
    status = credential.certificate_status
    if not status.HasField("not_after"):
        return "not known"
    begin = status.not_before.ToDatetime(tzinfo=UTC)
    now = datetime.now(UTC)
    if now < begin:
        return f"from {begin.astimezone():%Y-%m-%d}, not yet"
    return expiry(status.not_after.ToDatetime(tzinfo=UTC), now=now)


def expiry(end: datetime, *, now: datetime) -> str:
    """Returns when a certificate ends, for people: `2026-12-23, expires in 29 days`."""
    day = f"{end.astimezone():%Y-%m-%d}"
    left = (end - now).total_seconds()
    if left < 0:
        return f"{day}, expired"
    days = int(left // _DAY)
    if days == 0:
        return f"{day}, expires within a day"
    if days == 1:
        return f"{day}, expires in 1 day"
    return f"{day}, expires in {days} days" if days <= _SOON else f"{day}, in {days} days"


def read_chain(files: Sequence[Path]) -> list[bytes]:
    """Returns the certificates in files, in their order, as DER. A file has several as PEM, or one as DER.

    Raises `CommandError`, `OSError`.
    """
    chain: list[bytes] = []
    for file in files:
        content = file.read_bytes()
        try:
            found = (
                x509.load_pem_x509_certificates(content)
                if b"-----BEGIN" in content
                else [x509.load_der_x509_certificate(content)]
            )
        except ValueError:
            raise CommandError(f"{file}: there is no certificate in it, neither as PEM nor as DER.") from None
        chain += [certificate.public_bytes(Encoding.DER) for certificate in found]
    return chain


def request_of(encoded: bytes) -> str:
    """Returns a certificate signing request (DER) as PEM."""
    return x509.load_der_x509_csr(encoded).public_bytes(Encoding.PEM).decode("ascii")


def _several(label: str, values: Sequence[str]) -> Iterable[tuple[str, object]]:
    """Yields lines of a block: the label stands before the first."""
    return [(label if position == 0 else "", value) for position, value in enumerate(values)]


def _activator(activator: "Activator") -> str:
    begin, end = operating.moment_of(activator, "start_time"), operating.moment_of(activator, "end_time")
    return str(activator.signer) + (f" from {begin}" if begin else "") + (f" until {end}" if end else "")


def _parts(name: x509.Name) -> list[str]:
    """Returns a name's parts, the narrowest first."""
    return [part.rfc4514_string({NameOID.TITLE: "title"}) for part in reversed(name.rdns)]
