"""The client: one connection to a Trien server, and everything that an application does over it."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

import grpc
from cryptography import x509

from trien_client._algorithms import SignatureAlgorithm
from trien_client._authority import ActivationData, OneTimePasswordCallback
from trien_client._base_client import BaseClient
from trien_client._challenges import Challenge
from trien_client._items import Item
from trien_client._pending import PendingSignature
from trien_client._receipts import VerifiedReceipt
from trien_client._resources import Approval, Authorization, Credential, SigningResult
from trien_client._signers import SignatureUse
from trien_client._transport import Endpoint, Transport
from trien_client._two_phases import OnPending


class Client(BaseClient[OneTimePasswordCallback]):
    """A connection to a Trien server. May be used from several threads; close it, or use it with `with`.

    It is known to the server by a bearer token (`token`) or by a client certificate (`certificate` and `key`).
    `trust_anchors` are the CA certificates that signers' certificates lead to; `pinned_certificates` name the one
    certificate (or its SHA-256 fingerprint) that a credential has to have. One of both is needed for signing.
    `log_key` is the key of the server's audit log (or a file of its keys), which receipts are verified with.
    `timeout` bounds each call with its retries, in seconds, not counting the time in which a person is asked for a
    one-time password.
    """

    def _open(self, endpoint: Endpoint) -> grpc.Channel:
        self._transport = Transport(endpoint)
        self._run = self._transport.run
        return self._transport.channel

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls that are under way fail."""
        self._transport.close()

    # Credentials

    def get_credential(self, name: str, *, timeout: float | None = None) -> Credential:
        """Reads one credential."""
        return self._run(self._services.credentials.get(name, deadline=self._deadline(timeout)))

    def list_credentials(self, *, page_size: int = 50, timeout: float | None = None) -> Iterator[Credential]:
        """Reads the credentials that this client may ask for, page by page, by name. `timeout` is a page's."""
        token = ""
        while True:
            page, token = self._run(self._services.credentials.page(token, page_size=page_size, timeout=timeout))
            yield from page
            if not token:
                return

    def trusted_certificate(self, credential: str, *, timeout: float | None = None) -> x509.Certificate:
        """Returns the credential's certificate when it is the pinned one or leads to a trust anchor.

        Raises `VerificationError` otherwise, and `TrustNotConfigured` when there is neither.
        """
        return self._run(self._trusted(credential, timeout)).certificate

    def trusted_chain(self, credential: str, *, timeout: float | None = None) -> tuple[bytes, ...]:
        """Returns the credential's chain in DER, whose first certificate is trusted as `trusted_certificate` says."""
        return self._run(self._trusted(credential, timeout)).chain

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
        return self._run(
            self._services.signing.sign_with_one_time_password(
                credential,
                algorithm,
                items,
                source=one_time_password,
                signer=signer,
                request_id=request_id,
                pss_salt_length=pss_salt_length,
                timeout=timeout,
            )
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
        return self._run(
            self._services.signing.sign_with_activation_data(
                activation,
                algorithm,
                items,
                request_id=request_id,
                pss_salt_length=pss_salt_length,
                timeout=timeout,
            )
        )

    def sign_when_approved(
        self,
        credential: str,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        *,
        approver: str | None = None,
        lifetime: timedelta | None = None,
        title: str = "",
        on_pending: OnPending | None = None,
        wait: float | None = None,
        request_id: str | None = None,
        pss_salt_length: int | None = None,
        timeout: float | None = None,
    ) -> SigningResult:
        """Does both phases: asks for a decision, waits for it, and signs.

        `on_pending` is handed the authorization at once, to tell the person. `wait` bounds the waiting, in seconds;
        without it the authorization's `lifetime` does. `timeout` bounds each other call. A lost connection is waited
        out. The same call with the same `request_id` goes on where an earlier one was broken off, also in another
        process, and hands out again what was signed.

        Raises `AuthorizationDenied`, `AuthorizationExpired`, `NotDecidedInTime`, and what `sign_digests` raises.
        """
        asking = self._ask(
            credential, algorithm, items, approver, lifetime, title, request_id, pss_salt_length, timeout
        )
        return self._run(self._services.two_phases.sign(asking, on_pending=on_pending, wait=wait, timeout=timeout))

    def ask_for_signature(
        self,
        credential: str,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        *,
        approver: str | None = None,
        lifetime: timedelta | None = None,
        title: str = "",
        request_id: str | None = None,
        pss_salt_length: int | None = None,
        timeout: float | None = None,
    ) -> PendingSignature:
        """Does what `sign_when_approved` does up to the wait, which is then `PendingSignature.result`."""
        asking = self._ask(
            credential, algorithm, items, approver, lifetime, title, request_id, pss_salt_length, timeout
        )
        return PendingSignature(self._run(asking), self._services.two_phases, self._run)

    def receipt(
        self, signed: SigningResult | str, *, item: int | None = None, timeout: float | None = None
    ) -> VerifiedReceipt:
        """Reads the proof that a signature is in the server's audit log, and verifies it with the log's key.

        `signed` is a signature's result, or the name of an audit entry of this client's. With `item` the receipt is
        also about that one of the call's digests, and of a result it has to be the digest that was computed here.
        Waits until the log covers the entry, a second or two.

        Raises `ProofNotValid`, `TrustNotConfigured` without a log key, `Refusal`, `TransportError`.
        """
        return self._run(self._receipt(signed, item, timeout))

    # Authorizations

    def create_authorization(
        self,
        credential: str,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        *,
        approver: str | None = None,
        lifetime: timedelta | None = None,
        title: str = "",
        request_id: str | None = None,
        pss_salt_length: int | None = None,
        timeout: float | None = None,
    ) -> Authorization:
        """Asks for a decision on items: the first phase. Nothing is signed before it is approved.

        `title` is what the person is told that it is, in your words: at most 200 characters on one line. Of
        `SignedAttributes` only the document's digest is sent; their DER may be made when signing.
        """
        return self._run(
            self._services.authorizations.create(
                credential,
                algorithm,
                items,
                approver=approver,
                lifetime=lifetime,
                title=title,
                request_id=request_id,
                pss_salt_length=pss_salt_length,
                deadline=self._deadline(timeout),
            )
        )

    def get_authorization(self, name: str, *, timeout: float | None = None) -> Authorization:
        """Reads one authorization."""
        return self._run(self._services.authorizations.get(name, deadline=self._deadline(timeout)))

    def list_authorizations(
        self, credential: str, *, page_size: int = 50, timeout: float | None = None
    ) -> Iterator[Authorization]:
        """Reads the credential's authorizations that this client made, page by page. `timeout` is a page's."""
        token = ""
        while True:
            page, token = self._run(
                self._services.authorizations.page(credential, token, page_size=page_size, timeout=timeout)
            )
            yield from page
            if not token:
                return

    def wait_authorization(self, name: str, *, timeout: float = 600.0) -> Authorization:
        """Waits until the authorization is no longer pending, has expired, or `timeout` seconds are over.

        Returns it as it then is: look at its `state`.
        """
        return self._run(self._services.authorizations.wait(name, end=self._deadline(timeout)))

    def create_challenge(
        self,
        authorizations: Sequence[str],
        *,
        signer: str,
        authenticator: str | None = None,
        timeout: float | None = None,
    ) -> Challenge:
        """Makes a question for a person's OCRA authenticator that stands for exactly these authorizations, in order.

        Show `trien_client.qr.svg(challenge.ocra_question.uri)` with `challenge.fingerprint`, and pass what the person
        types to `approve_authorizations`. It can be answered for five minutes, once.
        """
        return self._run(
            self._services.authorizations.create_challenge(
                authorizations, signer=signer, authenticator=authenticator, deadline=self._deadline(timeout)
            )
        )

    def send_one_time_password(
        self,
        authorizations: Sequence[str],
        *,
        signer: str,
        authenticator: str | None = None,
        timeout: float | None = None,
    ) -> Challenge:
        """Has a code for exactly these authorizations sent to a person by SMS or e-mail.

        It can be given to `approve_authorizations` for five minutes, once. Only after `Busy`, when nothing was sent, is
        it tried again by itself; after a `DeliveryFailed` or a `TransportError` the code may still arrive, but only
        that of a new challenge can be used.
        """
        return self._run(
            self._services.authorizations.send_one_time_password(
                authorizations, signer=signer, authenticator=authenticator, deadline=self._deadline(timeout)
            )
        )

    def approve_authorizations(
        self,
        names: Sequence[str],
        *,
        signer: str,
        one_time_password: str | OneTimePasswordCallback | None = None,
        challenge: Challenge | str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Approval:
        """Approves authorizations of one person with one one-time password: all of them or none.

        `challenge` (or its name) is what the password answers: it has to be for these authorizations in this order.
        """
        return self._run(
            self._services.authorizations.approve(
                names,
                signer=signer,
                source=one_time_password,
                challenge=challenge,
                request_id=request_id,
                timeout=timeout,
            )
        )

    def deny_authorization(self, name: str, *, timeout: float | None = None) -> Authorization:
        """Denies a pending authorization for good. After a `TransportError` it is not tried again: read it then."""
        return self._run(self._services.authorizations.deny(name, deadline=self._deadline(timeout)))

    def fetch_activation_data(self, authorization: str, *, timeout: float | None = None) -> ActivationData:
        """Fetches what opens an approved authorization that this client made."""
        deadline = self._deadline(timeout)
        return self._run(self._services.authorizations.fetch_activation_data(authorization, deadline=deadline))

    # What a person does alone

    def freeze_signer(self, name: str, *, one_time_password: str, timeout: float | None = None) -> None:
        """Freezes a person by a code of one's own: nothing is signed until two officers undo it."""
        self._run(self._services.signers.freeze(name, one_time_password, deadline=self._deadline(timeout)))

    def set_signature_notices(
        self, name: str, wanted: bool, *, one_time_password: str, timeout: float | None = None
    ) -> None:
        """Switches on or off that a person is told of each signature."""
        deadline = self._deadline(timeout)
        self._run(self._services.signers.set_notices(name, one_time_password, wanted=wanted, deadline=deadline))

    def list_signature_uses(
        self, name: str, *, one_time_password: str, page_size: int = 50, timeout: float | None = None
    ) -> Iterator[SignatureUse]:
        """Reads every use of a person's credentials, newest first, by one code. `timeout` is a page's."""
        token = ""
        while True:
            page, token = self._run(
                self._services.signers.uses(
                    name, one_time_password, token, page_size=page_size, deadline=self._deadline(timeout)
                )
            )
            yield from page
            if not token:
                return
