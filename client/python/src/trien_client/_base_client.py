"""What a client is made of, whether it blocks or is awaited."""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from cryptography import x509

from trien_client._algorithms import SignatureAlgorithm
from trien_client._authority import AsyncOneTimePasswordCallback
from trien_client._authorizations import Authorizations
from trien_client._calls import DEFAULT_TIMEOUT, Calls
from trien_client._connection import ConnectionFile, Identity
from trien_client._credentials import Credentials
from trien_client._items import Item
from trien_client._log_notes import LogKey, read_log_keys
from trien_client._receipts import Receipts, VerifiedReceipt
from trien_client._resources import SigningResult
from trien_client._retry import RetryPolicy
from trien_client._secret import Secret
from trien_client._signers import Signers
from trien_client._signing import Signing, TrustedChain
from trien_client._steps import Operation
from trien_client._transport import Endpoint, FileSource
from trien_client._trust import CertificateSource, CertificateTrust
from trien_client._two_phases import Asked, TwoPhases

Callback = TypeVar("Callback", bound=AsyncOneTimePasswordCallback)


class Services:
    """The services that a client calls over one channel."""

    def __init__(
        self,
        channel: Any,
        *,
        trust: CertificateTrust,
        timeout: float,
        retries: RetryPolicy,
        one_time_password: AsyncOneTimePasswordCallback | None,
        log_keys: Sequence[LogKey],
    ) -> None:
        self.calls = Calls(retries=retries, timeout=timeout)
        self.credentials = Credentials(self.calls, channel)
        self.authorizations = Authorizations(self.calls, channel, one_time_password=one_time_password)
        self.signing = Signing(self.calls, channel, self.credentials, trust=trust, one_time_password=one_time_password)
        self.signers = Signers(self.calls, channel)
        self.receipts = Receipts(self.calls, channel, log_keys=log_keys)
        self.two_phases = TwoPhases(self.calls, self.authorizations, self.signing)


def connection_of(path: str | os.PathLike[str] | ConnectionFile, identity: Identity) -> dict[str, Any]:
    """Returns how a client is made to connect as a connection file says.

    Raises `ConnectionFileError` when the file does not hold what `identity` needs.
    """
    file = path if isinstance(path, ConnectionFile) else ConnectionFile.load(path)
    mutual = None if identity == "client" else file.certificate_of(identity)
    return {
        "address": file.address if mutual is None else file.mutual_tls_address or "",
        "ca_certificates": file.ca_file,
        "token": file.require_token() if mutual is None else None,
        "certificate": None if mutual is None else mutual.certificate_file,
        "key": None if mutual is None else mutual.key_file,
        "trust_anchors": file.trust_anchors_file,
        "log_key": file.log_key,
    }


class BaseClient(Generic[Callback]):
    """A connection to a Trien server."""

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
        one_time_password: Callback | None = None,
        retries: RetryPolicy | None = None,
        log_key: str | Path | None = None,
    ) -> None:
        trust = CertificateTrust(anchors=trust_anchors, pins=pinned_certificates or {})
        endpoint = Endpoint.of(address, ca_certificates=ca_certificates, token=token, certificate=certificate, key=key)
        self._address = address
        self._services = Services(
            self._open(endpoint),
            trust=trust,
            timeout=timeout,
            retries=retries or RetryPolicy(),
            one_time_password=one_time_password,
            log_keys=() if log_key is None else read_log_keys(log_key),
        )

    @classmethod
    def from_connection_file(
        cls,
        path: str | os.PathLike[str] | ConnectionFile,
        *,
        identity: Identity = "client",
        timeout: float = DEFAULT_TIMEOUT,
        one_time_password: Callback | None = None,
        pinned_certificates: Mapping[str, CertificateSource | x509.Certificate] | None = None,
        retries: RetryPolicy | None = None,
    ) -> Self:
        """Connects as a connection file says, such as a sandbox's `connection.json`.

        Raises `ConnectionFileError` when the file does not hold what `identity` needs.
        """
        return cls(
            **connection_of(path, identity),
            timeout=timeout,
            one_time_password=one_time_password,
            pinned_certificates=pinned_certificates,
            retries=retries,
        )

    def _open(self, endpoint: Endpoint) -> Any:
        """Makes the transport and returns its channel."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address!r})"

    def _deadline(self, timeout: float | None) -> float:
        return self._services.calls.deadline(timeout)

    def _trusted(self, credential: str, timeout: float | None) -> Operation[TrustedChain]:
        return self._services.signing.trusted_chain(credential, deadline=self._deadline(timeout))

    def _receipt(
        self, signed: SigningResult | str, item: int | None, timeout: float | None
    ) -> Operation[VerifiedReceipt]:
        receipts = self._services.receipts
        if isinstance(signed, SigningResult):
            return receipts.of_signature(signed, item=item, timeout=timeout)
        return receipts.of_entry(signed, item=item, timeout=timeout)

    def _ask(
        self,
        credential: str,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        approver: str | None,
        lifetime: timedelta | None,
        title: str,
        request_id: str | None,
        pss_salt_length: int | None,
        timeout: float | None,
    ) -> Operation[Asked]:
        return self._services.two_phases.ask(
            credential,
            algorithm,
            items,
            approver=approver,
            lifetime=lifetime,
            title=title,
            request_id=request_id,
            pss_salt_length=pss_salt_length,
            timeout=timeout,
        )
