"""SignDigests: check here, ask once, send, verify, hand back."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from trien.v1 import authorization_service_pb2, signing_service_pb2, signing_service_pb2_grpc

from trien_client._algorithms import SignatureAlgorithm
from trien_client._authority import ActivationData, AsyncOneTimePasswordCallback, OneTimePasswordContext, ask_once
from trien_client._calls import Calls, request_id_or_new
from trien_client._credentials import Credentials
from trien_client._errors import AlgorithmMismatch, TrienError, VerificationError
from trien_client._items import Item, Items, parse_items
from trien_client._resources import SigningResult, algorithm_message, parse_assurance
from trien_client._steps import Operation
from trien_client._trust import CertificateTrust
from trien_client._verification import effective_salt_length, require_echo, require_fit, verify_signature

_TRUST_LASTS = 300.0


@dataclass(frozen=True, kw_only=True)
class TrustedChain:
    """A credential's chain whose first certificate is trusted until `until` (seconds, monotonic)."""

    certificate: x509.Certificate
    chain: tuple[bytes, ...]
    until: float

    def holds(self, now: float) -> bool:
        return now < self.until and datetime.now(UTC) < self.certificate.not_valid_after_utc


class Signing:
    """The calls of SigningService."""

    def __init__(
        self,
        calls: Calls,
        channel: Any,
        credentials: Credentials,
        *,
        trust: CertificateTrust,
        one_time_password: AsyncOneTimePasswordCallback | None,
    ) -> None:
        self._calls = calls
        self._credentials = credentials
        self._trust = trust
        self._one_time_password = one_time_password
        self._stub: signing_service_pb2_grpc.SigningServiceStub = signing_service_pb2_grpc.SigningServiceStub(channel)
        self._chains: dict[str, TrustedChain] = {}
        self._lock = threading.Lock()

    def trusted_chain(self, credential: str, *, deadline: float, fresh: bool = False) -> Operation[TrustedChain]:
        """Returns the credential's chain when it is trusted; one read less than five minutes ago, unless `fresh`."""
        self._trust.require(credential)
        now = self._calls.now()
        with self._lock:
            known = self._chains.get(credential)
        if known is not None and not fresh and known.holds(now):
            return known
        read = yield from self._credentials.get(credential, deadline=deadline)
        if read.name != credential:
            raise VerificationError(f"The server answered with another credential than {credential}.")
        chain = TrustedChain(
            certificate=self._trust.check(credential, read.certificate_chain),
            chain=read.certificate_chain,
            until=now + _TRUST_LASTS,
        )
        with self._lock:
            self._chains[credential] = chain
        return chain

    def sign_with_one_time_password(
        self,
        credential: str,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        *,
        source: str | AsyncOneTimePasswordCallback | None,
        signer: str | None,
        request_id: str | None,
        pss_salt_length: int | None,
        timeout: float | None,
    ) -> Operation[SigningResult]:
        """Signs in one round trip."""
        parsed, request = self._prepare(credential, algorithm, items, request_id, pss_salt_length)
        chain = yield from self.require_usable(credential, algorithm, timeout=timeout)
        code = yield from ask_once(
            source or self._one_time_password,
            OneTimePasswordContext(
                credential=credential,
                algorithm=algorithm,
                digests=parsed.document_digests(),
                signer=signer,
                request_id=request.request_id,
            ),
        )
        request.one_time_password.CopyFrom(authorization_service_pb2.OneTimePassword(code=code, signer=signer or ""))
        return (yield from self._send(parsed, request, chain, timeout))

    def sign_with_activation_data(
        self,
        activation: ActivationData,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        *,
        request_id: str | None,
        pss_salt_length: int | None,
        timeout: float | None,
    ) -> Operation[SigningResult]:
        """Signs under an approved authorization."""
        credential = activation.authorization.partition("/authorizations/")[0]
        parsed, request = self._prepare(credential, algorithm, items, request_id, pss_salt_length)
        chain = yield from self.require_usable(credential, algorithm, timeout=timeout)
        request.activated_authorization.CopyFrom(
            signing_service_pb2.ActivatedAuthorization(
                authorization=activation.authorization, signature_activation_data=activation.value
            )
        )
        return (yield from self._send(parsed, request, chain, timeout))

    def _prepare(
        self,
        credential: str,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        request_id: str | None,
        pss_salt_length: int | None,
    ) -> tuple[Items, signing_service_pb2.SignDigestsRequest]:
        parsed = parse_items(items, algorithm)
        if pss_salt_length is not None and not algorithm.is_pss:
            raise AlgorithmMismatch(f"pss_salt_length: {algorithm} has no salt")
        request = signing_service_pb2.SignDigestsRequest(
            credential=credential,
            algorithm=algorithm_message(algorithm),
            items=parsed.to_sign(),
            items_crc32c=parsed.crc32c(),
            request_id=request_id_or_new(request_id),
        )
        if pss_salt_length is not None:
            request.pss_salt_length = pss_salt_length
        return parsed, request

    def require_usable(
        self, credential: str, algorithm: SignatureAlgorithm, *, timeout: float | None
    ) -> Operation[TrustedChain]:
        """Returns the trusted chain when its key makes signatures of `algorithm`.

        Before the person is asked: an answer that could not be verified is not worth a one-time password.
        """
        chain = yield from self.trusted_chain(credential, deadline=self._calls.deadline(timeout))
        require_fit(chain.certificate, algorithm)
        return chain

    def _send(
        self, items: Items, request: signing_service_pb2.SignDigestsRequest, chain: TrustedChain, timeout: float | None
    ) -> Operation[SigningResult]:
        deadline = self._calls.deadline(timeout)
        try:
            # The same message, so the same request_id and the same one-time password: a request that was granted is
            # answered with its recorded outcome (P7).
            response = yield from self._calls.send(self._stub.SignDigests, request, deadline=deadline, repeatable=True)
            require_echo(request, response, items.algorithm)
            chain = yield from self._verify(items, request, response, chain, deadline)
        except TrienError as error:
            error.request_id = request.request_id
            raise
        return SigningResult(
            credential=response.credential,
            algorithm=items.algorithm,
            pss_salt_length=response.pss_salt_length if response.HasField("pss_salt_length") else None,
            signatures=tuple(signature.value for signature in response.signatures),
            certificate_chain=chain.chain,
            authorization=response.authorization,
            approved_by=response.approved_by,
            assurance=parse_assurance(response.assurance),
            audit_entry=response.audit_entry,
            leaf_hash=response.leaf_hash,
            request_id=request.request_id,
            digests=items.document_digests(),
        )

    def _verify(
        self,
        items: Items,
        request: signing_service_pb2.SignDigestsRequest,
        response: signing_service_pb2.SignDigestsResponse,
        chain: TrustedChain,
        deadline: float,
    ) -> Operation[TrustedChain]:
        """Verifies every signature; returns the chain that it verified with.

        The certificate may have been renewed since it was read: it is read again once, and has to be trusted too.
        """
        salt = effective_salt_length(
            items.algorithm, request.pss_salt_length if request.HasField("pss_salt_length") else None
        )
        try:
            _verify_all(items, response, chain.certificate, salt)
        except VerificationError:
            renewed = yield from self.trusted_chain(request.credential, deadline=deadline, fresh=True)
            if renewed.chain[0] == chain.chain[0]:
                raise
            _verify_all(items, response, renewed.certificate, salt)
            return renewed
        return chain


def _verify_all(
    items: Items,
    response: signing_service_pb2.SignDigestsResponse,
    certificate: x509.Certificate,
    salt: int | None,
) -> None:
    for position, (signature, signed) in enumerate(zip(response.signatures, items.signed_bytes(), strict=True)):
        try:
            verify_signature(certificate, items.algorithm, signature.value, signed, pss_salt_length=salt)
        except VerificationError as error:
            raise VerificationError(f"Signature {position}: {error}") from None
