"""IssueCertificate, GetIssuedCertificate, ListIssuedCertificates, RevokeIssuedCertificate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

from trien_server.core.errors import AlreadyExists, InvalidArgument, PermissionDenied, StateConflict
from trien_server.core.issuing import (
    SERIAL_BYTES,
    add_days,
    certificate_to_be_signed,
    issued_name,
    parse_serial,
    whole_seconds,
)
from trien_server.core.ports import Clock, Randomness
from trien_server.core.principal import Principal
from trien_server.core.records import (
    CertificateAuthority,
    Credential,
    IssuedCertificate,
    IssuedCertificateState,
    Key,
    KeyPurpose,
    KeyState,
    Operator,
    Organization,
    Proposal,
    Record,
    RevocationReason,
    Signer,
    SignerState,
)
from trien_server.core.signing_request import subject_name
from trien_server.services.access import is_within, require_operator, require_organization
from trien_server.services.certificate_authorities import authority_certificate, require_authority
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.paging import Page, page_of
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView

DEFAULT_DAYS = 365
LONGEST_DAYS = 1825


@dataclass(frozen=True, kw_only=True)
class NewCertificate:
    """A certificate to be issued; `subject` is what the records said of the signer, for who decides."""

    name: str
    key: str
    signer: str
    subject: str
    valid_days: int


@dataclass(frozen=True, kw_only=True)
class IssuedView:
    """An issued certificate with the chain above it."""

    issued: IssuedCertificate
    chain: Sequence[bytes]


class IssueCertificate:
    """Proposes certificates of the installation's own CA."""

    method = "CredentialService.IssueCertificate"

    def __init__(
        self,
        *,
        transactions: Transactions,
        proposals: Proposals,
        randomness: Randomness,
        crl_url: Callable[[str], str | None],
        approved: Callable[[str], None],
    ) -> None:
        """`crl_url` tells where an authority's list can be fetched; `approved` hears what is to be signed."""
        self._transactions = transactions
        self._proposals = proposals
        self._randomness = randomness
        self._crl_url = crl_url
        self._approved = approved
        proposals.register(
            Plan(
                method=self.method,
                command=NewCertificate,
                make=self._plan,
                set_on_approval=frozenset({"to_be_signed", "expire_time"}),
                done=self._done,
                concerns=_organizations,
            )
        )

    def __call__(self, principal: Principal, *, key: str, signer: str, valid_days: int, deadline: Deadline) -> Proposal:
        """Proposes a certificate. 0 days are 365.

        Raises `PermissionDenied`, `StateConflict` without a CA, or `InvalidArgument` that names what is wrong: the key
        is not enabled or another signer's, the signer does not exist, the certificate would outlive the CA.
        """
        serial = parse_serial(self._randomness.bytes(SERIAL_BYTES))

        def read(view: TrustedView) -> NewCertificate:
            require_operator(view, principal, self.method)
            authority, subject = require_authority(view), _subject_of(view, signer)
            return NewCertificate(
                name=issued_name(authority.name, serial),
                key=key,
                signer=signer,
                subject=_shown(subject),
                valid_days=valid_days or DEFAULT_DAYS,
            )

        command = self._transactions.read(read)
        return self._proposals.propose(principal, self.method, command, deadline=deadline)

    def _plan(self, view: TrustedView, new: NewCertificate, agreement: Agreement) -> Change:
        authority = require_authority(view)
        if not new.name.startswith(f"{authority.name}/certificates/"):
            raise StateConflict("Another CA issues by now.")
        if view.get(IssuedCertificate, new.name) is not None:
            raise AlreadyExists(f"{new.name} exists.")
        if not 1 <= new.valid_days <= LONGEST_DAYS:
            raise InvalidArgument("valid_days", f"expected 1 to {LONGEST_DAYS}, or 0 for {DEFAULT_DAYS}")
        key = self._key_of(view, new)
        subject = _subject_of(view, new.signer)
        if _shown(subject) != new.subject:
            raise StateConflict("The signer has another name, post or organization by now.")
        issuer = authority_certificate(authority)
        not_after = add_days(agreement.at, new.valid_days)
        if not_after > issuer.not_valid_after_utc:
            days = (issuer.not_valid_after_utc - whole_seconds(agreement.at)).days
            raise InvalidArgument("valid_days", f"the CA itself is valid for {max(0, days)} days more")
        to_be_signed = certificate_to_be_signed(
            authority=issuer,
            authority_key_type=view.require(Key, authority.key).key_type,
            public_key=key.public_key,
            subject=subject,
            serial=serial_of(new.name),
            not_before=whole_seconds(agreement.at),
            not_after=not_after,
            crl_url=self._crl_url(authority.name),
        )
        issued = IssuedCertificate(
            name=new.name,
            authority=authority.name,
            key=new.key,
            signer=new.signer,
            to_be_signed=to_be_signed,
            expire_time=not_after,
            create_time=agreement.at,
        )
        return Change(kind="certificate_issue_granted", slow=[issued])

    @staticmethod
    def _key_of(view: TrustedView, new: NewCertificate) -> Key:
        key = view.get(Key, new.key)
        if key is None or key.state is not KeyState.ENABLED or key.purpose is not KeyPurpose.SIGNING:
            raise InvalidArgument("key", "there is no such enabled signing key")
        owners: set[str] = set()
        # That nobody has the key yet is asserted again by the transaction.
        if not view.has_none(Credential, key=new.key):
            owners |= {credential.signer for credential in view.find(Credential, key=new.key)}
        if not view.has_none(IssuedCertificate, key=new.key):
            owners |= {issued.signer for issued in view.find(IssuedCertificate, key=new.key)}
        if owners - {new.signer}:
            raise InvalidArgument("key", "the key is another signer's")
        return key

    def _done(self, records: Sequence[Record]) -> None:
        for record in records:
            self._approved(record.name)


class GetIssuedCertificate:
    """Reads certificates of the installation's own CA."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str) -> IssuedView:
        """Returns it. Raises `PermissionDenied`."""

        def work(view: TrustedView) -> IssuedView:
            operator = require_operator(view, principal, "CredentialService.GetIssuedCertificate")
            return view_of(view, _require(view, operator, name))

        return self._transactions.read(work)


class ListIssuedCertificates:
    """Lists certificates of the installation's own CA."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, *, page: Page) -> tuple[list[IssuedView], str]:
        """Returns a page by name, and the token of the next or "". Raises `PermissionDenied`."""

        def work(view: TrustedView) -> tuple[list[IssuedView], str]:
            operator = require_operator(view, principal, "CredentialService.ListIssuedCertificates")
            found = view.find(IssuedCertificate, limit=page.size + 1, after=page.after)
            shown, token = page_of(found, page)
            return [view_of(view, issued) for issued in shown if _is_shown(view, operator, issued)], token

        return self._transactions.read(work)


class RevokeIssuedCertificate:
    """Revokes certificates of the installation's own CA."""

    def __init__(self, *, changes: Changes, clock: Clock, revoked: Callable[[], None]) -> None:
        """`revoked` is told that the next revocation list is due; a crash may lose that."""
        self._changes = changes
        self._clock = clock
        self._revoked = revoked

    def __call__(self, principal: Principal, name: str, *, reason: RevocationReason, deadline: Deadline) -> IssuedView:
        """Revokes it: credentials of it that look at that sign no more. Raises `PermissionDenied`, `StateConflict`."""
        revoked: IssuedView | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal revoked
            operator = require_operator(view, principal, "CredentialService.RevokeIssuedCertificate")
            issued = _require(view, operator, name)
            if issued.state is IssuedCertificateState.REVOKED:
                raise StateConflict("The certificate is revoked.")
            ended = _revoke(issued, at=self._clock.now(), reason=reason)
            revoked = view_of(view, ended)
            return Change(kind="certificate_revoked", slow=[ended])

        self._changes.make(principal.name, prepare, deadline=deadline)
        if revoked is None:
            raise AssertionError("a change was made without being prepared")
        self._revoked()
        return revoked


def serial_of(name: str) -> int:
    """Returns the serial number that the name of an issued certificate ends in."""
    return int(name.rpartition("/")[2], 16)


def view_of(view: TrustedView, issued: IssuedCertificate) -> IssuedView:
    """Returns an issued certificate with its chain, which is empty until it is issued."""
    if not issued.certificate:
        return IssuedView(issued=issued, chain=())
    authority = view.require(CertificateAuthority, issued.authority)
    return IssuedView(issued=issued, chain=(issued.certificate, *authority.certificate_chain))


def _revoke(issued: IssuedCertificate, *, at: datetime, reason: RevocationReason) -> IssuedCertificate:
    return next_version(
        issued, state=IssuedCertificateState.REVOKED, revoke_time=whole_seconds(at), revoke_reason=reason
    )


def _require(view: TrustedView, operator: Operator, name: str) -> IssuedCertificate:
    issued = view.get(IssuedCertificate, name)
    if issued is None:
        raise PermissionDenied
    require_organization(view, operator, view.require(Signer, issued.signer).organization)
    return issued


def _organizations(view: TrustedView, new: NewCertificate) -> list[str]:
    signer = view.get(Signer, new.signer)
    return [] if signer is None else [signer.organization]


def _is_shown(view: TrustedView, operator: Operator, issued: IssuedCertificate) -> bool:
    return is_within(view, operator.organizations, view.require(Signer, issued.signer).organization)


def _subject_of(view: TrustedView, name: str) -> bytes:
    signer = view.get(Signer, name)
    if signer is None or signer.state is SignerState.DISABLED:
        raise InvalidArgument("signer", "there is no such signer that is not disabled")
    organization = view.require(Organization, signer.organization)
    return subject_name(common_name=signer.display_name, organization=organization.display_name, title=signer.position)


def _shown(subject: bytes) -> str:
    """Returns a DER Name as text (RFC 4514)."""
    return x509.Name.from_bytes(subject).rfc4514_string({NameOID.TITLE: "title"})
