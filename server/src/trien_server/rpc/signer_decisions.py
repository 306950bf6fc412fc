"""The methods of SignerService that a person calls by a one-time password, at the gRPC edge."""

from dataclasses import dataclass

import grpc
from trien.v1 import signer_service_pb2, signer_service_pb2_grpc

from trien_server.core.names import parse_name
from trien_server.core.one_time_password import parse_one_time_password
from trien_server.core.principal import Principal
from trien_server.core.records import SignatureUse, Signer
from trien_server.rpc import translate
from trien_server.rpc.calls import Calls
from trien_server.services.deadline import Deadline
from trien_server.services.signature_uses import ListSignatureUses
from trien_server.services.signer_decisions import FreezeSigner, SetSignatureNotices


@dataclass(frozen=True, kw_only=True)
class DecisionUseCases:
    """What these methods call."""

    freeze: FreezeSigner
    set_notices: SetSignatureNotices
    list_uses: ListSignatureUses


@dataclass(frozen=True, kw_only=True)
class DecisionMethods(signer_service_pb2_grpc.SignerServiceServicer):
    """Translates them; a part of `SignerServicer`."""

    calls: Calls
    decisions: DecisionUseCases

    def FreezeSigner(  # noqa: N802
        self, request: signer_service_pb2.FreezeSignerRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.Signer:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.Signer:
            frozen = self.decisions.freeze(
                principal,
                parse_name("signers", request.name, field="name"),
                password=parse_one_time_password(request.one_time_password, field_name="one_time_password"),
                deadline=deadline,
            )
            return signer_out(frozen)

        return self.calls.run("FreezeSigner", context, work)

    def SetSignatureNotices(  # noqa: N802
        self, request: signer_service_pb2.SetSignatureNoticesRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.Signer:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.Signer:
            changed = self.decisions.set_notices(
                principal,
                parse_name("signers", request.name, field="name"),
                password=parse_one_time_password(request.one_time_password, field_name="one_time_password"),
                wanted=request.signature_notices,
                deadline=deadline,
            )
            return signer_out(changed)

        return self.calls.run("SetSignatureNotices", context, work)

    def ListSignatureUses(  # noqa: N802
        self, request: signer_service_pb2.ListSignatureUsesRequest, context: grpc.ServicerContext
    ) -> signer_service_pb2.ListSignatureUsesResponse:
        def work(principal: Principal, deadline: Deadline) -> signer_service_pb2.ListSignatureUsesResponse:
            password = None
            if request.one_time_password:
                password = parse_one_time_password(request.one_time_password, field_name="one_time_password")
            uses, token = self.decisions.list_uses(
                principal,
                parse_name("signers", request.name, field="name"),
                password=password,
                size=request.page_size,
                token=request.page_token,
                deadline=deadline,
            )
            return signer_service_pb2.ListSignatureUsesResponse(
                uses=[_use_out(use) for use in uses], next_page_token=token
            )

        return self.calls.run("ListSignatureUses", context, work)


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


def _use_out(use: SignatureUse) -> signer_service_pb2.SignatureUse:
    return signer_service_pb2.SignatureUse(
        audit_entry=use.audit_entry,
        time=translate.time_out(use.time),
        credential=use.credential,
        client=use.client,
        approver=use.approver,
        item_count=use.items,
        fingerprint=use.fingerprint,
    )
