"""ProposalService at the gRPC edge."""

from dataclasses import dataclass

import grpc
from trien.v1 import proposal_service_pb2, proposal_service_pb2_grpc

from trien_server.core.errors import InvalidArgument
from trien_server.core.names import parse_name
from trien_server.core.ports import Clock
from trien_server.core.principal import Principal
from trien_server.core.records import Proposal, ProposalState
from trien_server.rpc import translate
from trien_server.rpc.calls import Calls
from trien_server.services.deadline import Deadline
from trien_server.services.paging import Page
from trien_server.services.proposals import Proposals
from trien_server.services.read_proposals import GetProposal, ListProposals


@dataclass(frozen=True, kw_only=True)
class ProposalServicer(proposal_service_pb2_grpc.ProposalServiceServicer):
    """Translates the methods of ProposalService."""

    calls: Calls
    clock: Clock
    proposals: Proposals
    get: GetProposal
    list_: ListProposals

    def GetProposal(  # noqa: N802 - gRPC's name
        self, request: proposal_service_pb2.GetProposalRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, _: Deadline) -> proposal_service_pb2.Proposal:
            return self._out(self.get(principal, _name_of(request.name)))

        return self.calls.run("GetProposal", context, work)

    def ListProposals(  # noqa: N802
        self, request: proposal_service_pb2.ListProposalsRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.ListProposalsResponse:
        def work(principal: Principal, _: Deadline) -> proposal_service_pb2.ListProposalsResponse:
            page = Page.parse(request.page_size, request.page_token)
            found, token = self.list_(principal, state=_state_in(request.state), page=page)
            shown = [self._out(proposal) for proposal in found]
            if request.state:
                # One whose time is over is PENDING in the store.
                shown = [message for message in shown if message.state == request.state]
            return proposal_service_pb2.ListProposalsResponse(proposals=shown, next_page_token=token)

        return self.calls.run("ListProposals", context, work)

    def ApproveProposal(  # noqa: N802
        self, request: proposal_service_pb2.ApproveProposalRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            return self._out(
                self.proposals.approve(
                    principal,
                    _name_of(request.name),
                    digest=request.digest,
                    signature=request.signature,
                    deadline=deadline,
                )
            )

        return self.calls.run("ApproveProposal", context, work)

    def RejectProposal(  # noqa: N802
        self, request: proposal_service_pb2.RejectProposalRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            name = _name_of(request.name)
            return self._out(self.proposals.reject(principal, name, reason=request.reason, deadline=deadline))

        return self.calls.run("RejectProposal", context, work)

    def CancelProposal(  # noqa: N802
        self, request: proposal_service_pb2.CancelProposalRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            return self._out(self.proposals.cancel(principal, _name_of(request.name), deadline=deadline))

        return self.calls.run("CancelProposal", context, work)

    def _out(self, proposal: Proposal) -> proposal_service_pb2.Proposal:
        message = proposal_out(proposal)
        if proposal.state is ProposalState.PENDING and self.clock.now() >= proposal.expire_time:
            message.state = proposal_service_pb2.Proposal.EXPIRED
        return message


def proposal_out(proposal: Proposal) -> proposal_service_pb2.Proposal:
    """Returns the message of a proposal that has just been made, or whose time is not over."""
    message = proposal_service_pb2.Proposal(
        name=proposal.name,
        method=proposal.method,
        statement=proposal.statement,
        digest=proposal.digest,
        proposer=proposal.proposer,
        state=proposal_service_pb2.Proposal.State.Value(proposal.state.value),
        create_time=translate.time_out(proposal.create_time),
        expire_time=translate.time_out(proposal.expire_time),
        decider=proposal.decider or "",
        approval_signature=proposal.approval_signature or b"",
        approval_certificate=proposal.approval_certificate or b"",
        resources=proposal.resources,
    )
    translate.set_time(message.decide_time, proposal.decide_time)
    return message


def _name_of(value: str) -> str:
    return parse_name("proposals", value, field="name")


def _state_in(value: "proposal_service_pb2.Proposal.State.ValueType") -> ProposalState | None:
    """Returns the state in the store that a wanted one has, or None for all."""
    if value == proposal_service_pb2.Proposal.STATE_UNSPECIFIED:
        return None
    if value == proposal_service_pb2.Proposal.EXPIRED:
        return ProposalState.PENDING
    try:
        return ProposalState(proposal_service_pb2.Proposal.State.Name(value))
    except ValueError as unknown:
        raise InvalidArgument("state", "expected one of trien.v1.Proposal.State") from unknown
