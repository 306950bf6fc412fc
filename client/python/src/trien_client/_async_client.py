"""The asynchronous client: what `Client` does, awaited."""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

import grpc
from cryptography import x509

from trien_client._algorithms import SignatureAlgorithm
from trien_client._async_transport import AsyncTransport
from trien_client._authority import ActivationData, AsyncOneTimePasswordCallback
from trien_client._base_client import BaseClient
from trien_client._challenges import Challenge
from trien_client._items import Item
from trien_client._pending import AsyncPendingSignature
from trien_client._receipts import VerifiedReceipt
from trien_client._resources import Approval, Authorization, Credential, SigningResult
from trien_client._signers import SignatureUse
from trien_client._transport import Endpoint
from trien_client._two_phases import AsyncOnPending


class AsyncClient(BaseClient[AsyncOneTimePasswordCallback]):
    """A connection to a Trien server for asynchronous code; close it, or use it with `async with`.

    Its methods are those of `Client`, with the same arguments, checks and errors. It belongs to the event loop that
    runs when it is made. A callback may be an ordinary function, which the loop waits for, or a coroutine function.

    Cancelling an `await` breaks off the waiting, not the server's work, so the request may have been granted. Whoever
    cancels passes a `request_id` of their own: the same call with this id, and the same one-time password or another,
    gives the recorded outcome, or does what was not done yet. Nothing is signed twice and no password used twice.
    """

    def _open(self, endpoint: Endpoint) -> grpc.aio.Channel:
        self._transport = AsyncTransport(endpoint)
        self._run = self._transport.run
        return self._transport.channel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls that are under way fail."""
        await self._transport.close()

    # Credentials

    async def get_credential(self, name: str, *, timeout: float | None = None) -> Credential:
        """Does what `Client.get_credential` does."""
        return await self._run(self._services.credentials.get(name, deadline=self._deadline(timeout)))

    async def list_credentials(self, *, page_size: int = 50, timeout: float | None = None) -> AsyncIterator[Credential]:
        """Does what `Client.list_credentials` does, for `async for`."""
        token = ""
        while True:
            page, token = await self._run(self._services.credentials.page(token, page_size=page_size, timeout=timeout))
            for credential in page:
                yield credential
            if not token:
                return

    async def trusted_certificate(self, credential: str, *, timeout: float | None = None) -> x509.Certificate:
        """Does what `Client.trusted_certificate` does."""
        return (await self._run(self._trusted(credential, timeout))).certificate

    async def trusted_chain(self, credential: str, *, timeout: float | None = None) -> tuple[bytes, ...]:
        """Does what `Client.trusted_chain` does."""
        return (await self._run(self._trusted(credential, timeout))).chain

    # Signing

    async def sign_digests(
        self,
        credential: str,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        *,
        one_time_password: str | AsyncOneTimePasswordCallback | None = None,
        signer: str | None = None,
        request_id: str | None = None,
        pss_salt_length: int | None = None,
        timeout: float | None = None,
    ) -> SigningResult:
        """Does what `Client.sign_digests` does."""
        return await self._run(
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

    async def sign_authorized(
        self,
        activation: ActivationData,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        *,
        request_id: str | None = None,
        pss_salt_length: int | None = None,
        timeout: float | None = None,
    ) -> SigningResult:
        """Does what `Client.sign_authorized` does."""
        return await self._run(
            self._services.signing.sign_with_activation_data(
                activation,
                algorithm,
                items,
                request_id=request_id,
                pss_salt_length=pss_salt_length,
                timeout=timeout,
            )
        )

    async def sign_when_approved(
        self,
        credential: str,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        *,
        approver: str | None = None,
        lifetime: timedelta | None = None,
        title: str = "",
        on_pending: AsyncOnPending | None = None,
        wait: float | None = None,
        request_id: str | None = None,
        pss_salt_length: int | None = None,
        timeout: float | None = None,
    ) -> SigningResult:
        """Does what `Client.sign_when_approved` does. A cancelled one goes on with the same `request_id`."""
        asking = self._ask(
            credential, algorithm, items, approver, lifetime, title, request_id, pss_salt_length, timeout
        )
        return await self._run(
            self._services.two_phases.sign(asking, on_pending=on_pending, wait=wait, timeout=timeout)
        )

    async def ask_for_signature(
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
    ) -> AsyncPendingSignature:
        """Does what `Client.ask_for_signature` does."""
        asking = self._ask(
            credential, algorithm, items, approver, lifetime, title, request_id, pss_salt_length, timeout
        )
        return AsyncPendingSignature(await self._run(asking), self._services.two_phases, self._run)

    async def receipt(
        self, signed: SigningResult | str, *, item: int | None = None, timeout: float | None = None
    ) -> VerifiedReceipt:
        """Does what `Client.receipt` does."""
        return await self._run(self._receipt(signed, item, timeout))

    # Authorizations

    async def create_authorization(
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
        """Does what `Client.create_authorization` does."""
        return await self._run(
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

    async def get_authorization(self, name: str, *, timeout: float | None = None) -> Authorization:
        """Does what `Client.get_authorization` does."""
        return await self._run(self._services.authorizations.get(name, deadline=self._deadline(timeout)))

    async def list_authorizations(
        self, credential: str, *, page_size: int = 50, timeout: float | None = None
    ) -> AsyncIterator[Authorization]:
        """Does what `Client.list_authorizations` does, for `async for`."""
        token = ""
        while True:
            page, token = await self._run(
                self._services.authorizations.page(credential, token, page_size=page_size, timeout=timeout)
            )
            for authorization in page:
                yield authorization
            if not token:
                return

    async def wait_authorization(self, name: str, *, timeout: float = 600.0) -> Authorization:
        """Does what `Client.wait_authorization` does."""
        return await self._run(self._services.authorizations.wait(name, end=self._deadline(timeout)))

    async def create_challenge(
        self,
        authorizations: Sequence[str],
        *,
        signer: str,
        authenticator: str | None = None,
        timeout: float | None = None,
    ) -> Challenge:
        """Does what `Client.create_challenge` does."""
        return await self._run(
            self._services.authorizations.create_challenge(
                authorizations, signer=signer, authenticator=authenticator, deadline=self._deadline(timeout)
            )
        )

    async def send_one_time_password(
        self,
        authorizations: Sequence[str],
        *,
        signer: str,
        authenticator: str | None = None,
        timeout: float | None = None,
    ) -> Challenge:
        """Does what `Client.send_one_time_password` does."""
        return await self._run(
            self._services.authorizations.send_one_time_password(
                authorizations, signer=signer, authenticator=authenticator, deadline=self._deadline(timeout)
            )
        )

    async def approve_authorizations(
        self,
        names: Sequence[str],
        *,
        signer: str,
        one_time_password: str | AsyncOneTimePasswordCallback | None = None,
        challenge: Challenge | str | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Approval:
        """Does what `Client.approve_authorizations` does."""
        return await self._run(
            self._services.authorizations.approve(
                names,
                signer=signer,
                source=one_time_password,
                challenge=challenge,
                request_id=request_id,
                timeout=timeout,
            )
        )

    async def deny_authorization(self, name: str, *, timeout: float | None = None) -> Authorization:
        """Does what `Client.deny_authorization` does."""
        return await self._run(self._services.authorizations.deny(name, deadline=self._deadline(timeout)))

    async def fetch_activation_data(self, authorization: str, *, timeout: float | None = None) -> ActivationData:
        """Does what `Client.fetch_activation_data` does."""
        deadline = self._deadline(timeout)
        return await self._run(self._services.authorizations.fetch_activation_data(authorization, deadline=deadline))

    # What a person does alone

    async def freeze_signer(self, name: str, *, one_time_password: str, timeout: float | None = None) -> None:
        """Does what `Client.freeze_signer` does."""
        await self._run(self._services.signers.freeze(name, one_time_password, deadline=self._deadline(timeout)))

    async def set_signature_notices(
        self, name: str, wanted: bool, *, one_time_password: str, timeout: float | None = None
    ) -> None:
        """Does what `Client.set_signature_notices` does."""
        deadline = self._deadline(timeout)
        await self._run(self._services.signers.set_notices(name, one_time_password, wanted=wanted, deadline=deadline))

    async def list_signature_uses(
        self, name: str, *, one_time_password: str, page_size: int = 50, timeout: float | None = None
    ) -> AsyncIterator[SignatureUse]:
        """Does what `Client.list_signature_uses` does."""
        token = ""
        while True:
            page, token = await self._run(
                self._services.signers.uses(
                    name, one_time_password, token, page_size=page_size, deadline=self._deadline(timeout)
                )
            )
            for use in page:
                yield use
            if not token:
                return
