"""The SDK's two clients by one handle, so that a test says once what both do."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from tests.fakes.signing_service import TOKEN, CertificateAuthority, FakeServer
from tests.integration.client.conftest import FAST

from trien_client import AsyncClient, Client


class Surface:
    """Calls methods of a `Client`, or of an `AsyncClient` in an event loop of its own."""

    def __init__(self, kind: str, server: FakeServer, authority: CertificateAuthority) -> None:
        self.kind = kind
        self.arguments: dict[str, Any] = {
            "ca_certificates": authority.root_pem,
            "token": TOKEN,
            "trust_anchors": authority.root_pem,
            "timeout": 10,
            "retries": FAST,
        }
        self.address = server.address

    def __call__(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Returns what the method returns; what is iterated over as a list."""
        return self.use(lambda client: getattr(client, method)(*arguments, **options))

    def use(self, work: Callable[[Any], Any]) -> Any:
        """Returns what `work` makes of a connected client."""
        if self.kind == "async":
            return asyncio.run(self._awaited(work))
        with Client(self.address, **self.arguments) as client:
            answer = work(client)
            return list(answer) if inspect.isgenerator(answer) else answer

    async def _awaited(self, work: Callable[[Any], Any]) -> Any:
        async with AsyncClient(self.address, **self.arguments) as client:
            answer = work(client)
            if inspect.isasyncgen(answer):
                return [one async for one in answer]
            return await answer if isinstance(answer, Awaitable) else answer
