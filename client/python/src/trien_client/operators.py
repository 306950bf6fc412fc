"""Calls of operators: security officers, registration officers, auditors, administrators.

`OperatorClient` has a stub for each administrative service and calls it with the messages of `trien.v1`. Methods whose
change control is PROPOSAL return a proposal; another operator approves it with `approve`, which signs with that
operator's own key.

    with OperatorClient("sign.example.vn:8444", ca_certificates="ca.pem", certificate="me.pem", key="me.key") as me:
        proposal = me.call(me.keys.DestroyKey, DestroyKeyRequest(name="keys/old"))
"""

import hashlib
import json
from types import TracebackType
from typing import Any, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_der_x509_certificate
from trien.v1 import (
    access_service_pb2_grpc,
    audit_service_pb2_grpc,
    credential_service_pb2_grpc,
    key_service_pb2_grpc,
    organization_service_pb2_grpc,
    proposal_service_pb2,
    proposal_service_pb2_grpc,
    signer_service_pb2_grpc,
)

from trien_client._errors import VerificationError
from trien_client._steps import Method, Response
from trien_client._transport import Endpoint, FileSource, Transport, read


class OperatorClient:
    """Administers a server as one operator, known by a certificate. May be used from any thread."""

    def __init__(
        self,
        address: str,
        *,
        ca_certificates: FileSource,
        certificate: FileSource,
        key: FileSource,
        timeout: float = 30.0,
    ) -> None:
        """Reads the files; nothing is connected yet. `address` is the server's port for client certificates.

        Raises `ValueError` for what cannot be an address, a certificate or a key, and `OSError`.
        """
        self._key: Final = read(key)
        self._timeout: Final = timeout
        self._transport: Final = Transport(
            Endpoint.of(address, ca_certificates=ca_certificates, token=None, certificate=certificate, key=self._key)
        )
        channel = self._transport.channel
        self.access: Final = access_service_pb2_grpc.AccessServiceStub(channel)
        self.audit: Final = audit_service_pb2_grpc.AuditServiceStub(channel)
        self.credentials: Final = credential_service_pb2_grpc.CredentialServiceStub(channel)
        self.keys: Final = key_service_pb2_grpc.KeyServiceStub(channel)
        self.organizations: Final = organization_service_pb2_grpc.OrganizationServiceStub(channel)
        self.proposals: Final = proposal_service_pb2_grpc.ProposalServiceStub(channel)
        self.signers: Final = signer_service_pb2_grpc.SignerServiceStub(channel)

    def call(self, method: Method[Any, Response], request: Any, *, timeout: float | None = None) -> Response:
        """Calls a method of one of the stubs once. Raises `TrienError`."""
        return self._transport.call(method, request, timeout=timeout or self._timeout)

    def approve(self, proposal: proposal_service_pb2.Proposal) -> proposal_service_pb2.Proposal:
        """Approves a proposal as it was read: signs its digest, which is that of the statement, with the own key.

        Returns it as it is then: EXECUTED, or OUTDATED. Raises `VerificationError` when the digest is not the
        statement's, or the statement another proposal's; `TrienError`.
        """
        request = proposal_service_pb2.ApproveProposalRequest(
            name=proposal.name,
            digest=proposal.digest,
            signature=sign_approval(self._key, approved_text(proposal)),
        )
        return self.call(self.proposals.ApproveProposal, request)

    def close(self) -> None:
        """Closes the channel."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def approved_text(proposal: proposal_service_pb2.Proposal) -> bytes:
    """Returns the text that an approval of this proposal signs.

    Raises `VerificationError` unless the digest is that of the statement, and the statement this proposal's.
    """
    if hashlib.sha256(proposal.statement.encode()).digest() != proposal.digest:
        raise VerificationError("The proposal's digest is not that of its statement.")
    try:
        stated = json.loads(proposal.statement)
        named = (stated["proposal"], stated["method"], stated["proposer"])
    except (ValueError, KeyError, TypeError):
        raise VerificationError("The proposal's statement cannot be read.") from None
    if named != (proposal.name, proposal.method, proposal.proposer):
        raise VerificationError("The proposal's statement is another proposal's.")
    return f"trien.v1 approve {proposal.name} sha256:{proposal.digest.hex()}\n".encode("ascii")


def sign_approval(key: bytes, text: bytes) -> bytes:
    """Returns the signature of an approval's text: ECDSA or RSA PKCS #1 v1.5 with SHA-256, or Ed25519.

    `key` is an unencrypted private key (PEM). Raises `ValueError` for any other.
    """
    private = load_pem_private_key(key, None)
    match private:
        case ec.EllipticCurvePrivateKey():
            return private.sign(text, ec.ECDSA(SHA256()))
        case rsa.RSAPrivateKey():
            return private.sign(text, padding.PKCS1v15(), SHA256())
        case ed25519.Ed25519PrivateKey():
            return private.sign(text)
    raise ValueError("approvals are signed with elliptic curve, RSA or Ed25519 keys")


def verify_approval(proposal: proposal_service_pb2.Proposal) -> None:
    """Verifies an executed proposal's approval, with nothing but the proposal itself.

    That its certificate is the approving operator's is for the reader to compare. Raises `VerificationError`.
    """
    text = approved_text(proposal)
    try:
        key = load_der_x509_certificate(proposal.approval_certificate).public_key()
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(proposal.approval_signature, text, ec.ECDSA(SHA256()))
            case rsa.RSAPublicKey():
                key.verify(proposal.approval_signature, text, padding.PKCS1v15(), SHA256())
            case ed25519.Ed25519PublicKey():
                key.verify(proposal.approval_signature, text)
            case _:
                raise InvalidSignature
    except (ValueError, InvalidSignature):
        raise VerificationError("The approval's signature does not verify.") from None
