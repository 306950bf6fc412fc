"""AuthorizationService at the gRPC edge."""

from datetime import timedelta

import grpc
from google.protobuf.duration_pb2 import Duration
from trien.v1 import authorization_service_pb2 as messages
from trien.v1 import authorization_service_pb2_grpc

from trien_server.core.errors import InvalidArgument
from trien_server.core.names import parse_name
from trien_server.core.one_time_password import parse_one_time_password
from trien_server.core.principal import Principal
from trien_server.rpc import translate
from trien_server.rpc.calls import Calls
from trien_server.rpc.challenges import challenge_command, delivered_challenge_out, ocra_challenge_out
from trien_server.services.approve_authorizations import ApproveAuthorizations, ApproveAuthorizationsCommand
from trien_server.services.create_authorization import CreateAuthorization, CreateAuthorizationCommand
from trien_server.services.create_challenge import CreateChallenge
from trien_server.services.deadline import Deadline
from trien_server.services.deny_authorization import DenyAuthorization
from trien_server.services.granted_requests import parse_request_id
from trien_server.services.paging import Page
from trien_server.services.read_authorizations import (
    DEFAULT_WAIT,
    AuthorizationView,
    FetchActivationData,
    GetAuthorization,
    ListAuthorizations,
    WaitAuthorization,
)
from trien_server.services.send_one_time_password import SendOneTimePassword


class AuthorizationServicer(authorization_service_pb2_grpc.AuthorizationServiceServicer):
    """Translates the methods of AuthorizationService."""

    def __init__(
        self,
        *,
        calls: Calls,
        create: CreateAuthorization,
        get: GetAuthorization,
        list_: ListAuthorizations,
        wait: WaitAuthorization,
        approve: ApproveAuthorizations,
        deny: DenyAuthorization,
        fetch_activation_data: FetchActivationData,
        create_challenge: CreateChallenge,
        send_one_time_password: SendOneTimePassword,
    ) -> None:
        self._calls = calls
        self._create = create
        self._get = get
        self._list = list_
        self._wait = wait
        self._approve = approve
        self._deny = deny
        self._fetch_activation_data = fetch_activation_data
        self._create_challenge = create_challenge
        self._send_one_time_password = send_one_time_password

    def CreateAuthorization(  # noqa: N802 - gRPC's name
        self, request: messages.CreateAuthorizationRequest, context: grpc.ServicerContext
    ) -> messages.Authorization:
        def work(principal: Principal, deadline: Deadline) -> messages.Authorization:
            created = self._create(principal, _create_command(request), deadline)
            return translate.authorization_out(self._get(principal, created.name))

        return self._calls.run("CreateAuthorization", context, work)

    def GetAuthorization(  # noqa: N802
        self, request: messages.GetAuthorizationRequest, context: grpc.ServicerContext
    ) -> messages.Authorization:
        def work(principal: Principal, _: Deadline) -> messages.Authorization:
            return translate.authorization_out(self._get(principal, _name(request.name)))

        return self._calls.run("GetAuthorization", context, work)

    def ListAuthorizations(  # noqa: N802
        self, request: messages.ListAuthorizationsRequest, context: grpc.ServicerContext
    ) -> messages.ListAuthorizationsResponse:
        def work(principal: Principal, _: Deadline) -> messages.ListAuthorizationsResponse:
            parent = parse_name("credentials", request.parent, field="parent")
            found, token = self._list(principal, parent, page=Page.parse(request.page_size, request.page_token))
            authorizations = [translate.authorization_out(view) for view in found]
            return messages.ListAuthorizationsResponse(authorizations=authorizations, next_page_token=token)

        return self._calls.run("ListAuthorizations", context, work)

    def WaitAuthorization(  # noqa: N802
        self, request: messages.WaitAuthorizationRequest, context: grpc.ServicerContext
    ) -> messages.Authorization:
        def work(principal: Principal, deadline: Deadline) -> messages.Authorization:
            seconds = DEFAULT_WAIT
            if request.HasField("timeout"):
                seconds = _duration(request.timeout, field="timeout").total_seconds()
            name = _name(request.name)
            return translate.authorization_out(self._wait(principal, name, seconds=seconds, deadline=deadline))

        return self._calls.run("WaitAuthorization", context, work)

    def CreateChallenge(  # noqa: N802
        self, request: messages.CreateChallengeRequest, context: grpc.ServicerContext
    ) -> messages.Challenge:
        def work(principal: Principal, deadline: Deadline) -> messages.Challenge:
            return ocra_challenge_out(self._create_challenge(principal, challenge_command(request), deadline))

        return self._calls.run("CreateChallenge", context, work)

    def SendOneTimePassword(  # noqa: N802
        self, request: messages.SendOneTimePasswordRequest, context: grpc.ServicerContext
    ) -> messages.Challenge:
        def work(principal: Principal, deadline: Deadline) -> messages.Challenge:
            return delivered_challenge_out(
                self._send_one_time_password(principal, challenge_command(request), deadline)
            )

        return self._calls.run("SendOneTimePassword", context, work)

    def ApproveAuthorizations(  # noqa: N802
        self, request: messages.ApproveAuthorizationsRequest, context: grpc.ServicerContext
    ) -> messages.Approval:
        def work(principal: Principal, deadline: Deadline) -> messages.Approval:
            given = request.one_time_password
            command = ApproveAuthorizationsCommand(
                names=tuple(parse_name("authorizations", name, field="names") for name in request.names),
                signer=parse_name("signers", given.signer, field="one_time_password.signer"),
                password=parse_one_time_password(given.code, field_name="one_time_password.code"),
                challenge=parse_name("challenges", given.challenge, field="one_time_password.challenge")
                if given.challenge
                else None,
                request_id=parse_request_id(request.request_id) if request.request_id else None,
            )
            result = self._approve(principal, command, deadline)
            return messages.Approval(
                signer=result.approval.signer,
                authorizations=result.approval.authorizations,
                assurance=translate.assurance_out(result.approval.assurance),
                create_time=translate.time_out(result.approval.create_time),
                audit_entry=result.audit_entry,
                leaf_hash=result.leaf_hash,
            )

        return self._calls.run("ApproveAuthorizations", context, work)

    def DenyAuthorization(  # noqa: N802
        self, request: messages.DenyAuthorizationRequest, context: grpc.ServicerContext
    ) -> messages.Authorization:
        def work(principal: Principal, deadline: Deadline) -> messages.Authorization:
            denied = self._deny(principal, _name(request.name), deadline)
            return translate.authorization_out(AuthorizationView(authorization=denied, approval=None))

        return self._calls.run("DenyAuthorization", context, work)

    def FetchSignatureActivationData(  # noqa: N802
        self, request: messages.FetchSignatureActivationDataRequest, context: grpc.ServicerContext
    ) -> messages.FetchSignatureActivationDataResponse:
        def work(principal: Principal, _: Deadline) -> messages.FetchSignatureActivationDataResponse:
            data, authorization = self._fetch_activation_data(principal, _name(request.name))
            return messages.FetchSignatureActivationDataResponse(
                signature_activation_data=data.reveal(), expire_time=translate.time_out(authorization.expire_time)
            )

        return self._calls.run("FetchSignatureActivationData", context, work)


def _name(value: str) -> str:
    return parse_name("authorizations", value, field="name")


def _duration(message: Duration, *, field: str) -> timedelta:
    if not (0 <= message.seconds <= 10**9 and 0 <= message.nanos < 10**9):
        raise InvalidArgument(field, "expected a duration of 0 or more")
    return message.ToTimedelta()


def _create_command(request: messages.CreateAuthorizationRequest) -> CreateAuthorizationCommand:
    wanted = request.authorization
    kind, digests = translate.authorized_items_in(wanted.items)
    return CreateAuthorizationCommand(
        credential=parse_name("credentials", request.parent, field="parent"),
        algorithm=translate.algorithm_in(wanted.algorithm, field="authorization.algorithm"),
        pss_salt_length=wanted.pss_salt_length if wanted.HasField("pss_salt_length") else None,
        item_kind=kind,
        digests=digests,
        approver=parse_name("signers", wanted.approver, field="authorization.approver") if wanted.approver else None,
        lifetime=_duration(request.lifetime, field="lifetime") if request.HasField("lifetime") else None,
        request_id=parse_request_id(request.request_id) if request.request_id else None,
        title=wanted.title,
    )
