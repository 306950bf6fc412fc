"""The calls of SignerService that a person makes through an application, by a one-time password."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trien.v1 import signer_service_pb2, signer_service_pb2_grpc

from trien_client._calls import Calls
from trien_client._errors import InvalidArgument
from trien_client._resources import parse_time
from trien_client._steps import Operation


@dataclass(frozen=True, kw_only=True)
class SignatureUse:
    """A signing of one list of digests by one of a signer's credentials."""

    audit_entry: str
    time: datetime
    credential: str
    client: str
    approver: str
    item_count: int
    fingerprint: str


class Signers:
    """What a person does alone. None of it is tried again by itself: the code serves once."""

    def __init__(self, calls: Calls, channel: Any) -> None:
        self._calls = calls
        self._stub: signer_service_pb2_grpc.SignerServiceStub = signer_service_pb2_grpc.SignerServiceStub(channel)

    def freeze(self, name: str, one_time_password: str, *, deadline: float) -> Operation[None]:
        """Freezes a person."""
        request = signer_service_pb2.FreezeSignerRequest(name=name, one_time_password=_digits(one_time_password))
        yield from self._calls.send(self._stub.FreezeSigner, request, deadline=deadline, repeatable=False)

    def set_notices(self, name: str, one_time_password: str, *, wanted: bool, deadline: float) -> Operation[None]:
        """Switches notices of signatures."""
        request = signer_service_pb2.SetSignatureNoticesRequest(
            name=name, one_time_password=_digits(one_time_password), signature_notices=wanted
        )
        yield from self._calls.send(self._stub.SetSignatureNotices, request, deadline=deadline, repeatable=False)

    def uses(
        self, name: str, one_time_password: str, page_token: str, *, page_size: int, deadline: float
    ) -> Operation[tuple[list[SignatureUse], str]]:
        """Reads a page of uses; the first by a one-time password, the others by the token of the one before."""
        code = "" if page_token else _digits(one_time_password)
        request = signer_service_pb2.ListSignatureUsesRequest(
            name=name, one_time_password=code, page_size=page_size, page_token=page_token
        )
        answer = yield from self._calls.send(
            self._stub.ListSignatureUses, request, deadline=deadline, repeatable=bool(page_token)
        )
        return [parse_use(found) for found in answer.uses], answer.next_page_token


def _digits(code: str) -> str:
    """Returns a code without blanks. Raises `InvalidArgument`, which does not carry it, for what can be none."""
    code = code.replace(" ", "")
    if not (6 <= len(code) <= 8 and code.isascii() and code.isdecimal()):
        raise InvalidArgument(
            "A one-time password has 6 to 8 digits; nothing was sent.", metadata={"field": "one_time_password"}
        )
    return code


def parse_use(message: signer_service_pb2.SignatureUse) -> SignatureUse:
    """Returns a use as the SDK hands it out."""
    return SignatureUse(
        audit_entry=message.audit_entry,
        time=parse_time(message.time),
        credential=message.credential,
        client=message.client,
        approver=message.approver,
        item_count=message.item_count,
        fingerprint=message.fingerprint,
    )
