"""The methods of SignerService about authenticators and enrolments, at the gRPC edge."""

from dataclasses import dataclass

import grpc
from trien.v1 import proposal_service_pb2, signer_service_pb2, signer_service_pb2_grpc

from trien_server.core.errors import InvalidArgument
from trien_server.core.names import parse_id, parse_name
from trien_server.core.one_time_password import parse_one_time_password
from trien_server.core.principal import Principal
from trien_server.core.records import Authenticator, AuthenticatorKind, Enrolment
from trien_server.core.secret import Secret
from trien_server.rpc import translate
from trien_server.rpc.calls import Calls
from trien_server.rpc.proposals import proposal_out
from trien_server.services.authenticators import (
    CreateAuthenticator,
    DisableAuthenticator,
    ListAuthenticators,
    NewAuthenticator,
)
from trien_server.services.deadline import Deadline
from trien_server.services.enrolling import BeginEnrolment, ConfirmEnrolment
from trien_server.services.enrolment_codes import SendEnrolmentCode
from trien_server.services.enrolments import (
    CancelEnrolment,
    CreateEnrolments,
    GetEnrolment,
    ListEnrolments,
    NewEnrolment,
    NewEnrolments,
)
from trien_server.services.paging import Page


@dataclass(frozen=True, kw_only=True)
class EnrolmentUseCases:
    """What these methods call."""

    create_authenticator: CreateAuthenticator
    list_authenticators: ListAuthenticators
    disable_authenticator: DisableAuthenticator
    create: CreateEnrolments
    get: GetEnrolment
    list_: ListEnrolments
    send_code: SendEnrolmentCode
    cancel: CancelEnrolment
    begin: BeginEnrolment
    confirm: ConfirmEnrolment


@dataclass(frozen=True, kw_only=True)
class EnrolmentMethods(signer_service_pb2_grpc.SignerServiceServicer):
    """Translates them; a part of `SignerServicer`."""

    calls: Calls
    enrolments: EnrolmentUseCases

    def CreateAuthenticator(  # noqa: N802
        self, request: signer_service_pb2.CreateAuthenticatorRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            new = _new_authenticator(request)
            return proposal_out(self.enrolments.create_authenticator(principal, new, deadline=deadline))

        return self.calls.run("CreateAuthenticator", context, work)

    def ListAuthenticators(  # noqa: N802
        self, request: signer_service_pb2.ListAuthenticatorsRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.ListAuthenticatorsResponse:
        def work(principal: Principal, _: Deadline) -> signer_service_pb2.ListAuthenticatorsResponse:
            found, token = self.enrolments.list_authenticators(
                principal,
                parse_name("signers", request.parent, field="parent"),
                page=Page.parse(request.page_size, request.page_token),
            )
            return signer_service_pb2.ListAuthenticatorsResponse(
                authenticators=[authenticator_out(one) for one in found], next_page_token=token
            )

        return self.calls.run("ListAuthenticators", context, work)

    def DisableAuthenticator(  # noqa: N802
        self, request: signer_service_pb2.DisableAuthenticatorRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.Authenticator:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.Authenticator:
            name = parse_name("authenticators", request.name, field="name")
            return authenticator_out(self.enrolments.disable_authenticator(principal, name, deadline=deadline))

        return self.calls.run("DisableAuthenticator", context, work)

    def CreateEnrolments(  # noqa: N802
        self, request: signer_service_pb2.CreateEnrolmentsRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            new = NewEnrolments(
                enrolments=tuple(
                    _new_enrolment(wanted, field=f"enrolments[{position}]")
                    for position, wanted in enumerate(request.enrolments)
                )
            )
            return proposal_out(self.enrolments.create(principal, new, deadline=deadline))

        return self.calls.run("CreateEnrolments", context, work)

    def GetEnrolment(  # noqa: N802
        self, request: signer_service_pb2.GetEnrolmentRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.Enrolment:
        def work(principal: Principal, _: Deadline) -> signer_service_pb2.Enrolment:
            name = parse_name("enrolments", request.name, field="name")
            return enrolment_out(self.enrolments.get(principal, name))

        return self.calls.run("GetEnrolment", context, work)

    def ListEnrolments(  # noqa: N802
        self, request: signer_service_pb2.ListEnrolmentsRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.ListEnrolmentsResponse:
        def work(principal: Principal, _: Deadline) -> signer_service_pb2.ListEnrolmentsResponse:
            found, token = self.enrolments.list_(
                principal,
                parse_name("signers", request.parent, field="parent"),
                page=Page.parse(request.page_size, request.page_token),
            )
            return signer_service_pb2.ListEnrolmentsResponse(
                enrolments=[enrolment_out(one) for one in found], next_page_token=token
            )

        return self.calls.run("ListEnrolments", context, work)

    def SendEnrolmentCode(  # noqa: N802
        self, request: signer_service_pb2.SendEnrolmentCodeRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.SendEnrolmentCodeResponse:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.SendEnrolmentCodeResponse:
            name = parse_name("enrolments", request.name, field="name")
            sent = self.enrolments.send_code(principal, name, deadline=deadline)
            half = "" if sent.half is None else sent.half.reveal().decode()
            return signer_service_pb2.SendEnrolmentCodeResponse(sent_to=sent.sent_to, half=half)

        return self.calls.run("SendEnrolmentCode", context, work)

    def CancelEnrolment(  # noqa: N802
        self, request: signer_service_pb2.CancelEnrolmentRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.Enrolment:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.Enrolment:
            name = parse_name("enrolments", request.name, field="name")
            return enrolment_out(self.enrolments.cancel(principal, name, deadline=deadline))

        return self.calls.run("CancelEnrolment", context, work)

    def BeginEnrolment(  # noqa: N802
        self, request: signer_service_pb2.BeginEnrolmentRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.BeginEnrolmentResponse:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.BeginEnrolmentResponse:
            password = None
            if request.one_time_password:
                password = parse_one_time_password(request.one_time_password, field_name="one_time_password")
            begun = self.enrolments.begin(principal, password=password, deadline=deadline)
            return signer_service_pb2.BeginEnrolmentResponse(
                enrolment=enrolment_out(begun.enrolment),
                otpauth_uri=begun.uri.reveal().decode(),
                confirmation_key=begun.confirmation_key.reveal().decode(),
                question=begun.question or b"",
            )

        return self.calls.run("BeginEnrolment", context, work)

    def ConfirmEnrolment(  # noqa: N802
        self, request: signer_service_pb2.ConfirmEnrolmentRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.Authenticator:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.Authenticator:
            made = self.enrolments.confirm(
                principal,
                confirmation_key=Secret(request.confirmation_key.encode()),
                password=parse_one_time_password(request.one_time_password, field_name="one_time_password"),
                deadline=deadline,
            )
            return authenticator_out(made)

        return self.calls.run("ConfirmEnrolment", context, work)


def _new_authenticator(request: signer_service_pb2.CreateAuthenticatorRequest) -> NewAuthenticator:
    parent = parse_name("signers", request.parent, field="parent")
    wanted = request.authenticator
    return NewAuthenticator(
        name=f"{parent}/authenticators/{parse_id(request.authenticator_id, field='authenticator_id')}",
        signer=parent,
        kind=_kind_in(wanted.kind, field="authenticator.kind"),
        digits=wanted.digits,
        address=wanted.address,
    )


def _new_enrolment(wanted: signer_service_pb2.Enrolment, *, field: str) -> NewEnrolment:
    return NewEnrolment(
        name=parse_name("enrolments", wanted.name, field=f"{field}.name"),
        kind=_kind_in(wanted.kind, field=f"{field}.kind"),
        digits=wanted.digits,
        hash_function=_hash_in(wanted.hash, field=f"{field}.hash"),
        replaces=parse_name("authenticators", wanted.replaces, field=f"{field}.replaces") if wanted.replaces else None,
    )


def _kind_in(value: "signer_service_pb2.Authenticator.Kind.ValueType", *, field: str) -> AuthenticatorKind:
    try:
        return AuthenticatorKind(signer_service_pb2.Authenticator.Kind.Name(value))
    except ValueError as unknown:
        raise InvalidArgument(field, "required, one of trien.v1.Authenticator.Kind") from unknown


def _hash_in(value: "signer_service_pb2.Authenticator.Hash.ValueType", *, field: str) -> str:
    if value == signer_service_pb2.Authenticator.HASH_UNSPECIFIED:
        return ""
    try:
        return signer_service_pb2.Authenticator.Hash.Name(value)
    except ValueError as unknown:
        raise InvalidArgument(field, "expected one of trien.v1.Authenticator.Hash") from unknown


def _hash_out(value: str) -> "signer_service_pb2.Authenticator.Hash.ValueType":
    return signer_service_pb2.Authenticator.Hash.Value(value or "HASH_UNSPECIFIED")


def authenticator_out(authenticator: Authenticator) -> signer_service_pb2.Authenticator:
    return signer_service_pb2.Authenticator(
        name=authenticator.name,
        kind=signer_service_pb2.Authenticator.Kind.Value(authenticator.kind.value),
        digits=authenticator.digits,
        hash=_hash_out(authenticator.hash_function),
        address=authenticator.address,
        state=signer_service_pb2.Authenticator.State.Value(authenticator.state.value),
        create_time=translate.time_out(authenticator.create_time),
    )


def enrolment_out(enrolment: Enrolment) -> signer_service_pb2.Enrolment:
    message = signer_service_pb2.Enrolment(
        name=enrolment.name,
        kind=signer_service_pb2.Authenticator.Kind.Value(enrolment.kind.value),
        digits=enrolment.digits,
        hash=_hash_out(enrolment.hash_function),
        replaces=enrolment.replaces or "",
        state=signer_service_pb2.Enrolment.State.Value(enrolment.state.value),
    )
    translate.set_time(message.start_time, enrolment.start_time)
    translate.set_time(message.expire_time, enrolment.expire_time)
    translate.set_time(message.create_time, enrolment.create_time)
    return message
