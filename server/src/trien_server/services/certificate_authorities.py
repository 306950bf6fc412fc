"""The installation's own CAs: made by the host, in force once a security officer agreed.

Making a key of purpose CA, and having it certify itself, gives nobody power: no certificate can be issued before the
authority is a record, and it becomes one by a proposal alone (P9). So the host does the first by itself and proposes
the second, and the operator who decides sees the very certificate.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from trien_server.core.algorithms import KeyType
from trien_server.core.certificates import assert_valid_at
from trien_server.core.errors import AlreadyExists, InvalidArgument, StateConflict
from trien_server.core.issuing import (
    add_days,
    ca_request_information,
    ca_subject,
    ca_to_be_signed,
    parse_serial,
    signed,
    whole_seconds,
)
from trien_server.core.ports import Clock, Hsm, Randomness
from trien_server.core.records import (
    CertificateAuthority,
    Key,
    KeyPurpose,
    KeyState,
    Proposal,
    ProtectionLevel,
    State,
)
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.key_generation import KeyGeneration
from trien_server.services.proposals import HOST, Agreement, Plan, Proposals
from trien_server.services.token_signatures import not_verified, sign_content
from trien_server.services.transactions import Ledger, Transactions, next_version
from trien_server.services.trusted import TrustedView

METHOD = "Host.CreateCertificateAuthority"
KEY_TYPES = (KeyType.EC_P256, KeyType.EC_P384, KeyType.RSA_3072, KeyType.RSA_4096)
LONGEST_DAYS = 7305
"""Twenty years."""

_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class NewAuthority:
    """A CA as it is to be in force; subject, expiry and fingerprint are the certificate's, for who decides."""

    name: str
    key: str
    subject: str
    expire_time: datetime
    fingerprint: str
    certificate_chain: tuple[bytes, ...]
    replaces: str | None = None


def find_authority(view: TrustedView) -> CertificateAuthority | None:
    """Returns the CA that issues, or None."""
    found = view.find(CertificateAuthority, state=State.ENABLED)
    return found[0] if found else None


def require_authority(view: TrustedView) -> CertificateAuthority:
    """Returns the CA that issues. Raises `StateConflict` when the installation has none."""
    found = find_authority(view)
    if found is None:
        raise StateConflict("The installation has no CA of its own: `trien-server ca create` makes one.")
    return found


def authority_certificate(authority: CertificateAuthority) -> x509.Certificate:
    """Returns a CA's own certificate."""
    return x509.load_der_x509_certificate(authority.certificate_chain[0])


class CertificateAuthorities:
    """What `trien-server ca` does: keys of CAs, their certificates, and the proposals that put them in force."""

    def __init__(
        self,
        *,
        transactions: Transactions,
        changes: Changes,
        proposals: Proposals,
        generation: KeyGeneration,
        hsm: Hsm,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._transactions = transactions
        self._changes = changes
        self._proposals = proposals
        self._generation = generation
        self._hsm = hsm
        self._clock = clock
        self._randomness = randomness
        proposals.register(Plan(method=METHOD, command=NewAuthority, make=self._plan))

    def list_(self) -> list[CertificateAuthority]:
        """Returns all of them, by name."""
        return self._transactions.read(lambda view: view.find(CertificateAuthority))

    def make_key(self, key_type: KeyType) -> Key:
        """Returns a key of purpose CA that no authority has: one that an earlier run left, or a new one.

        A crash leaves the key's record, and the next run goes on with it. Raises `InvalidArgument`, `Busy`,
        `HsmUnavailable`, `StoreUnavailable`.
        """
        if key_type not in KEY_TYPES:
            raise InvalidArgument("key_type", f"a CA's key is one of {', '.join(KEY_TYPES)}")
        key: Key | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal key
            kept = view.find(Key, purpose=KeyPurpose.CA)
            states = (KeyState.PENDING_GENERATION, KeyState.ENABLED)
            free = [
                one
                for one in kept
                if one.state in states
                and one.key_type is key_type
                and not view.find(CertificateAuthority, key=one.name)
            ]
            if free:
                key = free[0]
                return Change(kind="key_created", slow=[])
            taken = {one.name for one in kept}
            name = next(name for number in itertools.count(1) if (name := f"keys/ca-{number}") not in taken)
            key = Key(
                name=name,
                key_type=key_type,
                purpose=KeyPurpose.CA,
                protection_level=ProtectionLevel.TOKEN,
                object_id=self._randomness.bytes(16),
                public_key=b"",
                state=KeyState.PENDING_GENERATION,
                create_time=self._clock.now(),
            )
            return Change(kind="key_created", slow=[key])

        self._changes.make(HOST, prepare, deadline=self._deadline())
        if key is None:
            raise AssertionError("a change was made without being prepared")
        if key.state is KeyState.PENDING_GENERATION:
            self._generation.generate(key.name)
        made = self._transactions.read(lambda view: view.require(Key, key.name))
        if made.state is not KeyState.ENABLED:
            raise StateConflict(f"{made.name} could not be generated.")
        return made

    def certify_itself(self, key: Key, *, common_name: str, organization: str, days: int) -> bytes:
        """Returns a certificate (DER) that a CA's key signs for itself.

        Raises `InvalidArgument`, `HsmUnavailable`, `StoreUnavailable`.
        """
        if not 1 <= days <= LONGEST_DAYS:
            raise InvalidArgument("days", f"expected 1 to {LONGEST_DAYS}")
        now = self._clock.now()
        content = ca_to_be_signed(
            key_type=key.key_type,
            public_key=key.public_key,
            subject=_subject(common_name, organization),
            serial=parse_serial(self._randomness.bytes(20)),
            not_before=whole_seconds(now),
            not_after=add_days(now, days),
        )
        encoded = signed(content, key.key_type, self._sign(key, content, "ca_certificate_granted"))
        certificate = x509.load_der_x509_certificate(encoded)
        try:
            certificate.verify_directly_issued_by(certificate)
        except (InvalidSignature, ValueError) as fault:
            raise not_verified() from fault
        return encoded

    def request(self, key: Key, *, common_name: str, organization: str) -> bytes:
        """Returns a certificate signing request (DER) for a parent CA. Raises as `certify_itself`."""
        content = ca_request_information(subject=_subject(common_name, organization), public_key=key.public_key)
        encoded = signed(content, key.key_type, self._sign(key, content, "ca_signing_request_granted"))
        if not x509.load_der_x509_csr(encoded).is_signature_valid:
            raise not_verified()
        return encoded

    def first(self, key: Key, certificate: bytes) -> CertificateAuthority:
        """Returns the record of an installation's first CA, to be put in force together with the installation.

        Raises `InvalidArgument`, `CertificateNotValid`.
        """
        now = self._clock.now()
        check_authority_chain([certificate], public_key=key.public_key, at=now)
        return CertificateAuthority(name=_name_of(key), key=key.name, certificate_chain=(certificate,), create_time=now)

    def propose(self, chain: Sequence[bytes], *, replace: bool) -> Proposal:
        """Proposes the CA of a certificate chain (DER, its own first), whose key was made here.

        With `replace` it takes the place of the present one, whose certificates and lists stay valid. Raises
        `InvalidArgument`, `StateConflict`, `CertificateNotValid`, `StoreUnavailable`.
        """
        try:
            certificate = x509.load_der_x509_certificate(chain[0])
            public_key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except (IndexError, ValueError, UnsupportedAlgorithm) as fault:
            raise InvalidArgument("certificate_chain[0]", "not a certificate") from fault

        def find(view: TrustedView) -> NewAuthority:
            key = next((one for one in view.find(Key, purpose=KeyPurpose.CA) if one.public_key == public_key), None)
            if key is None:
                raise InvalidArgument("certificate_chain[0]", "its key is none of this installation's CA keys")
            present = find_authority(view)
            if present is not None and not replace:
                raise StateConflict(f"{present.name} issues already: `trien-server ca rotate` replaces it.")
            if present is None and replace:
                raise StateConflict("There is no CA to be replaced: `trien-server ca create` makes the first.")
            return NewAuthority(
                name=_name_of(key),
                key=key.name,
                subject=certificate.subject.rfc4514_string(),
                expire_time=certificate.not_valid_after_utc,
                fingerprint=hashlib.sha256(chain[0]).hexdigest(),
                certificate_chain=tuple(chain),
                replaces=None if present is None else present.name,
            )

        command = self._transactions.read(find)
        return self._proposals.propose_from_host(METHOD, command, deadline=self._deadline())

    def _plan(self, view: TrustedView, new: NewAuthority, agreement: Agreement) -> Change:
        if view.get(CertificateAuthority, new.name) is not None:
            raise AlreadyExists(f"{new.name} exists.")
        present = find_authority(view)
        if (None if present is None else present.name) != new.replaces:
            raise StateConflict("Another CA issues by now.")
        key = view.get(Key, new.key)
        if key is None or key.purpose is not KeyPurpose.CA or key.state is not KeyState.ENABLED:
            raise StateConflict(f"{new.key} is no enabled key of a CA.")
        certificate = check_authority_chain(new.certificate_chain, public_key=key.public_key, at=agreement.at)
        said = (new.subject, new.expire_time, new.fingerprint)
        fingerprint = hashlib.sha256(new.certificate_chain[0]).hexdigest()
        if said != (certificate.subject.rfc4514_string(), certificate.not_valid_after_utc, fingerprint):
            raise InvalidArgument("certificate_chain[0]", "what is said of the certificate is not what it says")
        authority = CertificateAuthority(
            name=new.name, key=new.key, certificate_chain=new.certificate_chain, create_time=agreement.at
        )
        replaced = [] if present is None else [next_version(present, state=State.DISABLED)]
        return Change(kind="certificate_authority_created", slow=[*replaced, authority])

    def _sign(self, key: Key, content: bytes, kind: str) -> bytes:
        details = {"actor": HOST, "key": key.name, "contentSha256": hashlib.sha256(content).hexdigest()}

        def record(ledger: Ledger) -> None:
            ledger.record(kind, details)

        self._transactions.run(record, timeout=self._deadline().remaining())
        return sign_content(self._hsm, key, content)

    def _deadline(self) -> Deadline:
        return Deadline(self._clock, _SECONDS)


def check_authority_chain(chain: Sequence[bytes], *, public_key: bytes, at: datetime) -> x509.Certificate:
    """Returns the certificate of a CA that may issue certificates and lists with this key (SPKI, DER).

    Raises `InvalidArgument` that names the first fault, `CertificateNotValid` for dates.
    """
    field = "certificate_chain"
    certificates = []
    for position, encoded in enumerate(chain):
        try:
            certificate = x509.load_der_x509_certificate(encoded)
            usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
            basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.ExtensionNotFound) as fault:
            raise InvalidArgument(f"{field}[{position}]", "no certificate of a CA") from fault
        if not (basic.ca and usage.key_cert_sign) or (position == 0 and not usage.crl_sign):
            raise InvalidArgument(f"{field}[{position}]", "it may not issue certificates, or no revocation lists")
        certificates.append(certificate)
    if not certificates:
        raise InvalidArgument(field, "at least the CA's own certificate is required")
    if certificates[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != public_key:
        raise InvalidArgument(f"{field}[0]", "the certificate is for another key")
    pairs = [*itertools.pairwise(certificates)]
    if len(certificates) == 1 and certificates[0].issuer == certificates[0].subject:
        pairs.append((certificates[0], certificates[0]))
    for position, (certificate, issuer) in enumerate(pairs):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError) as fault:
            raise InvalidArgument(f"{field}[{position}]", "the next certificate did not issue it") from fault
    assert_valid_at(chain, at)
    return certificates[0]


def _name_of(key: Key) -> str:
    return f"certificateAuthorities/{key.name.partition('/')[2]}"


def _subject(common_name: str, organization: str) -> bytes:
    for field, value in (("common_name", common_name), ("organization", organization)):
        if not 1 <= len(value) <= 64 or not value.isprintable():
            raise InvalidArgument(field, "expected 1 to 64 printable characters")
    return ca_subject(common_name=common_name, organization=organization)
