"""A signature that somebody has been asked to approve."""

from collections.abc import Awaitable, Callable

from trien_client._resources import Authorization, SigningResult
from trien_client._steps import Operation
from trien_client._two_phases import Asked, TwoPhases


class _Pending:
    def __init__(self, asked: Asked, two_phases: TwoPhases) -> None:
        self._asked = asked
        self._two_phases = two_phases

    @property
    def name(self) -> str:
        """The authorization's name, which is what a person approves."""
        return self._asked.authorization.name

    @property
    def authorization(self) -> Authorization:
        """The authorization as it was made."""
        return self._asked.authorization

    @property
    def request_id(self) -> str:
        """The id with which `sign_when_approved` goes on with the same items, also in another process."""
        return self._asked.request_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class PendingSignature(_Pending):
    """What `Client.ask_for_signature` returns."""

    def __init__(
        self, asked: Asked, two_phases: TwoPhases, run: Callable[[Operation[SigningResult]], SigningResult]
    ) -> None:
        super().__init__(asked, two_phases)
        self._run = run

    def result(self, *, wait: float | None = None, timeout: float | None = None) -> SigningResult:
        """Waits for the decision, at most `wait` seconds or until the authorization expires, and signs.

        May be called again after any error but a denial or an expiry, and also after it succeeded.

        Raises `AuthorizationDenied`, `AuthorizationExpired`, `NotDecidedInTime`, and what `sign_digests` raises.
        """
        return self._run(self._two_phases.finish(self._asked, wait=wait, timeout=timeout))


class AsyncPendingSignature(_Pending):
    """What `AsyncClient.ask_for_signature` returns."""

    def __init__(
        self, asked: Asked, two_phases: TwoPhases, run: Callable[[Operation[SigningResult]], Awaitable[SigningResult]]
    ) -> None:
        super().__init__(asked, two_phases)
        self._run = run

    async def result(self, *, wait: float | None = None, timeout: float | None = None) -> SigningResult:
        """Does what `PendingSignature.result` does; after a cancellation it may be awaited again."""
        return await self._run(self._two_phases.finish(self._asked, wait=wait, timeout=timeout))
