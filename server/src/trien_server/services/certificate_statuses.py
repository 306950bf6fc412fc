"""What is known of the revocation of credentials' certificates, and what a credential's policy makes of it.

Nothing here asks anybody: a request reads what the checker wrote, and of the installation's own CA the records
themselves.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from trien_server.core.certificates import is_self_issued, serial_issued_by, validity_of
from trien_server.core.errors import CertificateRevoked, CertificateStatusUnknown
from trien_server.core.issuing import issued_name
from trien_server.core.records import (
    CertificateAuthority,
    CertificateStatus,
    Credential,
    IssuedCertificate,
    IssuedCertificateState,
    Revocation,
    RevocationPolicy,
)
from trien_server.services.trusted import TrustedView

OWN_CA = "the installation's own CA"


@dataclass(frozen=True, kw_only=True)
class KnownStatus:
    """What is known of a credential's certificates; what is good is so until before `valid_until`, None is always."""

    not_before: datetime
    not_after: datetime
    revocation: Revocation
    source: str
    check_time: datetime | None = None
    revoke_time: datetime | None = None
    valid_until: datetime | None = None

    def as_of(self, at: datetime) -> "KnownStatus":
        """Returns what is known at a time: a revoked certificate stays so, a good one only for its time."""
        if self.revocation is Revocation.GOOD and self.valid_until is not None and at >= self.valid_until:
            return dataclasses.replace(self, revocation=Revocation.UNKNOWN, source=f"{self.source}: too old")
        return self


def status_name(credential: str) -> str:
    """Returns the name of the record of a credential's certificate status."""
    return f"{credential}/certificateStatus"


def chain_hash(chain: Sequence[bytes]) -> bytes:
    """Returns the SHA-256 of a chain, which a status is about."""
    return hashlib.sha256(b"".join(len(one).to_bytes(8) + one for one in chain)).digest()


def asked_about(view: TrustedView, credential: Credential) -> list[tuple[bytes, bytes]]:
    """Returns each certificate of a chain with its issuer's, as far as others know about them.

    The last certificate is the anchor of the trust: nobody else answers for it. Nor is anybody asked of what the
    installation's own CA issued.
    """
    pairs = list(itertools.pairwise(credential.certificate_chain))
    if _own(view, credential) is not None:
        pairs = pairs[1:]
    return [(certificate, issuer) for certificate, issuer in pairs if not is_self_issued(certificate)]


def require_revocation_policy(view: TrustedView, credential: Credential, *, at: datetime) -> None:
    """Raises `CertificateRevoked` or `CertificateStatusUnknown` by the credential's policy. Asks no token when warm."""
    if credential.revocation_policy is RevocationPolicy.IGNORE:
        return
    known = known_status(view, credential).as_of(at)
    if known.revocation is Revocation.REVOKED:
        raise CertificateRevoked("A certificate of the credential is revoked.")
    if credential.revocation_policy is RevocationPolicy.REQUIRE_GOOD and known.revocation is not Revocation.GOOD:
        raise CertificateStatusUnknown("The revocation status of the credential's certificates is not known now.")


def known_status(view: TrustedView, credential: Credential) -> KnownStatus:
    """Returns what is known of a credential's certificates."""
    begin, end = validity_of(credential.certificate_chain)
    unknown = KnownStatus(not_before=begin, not_after=end, revocation=Revocation.UNKNOWN, source="not asked yet")
    own = _own(view, credential)
    if own is not None and own.state is IssuedCertificateState.REVOKED:
        return dataclasses.replace(unknown, revocation=Revocation.REVOKED, source=OWN_CA, revoke_time=own.revoke_time)
    if not asked_about(view, credential):
        if own is not None:
            return dataclasses.replace(unknown, revocation=Revocation.GOOD, source=OWN_CA)
        return dataclasses.replace(unknown, source="the chain does not have the certificate's issuer")
    found = view.get_unchanged(CertificateStatus, status_name(credential.name))
    if found is None or found.chain_hash != chain_hash(credential.certificate_chain):
        return unknown
    return dataclasses.replace(
        unknown,
        revocation=found.revocation,
        source=found.source,
        check_time=found.check_time,
        revoke_time=found.revoke_time,
        valid_until=found.valid_until,
    )


def _own(view: TrustedView, credential: Credential) -> IssuedCertificate | None:
    """Returns the record of the credential's own certificate when the installation's own CA issued it.

    Raises `RecordNotTrusted` when it did and the record is gone.
    """
    if not credential.certificate_chain:
        return None
    certificate = credential.certificate_chain[0]
    for issued in view.find(IssuedCertificate, key=credential.key):
        if issued.certificate == certificate:
            return issued
    # A record that was deleted must not make a revoked certificate one of which nothing is known.
    for authority in view.find(CertificateAuthority):
        serial = serial_issued_by(certificate, authority.certificate_chain[0])
        if serial is not None:
            return view.require(IssuedCertificate, issued_name(authority.name, serial))
    return None
