"""A Trien server for the SDK's tests: real TLS, real keys, and answers that go wrong as scripted.

It keeps no promise of the real server but those that the SDK relies on: a granted `request_id` is answered with its
recorded outcome, and a one-time password is accepted once.
"""

import datetime
import hashlib
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import google_crc32c
import grpc
from asn1crypto import cms  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from trien.v1 import (
    algorithms_pb2,
    authorization_service_pb2,
    authorization_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
    signing_service_pb2,
    signing_service_pb2_grpc,
)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
TOKEN = "canary-token-7f3c"
SIGNER = "signers/hoang-trinh-don"


class CertificateAuthority:
    """A root and an issuing CA below it, made when the tests start."""

    def __init__(self, name: str) -> None:
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name(f"{name} Issuing CA")
        self.root = _certificate(
            _name(f"{name} Root"), self._root_key.public_key(), _name(f"{name} Root"), self._root_key, ca=True
        )
        self.issuing = _certificate(
            self._subject, self._key.public_key(), _name(f"{name} Root"), self._root_key, ca=True
        )

    @property
    def root_pem(self) -> bytes:
        return self.root.public_bytes(Encoding.PEM)

    def chain(self, common_name: str, key: PrivateKey, **options: Any) -> list[x509.Certificate]:
        """Issues a certificate for signatures: with nonRepudiation and without a subject alternative name."""
        certificate = _certificate(_name(common_name), key.public_key(), self._subject, self._key, **options)
        return [certificate, self.issuing]

    def tls(self, host: str = "localhost") -> tuple[bytes, bytes]:
        """Issues a TLS server's key and chain in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(_name(host), key.public_key(), self._subject, self._key, host=host)
        return (
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            certificate.public_bytes(Encoding.PEM) + self.issuing.public_bytes(Encoding.PEM),
        )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name,
    public_key: Any,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool = False,
    host: str | None = None,
    days: int = 30,
    content_commitment: bool = True,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    start = min(now, now + datetime.timedelta(days=days)) - datetime.timedelta(days=1)
    signing = not ca and host is None and content_commitment
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=host is not None,
                content_commitment=signing,
                key_encipherment=not ca and not signing,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=ca,
                crl_sign=ca,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if host is not None:
        names = [x509.DNSName(host), x509.IPAddress(IPv4Address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


@dataclass
class FakeCredential:
    name: str
    key: PrivateKey
    chain: list[x509.Certificate]
    signer: str = SIGNER

    def message(self) -> credential_service_pb2.Credential:
        match self.key:
            case rsa.RSAPrivateKey():
                key_type = algorithms_pb2.KeyType.Value(f"RSA_{self.key.key_size}")
            case ec.EllipticCurvePrivateKey():
                key_type = algorithms_pb2.KeyType.Value(f"EC_P{self.key.key_size}")
            case _:
                key_type = algorithms_pb2.EC_ED25519
        return credential_service_pb2.Credential(
            name=self.name,
            key="keys/k1",
            signer=self.signer,
            display_name="Hoàng Trình Đôn",
            certificate_chain=[certificate.public_bytes(Encoding.DER) for certificate in self.chain],
            activators=[credential_service_pb2.Activator(signer=self.signer)],
            clients=["clients/portal"],
            state=credential_service_pb2.Credential.ENABLED,
            key_type=key_type,
            client_collected_otp_allowed=True,
        )

    def sign(self, algorithm: str, data: bytes, salt_length: int) -> bytes:
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(data)
        function = getattr(hashes, algorithm.rsplit("_", 1)[1])()
        prehashed = utils.Prehashed(function)
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return self.key.sign(data, ec.ECDSA(prehashed))
        if "PSS" in algorithm:
            return self.key.sign(data, padding.PSS(padding.MGF1(function), salt_length), prehashed)
        return self.key.sign(data, padding.PKCS1v15(), prehashed)


@dataclass
class Refuse:
    """The call is refused and nothing is done."""

    reason: str
    code: grpc.StatusCode = grpc.StatusCode.FAILED_PRECONDITION
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    domain: str = "trien"


@dataclass
class Abort:
    """gRPC fails without a word of the server. With `work` the server did what was asked: the answer was lost."""

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    work: bool = False
    message: str = "connection reset"


@dataclass
class Tamper:
    """The answer is changed on its way."""

    change: Callable[[Any], None]


@dataclass
class Hold:
    """The work is done, and the answer held back until it is `released`."""

    arrived: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


Step = Refuse | Abort | Tamper | Hold | None


class FakeSigningService(
    signing_service_pb2_grpc.SigningServiceServicer,
    credential_service_pb2_grpc.CredentialServiceServicer,
    authorization_service_pb2_grpc.AuthorizationServiceServicer,
):
    """The services that the SDK calls."""

    def __init__(self, credentials: list[FakeCredential]) -> None:
        self.credentials = {credential.name: credential for credential in credentials}
        self.codes = {f"{number:06d}" for number in range(111111, 999999, 111111)}
        self.script: dict[str, deque[Step]] = {}
        self.calls: list[tuple[str, Message]] = []
        self.authorizations: dict[str, authorization_service_pb2.Authorization] = {}
        self.granted: dict[str, tuple[bytes, Message]] = {}
        self.approvals = 0
        self.answers_waits_at_once = False
        self.lifetime = datetime.timedelta(minutes=10)
        self._lock = threading.Lock()

    def requests(self, method: str) -> list[Any]:
        return [request for name, request in self.calls if name == method]

    def plan(self, method: str, *steps: Step) -> None:
        """Says what happens to the next calls of `method`; None lets one pass."""
        self.script.setdefault(method, deque()).extend(steps)

    def _answer(self, method: str, request: Message, context: grpc.ServicerContext, work: Callable[[], Message]) -> Any:
        with self._lock:
            if ("authorization", f"Bearer {TOKEN}") not in list(context.invocation_metadata()):
                refuse(context, Refuse("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED))
            self.calls.append((method, request))
            steps = self.script.get(method)
            step = steps.popleft() if steps else None
            if isinstance(step, Refuse):
                refuse(context, step)
            if isinstance(step, Abort):
                if step.work:
                    work()
                context.abort(step.code, step.message)
            answer = work()
            if isinstance(step, Tamper):
                copy = type(answer)()
                copy.CopyFrom(answer)
                step.change(copy)
                return copy
        if isinstance(step, Hold):
            step.arrived.set()
            step.released.wait(30)
        return answer

    def _take(self, context: grpc.ServicerContext, code: str) -> None:
        if code not in self.codes:
            refuse(
                context,
                Refuse("ONE_TIME_PASSWORD_REJECTED", grpc.StatusCode.PERMISSION_DENIED, {"remainingAttempts": "2"}),
            )
        self.codes.discard(code)
        self.approvals += 1

    def GetCredential(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("GetCredential", request, context, lambda: self._credential(request.name, context))

    def _credential(self, name: str, context: grpc.ServicerContext) -> credential_service_pb2.Credential:
        if name not in self.credentials:
            refuse(context, Refuse("PERMISSION_DENIED", grpc.StatusCode.PERMISSION_DENIED))
        return self.credentials[name].message()

    def ListCredentials(self, request: Any, context: Any) -> Any:  # noqa: N802
        def work() -> Message:
            names = sorted(self.credentials)
            start = int(request.page_token or 0)
            end = start + (request.page_size or 50)
            return credential_service_pb2.ListCredentialsResponse(
                credentials=[self.credentials[name].message() for name in names[start:end]],
                next_page_token=str(end) if end < len(names) else "",
            )

        return self._answer("ListCredentials", request, context, work)

    def CreateCredential(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not faked")

    def GenerateCertificateSigningRequest(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not faked")

    def SignDigests(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("SignDigests", request, context, lambda: self._sign(request, context))

    def _sign(self, request: signing_service_pb2.SignDigestsRequest, context: grpc.ServicerContext) -> Message:
        content = signing_service_pb2.SignDigestsRequest()
        content.CopyFrom(request)
        content.ClearField("authority")
        encoded = content.SerializeToString(deterministic=True)
        if request.request_id in self.granted:
            known, answer = self.granted[request.request_id]
            if known != encoded:
                refuse(context, Refuse("REQUEST_ID_REUSED", grpc.StatusCode.ALREADY_EXISTS))
            return answer
        opened = request.activated_authorization
        if opened.authorization and opened.signature_activation_data != activation_data(opened.authorization):
            refuse(context, Refuse("ACTIVATION_DATA_REJECTED", grpc.StatusCode.PERMISSION_DENIED))
        contents = [item_content(item) for item in request.items]
        if request.items_crc32c != items_crc32c(contents):
            refuse(context, Refuse("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT, {"field": "items_crc32c"}))
        algorithm = algorithms_pb2.SignatureAlgorithm.Name(request.algorithm)
        signed = [self._signed(item, algorithm, context) for item in request.items]
        if request.WhichOneof("authority") == "one_time_password":
            self._take(context, request.one_time_password.code)
            authorization = f"{request.credential}/authorizations/one-step"
        else:
            authorization = request.activated_authorization.authorization
            if self._own(authorization, context).state == authorization_service_pb2.Authorization.USED:
                refuse(context, Refuse("ACTIVATION_DATA_USED"))
            self.authorizations[authorization].state = authorization_service_pb2.Authorization.USED
        size = 0 if algorithm == "ED25519" else int(algorithm[-3:]) // 8
        salt = request.pss_salt_length if request.HasField("pss_salt_length") else size
        credential = self.credentials[request.credential]
        values = [credential.sign(algorithm, data, salt) for data in signed]
        answer = signing_service_pb2.SignDigestsResponse(
            credential=request.credential,
            algorithm=request.algorithm,
            pss_salt_length=salt if "PSS" in algorithm else None,
            signatures=[
                signing_service_pb2.Signature(value=value, crc32c=google_crc32c.value(value)) for value in values
            ],
            verified_items_crc32c=True,
            authorization=authorization,
            approved_by=credential.signer,
            assurance=authorization_service_pb2.CLIENT_COLLECTED_OTP,
            audit_entry="auditEntries/e1",
            leaf_hash=hashlib.sha256(b"leaf").digest(),
        )
        self.granted[request.request_id] = (encoded, answer)
        return answer

    def _signed(self, item: signing_service_pb2.SignItem, algorithm: str, context: grpc.ServicerContext) -> bytes:
        if item.WhichOneof("item") != "signed_attributes":
            return item_content(item)
        attributes = cms.CMSAttributes.load(item.signed_attributes.der, strict=True)
        found = {attribute["type"].native: attribute["values"] for attribute in attributes}
        missing = {"content_type", "message_digest", "signing_certificate_v2"} - set(found)
        if missing or found["message_digest"][0].native != item.signed_attributes.document_digest:
            refuse(context, Refuse("INVALID_SIGNED_ATTRIBUTES", grpc.StatusCode.INVALID_ARGUMENT))
        return hashlib.new(algorithm.rsplit("_", 1)[1], item.signed_attributes.der).digest()

    def CreateAuthorization(self, request: Any, context: Any) -> Any:  # noqa: N802
        def work() -> Message:
            name = f"{request.parent}/authorizations/a{len(self.authorizations) + 1}"
            made = authorization_service_pb2.Authorization()
            made.CopyFrom(request.authorization)
            made.name = name
            made.state = authorization_service_pb2.Authorization.PENDING
            made.client = "clients/portal"
            now = datetime.datetime.now(datetime.UTC)
            made.create_time.FromDatetime(now)
            lifetime = request.lifetime.ToTimedelta() if request.HasField("lifetime") else self.lifetime
            made.expire_time.FromDatetime(now + lifetime)
            if request.request_id not in self.granted:
                self.authorizations[name] = made
                self.granted[request.request_id] = (b"", made)
            return self.granted[request.request_id][1]

        return self._answer("CreateAuthorization", request, context, work)

    def _own(self, name: str, context: grpc.ServicerContext) -> authorization_service_pb2.Authorization:
        if name not in self.authorizations:
            refuse(context, Refuse("PERMISSION_DENIED", grpc.StatusCode.PERMISSION_DENIED))
        return self.authorizations[name]

    def _pending(self, name: str, context: grpc.ServicerContext) -> authorization_service_pb2.Authorization:
        found = self._own(name, context)
        if found.state != authorization_service_pb2.Authorization.PENDING:
            refuse(context, Refuse("AUTHORIZATION_NOT_PENDING", metadata={"authorization": name}))
        if has_expired(found):
            refuse(context, Refuse("AUTHORIZATION_EXPIRED", metadata={"authorization": name}))
        return found

    def GetAuthorization(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("GetAuthorization", request, context, lambda: self._own(request.name, context))

    def WaitAuthorization(self, request: Any, context: Any) -> Any:  # noqa: N802
        seconds = 0.0 if self.answers_waits_at_once else request.timeout.ToTimedelta().total_seconds()
        end = time.monotonic() + seconds
        found = self._answer("WaitAuthorization", request, context, lambda: self._own(request.name, context))
        pending = authorization_service_pb2.Authorization.PENDING
        while found.state == pending and not has_expired(found) and time.monotonic() < end and context.is_active():
            time.sleep(0.02)
        return found

    def ListAuthorizations(self, request: Any, context: Any) -> Any:  # noqa: N802
        def work() -> Message:
            found = [a for name, a in sorted(self.authorizations.items()) if name.startswith(f"{request.parent}/")]
            return authorization_service_pb2.ListAuthorizationsResponse(authorizations=found)

        return self._answer("ListAuthorizations", request, context, work)

    def ApproveAuthorizations(self, request: Any, context: Any) -> Any:  # noqa: N802
        def work() -> Message:
            if request.request_id not in self.granted:
                found = [self._pending(name, context) for name in request.names]
                self._take(context, request.one_time_password.code)
                for authorization in found:
                    authorization.state = authorization_service_pb2.Authorization.APPROVED
                    authorization.approved_by = request.one_time_password.signer
                approval = authorization_service_pb2.Approval(
                    signer=request.one_time_password.signer,
                    authorizations=request.names,
                    assurance=authorization_service_pb2.CLIENT_COLLECTED_OTP,
                    audit_entry="auditEntries/e2",
                )
                self.granted[request.request_id] = (b"", approval)
            return self.granted[request.request_id][1]

        return self._answer("ApproveAuthorizations", request, context, work)

    def DenyAuthorization(self, request: Any, context: Any) -> Any:  # noqa: N802
        def work() -> Message:
            found = self._pending(request.name, context)
            found.state = authorization_service_pb2.Authorization.DENIED
            return found

        return self._answer("DenyAuthorization", request, context, work)

    def FetchSignatureActivationData(self, request: Any, context: Any) -> Any:  # noqa: N802
        def work() -> Message:
            states = authorization_service_pb2.Authorization.State
            state = self._own(request.name, context).state
            if state == states.USED:
                refuse(context, Refuse("ACTIVATION_DATA_USED"))
            if state != states.APPROVED:
                refuse(context, Refuse("AUTHORIZATION_NOT_APPROVED"))
            answer = authorization_service_pb2.FetchSignatureActivationDataResponse(
                signature_activation_data=activation_data(request.name)
            )
            answer.expire_time.GetCurrentTime()
            return answer

        return self._answer("FetchSignatureActivationData", request, context, work)


def has_expired(authorization: authorization_service_pb2.Authorization) -> bool:
    return authorization.expire_time.ToDatetime(tzinfo=datetime.UTC) <= datetime.datetime.now(datetime.UTC)


def activation_data(authorization: str) -> bytes:
    return hashlib.sha256(f"canary {authorization}".encode()).digest()


def item_content(item: signing_service_pb2.SignItem) -> bytes:
    kind = item.WhichOneof("item")
    return item.signed_attributes.der if kind == "signed_attributes" else getattr(item, kind or "digest")


def items_crc32c(contents: list[bytes]) -> int:
    """The definition in signing_service.proto, written a second time."""
    return int(google_crc32c.value(b"".join(struct.pack(">Q", len(content)) + content for content in contents)))


def refuse(context: grpc.ServicerContext, refusal: Refuse) -> None:
    """Ends the call as the real server does (AIP-193)."""
    info = AnyMessage()
    info.Pack(
        error_details_pb2.ErrorInfo(reason=refusal.reason, domain=refusal.domain, metadata=dict(refusal.metadata))
    )
    details = [info]
    if refusal.retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(datetime.timedelta(seconds=refusal.retry_after))
        retry = AnyMessage()
        retry.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        details.append(retry)
    status = status_pb2.Status(
        code=code_pb2.Code.Value(refusal.code.name), message=f"refused: {refusal.reason}", details=details
    )
    context.abort_with_status(rpc_status.to_status(status))


class FakeServer:
    """Serves a `FakeSigningService` on a port of its own while it is entered."""

    def __init__(self, service: FakeSigningService, authority: CertificateAuthority) -> None:
        self.service = service
        self.authority = authority
        self.address = ""
        self._server = grpc.server(
            ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 80 << 20)]
        )

    def __enter__(self) -> Self:
        signing_service_pb2_grpc.add_SigningServiceServicer_to_server(self.service, self._server)
        credential_service_pb2_grpc.add_CredentialServiceServicer_to_server(self.service, self._server)
        authorization_service_pb2_grpc.add_AuthorizationServiceServicer_to_server(self.service, self._server)
        port = self._server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([self.authority.tls()]))
        self._server.start()
        self.address = f"localhost:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()

    def write_connection_file(self, folder: Path, *, otpauth_uri: str, sandbox: bool = True) -> Path:
        """Writes what `trien-server sandbox` writes, with paths relative to the file."""
        import json

        (folder / "ca.pem").write_bytes(self.authority.root_pem)
        path = folder / "connection.json"
        path.write_text(
            json.dumps(
                {
                    "sandbox": sandbox,
                    "address": self.address,
                    "mutual_tls_address": self.address,
                    "ca_file": "ca.pem",
                    "client": {"name": "clients/portal", "token": TOKEN},
                    "trust_anchors_file": "ca.pem",
                    "organization": "organizations/ubnd",
                    "credentials": [
                        {
                            "name": name,
                            "display_name": "…",
                            "signer": credential.signer,
                            "key_type": "…",
                            "activators": [credential.signer],
                        }
                        for name, credential in self.service.credentials.items()
                    ],
                    "signers": [
                        {
                            "name": SIGNER,
                            "display_name": "Hoàng Trình Đôn",
                            "position": "Chủ tịch",
                            "otpauth_uri": otpauth_uri,
                        }
                    ],
                }
            ),
            encoding="utf-8",
        )
        return path
