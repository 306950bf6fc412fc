"""An instance of fakes with the sandbox's people, for tests of the use cases."""

import base64
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pyotp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from tests.fakes.clock import ManualClock
from tests.fakes.delivery import Delivered, RecordedDelivery
from tests.fakes.hsm import MemoryHsm
from tests.fakes.store import MemoryStore
from tests.support.attributes import signed_attributes

from trien_client.operators import sign_approval
from trien_server.core.algorithms import HashFunction, KeyType, SignatureAlgorithm
from trien_server.core.approval import approval_text
from trien_server.core.delivered_text import Language
from trien_server.core.enrolments import enrolment_code
from trien_server.core.items import DataItem, DigestItem, Item, SignedAttributesItem
from trien_server.core.ocra import OcraSuite, ocra
from trien_server.core.ports import Hsm, Store
from trien_server.core.principal import AuthenticatedBy, Principal, PrincipalKind
from trien_server.core.records import (
    AuthenticatorKind,
    Authorization,
    ItemKind,
    Key,
    KeyState,
    Proposal,
    ProposalState,
    ProtectionLevel,
    SignerKind,
)
from trien_server.core.secret import Secret
from trien_server.host.private_ca import Identity, PrivateCa
from trien_server.host.randomness import SystemRandomness
from trien_server.services.approve_authorizations import ApprovalResult, ApproveAuthorizationsCommand
from trien_server.services.authenticate import hash_token, new_token
from trien_server.services.authenticators import NewAuthenticator
from trien_server.services.challenge_preparation import ChallengeCommand, NewChallenge
from trien_server.services.clients import NewClient
from trien_server.services.create_authorization import CreateAuthorizationCommand
from trien_server.services.credential_holders import Entitlement
from trien_server.services.credentials import NewCredential
from trien_server.services.deadline import Deadline
from trien_server.services.enrolling import BegunEnrolment
from trien_server.services.enrolments import NewEnrolment, NewEnrolments
from trien_server.services.signing_commands import (
    SignDigestsCommand,
    SignDigestsResult,
    WithActivationData,
    WithOneTimePassword,
)
from trien_server.wiring import UseCases

CHAIR, CLERK, AGENCY = "signers/chair", "signers/clerk", "signers/agency"
P256, P384, RSA, SEAL, ED = (
    "credentials/chair-p256",
    "credentials/chair-p384",
    "credentials/chair-rsa",
    "credentials/seal",
    "credentials/chair-ed25519",
)
OPERATOR = Principal(kind=PrincipalKind.OPERATOR, name="operators/first", authenticated_by=AuthenticatedBy.CERTIFICATE)
SECOND = Principal(kind=PrincipalKind.OPERATOR, name="operators/second", authenticated_by=AuthenticatedBy.CERTIFICATE)
OFFICE = Principal(kind=PrincipalKind.CLIENT, name="clients/office", authenticated_by=AuthenticatedBy.BEARER_TOKEN)
PORTAL = Principal(kind=PrincipalKind.CLIENT, name="clients/portal", authenticated_by=AuthenticatedBy.BEARER_TOKEN)
FOREIGN = Principal(kind=PrincipalKind.CLIENT, name="clients/foreign", authenticated_by=AuthenticatedBy.BEARER_TOKEN)

_CREDENTIALS = {
    P256: (KeyType.EC_P256, CHAIR, CHAIR),
    P384: (KeyType.EC_P384, CHAIR, CHAIR),
    RSA: (KeyType.RSA_2048, CHAIR, CHAIR),
    SEAL: (KeyType.EC_P256, AGENCY, CLERK),
    ED: (KeyType.EC_ED25519, CHAIR, CHAIR),
}


@cache
def _ca() -> PrivateCa:
    return PrivateCa.create("Test CA")


@cache
def operators() -> dict[str, Identity]:
    """The operators' certificates and keys."""
    return {name: _ca().issue_client(f"operator {name}") for name in ("first", "second")}


@cache
def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def digests(count: int, *, of: str = "document") -> list[bytes]:
    """Returns SHA-256 digests of numbered documents."""
    return [hashlib.sha256(f"{of} {number}".encode()).digest() for number in range(count)]


def new_request_id() -> str:
    return str(uuid.uuid4())


def populated(*, replacement_wait: timedelta = timedelta(0)) -> "World":
    """Returns a world as `World().populate()` makes it, faster: what all such worlds begin with is made once."""
    start = _populated()
    clock = ManualClock(start.clock.now())
    store = start.store.reopened()
    store.clock = clock.now
    return World(
        clock=clock,
        hsm=start.hsm.copied(),
        store=store,
        otp=dict(start.otp),
        tokens=dict(start.tokens),
        replacement_wait=replacement_wait,
    )


@cache
def _populated() -> "World":
    return World().populate()


@dataclass(frozen=True)
class Event:
    """What was reported to the operator."""

    name: str
    fields: Mapping[str, str]


@dataclass
class World:
    """Fakes, use cases and people. Deadlines are generous unless a test sets `seconds`."""

    clock: ManualClock = field(default_factory=ManualClock)
    hsm: Any = field(default_factory=MemoryHsm)
    store: Any = None
    seconds: float = 60.0
    events: list[Event] = field(default_factory=list)
    otp: dict[str, pyotp.OTP] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    replacement_wait: timedelta = timedelta(0)
    ocra: dict[str, str] = field(default_factory=dict)
    deliveries: dict[AuthenticatorKind, RecordedDelivery] = field(
        default_factory=lambda: {kind: RecordedDelivery() for kind in (AuthenticatorKind.SMS, AuthenticatorKind.EMAIL)}
    )

    def __post_init__(self) -> None:
        if self.store is None:
            self.store = MemoryStore(clock=self.clock.now)
        self.use = self.new_process()

    def new_process(self, *, hsm: Hsm | None = None, store: Store | None = None, **settings: Any) -> UseCases:
        """Returns use cases with empty caches over the same token and store: another process, or a restart."""
        return UseCases(
            hsm=hsm or self.hsm,
            store=store or self.store,
            clock=self.clock,
            randomness=SystemRandomness(),
            report=lambda name, fields: self.events.append(Event(name, dict(fields))),
            issuer="Test",
            places=2,
            admitted=64,
            waiters=4,
            senders=4,
            deliveries=self.deliveries,
            language=Language.ENGLISH,
            zone=ZoneInfo("Asia/Ho_Chi_Minh"),
            public_url="https://sign.example",
            replacement_wait=self.replacement_wait,
            **settings,
        )

    def deadline(self) -> Deadline:
        return Deadline(self.clock, self.seconds)

    def populate(self) -> "World":
        """Enters two persons with TOTP, an agency, clients, keys and credentials."""
        use = self.use
        use.create_installation({name: identity.certificate_der for name, identity in operators().items()})
        use.create_organization(
            OPERATOR,
            name="organizations/commune",
            display_name="Ủy ban nhân dân xã Phú Lâm",
            parent=None,
            start_time=None,
            end_time=None,
            deadline=self.deadline(),
        )
        for principal in (OFFICE, PORTAL, FOREIGN):
            self.add_client(principal.name)
        for name, display_name, kind in (
            (CHAIR, "Hoàng Trịnh Đôn", SignerKind.PERSON),
            (CLERK, "Nguyễn Thị Hoa", SignerKind.PERSON),
            (AGENCY, "Ủy ban nhân dân xã Phú Lâm", SignerKind.AGENCY),
        ):
            use.create_signer(
                OPERATOR,
                name=name,
                display_name=display_name,
                kind=kind,
                organization="organizations/commune",
                position="",
                deadline=self.deadline(),
            )
        self.add_authenticator(CHAIR)
        self.add_authenticator(CLERK)
        for name, (key_type, signer, activator) in _CREDENTIALS.items():
            self.add_credential(name, key_type, signer, activator)
        if isinstance(self.hsm, MemoryHsm):
            self.hsm.calls.clear()
            self.hsm.signatures = 0
        return self

    def add_client(self, name: str) -> None:
        token = new_token(SystemRandomness())
        new = NewClient(name=name, display_name=name, token_hash=hash_token(token), certificate_fingerprint=None)
        self.agree(self.use.create_client(OPERATOR, new, deadline=self.deadline()))
        self.tokens[name] = token.reveal().decode()

    def agree(self, proposal: Proposal, *, use: UseCases | None = None) -> Proposal:
        """Approves a proposal as the second operator; it has to be carried out then."""
        decided = self.approve_proposal(proposal, use=use)
        assert decided.state is ProposalState.EXECUTED, decided
        (use or self.use).notices.work_off()
        return decided

    def approve_proposal(self, proposal: Proposal, *, by: Principal = SECOND, use: UseCases | None = None) -> Proposal:
        """Approves a proposal as one of the operators."""
        key = operators()[by.name.partition("/")[2]].private_key
        signature = sign_approval(key, approval_text(proposal.name, proposal.digest))
        return (use or self.use).proposals.approve(
            by, proposal.name, digest=proposal.digest, signature=signature, deadline=self.deadline()
        )

    def add_authenticator(
        self, signer: str, *, name: str = "phone", kind: AuthenticatorKind = AuthenticatorKind.TOTP
    ) -> None:
        self.otp[f"{signer}/{name}"] = pyotp.parse_uri(self.enrol(signer, name, kind))

    def add_ocra(self, signer: str = CHAIR, *, name: str = "ocra", **made: Any) -> str:
        """Gives a person an OCRA authenticator; returns its `otpauth` URI."""
        uri = self.ocra[signer] = self.enrol(signer, name, AuthenticatorKind.OCRA, **made)
        return uri

    def add_delivery(self, signer: str = CHAIR, *, kind: AuthenticatorKind = AuthenticatorKind.SMS, **made: Any) -> str:
        """Gives a person delivered codes; returns the authenticator's name."""
        address = "+84912345678" if kind is AuthenticatorKind.SMS else "hoang.trinh.don@phulam.example"
        name = kind.value.lower()
        given: dict[str, Any] = {"address": address, "digits": 0}
        new = NewAuthenticator(name=f"{signer}/authenticators/{name}", signer=signer, kind=kind, **(given | made))
        self.agree(self.use.create_authenticator(OPERATOR, new, deadline=self.deadline()))
        for delivery in self.deliveries.values():
            delivery.taken.clear()  # the notices about it
        return new.name

    def enrol(self, signer: str, name: str, kind: AuthenticatorKind, **made: Any) -> str:
        """Enrols an authenticator as the person would; returns its URI. TOTP's present code stays good."""
        enrolment = f"{signer}/enrolments/{name}"
        new = NewEnrolments(enrolments=(NewEnrolment(name=enrolment, kind=kind, **made),))
        self.agree(self.use.create_enrolments(OPERATOR, new, deadline=self.deadline()))
        person = self.enrolling(enrolment)
        begun = self.use.begin_enrolment(person, deadline=self.deadline())
        uri = begun.uri.reveal().decode()
        self.use.confirm_enrolment(
            person,
            confirmation_key=begun.confirmation_key,
            password=Secret(self.first_code(begun).encode()),
            deadline=self.deadline(),
        )
        return uri

    def enrolling(self, enrolment: str) -> Principal:
        """Returns the person who has both halves of an enrolment's code."""
        halves = []
        for operator in (OPERATOR, SECOND):
            half = self.use.send_enrolment_code(operator, enrolment, deadline=self.deadline()).half
            assert half is not None, "the person has no address"
            halves.append(half)
        return self.use.authenticate.by_token(enrolment_code(*halves))

    def first_code(self, begun: BegunEnrolment) -> str:
        """Returns what a new authenticator shows first: for TOTP the code before the present one."""
        uri = begun.uri.reveal().decode()
        if begun.question is not None:
            return self.ocra_code(uri, begun.question)
        generator = pyotp.parse_uri(uri)
        if isinstance(generator, pyotp.TOTP):
            return generator.at(self.clock.now() - timedelta(seconds=30))
        return generator.at(0)

    def add_credential(
        self,
        name: str,
        key_type: KeyType,
        signer: str,
        activator: str,
        *,
        protection_level: ProtectionLevel = ProtectionLevel.TOKEN,
        **policy: Any,
    ) -> None:
        key = f"keys/{name.partition('/')[2]}"
        self._add_key(key, key_type, protection_level)
        request = self.use.generate_signing_request(OPERATOR, key=key, signer=signer, deadline=self.deadline())
        given: dict[str, Any] = {
            "clients": (OFFICE.name, PORTAL.name),
            "max_items": 0,
            "client_collected_otp": True,
            "activators": (Entitlement(signer=activator),),
        }
        new = NewCredential(
            name=name,
            key=key,
            signer=signer,
            display_name=name,
            certificate_chain=(_issue(_ca(), request, self.clock),),
            **(given | policy),
        )
        self.agree(self.use.create_credential(OPERATOR, new, self.deadline()))

    def _add_key(self, name: str, key_type: KeyType, protection_level: ProtectionLevel = ProtectionLevel.TOKEN) -> None:
        self.use.create_key(
            OPERATOR, name=name, key_type=key_type, protection_level=protection_level, deadline=self.deadline()
        )
        if key_type is KeyType.RSA_2048 and isinstance(self.hsm, MemoryHsm):
            # RSA is slow to generate: one key is made once for all tests.
            self.hsm.generate_key_pair = lambda object_id, _: self.hsm.add_key(object_id, _rsa_key())
            try:
                self.use.key_generation.generate(name)
            finally:
                del self.hsm.generate_key_pair  # the class's own again: a copy of the token has its own keys
        else:
            self.use.key_generation.generate(name)
        key = self.use.get_key(OPERATOR, name)
        assert key.state is KeyState.ENABLED

    def code(self, signer: str = CHAIR, *, authenticator: str = "phone", step: int = 0) -> str:
        """Returns the code that a person's phone shows now, or `step` steps of 30 s away."""
        otp = self.otp[f"{signer}/{authenticator}"]
        assert isinstance(otp, pyotp.TOTP)
        return otp.at(self.clock.now() + timedelta(seconds=30 * step))

    def wrong_code(self, signer: str = CHAIR) -> str:
        """Returns a code that no step near now has."""
        near = {self.code(signer, step=step) for step in range(-3, 4)}
        return next(f"{value:06}" for value in range(1000) if f"{value:06}" not in near)

    def next_step(self) -> None:
        """Lets 30 s pass, so that the phone shows a code that was not used."""
        self.clock.advance(timedelta(seconds=30))

    def sign(
        self,
        items: list[bytes] | list[Item],
        *,
        credential: str = P256,
        algorithm: SignatureAlgorithm = SignatureAlgorithm.ECDSA_P256_SHA256,
        password: str | None = None,
        signer: str | None = None,
        activated: tuple[str, Secret] | None = None,
        principal: Principal = OFFICE,
        request_id: str | None = None,
        pss_salt_length: int | None = None,
        use: UseCases | None = None,
    ) -> SignDigestsResult:
        """Signs digests (or items) with a one-time password, or with an activated authorization."""
        authority: WithOneTimePassword | WithActivationData
        if activated is not None:
            authority = WithActivationData(authorization=activated[0], activation_data=activated[1])
        else:
            person = signer or _CREDENTIALS.get(credential, (None, None, CHAIR))[2]
            given = password if password is not None else self.code(person)
            authority = WithOneTimePassword(password=Secret(given.encode()), signer=signer)
        command = SignDigestsCommand(
            credential=credential,
            algorithm=algorithm,
            pss_salt_length=pss_salt_length,
            items=tuple(DigestItem(digest=item) if isinstance(item, bytes) else item for item in items),
            request_id=request_id or new_request_id(),
            authority=authority,
        )
        return (use or self.use).sign_digests(principal, command, self.deadline())

    def authorize(
        self,
        wanted: list[bytes],
        *,
        credential: str = P256,
        algorithm: SignatureAlgorithm = SignatureAlgorithm.ECDSA_P256_SHA256,
        item_kind: ItemKind = ItemKind.DIGEST,
        principal: Principal = OFFICE,
        lifetime: timedelta | None = None,
        request_id: str | None = None,
        approver: str | None = None,
        title: str = "",
    ) -> Authorization:
        """Makes a pending authorization."""
        command = CreateAuthorizationCommand(
            credential=credential,
            algorithm=algorithm,
            pss_salt_length=None,
            item_kind=item_kind,
            digests=tuple(wanted),
            approver=approver,
            lifetime=lifetime,
            request_id=request_id,
            title=title,
        )
        return self.use.create_authorization(principal, command, self.deadline())

    def approve(
        self,
        *authorizations: Authorization,
        signer: str = CHAIR,
        password: str | None = None,
        challenge: str | None = None,
        principal: Principal = OFFICE,
        request_id: str | None = None,
        use: UseCases | None = None,
    ) -> ApprovalResult:
        """Approves them with one one-time password, or with the answer to a challenge."""
        command = ApproveAuthorizationsCommand(
            names=tuple(authorization.name for authorization in authorizations),
            signer=signer,
            password=Secret((password if password is not None else self.code(signer)).encode()),
            challenge=challenge,
            request_id=request_id,
        )
        return (use or self.use).approve_authorizations(principal, command, self.deadline())

    def challenge(
        self,
        *authorizations: Authorization,
        signer: str = CHAIR,
        authenticator: str | None = None,
        principal: Principal = OFFICE,
    ) -> NewChallenge:
        """Makes a challenge for a person's OCRA authenticator."""
        names = tuple(authorization.name for authorization in authorizations)
        command = ChallengeCommand(signer=signer, names=names, authenticator=authenticator)
        return self.use.create_challenge(principal, command, self.deadline())

    def answer(self, made: NewChallenge) -> str:
        """Returns what the person's OCRA authenticator answers, computed from the URI that it was made with."""
        return self.ocra_code(self.ocra[made.challenge.signer], made.question)

    @staticmethod
    def ocra_code(uri: str, question: bytes) -> str:
        """Returns what an OCRA authenticator answers."""
        values = parse_qs(urlsplit(uri).query)
        secret = Secret(base64.b32decode(pad_base32(values["secret"][0])))
        return ocra(secret, OcraSuite.parse(values["ocrasuite"][0]), question.hex())

    def send(
        self,
        *authorizations: Authorization,
        signer: str = CHAIR,
        authenticator: str | None = None,
        principal: Principal = OFFICE,
        use: UseCases | None = None,
    ) -> tuple[NewChallenge, Delivered]:
        """Has a code sent to a person; returns the challenge and what the carrier took on."""
        names = tuple(authorization.name for authorization in authorizations)
        command = ChallengeCommand(signer=signer, names=names, authenticator=authenticator)
        made = (use or self.use).send_one_time_password(principal, command, self.deadline())
        return made, self.deliveries[made.authenticator.kind].taken[-1]

    def activation_data(self, authorization: Authorization, *, principal: Principal = OFFICE) -> Secret:
        """Fetches the secret that opens an authorization."""
        return self.use.fetch_activation_data(principal, authorization.name)[0]

    def certificate(self, credential: str) -> bytes:
        """Returns a credential's certificate in DER."""
        return self.use.get_credential(OPERATOR, credential).credential.certificate_chain[0]

    def public_key(self, credential: str) -> bytes:
        """Returns a credential's public key (SPKI, DER)."""
        return self.use.get_credential(OPERATOR, credential).key.public_key

    def attributes(self, document_digest: bytes, *, credential: str = P256) -> SignedAttributesItem:
        """Returns good signed attributes for a document's SHA-256 digest."""
        encoded = signed_attributes(document_digest, self.certificate(credential), HashFunction.SHA256)
        return SignedAttributesItem(document_digest=document_digest, encoded=encoded)

    def key(self, credential: str) -> Key:
        return self.use.get_credential(OPERATOR, credential).key


def pad_base32(text: str) -> str:
    return text + "=" * (-len(text) % 8)


def data_items(*data: bytes) -> list[Item]:
    return [DataItem(data=one) for one in data]


def issue(request: bytes, clock: ManualClock, *extensions: x509.ExtensionType) -> bytes:
    """Returns a certificate (DER) of the test CA for a request, valid from a day before to thirty days after now."""
    return _issue(_ca(), request, clock, extensions)


def _issue(ca: PrivateCa, request: bytes, clock: ManualClock, extensions: Sequence[x509.ExtensionType] = ()) -> bytes:
    parsed = x509.load_der_x509_csr(request)
    issuer = x509.load_pem_x509_certificate(ca.identity.certificate)
    builder = (
        x509.CertificateBuilder()
        .subject_name(parsed.subject)
        .issuer_name(issuer.subject)
        .public_key(parsed.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(clock.now() - timedelta(days=1))
        .not_valid_after(clock.now() + timedelta(days=30))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    key = load_pem_private_key(ca.identity.private_key, None)
    certificate = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
    return certificate.public_bytes(Encoding.DER)
