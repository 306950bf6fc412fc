"""What database and token say together: whose they are, who looks after the installation, and what expires."""

from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from trien_server.cli.doctor.certificates import validity_findings
from trien_server.cli.doctor.findings import Finding, error, note, warning
from trien_server.cli.doctor.subject import Subject
from trien_server.core.certificates import serial_issued_by
from trien_server.core.errors import Refusal
from trien_server.core.ports import KeyMismatch
from trien_server.core.records import InstallationKeyPurpose, InstallationKeyState, Operator, State
from trien_server.core.roles import PROPOSING_ROLES
from trien_server.services.expiry_notices import DAYS_BEFORE, Expiring
from trien_server.services.installation import NotThisInstallation
from trien_server.services.operators import all_operators
from trien_server.services.sealing_generations import read_generations

_ENOUGH = 3
_MORE_OFFICERS = (
    "Have three of each, so that one may be ill: `trien access operators create`, or, while one is left, "
    "`trien-server operators recover`."
)


def installation(subject: Subject) -> Iterator[Finding]:
    """Yields why database and token are not one installation, as at a server's start."""
    try:
        subject.instance.use.check_start()
    except NotThisInstallation as fault:
        yield error(
            str(fault),
            "Look whether store.url and the token are of the same installation. A restored database needs the token of "
            "its time, and a restored token the database of its.",
        )
    except Refusal as refusal:
        yield error(
            f"{refusal.reason}: {refusal.message}", "No server starts meanwhile. `trien-server fsck` tells more."
        )
    else:
        yield from _wrapping_findings(subject)
    for event, fields in subject.events:
        if event == "database_set_back":
            yield error(
                f"The token holds a {fields['token_holds']} that no record asked for: the database is from before a "
                "rotation, or somebody with the token's PIN made the key.",
                "Restore the newer database, or remove the key with the tools of the token's maker.",
            )


def _wrapping_findings(subject: Subject) -> Iterator[Finding]:
    """Yields which wrapping key that is in use the token lacks, of whichever generation; a start does not ask."""
    instance = subject.instance
    keys = instance.use.transactions.read(lambda view: read_generations(view, InstallationKeyPurpose.WRAPPING))
    for key in keys:
        if key.state not in {InstallationKeyState.ACTIVE, InstallationKeyState.RETIRING}:
            continue
        try:
            there = instance.hsm.has_installation_key(InstallationKeyPurpose.WRAPPING, key.generation)
            text = "" if there else f"The token lacks the wrapping key of generation {key.generation}"
        except KeyMismatch as mismatch:
            text = f"The wrapping key of generation {key.generation} cannot be believed: {mismatch}"
        if text:
            yield error(
                f"{text}: keys that are wrapped by it sign nothing.",
                "Restore the token: another key in its place opens nothing of this database.",
            )


def officers(subject: Subject) -> Iterator[Finding]:
    """Yields which roles that agree on changes have too few holders with a valid certificate."""
    operators = _enabled_operators(subject)
    now = subject.now
    able = [one for one in operators if _certificate(one).not_valid_after_utc > now]
    for role in sorted(PROPOSING_ROLES):
        count = sum(1 for one in able if role in one.roles)
        words = str(role).lower().replace("_", " ")
        if count == 0:
            yield error(
                f"No {words} is left who is enabled and has a valid certificate.",
                "Without one nothing of theirs can be changed again: see 'When an officer is lost' on the operator's "
                "page. A new certificate for the same person is proposed by another officer.",
            )
        elif count == 1:
            yield warning(f"One {words} is left: nobody can approve what they propose.", _MORE_OFFICERS)
        elif count < _ENOUGH:
            yield note(f"There are {count} {words}s: when one is away, nothing is approved.", _MORE_OFFICERS)


def operator_certificates(subject: Subject) -> Iterator[Finding]:
    """Yields whose certificate expires, or is of no CA that the server lets in."""
    authorities = _authorities(subject)
    for one in _enabled_operators(subject):
        certificate = _certificate(one)
        advice = f"{one.name} makes a new request (`trien access operators request`); another officer proposes it."
        yield from validity_findings(f"The certificate of {one.name}", certificate, at=subject.now, advice=advice)
        if authorities and all(serial_issued_by(one.certificate, authority) is None for authority in authorities):
            yield warning(
                f"The certificate of {one.name} is of no CA in server.client_ca_file: they cannot connect.",
                "Add that CA to the file, or give them a certificate of one that is there.",
            )


def credentials(subject: Subject) -> Iterator[Finding]:
    """Yields how many credentials' certificates have expired or will soon, and which of the installation's CAs do."""
    now, counts = subject.now, {"expired": 0, "soon": 0}
    days = max(DAYS_BEFORE)
    for one in subject.instance.use.expiry_notices.certificates():
        if one.name.startswith("certificateAuthorities/"):
            yield from _authority_findings(subject, one)
        elif one.name.startswith("credentials/"):
            left = one.expire_time - now
            counts["expired"] += left.total_seconds() <= 0
            counts["soon"] += 0 < left.total_seconds() <= days * 86400
    if counts["expired"]:
        yield warning(
            f"The certificates of {_credentials(counts['expired'])} have expired: nothing is signed with them.",
            "Renew them (`trien credentials renew`), or revoke those that nobody needs.",
        )
    if counts["soon"]:
        yield warning(
            f"The certificates of {_credentials(counts['soon'])} expire within {days} days.",
            "Renew them in time (`trien credentials renew`).",
        )


def _authority_findings(subject: Subject, one: Expiring) -> Iterator[Finding]:
    certificate = x509.load_der_x509_certificate(one.certificate)
    advice = "`trien-server ca rotate` makes the next one; whoever trusts the old one has to install it."
    yield from validity_findings(f"The certificate chain of {one.name}", certificate, at=subject.now, advice=advice)


def _enabled_operators(subject: Subject) -> list[Operator]:
    found = subject.instance.use.transactions.read(all_operators)
    return [one for one in found if one.state is State.ENABLED]


def _certificate(operator: Operator) -> x509.Certificate:
    return x509.load_der_x509_certificate(operator.certificate)


def _authorities(subject: Subject) -> list[bytes]:
    try:
        found = x509.load_pem_x509_certificates(subject.config.server.client_ca_file.read_bytes())
    except (OSError, ValueError):
        return []  # told of with the files
    return [certificate.public_bytes(Encoding.DER) for certificate in found]


def _credentials(count: int) -> str:
    return "1 credential" if count == 1 else f"{count} credentials"
