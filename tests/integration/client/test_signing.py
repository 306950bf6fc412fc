"""Signing over the wire, against a server whose answers go wrong as scripted."""

import hashlib
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from tests.fakes.signing_service import (
    SIGNER,
    TOKEN,
    Abort,
    CertificateAuthority,
    FakeServer,
    FakeSigningService,
    PrivateKey,
    Refuse,
    Tamper,
)
from tests.integration.client.conftest import FAST
from trien.v1 import algorithms_pb2

from trien_client import (
    AlgorithmMismatch,
    AuthorizationState,
    Busy,
    Client,
    Data,
    DeadlineExceeded,
    InvalidArgument,
    InvalidDigest,
    OneTimePasswordContext,
    OneTimePasswordRejected,
    Refusal,
    RequestIdReused,
    ServerNotTrusted,
    SignatureAlgorithm,
    TooManyDigests,
    TransportError,
    TrienError,
    TrustNotConfigured,
    Unauthenticated,
    Unavailable,
    VerificationError,
    verify_signature,
)

import grpc  # isort: skip

CODE = "111111"
OTHER_CODE = "222222"
RSA = "credentials/rsa"
P256 = "credentials/p256"


def digests(count: int, function: str = "sha256") -> list[bytes]:
    return [hashlib.new(function, f"document {number}".encode()).digest() for number in range(count)]


def credential_for(algorithm: SignatureAlgorithm) -> str:
    if algorithm.is_ecdsa:
        return P256 if "P256" in algorithm else "credentials/p384"
    return "credentials/ed25519" if algorithm is SignatureAlgorithm.ED25519 else RSA


class AskedOnce:
    """A callback that notes how often it was asked."""

    def __init__(self, code: str = CODE) -> None:
        self.code = code
        self.contexts: list[OneTimePasswordContext] = []

    def __call__(self, context: OneTimePasswordContext) -> str:
        self.contexts.append(context)
        return self.code


@pytest.mark.parametrize("algorithm", SignatureAlgorithm)
def test_every_algorithm_signs_and_verifies(client: Client, algorithm: SignatureAlgorithm) -> None:
    function = algorithm.hash_function
    items: list[Any] = [Data(b"one"), Data(b"two")] if function is None else digests(2, function.hashlib_name)
    signed = client.sign_digests(credential_for(algorithm), algorithm, items, one_time_password=CODE)
    assert len(signed.signatures) == 2
    assert signed.algorithm is algorithm
    assert signed.audit_entry == "auditEntries/e1"
    certificate = client.trusted_certificate(credential_for(algorithm))
    for item, signature in zip(items, signed.signatures, strict=True):
        verify_signature(certificate, algorithm, signature, item.value if isinstance(item, Data) else item)


def test_a_salt_that_is_asked_for_is_the_one_that_is_verified(client: Client) -> None:
    signed = client.sign_digests(
        RSA, SignatureAlgorithm.RSA_PSS_SHA256, digests(1), one_time_password=CODE, pss_salt_length=20
    )
    certificate = client.trusted_certificate(RSA)
    verify_signature(
        certificate, SignatureAlgorithm.RSA_PSS_SHA256, signed.signatures[0], digests(1)[0], pss_salt_length=20
    )
    with pytest.raises(VerificationError):
        verify_signature(certificate, SignatureAlgorithm.RSA_PSS_SHA256, signed.signatures[0], digests(1)[0])


def test_a_thousand_digests_go_into_one_call(client: Client, service: FakeSigningService) -> None:
    ask = AskedOnce()
    signed = client.sign_digests(
        P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1000), one_time_password=ask, timeout=60
    )
    assert len(signed.signatures) == 1000
    assert len(ask.contexts) == len(service.requests("SignDigests")) == 1


def test_a_thousand_pieces_of_data_fit_into_one_call(client: Client) -> None:
    items = [Data(number.to_bytes(2, "big") * 32768) for number in range(1000)]
    signed = client.sign_digests(
        "credentials/ed25519", SignatureAlgorithm.ED25519, items, one_time_password=CODE, timeout=120
    )
    assert len(signed.signatures) == 1000


def test_the_person_is_told_what_the_password_is_for(client: Client) -> None:
    ask = AskedOnce()
    signed = client.sign_digests(
        P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(3), one_time_password=ask, signer=SIGNER
    )
    [context] = ask.contexts
    assert context.digests == tuple(digests(3))
    assert context.signer == SIGNER
    assert context.request_id == signed.request_id


# What the server must not get away with (P6)


def swap(answer: Any) -> None:
    first, second = answer.signatures[0].SerializeToString(), answer.signatures[1].SerializeToString()
    answer.signatures[0].ParseFromString(second)
    answer.signatures[1].ParseFromString(first)


def flip(answer: Any) -> None:
    import google_crc32c

    value = bytearray(answer.signatures[1].value)
    value[-1] ^= 1
    answer.signatures[1].value = bytes(value)
    answer.signatures[1].crc32c = google_crc32c.value(bytes(value))


TAMPERINGS: dict[str, tuple[Callable[[Any], None], str]] = {
    "order": (swap, "Signature 0"),
    "flipped bit": (flip, "Signature 1"),
    "signature's checksum": (lambda a: setattr(a.signatures[0], "crc32c", a.signatures[0].crc32c ^ 1), "checksum"),
    "items' checksum": (lambda a: setattr(a, "verified_items_crc32c", False), "checksum"),
    "credential": (lambda a: setattr(a, "credential", "credentials/p256"), "another credential"),
    "algorithm": (lambda a: setattr(a, "algorithm", algorithms_pb2.RSA_PSS_SHA384), "another algorithm"),
    "salt": (lambda a: setattr(a, "pss_salt_length", 20), "another salt"),
    "salt left out": (lambda a: a.ClearField("pss_salt_length"), "another salt"),
    "one missing": (lambda a: a.signatures.pop(), "1 signatures for 2 items"),
    "one too many": (lambda a: a.signatures.add(), "3 signatures for 2 items"),
    "person": (lambda a: setattr(a, "approved_by", "signers/someone-else"), "another person"),
    "empty": (lambda a: a.Clear(), "another credential"),
}


@pytest.mark.promise("P6")
@pytest.mark.parametrize("what", TAMPERINGS)
def test_an_answer_that_was_changed_is_refused(client: Client, service: FakeSigningService, what: str) -> None:
    change, finding = TAMPERINGS[what]
    service.plan("SignDigests", Tamper(change))
    with pytest.raises(VerificationError, match=finding) as caught:
        client.sign_digests(RSA, SignatureAlgorithm.RSA_PSS_SHA256, digests(2), one_time_password=CODE, signer=SIGNER)
    assert caught.value.request_id is not None
    assert len(service.requests("SignDigests")) == 1


@pytest.mark.promise("P6")
def test_signatures_of_another_key_are_refused(
    client: Client, service: FakeSigningService, keys: dict[str, PrivateKey]
) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    client.trusted_certificate(P256)
    service.credentials[P256].key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(VerificationError, match="does not verify"):
        client.sign_digests(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), one_time_password=CODE)


@pytest.mark.promise("P6")
def test_a_renewed_certificate_is_read_again_and_has_to_be_trusted(
    client: Client, service: FakeSigningService, authority: CertificateAuthority, stranger: CertificateAuthority
) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    client.trusted_certificate(P256)
    renewed = ec.generate_private_key(ec.SECP256R1())
    service.credentials[P256].key = renewed
    service.credentials[P256].chain = authority.chain("renewed", renewed)
    signed = client.sign_digests(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), one_time_password=CODE)
    assert len(signed.signatures) == 1

    foreign = ec.generate_private_key(ec.SECP256R1())
    service.credentials[P256].key = foreign
    service.credentials[P256].chain = stranger.chain("foreign", foreign)
    with pytest.raises(VerificationError, match="trust anchor"):
        client.sign_digests(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), one_time_password=OTHER_CODE)


@pytest.mark.promise("P6")
def test_another_credential_than_the_one_read_is_refused(client: Client, service: FakeSigningService) -> None:
    service.plan("GetCredential", Tamper(lambda answer: setattr(answer, "name", "credentials/rsa")))
    ask = AskedOnce()
    with pytest.raises(VerificationError, match="another credential"):
        client.sign_digests(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), one_time_password=ask)
    assert ask.contexts == []


@pytest.mark.promise("P6")
def test_without_anchors_and_pins_nothing_is_asked_or_sent(server: FakeServer, service: FakeSigningService) -> None:
    ask = AskedOnce()
    with (
        Client(server.address, ca_certificates=server.authority.root_pem, token=TOKEN) as client,
        pytest.raises(TrustNotConfigured, match="trust_anchors="),
    ):
        client.sign_digests(RSA, SignatureAlgorithm.RSA_PSS_SHA256, digests(1), one_time_password=ask)
    assert ask.contexts == []
    assert service.calls == []


@pytest.mark.promise("P6")
def test_a_pinned_certificate_is_enough_and_any_other_is_refused(
    server: FakeServer, service: FakeSigningService, authority: CertificateAuthority, keys: dict[str, PrivateKey]
) -> None:
    with Client(
        server.address,
        ca_certificates=authority.root_pem,
        token=TOKEN,
        pinned_certificates={P256: service.credentials[P256].chain[0]},
    ) as client:
        client.sign_digests(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), one_time_password=CODE)
        service.credentials[P256].chain = authority.chain("same key, other certificate", keys["p256"])
    with (
        Client(
            server.address,
            ca_certificates=authority.root_pem,
            token=TOKEN,
            trust_anchors=authority.root_pem,
            pinned_certificates={P256: bytes(32)},
        ) as client,
        pytest.raises(VerificationError, match="pinned"),
    ):
        client.sign_digests(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), one_time_password=OTHER_CODE)


# Retries (P7)


@pytest.mark.promise("P7")
@pytest.mark.parametrize("work", [True, False], ids=["answer lost", "request lost"])
def test_a_retry_sends_the_same_bytes_and_asks_the_person_once(
    client: Client, service: FakeSigningService, work: bool
) -> None:
    service.plan("SignDigests", Abort(work=work), Abort(work=work))
    ask = AskedOnce()
    signed = client.sign_digests(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(2), one_time_password=ask)
    sent = service.requests("SignDigests")
    assert len(sent) == 3
    assert {request.SerializeToString(deterministic=True) for request in sent} == {sent[0].SerializeToString()}
    assert sent[0].request_id == signed.request_id
    uuid.UUID(signed.request_id)
    assert len(ask.contexts) == 1
    assert service.approvals == 1


@pytest.mark.promise("P7")
@pytest.mark.parametrize("reason", ["BUSY", "HSM_UNAVAILABLE", "STORE_UNAVAILABLE"])
def test_what_passes_by_itself_is_tried_again(client: Client, service: FakeSigningService, reason: str) -> None:
    refusal = Refuse(reason, grpc.StatusCode.UNAVAILABLE, retry_after=0.01)
    service.plan("SignDigests", refusal, refusal)
    client.sign_digests(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), one_time_password=CODE)
    assert len(service.requests("SignDigests")) == 3


@pytest.mark.promise("P7")
def test_a_rejected_password_is_never_sent_again(client: Client, service: FakeSigningService) -> None:
    with pytest.raises(OneTimePasswordRejected) as caught:
        client.sign_digests(
            P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), one_time_password=AskedOnce("000000")
        )
    assert caught.value.remaining_attempts == 2
    assert len(service.requests("SignDigests")) == 1
    # Another password with the same request id: the first bound nothing.
    signed = client.sign_digests(
        P256,
        SignatureAlgorithm.ECDSA_P256_SHA256,
        digests(1),
        one_time_password=CODE,
        request_id=caught.value.request_id,
    )
    assert signed.request_id == caught.value.request_id


@pytest.mark.promise("P7")
def test_a_later_call_with_the_same_id_needs_no_new_password(client: Client, service: FakeSigningService) -> None:
    first, again = (
        client.sign_digests(
            P256,
            SignatureAlgorithm.ECDSA_P256_SHA256,
            digests(1),
            one_time_password=CODE,
            request_id="8a4b0cc9-8a0c-4b7e-a9a3-25d1a6b40f6e",
        )
        for _ in range(2)
    )
    assert first == again
    assert service.approvals == 1
    with pytest.raises(RequestIdReused):
        client.sign_digests(
            P256,
            SignatureAlgorithm.ECDSA_P256_SHA256,
            digests(2),
            one_time_password=OTHER_CODE,
            request_id=first.request_id,
        )


def test_retries_end_with_the_reason_when_time_is_short(client: Client, service: FakeSigningService) -> None:
    service.plan("SignDigests", *[Refuse("BUSY", grpc.StatusCode.UNAVAILABLE, retry_after=30)] * 9)
    with pytest.raises(Busy) as caught:
        client.sign_digests(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), one_time_password=CODE, timeout=5)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after.total_seconds() == 30
    assert len(service.requests("SignDigests")) == 1


def test_retries_end_after_the_policy_s_attempts(client: Client, service: FakeSigningService) -> None:
    service.plan("SignDigests", *[Abort()] * 20)
    with pytest.raises(Unavailable):
        client.sign_digests(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), one_time_password=CODE)
    assert len(service.requests("SignDigests")) == FAST.attempts


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.INTERNAL, TransportError),
        (grpc.StatusCode.UNAUTHENTICATED, TransportError),
    ],
)
def test_other_failures_of_the_transport_are_not_tried_again(
    client: Client, service: FakeSigningService, code: grpc.StatusCode, error: type[TransportError]
) -> None:
    service.plan("SignDigests", Abort(code))
    with pytest.raises(error) as caught:
        client.sign_digests(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), one_time_password=CODE)
    assert caught.value.code == code.name
    assert len(service.requests("SignDigests")) == 1


def test_a_denial_is_not_tried_again(client: Client, service: FakeSigningService) -> None:
    authorization = client.create_authorization(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1))
    service.plan("DenyAuthorization", Abort())
    with pytest.raises(Unavailable):
        client.deny_authorization(authorization.name)
    assert len(service.requests("DenyAuthorization")) == 1
    assert client.deny_authorization(authorization.name).state is AuthorizationState.DENIED


# What is refused here, before anyone is asked


@pytest.mark.parametrize(
    ("items", "algorithm", "error"),
    [
        ([], SignatureAlgorithm.RSA_PSS_SHA256, InvalidArgument),
        ([b"short"], SignatureAlgorithm.RSA_PSS_SHA256, InvalidDigest),
        (digests(1, "sha384"), SignatureAlgorithm.RSA_PSS_SHA256, InvalidDigest),
        (digests(1001), SignatureAlgorithm.RSA_PSS_SHA256, TooManyDigests),
        ([Data(b"x")], SignatureAlgorithm.RSA_PSS_SHA256, AlgorithmMismatch),
        (digests(1), SignatureAlgorithm.ED25519, AlgorithmMismatch),
        ([*digests(1), Data(b"x")], SignatureAlgorithm.RSA_PSS_SHA256, AlgorithmMismatch),
        ([Data(bytes(65537))], SignatureAlgorithm.ED25519, InvalidArgument),
        (digests(1), SignatureAlgorithm.ECDSA_P256_SHA256, AlgorithmMismatch),
    ],
)
def test_what_cannot_be_signed_is_refused_before_the_person_is_asked(
    client: Client, service: FakeSigningService, items: list[Any], algorithm: SignatureAlgorithm, error: type[Refusal]
) -> None:
    ask = AskedOnce()
    with pytest.raises(error):
        client.sign_digests(RSA, algorithm, items, one_time_password=ask)
    assert ask.contexts == []
    assert service.requests("SignDigests") == []


@pytest.mark.parametrize("code", ["12345", "123456789", "12345a", "١٢٣٤٥٦", ""])
def test_what_is_no_one_time_password_costs_no_attempt(client: Client, service: FakeSigningService, code: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        client.sign_digests(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), one_time_password=AskedOnce(code))
    assert service.requests("SignDigests") == []
    assert not code or code not in str(caught.value)


# Two phases


def test_two_phases_sign_what_was_approved(client: Client, service: FakeSigningService) -> None:
    algorithm = SignatureAlgorithm.ECDSA_P256_SHA256
    service.plan("CreateAuthorization", Abort(work=True))
    service.plan("ApproveAuthorizations", Abort(work=True))
    service.plan("FetchSignatureActivationData", Abort())
    authorization = client.create_authorization(P256, algorithm, digests(3), approver=SIGNER)
    assert authorization.state is AuthorizationState.PENDING
    assert [item.digest for item in authorization.items] == digests(3)
    assert len(service.authorizations) == 1
    ask = AskedOnce()
    approval = client.approve_authorizations([authorization.name], signer=SIGNER, one_time_password=ask)
    assert approval.authorizations == (authorization.name,)
    assert len(ask.contexts) == 1
    assert service.approvals == 1
    assert client.wait_authorization(authorization.name, timeout=1).state is AuthorizationState.APPROVED
    activation = client.fetch_activation_data(authorization.name)
    signed = client.sign_authorized(activation, algorithm, digests(3))
    assert signed.authorization == authorization.name
    assert client.get_authorization(authorization.name).state is AuthorizationState.USED
    assert [found.name for found in client.list_authorizations(P256)] == [authorization.name]


@pytest.mark.promise("P6")
@pytest.mark.parametrize("change", ["algorithm", "items", "name", "salt", "approver"])
def test_another_authorization_than_the_one_asked_for_is_refused(
    client: Client, service: FakeSigningService, change: str
) -> None:
    changes: dict[str, Callable[[Any], None]] = {
        "algorithm": lambda a: setattr(a, "algorithm", algorithms_pb2.RSA_PSS_SHA384),
        "items": lambda a: setattr(a.items[0], "digest", bytes(32)),
        "salt": lambda a: setattr(a, "pss_salt_length", 0),
        "approver": lambda a: setattr(a, "approver", "signers/someone-else"),
        "name": lambda a: setattr(a, "name", "credentials/p256/authorizations/a1"),
    }
    service.plan("CreateAuthorization", Tamper(changes[change]))
    with pytest.raises(VerificationError):
        client.create_authorization(RSA, SignatureAlgorithm.RSA_PSS_SHA256, digests(1), approver=SIGNER)


def test_credentials_are_listed_page_by_page(client: Client, service: FakeSigningService) -> None:
    assert [credential.name for credential in client.list_credentials(page_size=3)] == sorted(service.credentials)
    assert len(service.requests("ListCredentials")) == 2


# Who is at the other end


@pytest.mark.requirement("NIST 800-63B-4 3.1.4.2 channel")
def test_a_server_of_another_ca_is_refused_at_once(
    server: FakeServer, stranger: CertificateAuthority, service: FakeSigningService
) -> None:
    with (
        Client(server.address, ca_certificates=stranger.root_pem, token=TOKEN, timeout=20) as client,
        pytest.raises(ServerNotTrusted),
    ):
        client.get_credential(P256)
    assert service.calls == []


def test_a_wrong_token_is_a_refusal(server: FakeServer, authority: CertificateAuthority) -> None:
    with (
        Client(server.address, ca_certificates=authority.root_pem, token="wrong") as client,
        pytest.raises(Unauthenticated),
    ):
        client.get_credential(P256)


def test_a_server_that_is_not_there_is_unavailable(authority: CertificateAuthority) -> None:
    with (
        Client("localhost:1", ca_certificates=authority.root_pem, token=TOKEN, timeout=5, retries=FAST) as client,
        pytest.raises(Unavailable),
    ):
        client.get_credential(P256)


@pytest.mark.promise("P12")
def test_no_secret_is_in_a_repr_or_an_error(client: Client, service: FakeSigningService) -> None:
    import traceback

    authorization = client.create_authorization(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1))
    client.approve_authorizations([authorization.name], signer=SIGNER, one_time_password=CODE)
    activation = client.fetch_activation_data(authorization.name)
    texts = [repr(client), str(client), repr(activation), str(activation)]
    for step in (
        Refuse("INTERNAL", grpc.StatusCode.INTERNAL),
        Abort(grpc.StatusCode.INTERNAL),
        Abort(grpc.StatusCode.DEADLINE_EXCEEDED),
        Tamper(lambda answer: answer.Clear()),
        Refuse("ONE_TIME_PASSWORD_REJECTED", grpc.StatusCode.PERMISSION_DENIED),
    ):
        service.plan("SignDigests", step)
        with pytest.raises(TrienError) as caught:
            client.sign_digests(P256, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), one_time_password=OTHER_CODE)
        service.codes.add(OTHER_CODE)
        texts += [repr(caught.value), str(caught.value), "".join(traceback.format_exception(caught.value))]
        service.plan("SignDigests", step)
        with pytest.raises(TrienError) as caught:
            client.sign_authorized(activation, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1))
        texts += [repr(caught.value), str(caught.value), "".join(traceback.format_exception(caught.value))]
    assert len(texts) == 34
    everything = "\n".join(texts)
    for secret in (TOKEN, OTHER_CODE, repr(activation.value)[2:-1], activation.value.hex()):
        assert secret not in everything
