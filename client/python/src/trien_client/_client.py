"""The client: one connection to a Trien server, and everything that an application does over it."""

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from cryptography import x509
from trien.v1 import credential_service_pb2, credential_service_pb2_grpc

from trien_client._algorithms import SignatureAlgorithm
from trien_client._authority import ActivationData, OneTimePasswordCallback
from trien_client._authorizations import Authorizations
from trien_client._connection import ConnectionFile, Identity
from trien_client._items import Item
from trien_client._resources import Approval, Authorization, Credential, SigningResult, parse_credential
from trien_client._retry import RetryPolicy
from trien_client._secret import Secret
from trien_client._signing import Signing
from trien_client._transport import FileSource, Transport
from trien_client._trust import CertificateSource, CertificateTrust

DEFAULT_TIMEOUT = 30.0


class Client:
    """A connection to a Trien server. May be used from several threads; close it, or use it with `with`.

    It is known to the server by a bearer token (`token`) or by a client certificate (`certificate` and `key`).
    `trust_anchors` are the CA certificates that signers' certificates lead to; `pinned_certificates` name the one
    certificate (or its SHA-256 fingerprint) that a credential has to have. One of both is needed for signing.
    `timeout` bounds each call with its retries, in seconds, not counting the time in which a person is asked for a
    one-time password.
    """

    def __init__(
        self,
        address: str,
        *,
        ca_certificates: FileSource,
        token: str | Secret | None = None,
        certificate: FileSource | None = None,
        key: FileSource | None = None,
        trust_anchors: CertificateSource | Sequence[x509.Certificate] | None = None,
        pinned_certificates: Mapping[str, CertificateSource | x509.Certificate] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        one_time_password: OneTimePasswordCallback | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        self._timeout = timeout
        self._one_time_password = one_time_password
        self._trust = CertificateTrust(anchors=trust_anchors, pins=pinned_certificates or {})
        self._transport = Transport(
            address,
            ca_certificates=ca_certificates,
            token=Secret(token) if isinstance(token, str) else token,
            certificate=certificate,
            key=key,
            retries=retries or RetryPolicy(),
        )
        self._credentials = credential_service_pb2_grpc.CredentialServiceStub(self._transport.channel)
        self._authorizations = Authorizations(self._transport)
        self._signing = Signing(self._transport, self._trust, self.get_credential)

    @classmethod
    def from_connection_file(
        cls,
        path: str | os.PathLike[str] | ConnectionFile,
        *,
        identity: Identity = "client",
        timeout: float = DEFAULT_TIMEOUT,
        one_time_password: OneTimePasswordCallback | None = None,
        pinned_certificates: Mapping[str, CertificateSource | x509.Certificate] | None = None,
        retries: RetryPolicy | None = None,
    ) -> Self:
        """Connects as a connection file says, such as a sandbox's `connection.json`.

        Raises `ConnectionFileError` when the file does not hold what `identity` needs.
        """
        file = path if isinstance(path, ConnectionFile) else ConnectionFile.load(path)
        mutual = None if identity == "client" else file.certificate_of(identity)
        return cls(
            file.address if mutual is None else file.mutual_tls_address or "",
            ca_certificates=file.ca_file,
            token=file.require_token() if mutual is None else None,
            certificate=None if mutual is None else mutual.certificate_file,
            key=None if mutual is None else mutual.key_file,
            trust_anchors=file.trust_anchors_file,
            pinned_certificates=pinned_certificates,
            timeout=timeout,
            one_time_password=one_time_password,
            retries=retries,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._transport.address!r})"

    def close(self) -> None:
        """Closes the connection; calls that are under way fail."""
        self._transport.close()

    # Credentials

    def get_credential(self, name: str, *, timeout: float | None = None) -> Credential:
        """Reads one credential."""
        return parse_credential(
            self._transport.call(
                self._credentials.GetCredential,
                credential_service_pb2.GetCredentialRequest(name=name),
                deadline=self._deadline(timeout),
                repeatable=True,
            )
        )

    def list_credentials(self, *, page_size: int = 50, timeout: float | None = None) -> Iterator[Credential]:
        """Reads the credentials that this client may ask for, page by page, by name. `timeout` is a page's."""
        page_token = ""
        while True:
            page = self._transport.call(
                self._credentials.ListCredentials,
                credential_service_pb2.ListCredentialsRequest(page_size=page_size, page_token=page_token),
                deadline=self._deadline(timeout),
                repeatable=True,
            )
            yield from map(parse_credential, page.credentials)
            page_token = page.next_page_token
            if not page_token:
                return

    def trusted_certificate(self, credential: str, *, timeout: float | None = None) -> x509.Certificate:
        """Returns the credential's certificate when it is the pinned one or leads to a trust anchor.

        Raises `VerificationError` otherwise, and `TrustNotConfigured` when there is neither.
        """
        return self._signing.trusted_chain(credential, deadline=self._deadline(timeout)).certificate

    def trusted_chain(self, credential: str, *, timeout: float | None = None) -> tuple[bytes, ...]:
        """Returns the credential's chain in DER, whose first certificate is trusted as `trusted_certificate` says."""
        return self._signing.trusted_chain(credential, deadline=self._deadline(timeout)).chain

    # Signing

    def sign_digests(
        self,
        credential: str,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        *,
        one_time_password: str | OneTimePasswordCallback | None = None,
        signer: str | None = None,
        request_id: str | None = None,
        pss_salt_length: int | None = None,
        timeout: float | None = None,
    ) -> SigningResult:
        """Signs all items or none, in one round trip, by the signer's one-time password.

        Items are digests of the algorithm's hash, `SignedAttributes`, or `Data` for Ed25519. A callback is asked once,
        after everything that can be checked here was. A retry sends the same password with the same `request_id`,
        which the server answers with the recorded outcome. After `OneTimePasswordRejected`, call again with another
        password and the same `request_id`.

        Raises `Refusal`, `TransportError`, or `VerificationError` when a signature does not verify.
        """
        return self._signing.sign_with_one_time_password(
            credential,
            algorithm,
            items,
            source=one_time_password or self._one_time_password,
            signer=signer,
            request_id=request_id or str(uuid.uuid4()),
            pss_salt_length=pss_salt_length,
            timeout=self._timeout if timeout is None else timeout,
        )

    def sign_authorized(
        self,
        activation: ActivationData,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        *,
        request_id: str | None = None,
        pss_salt_length: int | None = None,
        timeout: float | None = None,
    ) -> SigningResult:
        """Signs items of an approved authorization: the second phase.

        The items are the authorized ones, in their order; for document digests they are the `SignedAttributes`.
        """
        return self._signing.sign_with_activation_data(
            activation,
            algorithm,
            items,
            request_id=request_id or str(uuid.uuid4()),
            pss_salt_length=pss_salt_length,
            timeout=self._timeout if timeout is None else timeout,
        )

    # Authorizations

    def create_authorization(
        self,
        credential: str,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        *,
        approver: str | None = None,
        lifetime: timedelta | None = None,
        request_id: str | None = None,
        pss_salt_length: int | None = None,
        timeout: float | None = None,
    ) -> Authorization:
        """Asks for a decision on items: the first phase. Nothing is signed before it is approved.

        Of `SignedAttributes` only the document's digest is sent; their DER may be made when signing.
        """
        return self._authorizations.create(
            credential,
            algorithm,
            items,
            approver=approver,
            lifetime=lifetime,
            request_id=request_id or str(uuid.uuid4()),
            pss_salt_length=pss_salt_length,
            deadline=self._deadline(timeout),
        )

    def get_authorization(self, name: str, *, timeout: float | None = None) -> Authorization:
        """Reads one authorization."""
        return self._authorizations.get(name, deadline=self._deadline(timeout))

    def list_authorizations(
        self, credential: str, *, page_size: int = 50, timeout: float | None = None
    ) -> Iterator[Authorization]:
        """Reads the credential's authorizations that this client made, page by page. `timeout` is a page's."""
        return self._authorizations.list(
            credential, page_size=page_size, timeout=self._timeout if timeout is None else timeout
        )

    def wait_authorization(self, name: str, *, timeout: float = 600.0) -> Authorization:
        """Waits until the authorization is no longer pending, or `timeout` seconds are over.

        Returns it as it then is: look at its `state`.
        """
        return self._authorizations.wait(name, timeout=timeout)

    def approve_authorizations(
        self,
        names: Sequence[str],
        *,
        signer: str,
        one_time_password: str | OneTimePasswordCallback | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Approval:
        """Approves authorizations of one person with one one-time password: all of them or none."""
        return self._authorizations.approve(
            names,
            signer=signer,
            source=one_time_password or self._one_time_password,
            request_id=request_id or str(uuid.uuid4()),
            timeout=self._timeout if timeout is None else timeout,
        )

    def deny_authorization(self, name: str, *, timeout: float | None = None) -> Authorization:
        """Denies a pending authorization for good. It is not tried again: read it after a `TransportError`."""
        return self._authorizations.deny(name, deadline=self._deadline(timeout))

    def fetch_activation_data(self, authorization: str, *, timeout: float | None = None) -> ActivationData:
        """Fetches what opens an approved authorization that this client made."""
        return self._authorizations.fetch_activation_data(authorization, deadline=self._deadline(timeout))

    def _deadline(self, timeout: float | None) -> float:
        return self._transport.deadline(self._timeout if timeout is None else timeout)
