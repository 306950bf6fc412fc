"""Who signs in a run: people, each with a HOTP authenticator and a credential of every kind of key.

An operator makes them over gRPC, by the same methods as everywhere else.
"""

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyotp
from cryptography.hazmat.primitives.serialization import Encoding
from trien.v1 import (
    access_service_pb2,
    algorithms_pb2,
    credential_service_pb2,
    key_service_pb2,
    organization_service_pb2,
    proposal_service_pb2,
    signer_service_pb2,
    signer_service_pb2_grpc,
)

from trien_client._algorithms import KeyType
from trien_client._errors import HsmUnavailable
from trien_client._secret import Secret
from trien_client._steps import Method, Response
from trien_client._transport import Endpoint, Transport
from trien_client.bench.certificates import SigningCa
from trien_client.bench.installation import Installation, ServerNotStarted
from trien_client.bench.plan import CLIENTS_OF_AN_APPLICATION
from trien_client.operators import OperatorClient

_DIGITS: Final = 8
_CALL_SECONDS: Final = 60.0
_TRIES: Final = 5
_PAUSE_SECONDS: Final = 1.0
_KEY_SECONDS: Final = 120.0
"""How long the next key may take: RSA-4096 on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class MadeCredential:
    """A credential, its certificate and its public key, both in DER."""

    name: str
    certificate: bytes
    public_key: bytes


@dataclass(frozen=True, kw_only=True)
class Person:
    """A signer, what makes the signer's codes (the first was used), and the token of the application that asks."""

    signer: str
    secret: Secret = field(repr=False)
    digits: int
    token: Secret = field(repr=False)
    credentials: dict[KeyType, MadeCredential]


class Population:
    """Makes people in an installation."""

    def __init__(self, installation: Installation) -> None:
        self._first, self._second = (_operator(installation, name) for name in ("first", "second"))
        self._enrolments_address = installation.address
        self._ca_file = installation.ca_file
        self._ca = SigningCa()

    def make(self, count: int, key_types: Sequence[KeyType]) -> list[Person]:
        """Makes so many people, each with a key of every type. Raises `TrienError`, `ServerNotStarted`."""
        with self._first, self._second:
            organization = self._call(
                self._first.organizations.CreateOrganization,
                organization_service_pb2.CreateOrganizationRequest(
                    organization_id="bench", organization=organization_service_pb2.Organization(display_name="Bench")
                ),
            ).name
            names = [f"person-{number}" for number in range(count)]
            # All keys are asked for first: the token generates them one after another, RSA for seconds each.
            for key_type in key_types:
                for name in names:
                    self._create_key(_key_id(name, key_type), key_type)
            applications = [
                self._create_client(f"application-{number}") for number in range(-(-count // CLIENTS_OF_AN_APPLICATION))
            ]
            return [
                self._person(name, organization, applications[number % len(applications)], key_types)
                for number, name in enumerate(names)
            ]

    def _person(
        self, name: str, organization: str, application: tuple[str, Secret], key_types: Sequence[KeyType]
    ) -> Person:
        client, token = application
        signer = self._call(
            self._first.signers.CreateSigner,
            signer_service_pb2.CreateSignerRequest(
                signer_id=name,
                signer=signer_service_pb2.Signer(
                    display_name=name, kind=signer_service_pb2.Signer.PERSON, organization=organization
                ),
            ),
        ).name
        return Person(
            signer=signer,
            secret=self._enrol(signer),
            digits=_DIGITS,
            token=token,
            credentials={key_type: self._credential(name, signer, client, key_type) for key_type in key_types},
        )

    def _enrol(self, signer: str) -> Secret:
        """Enrols a HOTP authenticator as the person would; its first code, of counter 0, is used up."""
        enrolment = signer_service_pb2.Enrolment(
            name=f"{signer}/enrolments/token", kind=signer_service_pb2.Authenticator.HOTP, digits=_DIGITS
        )
        request = signer_service_pb2.CreateEnrolmentsRequest(enrolments=[enrolment])
        self._agree(self._call(self._first.signers.CreateEnrolments, request))
        halves = [
            self._call(
                operator.signers.SendEnrolmentCode, signer_service_pb2.SendEnrolmentCodeRequest(name=enrolment.name)
            ).half
            for operator in (self._first, self._second)
        ]
        endpoint = Endpoint.of(
            self._enrolments_address,
            ca_certificates=self._ca_file,
            token="-".join(("trien-enrol", *halves)),
            certificate=None,
            key=None,
        )
        with Transport(endpoint) as transport:
            signers = signer_service_pb2_grpc.SignerServiceStub(transport.channel)
            begun = transport.call(
                signers.BeginEnrolment, signer_service_pb2.BeginEnrolmentRequest(), timeout=_CALL_SECONDS
            )
            secret: str = pyotp.parse_uri(begun.otpauth_uri).secret
            confirmation = signer_service_pb2.ConfirmEnrolmentRequest(
                confirmation_key=begun.confirmation_key, one_time_password=pyotp.HOTP(secret, digits=_DIGITS).at(0)
            )
            transport.call(signers.ConfirmEnrolment, confirmation, timeout=_CALL_SECONDS)
        return Secret(secret)

    def _create_client(self, name: str) -> tuple[str, Secret]:
        token = Secret(f"trien_{secrets.token_urlsafe(32)}")
        client = access_service_pb2.Client(
            display_name=name, token_hash=hashlib.sha256(token.reveal().encode()).digest()
        )
        request = access_service_pb2.CreateClientRequest(client_id=name, client=client)
        self._agree(self._call(self._first.access.CreateClient, request))
        return f"clients/{name}", token

    def _agree(self, proposal: proposal_service_pb2.Proposal) -> None:
        decided = self._second.approve(proposal)
        if decided.state != proposal_service_pb2.Proposal.EXECUTED:
            raise ServerNotStarted(f"{proposal.method} was not carried out: see the server's log.")

    def _create_key(self, key_id: str, key_type: KeyType) -> None:
        key = key_service_pb2.Key(key_type=algorithms_pb2.KeyType.Value(key_type.value))
        self._call(self._first.keys.CreateKey, key_service_pb2.CreateKeyRequest(key_id=key_id, key=key))

    def _await_key(self, name: str) -> key_service_pb2.Key:
        end = time.monotonic() + _KEY_SECONDS
        while True:
            key = self._call(self._first.keys.GetKey, key_service_pb2.GetKeyRequest(name=name))
            if key.state == key_service_pb2.Key.ENABLED:
                return key
            if key.state != key_service_pb2.Key.PENDING_GENERATION or time.monotonic() > end:
                raise ServerNotStarted(f"The token did not generate {name}: see the server's log.")
            time.sleep(0.1)

    def _credential(self, person: str, signer: str, client: str, key_type: KeyType) -> MadeCredential:
        key_id = _key_id(person, key_type)
        key = self._await_key(f"keys/{key_id}")
        request = self._call(
            self._first.credentials.GenerateCertificateSigningRequest,
            credential_service_pb2.GenerateCertificateSigningRequestRequest(key=key.name, signer=signer),
        ).certificate_signing_request
        chain = [certificate.public_bytes(Encoding.DER) for certificate in self._ca.issue(request)]
        credential = credential_service_pb2.Credential(
            key=key.name,
            signer=signer,
            display_name=key_id,
            certificate_chain=chain,
            clients=[client],
            client_collected_otp_allowed=True,
        )
        wanted = credential_service_pb2.CreateCredentialRequest(credential_id=key_id, credential=credential)
        self._agree(self._call(self._first.credentials.CreateCredential, wanted))
        return MadeCredential(name=f"credentials/{key_id}", certificate=chain[0], public_key=key.public_key)

    def _call(self, method: Method[Any, Response], request: Any) -> Response:
        """Calls, and again when the token was away: SoftHSM is for a moment, now and then, while it makes keys."""
        for _ in range(_TRIES - 1):
            try:
                return self._first.call(method, request, timeout=_CALL_SECONDS)
            except HsmUnavailable:  # nothing was done: these calls use the token before they write
                time.sleep(_PAUSE_SECONDS)
        return self._first.call(method, request, timeout=_CALL_SECONDS)


def _operator(installation: Installation, name: str) -> OperatorClient:
    certificate, key = installation.operator(name)
    return OperatorClient(
        installation.operators_address,
        ca_certificates=installation.ca_file,
        certificate=certificate,
        key=key,
        timeout=_CALL_SECONDS,
    )


def _key_id(person: str, key_type: KeyType) -> str:
    return f"{person}-{key_type.value.lower().replace('_', '-')}"
