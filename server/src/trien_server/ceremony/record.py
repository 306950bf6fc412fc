"""The record of a ceremony, to be signed on paper: 80 columns, nothing secret."""

import hashlib
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from trien_server.ceremony.plan import Plan
from trien_server.core.checkpoints import LogKey
from trien_server.core.custody import Export
from trien_server.core.records import CertificateAuthority, InstallationKey, Operator
from trien_server.hsm import TokenInventory

WIDTH = 80
_COLUMN = 16


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a ceremony made."""

    time: datetime
    sha256: str
    version: str
    inventory: TokenInventory
    export: Export | None
    operators: Sequence[Operator]
    authority: CertificateAuthority | None
    log_key: InstallationKey | None
    tls_ca: bytes
    """The certificate (PEM) of the private CA of TLS."""


def write_record(plan: Plan, made: Made) -> str:
    """Returns the record's text."""
    lines = ["RECORD OF A KEY CEREMONY", "=" * WIDTH, "", *_head(plan, made)]
    lines += ["", *_title("Keys on the token"), *_keys(made)]
    lines += ["", *_title("Custody of the keys"), *_custody(made.export)]
    lines += ["", *_title("Certificates"), *_certificates(made)]
    lines += ["", *_title("Officers"), *_officers(made.operators)]
    lines += ["", *_title("Signatures"), *_signatures(plan)]
    return "\n".join(lines) + "\n"


def _head(plan: Plan, made: Made) -> Iterator[str]:
    yield from _field("Date", f"{made.time:%Y-%m-%d %H:%M} UTC")
    yield from _field("Place", plan.ceremony.place)
    yield from _field("Software", f"trien-server {made.version}")
    yield from _field("File's SHA-256", _digits(made.sha256))
    yield from _field("Installation", f"{plan.installation.name}: {', '.join(plan.installation.hosts)}")
    yield from _field("Token", f"label {made.inventory.label}, serial number {made.inventory.serial}")
    yield from _field("", f"{made.inventory.manufacturer} {made.inventory.model}")
    if plan.token.softhsm:
        yield from _field("", "SoftHSM: not for real documents")


def _keys(made: Made) -> Iterator[str]:
    """The secret keys by check value, key pairs by the SHA-256 of the public key."""
    exported = {} if made.export is None else made.export.check_values()
    trusted = set() if made.export is None else {key.label for key in made.export.keys if key.trusted}
    for label, value in made.inventory.check_values.items():
        yield label
        yield from _field("  check value", _digits(value))
        custody = "exported under both shares" if label in exported else "can never leave the token"
        yield from _field("  custody", f"{custody}{', trusted' if label in trusted else ''}")
    yield "trien probe key (tries the token, signs nothing else)"
    yield from _field("  SHA-256", _digits(hashlib.sha256(made.inventory.probe_key).hexdigest()))
    if made.log_key is None or made.log_key.public_key is None or made.log_key.origin is None:
        yield "log key: not made yet; the server makes it when it starts, `trien audit keys` shows it"
        return
    yield "log key (signs the log's checkpoints)"
    yield from _field("  origin", made.log_key.origin)
    if made.log_key.key_type is not None:
        key = LogKey(made.log_key.origin, made.log_key.key_type, made.log_key.public_key)
        yield from _field("  public key", key.vkey)


def _custody(export: Export | None) -> Iterator[str]:
    if export is None:
        yield from textwrap.wrap(
            "None. The keys can never leave the token: a second token gets them by the vendor's clone alone (for "
            "SoftHSM: a copy of the token's folder).",
            WIDTH,
        )
        return
    yield from _field("Key of both", f"check value {_digits(export.key_check_value)}")
    for number, (name, fingerprint) in enumerate(export.custodians, start=1):
        yield from _field(f"Share {number}", name)
        yield from _field("  fingerprint", _digits(fingerprint))


def _certificates(made: Made) -> Iterator[str]:
    certificate = x509.load_pem_x509_certificate(made.tls_ca)
    yield "CA of TLS (server and operators)"
    yield from _certificate(certificate.public_bytes(Encoding.DER))
    if made.authority is None:
        yield "CA of documents: none"
        return
    yield f"CA of documents ({made.authority.name}); it is no public CA"
    yield from _certificate(made.authority.certificate_chain[0])


def _officers(operators: Sequence[Operator]) -> Iterator[str]:
    for operator in operators:
        yield f"{operator.display_name} ({operator.name})"
        yield from _field("  roles", ", ".join(operator.roles))
        yield from _field("  key's SHA-256", _digits(operator.public_key_hash.hex()))
        yield from _certificate(operator.certificate)


def _certificate(encoded: bytes) -> Iterator[str]:
    certificate = x509.load_der_x509_certificate(encoded)
    yield from _field("  subject", certificate.subject.rfc4514_string())
    yield from _field("  valid until", f"{certificate.not_valid_after_utc:%Y-%m-%d}")
    yield from _field("  SHA-256", _digits(hashlib.sha256(encoded).hexdigest()))


def _signatures(plan: Plan) -> Iterator[str]:
    yield from textwrap.wrap(
        "Each of us was present, compared what is printed here with what was shown, and saw no share of a key "
        "shown to anybody but its custodian.",
        WIDTH,
    )
    people = [("officer", officer.name) for officer in plan.officer]
    if plan.custody is not None:
        people += [("custodian", one.name) for one in plan.custody.custodian]
    people += [("present", name) for name in plan.ceremony.present]
    people += [("witness", name) for name in plan.ceremony.witnesses]
    for role, name in people:
        yield ""
        yield from _field(role.capitalize(), name)
        yield " " * _COLUMN + "_" * 40 + "  ____________"
        yield " " * _COLUMN + f"{'signature':42}date"


def _title(text: str) -> tuple[str, str]:
    return text, "-" * WIDTH


def _field(name: str, value: str) -> Iterator[str]:
    """Yields a named value over as many lines as it takes; what has no space is cut at the edge."""
    wrapped = textwrap.wrap(value, WIDTH - _COLUMN, break_on_hyphens=False) or [""]
    for number, line in enumerate(wrapped):
        yield f"{'' if number else name:{_COLUMN}}{line}"


def _digits(value: str) -> str:
    """Returns hexadecimal digits in groups of four, to be compared by eye: 64 fill two lines."""
    return " ".join(value[place : place + 4] for place in range(0, len(value), 4))
