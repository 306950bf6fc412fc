"""A signer that talks with the person at the terminal; imported late, because pyHanko takes half a second."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from trien_client._algorithms import SignatureAlgorithm
from trien_client._client import Client
from trien_client._items import Item
from trien_client._resources import SigningResult
from trien_client._two_phases import OnPending
from trien_client.cli.password import PasswordSource
from trien_client.pyhanko import TrienSigner, sign_together

T = TypeVar("T")


class PromptingSigner(TrienSigner):
    """A signer that asks the person again when the one-time password was not accepted."""

    def __init__(
        self,
        client: Client,
        credential: str,
        *,
        algorithm: SignatureAlgorithm | None,
        source: PasswordSource,
        signer: str | None,
    ) -> None:
        super().__init__(client, credential, algorithm=algorithm, one_time_password=source, signer=signer)
        self._source = source

    async def run(self, work: Callable[[], SigningResult]) -> SigningResult:
        """Does `work` in this thread: nothing else waits, and Ctrl-C reaches whoever reads the password."""
        return work()

    def sign_items(self, items: Sequence[Item], *, request_id: str | None = None) -> SigningResult:
        """Has items signed; the attempts share one request id, `request_id` if it is given."""
        return self._source.until_accepted(
            lambda _, own: super(PromptingSigner, self).sign_items(items, request_id=request_id or own)
        )


class WaitingSigner(TrienSigner):
    """A signer that waits until somebody has approved, in this thread, so that Ctrl-C ends the wait."""

    def __init__(
        self,
        client: Client,
        credential: str,
        *,
        algorithm: SignatureAlgorithm | None,
        approver: str | None,
        on_pending: OnPending,
        title: str,
    ) -> None:
        super().__init__(client, credential, algorithm=algorithm)
        self._ask_and_sign = partial(
            client.sign_when_approved,
            credential,
            self.algorithm,
            approver=approver,
            on_pending=on_pending,
            title=title,
        )

    async def run(self, work: Callable[[], SigningResult]) -> SigningResult:
        """Does `work` in this thread."""
        return work()

    def sign_items(self, items: Sequence[Item], *, request_id: str | None = None) -> SigningResult:
        """Has items signed under one authorization that carries the title."""
        return self._ask_and_sign(items, request_id=request_id)


def run_together(signer: TrienSigner, jobs: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Runs `sign_together` to its end; returns what the jobs return."""
    # Not asyncio.run: its handler would keep the first Ctrl-C from a person who is asked for the password.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(sign_together(signer, jobs))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
