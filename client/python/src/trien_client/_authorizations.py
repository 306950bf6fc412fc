"""The two-phase way: an authorization is made, decided on, and opened."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from trien.v1 import authorization_service_pb2, authorization_service_pb2_grpc

from trien_client._algorithms import SignatureAlgorithm
from trien_client._authority import ActivationData, AsyncOneTimePasswordCallback, OneTimePasswordContext, ask_once
from trien_client._calls import Calls, request_id_or_new
from trien_client._challenges import Challenge, listed, parse_challenge
from trien_client._errors import DeadlineExceeded, TrienError, VerificationError
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
from trien_client._retry import is_retried
from trien_client._steps import Operation, Pause
from trien_client._verification import effective_salt_length

_LONGEST_WAIT = 60.0
_ANSWER_TIME = 10.0
_BREATH = 1.0


class Authorizations:
    """The calls of AuthorizationService."""

    def __init__(self, calls: Calls, channel: Any, *, one_time_password: AsyncOneTimePasswordCallback | None) -> None:
        self._calls = calls
        self._one_time_password = one_time_password
        self._stub: authorization_service_pb2_grpc.AuthorizationServiceStub = (
            authorization_service_pb2_grpc.AuthorizationServiceStub(channel)
        )

    def create(
        self,
        credential: str,
        algorithm: SignatureAlgorithm,
        items: Iterable[Item],
        *,
        approver: str | None,
        lifetime: timedelta | None,
        title: str,
        request_id: str | None,
        pss_salt_length: int | None,
        deadline: float,
    ) -> Operation[Authorization]:
        """Makes an authorization and checks that it is the one asked for."""
        request_id = request_id_or_new(request_id)
        parsed = parse_items(items, algorithm)
        request = authorization_service_pb2.CreateAuthorizationRequest(
            parent=credential,
            authorization=authorization_service_pb2.Authorization(
                algorithm=algorithm_message(algorithm),
                items=parsed.to_authorize(),
                approver=approver or "",
                title=title,
            ),
            request_id=request_id,
        )
        if pss_salt_length is not None:
            request.authorization.pss_salt_length = pss_salt_length
        if lifetime is not None:
            request.lifetime.FromTimedelta(lifetime)
        try:
            answer = yield from self._calls.send(
                self._stub.CreateAuthorization, request, deadline=deadline, repeatable=True
            )
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

    def get(self, name: str, *, deadline: float) -> Operation[Authorization]:
        """Reads one authorization."""
        request = authorization_service_pb2.GetAuthorizationRequest(name=name)
        answer = yield from self._calls.send(self._stub.GetAuthorization, request, deadline=deadline, repeatable=True)
        return parse_authorization(answer)

    def page(
        self, credential: str, page_token: str, *, page_size: int, timeout: float | None
    ) -> Operation[tuple[list[Authorization], str]]:
        """Reads a page of the credential's authorizations; returns also the token of the next, or ""."""
        request = authorization_service_pb2.ListAuthorizationsRequest(
            parent=credential, page_size=page_size, page_token=page_token
        )
        answer = yield from self._calls.send(
            self._stub.ListAuthorizations, request, deadline=self._calls.deadline(timeout), repeatable=True
        )
        return [parse_authorization(found) for found in answer.authorizations], answer.next_page_token

    def wait(self, name: str, *, end: float, known: bool = False) -> Operation[Authorization]:
        """Waits in the server, as often as it takes, until the authorization is decided or expired or `end` is there.

        Once the authorization is `known` to be there, a lost connection or a server that is away is waited out.
        """
        while True:
            # The server answers after `turn`; a little more lets the answer arrive.
            turn = min(max(end - self._calls.now(), 0.0), _LONGEST_WAIT)
            request = authorization_service_pb2.WaitAuthorizationRequest(name=name, timeout=_duration(turn))
            until = self._calls.now() + turn
            try:
                answer = yield from self._calls.send(
                    self._stub.WaitAuthorization, request, deadline=until + _ANSWER_TIME, repeatable=True
                )
            except TrienError as error:
                passes = is_retried(error) or isinstance(error, DeadlineExceeded)
                if not (known and passes) or self._calls.now() + _BREATH >= end:
                    raise
            else:
                known = True
                authorization = parse_authorization(answer)
                if authorization.state is not AuthorizationState.PENDING or self._calls.now() >= end:
                    return authorization
                # The server answers at once for what has expired, or when it stops.
                if self._calls.now() < until and has_expired(authorization):
                    return authorization
            yield Pause(min(_BREATH, max(end - self._calls.now(), 0.0)))

    def create_challenge(
        self, names: Sequence[str], *, signer: str, authenticator: str | None, deadline: float
    ) -> Operation[Challenge]:
        """Makes a question for the person's authenticator, and checks that it is for these."""
        request = authorization_service_pb2.CreateChallengeRequest(
            parent=signer, authorizations=listed(names), authenticator=authenticator or ""
        )
        # One more question than needed does no harm: it expires.
        answer = yield from self._calls.send(self._stub.CreateChallenge, request, deadline=deadline, repeatable=True)
        return parse_challenge(answer, request)

    def send_one_time_password(
        self, names: Sequence[str], *, signer: str, authenticator: str | None, deadline: float
    ) -> Operation[Challenge]:
        """Has a code sent. Not repeatable: the person would get two, or the second call would be refused."""
        request = authorization_service_pb2.SendOneTimePasswordRequest(
            parent=signer, authorizations=listed(names), authenticator=authenticator or ""
        )
        answer = yield from self._calls.send(
            self._stub.SendOneTimePassword, request, deadline=deadline, repeatable=False
        )
        return parse_challenge(answer, request)

    def approve(
        self,
        names: Sequence[str],
        *,
        signer: str,
        source: str | AsyncOneTimePasswordCallback | None,
        challenge: Challenge | str | None,
        request_id: str | None,
        timeout: float | None,
    ) -> Operation[Approval]:
        """Approves all of `names`, and checks that it is these that were approved."""
        request_id = request_id_or_new(request_id)
        names = listed(names)
        context = OneTimePasswordContext(
            credential=names[0].partition("/authorizations/")[0],
            algorithm=None,
            digests=(),
            authorizations=tuple(names),
            signer=signer,
            request_id=request_id,
            challenge=challenge if isinstance(challenge, Challenge) else None,
        )
        code = yield from ask_once(source or self._one_time_password, context)
        request = authorization_service_pb2.ApproveAuthorizationsRequest(
            names=names,
            one_time_password=authorization_service_pb2.OneTimePassword(
                code=code,
                signer=signer,
                challenge=challenge.name if isinstance(challenge, Challenge) else challenge or "",
            ),
            request_id=request_id,
        )
        try:
            deadline = self._calls.deadline(timeout)
            approval = parse_approval(
                (
                    yield from self._calls.send(
                        self._stub.ApproveAuthorizations, request, deadline=deadline, repeatable=True
                    )
                )
            )
            if approval.authorizations != tuple(names) or approval.signer != signer:
                raise VerificationError("The server approved other authorizations, or for another person.")
        except TrienError as error:
            error.request_id = request_id
            raise
        return approval

    def deny(self, name: str, *, deadline: float) -> Operation[Authorization]:
        """Denies one authorization. Not repeatable: the second call would be refused as not pending."""
        request = authorization_service_pb2.DenyAuthorizationRequest(name=name)
        answer = yield from self._calls.send(self._stub.DenyAuthorization, request, deadline=deadline, repeatable=False)
        return parse_authorization(answer)

    def fetch_activation_data(self, authorization: str, *, deadline: float) -> Operation[ActivationData]:
        """Fetches the secret. Repeatable: the server derives it anew at each call."""
        request = authorization_service_pb2.FetchSignatureActivationDataRequest(name=authorization)
        answer = yield from self._calls.send(
            self._stub.FetchSignatureActivationData, request, deadline=deadline, repeatable=True
        )
        return ActivationData(
            authorization=authorization,
            value=answer.signature_activation_data,
            expire_time=parse_time(answer.expire_time),
        )


def has_expired(authorization: Authorization) -> bool:
    """Tells whether the authorization's time is over, by this computer's clock."""
    return authorization.expire_time is not None and authorization.expire_time <= datetime.now(UTC)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
