"""Callers of a running server by raw gRPC, and what an administrator makes there for tests."""

import base64
import hashlib
import secrets
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import grpc
import pyotp
from cryptography import x509
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from tests.support.sandbox import Installation
from trien.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    algorithms_pb2,
    authorization_service_pb2,
    authorization_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
    key_service_pb2,
    key_service_pb2_grpc,
    organization_service_pb2_grpc,
    proposal_service_pb2,
    proposal_service_pb2_grpc,
    signer_service_pb2,
    signer_service_pb2_grpc,
    signing_service_pb2,
    signing_service_pb2_grpc,
)

from trien_client.ocra import TestAuthenticator, ocra
from trien_client.operators import approved_text, sign_approval
from trien_server.host.private_ca import Identity, PrivateCa

OPTIONS = [
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]
TIMEOUT = 30.0


class Refused(Exception):  # noqa: N818
    """A call that ended with another status than OK, and all that it carried."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.code: grpc.StatusCode = error.code()
        self.details: str = error.details() or ""
        self.trailers: list[tuple[str, Any]] = [(key, value) for key, value in error.trailing_metadata() or ()]
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.retry_after: float | None = None
        self.kinds: list[str] = []
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            self.kinds.append(detail.type_url.rsplit(".", 1)[1])
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                self.reason, self.metadata = info.reason, dict(info.metadata)
                if info.domain != "trien":
                    raise AssertionError(f"the domain of an ErrorInfo is {info.domain!r}")
            elif detail.Unpack(retry):
                self.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        super().__init__(f"{self.code.name} {self.reason} {self.details}")

    def everything(self) -> bytes:
        """Returns all bytes of the refusal, for searches."""
        return repr((self.details, self.trailers)).encode() + b"".join(
            value if isinstance(value, bytes) else value.encode() for _, value in self.trailers
        )


class Connection:
    """One channel of a caller, known by a token or a certificate, or by nothing at all."""

    def __init__(
        self,
        installation: Installation,
        *,
        token: str | None = None,
        identity: Identity | None = None,
        address: str | None = None,
    ) -> None:
        ca = (installation.directory / "tls" / "ca.pem").read_bytes()
        if identity is None:
            credentials = grpc.ssl_channel_credentials(ca)
        else:
            credentials = grpc.ssl_channel_credentials(ca, identity.private_key, identity.certificate)
        target = address or (installation.address if identity is None else installation.certificate_address)
        self.patience = 0.0
        """How long, in seconds, a token that is away is waited for."""
        self.channel = grpc.secure_channel(target, credentials, OPTIONS)
        self.metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        self.signing = signing_service_pb2_grpc.SigningServiceStub(self.channel)
        self.authorizations = authorization_service_pb2_grpc.AuthorizationServiceStub(self.channel)
        self.credentials = credential_service_pb2_grpc.CredentialServiceStub(self.channel)
        self.keys = key_service_pb2_grpc.KeyServiceStub(self.channel)
        self.signers = signer_service_pb2_grpc.SignerServiceStub(self.channel)
        self.organizations = organization_service_pb2_grpc.OrganizationServiceStub(self.channel)
        self.proposals = proposal_service_pb2_grpc.ProposalServiceStub(self.channel)
        self.access = access_service_pb2_grpc.AccessServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def call(self, method: Any, request: Any, *, timeout: float | None = TIMEOUT, wait: bool = False) -> Any:
        """Returns the method's answer. Raises `Refused`."""
        end = time.monotonic() + self.patience
        while True:
            try:
                return method(request, timeout=timeout, metadata=self.metadata, wait_for_ready=wait)
            except grpc.RpcError as error:
                refused = Refused(error)
            if refused.reason != "HSM_UNAVAILABLE" or time.monotonic() > end:
                raise refused
            time.sleep(0.2)

    def sign(self, request: signing_service_pb2.SignDigestsRequest, *, timeout: float | None = TIMEOUT) -> Any:
        """Returns the answer to SignDigests. Raises `Refused`."""
        return self.call(self.signing.SignDigests, request, timeout=timeout)

    def serving(self) -> bool:
        """Tells what the health service says."""
        answer = self.call(self.health.Check, health_pb2.HealthCheckRequest(), timeout=5)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def identity_of(certificate: Path, key: Path) -> Identity:
    """Reads a caller's certificate and key."""
    return Identity(certificate=certificate.read_bytes(), private_key=key.read_bytes())


def client_identity(installation: Installation, common_name: str) -> Identity:
    """Issues a client certificate by the installation's private CA."""
    ca = identity_of(installation.directory / "tls" / "ca.pem", installation.directory / "tls" / "ca.key")
    return PrivateCa(ca).issue_client(common_name)


@dataclass
class CounterAuthenticator:
    """A HOTP authenticator (RFC 4226) in a person's hand. `take` presses its button. May be used from any thread."""

    name: str
    secret: str
    digits: int
    counter: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def at(self, counter: int) -> str:
        return pyotp.HOTP(self.secret, digits=self.digits).at(counter)

    def take(self) -> str:
        """Returns the next code."""
        with self.lock:
            self.counter += 1
            return self.at(self.counter - 1)


@dataclass
class TimeAuthenticator:
    """A TOTP authenticator (RFC 6238). `take` gives each step's code once, and waits for the next step."""

    name: str
    secret: str
    digits: int
    last_step: int = 0

    def at(self, step: int) -> str:
        return pyotp.TOTP(self.secret, digits=self.digits).at(step * 30)

    def take(self) -> str:
        step = max(int(time.time()) // 30 - 1, self.last_step + 1)
        while step > int(time.time()) // 30 + 1:
            time.sleep(0.1)
        self.last_step = step
        return self.at(step)


@dataclass(kw_only=True)
class Person:
    """A signer of one's own with an authenticator and a credential."""

    name: str
    authenticator: CounterAuthenticator
    credential: str
    key_type: int
    certificate: x509.Certificate

    def one_time_password(self, code: str | None = None) -> authorization_service_pb2.OneTimePassword:
        return authorization_service_pb2.OneTimePassword(
            code=self.authenticator.take() if code is None else code, signer=self.name
        )


class Administrator:
    """The two operators of `init`, connected, who make what tests need; the first proposes, the second approves."""

    def __init__(self, installation: Installation) -> None:
        directory = installation.directory
        operators = directory / "operators"
        first, self._second_identity = (
            identity_of(operators / f"{name}.pem", operators / f"{name}.key") for name in ("first", "second")
        )
        self._installation = installation
        self.connection = Connection(installation, identity=first)
        self.second = Connection(installation, identity=self._second_identity)
        self.organization = "organizations/ubnd-xa-phu-lam"
        signing_ca = directory / "signing-ca"
        self.ca = (
            PrivateCa(identity_of(signing_ca / "ca.pem", signing_ca / "ca.key"))
            if signing_ca.exists()
            else PrivateCa.create("Test signing CA")
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.channel.close()
        self.second.channel.close()

    def agree(self, method: Any, request: Any) -> proposal_service_pb2.Proposal:
        """Proposes as the first operator and approves as the second; returns the executed proposal."""
        proposal: proposal_service_pb2.Proposal = self.connection.call(method, request)
        decided = self.approve(proposal)
        assert decided.state == proposal_service_pb2.Proposal.EXECUTED, proposal_service_pb2.Proposal.State.Name(
            decided.state
        )
        return decided

    def approve(self, proposal: proposal_service_pb2.Proposal) -> proposal_service_pb2.Proposal:
        """Approves a proposal as the second operator."""
        signature = sign_approval(self._second_identity.private_key, approved_text(proposal))
        request = proposal_service_pb2.ApproveProposalRequest(
            name=proposal.name, digest=proposal.digest, signature=signature
        )
        decided: proposal_service_pb2.Proposal = self.second.call(self.second.proposals.ApproveProposal, request)
        return decided

    def create_signer(self, identifier: str, *, agency: bool = False) -> str:
        """Makes a person, or an agency."""
        kind = signer_service_pb2.Signer.AGENCY if agency else signer_service_pb2.Signer.PERSON
        signer = signer_service_pb2.Signer(
            display_name=f"Người ký {identifier}", kind=kind, organization=self.organization
        )
        request = signer_service_pb2.CreateSignerRequest(signer_id=identifier, signer=signer)
        return str(self.connection.call(self.connection.signers.CreateSigner, request).name)

    def create_counter(self, signer: str, identifier: str = "token", *, digits: int = 8) -> CounterAuthenticator:
        """Enrols a HOTP authenticator; its code of counter 0 is used up."""
        name, uri = self.enrol(signer, identifier, signer_service_pb2.Authenticator.HOTP, digits)
        return CounterAuthenticator(name, pyotp.parse_uri(uri).secret, digits, counter=1)

    def create_timer(self, signer: str, identifier: str = "phone", *, digits: int = 8) -> TimeAuthenticator:
        """Enrols a TOTP authenticator; the code of the step before the present one, or that one's, is used up."""
        name, uri = self.enrol(signer, identifier, signer_service_pb2.Authenticator.TOTP, digits)
        return TimeAuthenticator(name, pyotp.parse_uri(uri).secret, digits, last_step=int(time.time()) // 30)

    def create_ocra(self, signer: str, identifier: str = "ocra") -> tuple[str, TestAuthenticator]:
        """Enrols an OCRA authenticator; returns its name too."""
        name, uri = self.enrol(signer, identifier, signer_service_pb2.Authenticator.OCRA, 0)
        return name, TestAuthenticator.from_uri(uri)

    def create_delivery(
        self, signer: str, kind: Any, address: str, identifier: str = "delivery", *, digits: int = 0
    ) -> str:
        """Makes an authenticator whose codes are sent by SMS or e-mail."""
        request = signer_service_pb2.CreateAuthenticatorRequest(
            parent=signer,
            authenticator_id=identifier,
            authenticator=signer_service_pb2.Authenticator(kind=kind, digits=digits, address=address),
        )
        self.agree(self.connection.signers.CreateAuthenticator, request)
        return f"{signer}/authenticators/{identifier}"

    def enrol(self, signer: str, identifier: str, kind: Any, digits: int) -> tuple[str, str]:
        """Enrols an authenticator as a person would; returns its name and its URI."""
        enrolment = signer_service_pb2.Enrolment(name=f"{signer}/enrolments/{identifier}", kind=kind, digits=digits)
        request = signer_service_pb2.CreateEnrolmentsRequest(enrolments=[enrolment])
        self.agree(self.connection.signers.CreateEnrolments, request)
        sending = signer_service_pb2.SendEnrolmentCodeRequest(name=enrolment.name)
        halves = [
            operator.call(operator.signers.SendEnrolmentCode, sending).half
            for operator in (self.connection, self.second)
        ]
        uri = enrol_by_halves(self._installation, halves)
        return f"{signer}/authenticators/{identifier}", uri

    def create_key(
        self,
        identifier: str,
        key_type: Any = algorithms_pb2.EC_P256,
        protection_level: Any = key_service_pb2.PROTECTION_LEVEL_UNSPECIFIED,
    ) -> key_service_pb2.Key:
        """Makes a key and waits until it is generated."""
        keys = self.connection.keys
        wanted = key_service_pb2.Key(key_type=key_type, protection_level=protection_level)
        request = key_service_pb2.CreateKeyRequest(key_id=identifier, key=wanted)
        key: key_service_pb2.Key = self.connection.call(keys.CreateKey, request)
        end = time.monotonic() + 120
        while key.state == key_service_pb2.Key.PENDING_GENERATION and time.monotonic() < end:
            time.sleep(0.02)
            key = self.connection.call(keys.GetKey, key_service_pb2.GetKeyRequest(name=key.name))
        if key.state != key_service_pb2.Key.ENABLED:
            raise AssertionError(f"{key.name} is in state {key.state}")
        return key

    def signing_request(self, key: str, signer: str) -> bytes:
        """Returns a certificate signing request (DER)."""
        request = credential_service_pb2.GenerateCertificateSigningRequestRequest(key=key, signer=signer)
        answer = self.connection.call(self.connection.credentials.GenerateCertificateSigningRequest, request)
        return bytes(answer.certificate_signing_request)

    def create_credential(
        self,
        identifier: str,
        *,
        key: str,
        signer: str,
        chain: Sequence[bytes],
        clients: Sequence[str] = ("clients/e-office",),
        activators: Sequence[str] = (),
        max_items: int = 0,
        client_collected_otp: bool = True,
    ) -> Any:
        """Makes a credential."""
        credential = credential_service_pb2.Credential(
            key=key,
            signer=signer,
            display_name=f"Chữ ký {identifier}",
            certificate_chain=chain,
            activators=[credential_service_pb2.Activator(signer=person) for person in activators],
            clients=clients,
            max_items=max_items,
            client_collected_otp_allowed=client_collected_otp,
        )
        request = credential_service_pb2.CreateCredentialRequest(credential_id=identifier, credential=credential)
        self.agree(self.connection.credentials.CreateCredential, request)
        made = credential_service_pb2.GetCredentialRequest(name=f"credentials/{identifier}")
        return self.connection.call(self.connection.credentials.GetCredential, made)

    def create_client(self, identifier: str, *, fingerprint: bytes = b"") -> tuple[str, str]:
        """Makes a client; returns its name and its token, empty when it has a certificate."""
        token = "" if fingerprint else f"trien_{secrets.token_urlsafe(32)}"
        client = access_service_pb2.Client(
            display_name=f"Ứng dụng {identifier}",
            certificate_fingerprint=fingerprint,
            token_hash=hashlib.sha256(token.encode()).digest() if token else b"",
        )
        request = access_service_pb2.CreateClientRequest(client_id=identifier, client=client)
        self.agree(self.connection.access.CreateClient, request)
        return f"clients/{identifier}", token

    def unlock(self, signer: str) -> None:
        """Ends a signer's lock."""
        request = signer_service_pb2.UnlockSignerRequest(name=signer)
        self.connection.call(self.connection.signers.UnlockSigner, request)

    def create_person(
        self,
        identifier: str,
        *,
        key_type: Any = algorithms_pb2.EC_P256,
        protection_level: Any = key_service_pb2.PROTECTION_LEVEL_UNSPECIFIED,
        clients: Sequence[str] = ("clients/e-office",),
        **policy: Any,
    ) -> Person:
        """Makes a person with a HOTP authenticator, a key, a certificate and a credential."""
        signer = self.create_signer(identifier)
        authenticator = self.create_counter(signer)
        key = self.create_key(identifier, key_type, protection_level)
        certificate = self.ca.issue_signer(self.signing_request(key.name, signer))
        credential = self.create_credential(
            identifier,
            key=key.name,
            signer=signer,
            chain=[certificate, self.ca.identity.certificate_der],
            clients=clients,
            **policy,
        )
        return Person(
            name=signer,
            authenticator=authenticator,
            credential=credential.name,
            key_type=key_type,
            certificate=x509.load_der_x509_certificate(certificate),
        )


def enrol_by_halves(installation: Installation, halves: Sequence[str]) -> str:
    """Begins and completes an enrolment as the person who has both halves would; returns the authenticator's URI."""
    with Connection(installation, token="-".join(("trien-enrol", *halves))) as person:
        begun = person.call(person.signers.BeginEnrolment, signer_service_pb2.BeginEnrolmentRequest())
        confirmation = signer_service_pb2.ConfirmEnrolmentRequest(
            confirmation_key=begun.confirmation_key, one_time_password=_first_code(begun)
        )
        person.call(person.signers.ConfirmEnrolment, confirmation)
    return str(begun.otpauth_uri)


def _first_code(begun: signer_service_pb2.BeginEnrolmentResponse) -> str:
    """Returns what the new authenticator shows first: for TOTP the code before the present one, so that one is left."""
    if begun.question:
        values = dict(parse_qsl(urlsplit(begun.otpauth_uri).query))
        secret = base64.b32decode(values["secret"] + "=" * (-len(values["secret"]) % 8))
        return ocra(secret, values["ocrasuite"], begun.question.hex())
    generator = pyotp.parse_uri(begun.otpauth_uri)
    return generator.at(time.time() - 30) if isinstance(generator, pyotp.TOTP) else generator.at(0)


@contextmanager
def e_office(installation: Installation) -> Iterator[Connection]:
    """The sandbox's own client, connected."""
    with Connection(installation, token=installation.population["client"]["token"]) as connection:
        yield connection


def request_of(
    person: Person,
    *messages: bytes,
    code: str | None = None,
    request_id: str | None = None,
) -> signing_service_pb2.SignDigestsRequest:
    """Returns a request to sign the SHA-256 digests of messages with a P-256 credential by a one-time password."""
    digests = [hashlib.sha256(message).digest() for message in messages or (b"a document",)]
    return signing_service_pb2.SignDigestsRequest(
        credential=person.credential,
        algorithm=algorithms_pb2.ECDSA_P256_SHA256,
        items=[signing_service_pb2.SignItem(digest=digest) for digest in digests],
        request_id=request_id or str(uuid.uuid4()),
        one_time_password=person.one_time_password(code),
    )
