"""SignerService at the gRPC edge."""

from dataclasses import dataclass

import grpc
from trien.v1 import (
    proposal_service_pb2,
    signer_service_pb2,
    signer_service_pb2_grpc,
)

from trien_server.core.errors import InvalidArgument
from trien_server.core.names import parse_id, parse_name
from trien_server.core.one_time_password import parse_one_time_password
from trien_server.core.principal import Principal
from trien_server.core.records import Authenticator, AuthenticatorKind, Enrolment, Signer, SignerKind
from trien_server.core.secret import Secret
from trien_server.rpc import translate
from trien_server.rpc.calls import Calls
from trien_server.rpc.proposals import proposal_out
from trien_server.services.authenticators import CreateAuthenticator, NewAuthenticator
from trien_server.services.deadline import Deadline
from trien_server.services.enrolments import (
    BeginEnrolment,
    ConfirmEnrolment,
    CreateEnrolments,
    GetEnrolment,
    NewEnrolment,
    NewEnrolments,
    SendEnrolmentCode,
)
from trien_server.services.import_signers import ImportSigners
from trien_server.services.paging import Page
from trien_server.services.signers import (
    CreateSigner,
    DisableSigner,
    EnableSigner,
    GetSigner,
    ListSigners,
    SignerValues,
    UnlockSigner,
    UpdateSigner,
)


@dataclass(frozen=True, kw_only=True)
class SignerServicer(signer_service_pb2_grpc.SignerServiceServicer):
    """Translates the methods of SignerService."""

    calls: Calls
    create: CreateSigner
    get: GetSigner
    list_: ListSigners
    update: UpdateSigner
    import_: ImportSigners
    disable: DisableSigner
    enable: EnableSigner
    unlock: UnlockSigner
    create_authenticator: CreateAuthenticator
    create_enrolments: CreateEnrolments
    get_enrolment: GetEnrolment
    send_enrolment_code: SendEnrolmentCode
    begin_enrolment: BeginEnrolment
    confirm_enrolment: ConfirmEnrolment

    def CreateSigner(  # noqa: N802
        self, request: signer_service_pb2.CreateSignerRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.Signer:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.Signer:
            wanted = request.signer
            kinds = {
                signer_service_pb2.Signer.PERSON: SignerKind.PERSON,
                signer_service_pb2.Signer.AGENCY: SignerKind.AGENCY,
            }
            if wanted.kind not in kinds:
                raise InvalidArgument("signer.kind", "required, PERSON or AGENCY")
            created = self.create(
                principal,
                name=f"signers/{parse_id(request.signer_id, field='signer_id')}",
                display_name=wanted.display_name,
                kind=kinds[wanted.kind],
                organization=parse_name("organizations", wanted.organization, field="signer.organization"),
                position=wanted.position,
                email=wanted.email,
                phone=wanted.phone,
                deadline=deadline,
            )
            return signer_out(created)

        return self.calls.run("CreateSigner", context, work)

    def GetSigner(  # noqa: N802
        self, request: signer_service_pb2.GetSignerRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.Signer:
        def work(principal: Principal, _: Deadline) -> signer_service_pb2.Signer:
            return signer_out(self.get(principal, parse_name("signers", request.name, field="name")))

        return self.calls.run("GetSigner", context, work)

    def ListSigners(  # noqa: N802
        self, request: signer_service_pb2.ListSignersRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.ListSignersResponse:
        def work(principal: Principal, _: Deadline) -> signer_service_pb2.ListSignersResponse:
            organization = None
            if request.organization:
                organization = parse_name("organizations", request.organization, field="organization")
            page = Page.parse(request.page_size, request.page_token)
            found, token = self.list_(principal, organization=organization, page=page)
            return signer_service_pb2.ListSignersResponse(signers=map(signer_out, found), next_page_token=token)

        return self.calls.run("ListSigners", context, work)

    def UpdateSigner(  # noqa: N802
        self, request: signer_service_pb2.UpdateSignerRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            wanted = request.signer
            values = SignerValues(
                name=parse_name("signers", wanted.name, field="signer.name"),
                display_name=wanted.display_name,
                organization=parse_name("organizations", wanted.organization, field="signer.organization"),
                position=wanted.position,
                email=wanted.email,
                phone=wanted.phone,
            )
            return proposal_out(self.update(principal, values, deadline=deadline))

        return self.calls.run("UpdateSigner", context, work)

    def ImportSigners(  # noqa: N802
        self, request: signer_service_pb2.ImportSignersRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.ImportSignersResponse:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.ImportSignersResponse:
            result = self.import_(principal, request.csv, validate_only=request.validate_only, deadline=deadline)
            return signer_service_pb2.ImportSignersResponse(
                signer_count=result.entered,
                unchanged_count=result.unchanged,
                faults=[
                    signer_service_pb2.ImportFault(line=fault.line, column=fault.column, message=fault.message)
                    for fault in result.faults
                ],
            )

        return self.calls.run("ImportSigners", context, work)

    def DisableSigner(  # noqa: N802
        self, request: signer_service_pb2.DisableSignerRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.Signer:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.Signer:
            name = parse_name("signers", request.name, field="name")
            return signer_out(self.disable(principal, name, deadline=deadline))

        return self.calls.run("DisableSigner", context, work)

    def EnableSigner(  # noqa: N802
        self, request: signer_service_pb2.EnableSignerRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            name = parse_name("signers", request.name, field="name")
            return proposal_out(self.enable(principal, name, deadline=deadline))

        return self.calls.run("EnableSigner", context, work)

    def UnlockSigner(  # noqa: N802
        self, request: signer_service_pb2.UnlockSignerRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.Signer:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.Signer:
            name = parse_name("signers", request.name, field="name")
            return signer_out(self.unlock(principal, name, deadline=deadline))

        return self.calls.run("UnlockSigner", context, work)

    def CreateAuthenticator(  # noqa: N802
        self, request: signer_service_pb2.CreateAuthenticatorRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            return proposal_out(self.create_authenticator(principal, _new_authenticator(request), deadline=deadline))

        return self.calls.run("CreateAuthenticator", context, work)

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
            return proposal_out(self.create_enrolments(principal, new, deadline=deadline))

        return self.calls.run("CreateEnrolments", context, work)

    def GetEnrolment(  # noqa: N802
        self, request: signer_service_pb2.GetEnrolmentRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.Enrolment:
        def work(principal: Principal, _: Deadline) -> signer_service_pb2.Enrolment:
            name = parse_name("enrolments", request.name, field="name")
            return enrolment_out(self.get_enrolment(principal, name))

        return self.calls.run("GetEnrolment", context, work)

    def SendEnrolmentCode(  # noqa: N802
        self, request: signer_service_pb2.SendEnrolmentCodeRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.SendEnrolmentCodeResponse:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.SendEnrolmentCodeResponse:
            name = parse_name("enrolments", request.name, field="name")
            sent = self.send_enrolment_code(principal, name, deadline=deadline)
            return signer_service_pb2.SendEnrolmentCodeResponse(half=sent.half.reveal().decode())

        return self.calls.run("SendEnrolmentCode", context, work)

    def BeginEnrolment(  # noqa: N802
        self, _request: signer_service_pb2.BeginEnrolmentRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.BeginEnrolmentResponse:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.BeginEnrolmentResponse:
            begun = self.begin_enrolment(principal, deadline=deadline)
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
            made = self.confirm_enrolment(
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


def signer_out(signer: Signer) -> signer_service_pb2.Signer:
    return signer_service_pb2.Signer(
        name=signer.name,
        display_name=signer.display_name,
        kind=signer_service_pb2.Signer.Kind.Value(signer.kind.value),
        organization=signer.organization,
        position=signer.position,
        state=signer_service_pb2.Signer.State.Value(signer.state.value),
        create_time=translate.time_out(signer.create_time),
        email=signer.email,
        phone=signer.phone,
        signature_notices=signer.signature_notices,
    )


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
