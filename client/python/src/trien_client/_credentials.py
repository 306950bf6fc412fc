"""The calls of CredentialService that an application makes."""

from typing import Any

from trien.v1 import credential_service_pb2, credential_service_pb2_grpc

from trien_client._calls import Calls
from trien_client._resources import Credential, parse_credential
from trien_client._steps import Operation


class Credentials:
    """Reads credentials."""

    def __init__(self, calls: Calls, channel: Any) -> None:
        self._calls = calls
        self._stub: credential_service_pb2_grpc.CredentialServiceStub = (
            credential_service_pb2_grpc.CredentialServiceStub(channel)
        )

    def get(self, name: str, *, deadline: float) -> Operation[Credential]:
        """Reads one credential."""
        request = credential_service_pb2.GetCredentialRequest(name=name)
        answer = yield from self._calls.send(self._stub.GetCredential, request, deadline=deadline, repeatable=True)
        return parse_credential(answer)

    def page(
        self, page_token: str, *, page_size: int, timeout: float | None
    ) -> Operation[tuple[list[Credential], str]]:
        """Reads a page of those that this client may ask for; returns also the token of the next, or ""."""
        request = credential_service_pb2.ListCredentialsRequest(page_size=page_size, page_token=page_token)
        answer = yield from self._calls.send(
            self._stub.ListCredentials, request, deadline=self._calls.deadline(timeout), repeatable=True
        )
        return [parse_credential(found) for found in answer.credentials], answer.next_page_token
