"""SignerService at the gRPC edge."""

from dataclasses import dataclass

import grpc
from trien.v1 import (
    proposal_service_pb2,
    signer_service_pb2,
)

from trien_server.core.errors import InvalidArgument
from trien_server.core.names import parse_id, parse_name
from trien_server.core.principal import Principal
from trien_server.core.records import SignerKind
from trien_server.rpc.enrolments import EnrolmentMethods
from trien_server.rpc.proposals import proposal_out
from trien_server.rpc.signer_decisions import DecisionMethods, signer_out
from trien_server.services.deadline import Deadline
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
class SignerServicer(EnrolmentMethods, DecisionMethods):
    """Translates the methods of SignerService."""

    create: CreateSigner
    get: GetSigner
    list_: ListSigners
    update: UpdateSigner
    import_: ImportSigners
    disable: DisableSigner
    enable: EnableSigner
    unlock: UnlockSigner

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
