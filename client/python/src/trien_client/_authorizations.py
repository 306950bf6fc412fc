"""The two-phase way: an authorization is made, decided on, and opened."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from trien.v1 import authorization_service_pb2, authorization_service_pb2_grpc

from trien_client._algorithms import SignatureAlgorithm
from trien_client._authority import ActivationData, OneTimePasswordCallback, OneTimePasswordContext, ask_once
from trien_client._errors import InvalidArgument, TrienError, VerificationError
from trien_client._items import Item, parse_items
from trien_client._resources import (
    Approval,
    Authorization,
    AuthorizationState,
    algorithm_message,
    parse_approval,
    parse_authorization,
    parse_time,
)
from trien_client._transport import Transport
from trien_client._verification import effective_salt_length

_LONGEST_WAIT = 60.0
_ANSWER_TIME = 10.0


class Authorizations:
    """The calls of AuthorizationService."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = authorization_service_pb2_grpc.AuthorizationServiceStub(transport.channel)

    def create(
        self,
        credential: str,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        *,
        approver: str | None,
        lifetime: timedelta | None,
        request_id: str,
        pss_salt_length: int | None,
        deadline: float,
    ) -> Authorization:
        """Makes an authorization and checks that it is the one asked for."""
        parsed = parse_items(items, algorithm)
        request = authorization_service_pb2.CreateAuthorizationRequest(
            parent=credential,
            authorization=authorization_service_pb2.Authorization(
                algorithm=algorithm_message(algorithm), items=parsed.to_authorize(), approver=approver or ""
            ),
            request_id=request_id,
        )
        if pss_salt_length is not None:
            request.authorization.pss_salt_length = pss_salt_length
        if lifetime is not None:
            request.lifetime.FromTimedelta(lifetime)
        try:
            answer = self._transport.call(self._stub.CreateAuthorization, request, deadline=deadline, repeatable=True)
        except TrienError as error:
            error.request_id = request_id
            raise
        authorization = parse_authorization(answer)
        asked = [(item.WhichOneof("item"), item.SerializeToString()) for item in request.authorization.items]
        for item in answer.items:
            item.ClearField("used")
        echoed = [(item.WhichOneof("item"), item.SerializeToString()) for item in answer.items]
        if (
            not authorization.name.startswith(f"{credential}/authorizations/")
            or authorization.algorithm is not algorithm
            or effective_salt_length(algorithm, authorization.pss_salt_length)
            != effective_salt_length(algorithm, pss_salt_length)
            or (approver is not None and authorization.approver != approver)
            or asked != echoed
        ):
            raise VerificationError("The server made another authorization than the one asked for.")
        return authorization

    def get(self, name: str, *, deadline: float) -> Authorization:
        """Reads one authorization."""
        request = authorization_service_pb2.GetAuthorizationRequest(name=name)
        return parse_authorization(
            self._transport.call(self._stub.GetAuthorization, request, deadline=deadline, repeatable=True)
        )

    def list(self, credential: str, *, page_size: int, timeout: float) -> Iterator[Authorization]:
        """Reads the credential's authorizations, page by page."""
        page_token = ""
        while True:
            page = self._transport.call(
                self._stub.ListAuthorizations,
                authorization_service_pb2.ListAuthorizationsRequest(
                    parent=credential, page_size=page_size, page_token=page_token
                ),
                deadline=self._transport.deadline(timeout),
                repeatable=True,
            )
            yield from map(parse_authorization, page.authorizations)
            page_token = page.next_page_token
            if not page_token:
                return

    def wait(self, name: str, *, timeout: float) -> Authorization:
        """Waits in the server, as often as it takes, until the authorization is decided or time is over."""
        end = self._transport.deadline(timeout)
        while True:
            remaining = max(end - self._transport.deadline(0.0), 0.0)
            turn = min(remaining, _LONGEST_WAIT)
            authorization = parse_authorization(
                self._transport.call(
                    self._stub.WaitAuthorization,
                    authorization_service_pb2.WaitAuthorizationRequest(name=name, timeout=_duration(turn)),
                    # The server answers after `turn`; a little more lets the answer arrive.
                    deadline=self._transport.deadline(turn + _ANSWER_TIME),
                    repeatable=True,
                )
            )
            if authorization.state is not AuthorizationState.PENDING or remaining <= _LONGEST_WAIT:
                return authorization
            if authorization.expire_time is not None and authorization.expire_time <= datetime.now(UTC):
                # The server answers at once for what has expired: asking again would be a busy loop.
                return authorization

    def approve(
        self,
        names: Sequence[str],
        *,
        signer: str,
        source: str | OneTimePasswordCallback | None,
        request_id: str,
        timeout: float,
    ) -> Approval:
        """Approves all of `names`, and checks that it is these that were approved."""
        if isinstance(names, str) or not names:
            raise InvalidArgument("names: expected a list of authorizations", metadata={"field": "names"})
        context = OneTimePasswordContext(
            credential=names[0].partition("/authorizations/")[0],
            algorithm=None,
            digests=(),
            authorizations=tuple(names),
            signer=signer,
            request_id=request_id,
        )
        request = authorization_service_pb2.ApproveAuthorizationsRequest(
            names=names,
            one_time_password=authorization_service_pb2.OneTimePassword(code=ask_once(source, context), signer=signer),
            request_id=request_id,
        )
        try:
            approval = parse_approval(
                self._transport.call(
                    self._stub.ApproveAuthorizations,
                    request,
                    deadline=self._transport.deadline(timeout),
                    repeatable=True,
                )
            )
            if approval.authorizations != tuple(names) or approval.signer != signer:
                raise VerificationError("The server approved other authorizations, or for another person.")
        except TrienError as error:
            error.request_id = request_id
            raise
        return approval

    def deny(self, name: str, *, deadline: float) -> Authorization:
        """Denies one authorization. Not repeatable: the second call would be refused as not pending."""
        request = authorization_service_pb2.DenyAuthorizationRequest(name=name)
        return parse_authorization(
            self._transport.call(self._stub.DenyAuthorization, request, deadline=deadline, repeatable=False)
        )

    def fetch_activation_data(self, authorization: str, *, deadline: float) -> ActivationData:
        """Fetches the secret. Repeatable: the server derives it anew at each call."""
        answer = self._transport.call(
            self._stub.FetchSignatureActivationData,
            authorization_service_pb2.FetchSignatureActivationDataRequest(name=authorization),
            deadline=deadline,
            repeatable=True,
        )
        return ActivationData(
            authorization=authorization,
            value=answer.signature_activation_data,
            expire_time=parse_time(answer.expire_time),
        )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
