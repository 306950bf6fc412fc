"""AccessService at the gRPC edge."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc
from trien.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    proposal_service_pb2,
)

from trien_server.core.names import parse_name
from trien_server.core.principal import Principal
from trien_server.core.records import Proposal
from trien_server.rpc.access_messages import (
    access_out,
    client_out,
    client_update_in,
    new_client_in,
    new_operator_in,
    operator_out,
    operator_update_in,
    restriction_in,
)
from trien_server.rpc.calls import Calls
from trien_server.rpc.proposals import proposal_out
from trien_server.services.client_changes import RestrictClient, UpdateClient
from trien_server.services.clients import CreateClient, DisableClient, EnableClient, GetClient, ListClients
from trien_server.services.deadline import Deadline
from trien_server.services.operators import (
    CreateOperator,
    DisableOperator,
    EnableOperator,
    GetOperator,
    ListOperators,
    UpdateOperator,
)
from trien_server.services.paging import Page
from trien_server.services.show_access import ShowAccess

M = TypeVar("M")


@dataclass(frozen=True, kw_only=True)
class AccessServicer(access_service_pb2_grpc.AccessServiceServicer):
    """Translates the methods of AccessService."""

    calls: Calls
    create_client: CreateClient
    update_client: UpdateClient
    restrict_client: RestrictClient
    get_client: GetClient
    list_clients: ListClients
    disable_client: DisableClient
    enable_client: EnableClient
    create_operator: CreateOperator
    update_operator: UpdateOperator
    get_operator: GetOperator
    list_operators: ListOperators
    disable_operator: DisableOperator
    enable_operator: EnableOperator
    show_access: ShowAccess

    def CreateClient(  # noqa: N802 - gRPC's name
        self, request: access_service_pb2.CreateClientRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> Proposal:
            return self.create_client(principal, new_client_in(request), deadline=deadline)

        return self._propose("CreateClient", context, work)

    def UpdateClient(  # noqa: N802
        self, request: access_service_pb2.UpdateClientRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> Proposal:
            return self.update_client(principal, client_update_in(request), deadline=deadline)

        return self._propose("UpdateClient", context, work)

    def RestrictClient(  # noqa: N802
        self, request: access_service_pb2.RestrictClientRequest, context: grpc.ServicerContext
    ) -> access_service_pb2.Client:
        def work(principal: Principal, deadline: Deadline) -> access_service_pb2.Client:
            name = parse_name("clients", request.name, field="name")
            return client_out(self.restrict_client(principal, name, restriction_in(request), deadline=deadline))

        return self.calls.run("RestrictClient", context, work)

    def GetClient(  # noqa: N802
        self, request: access_service_pb2.GetClientRequest, context: grpc.ServicerContext
    ) -> access_service_pb2.Client:
        def work(principal: Principal, _: Deadline) -> access_service_pb2.Client:
            return client_out(self.get_client(principal, parse_name("clients", request.name, field="name")))

        return self.calls.run("GetClient", context, work)

    def ListClients(  # noqa: N802
        self, request: access_service_pb2.ListClientsRequest, context: grpc.ServicerContext
    ) -> access_service_pb2.ListClientsResponse:
        def work(principal: Principal, _: Deadline) -> access_service_pb2.ListClientsResponse:
            found, token = self.list_clients(principal, page=Page.parse(request.page_size, request.page_token))
            return access_service_pb2.ListClientsResponse(clients=map(client_out, found), next_page_token=token)

        return self.calls.run("ListClients", context, work)

    def DisableClient(  # noqa: N802
        self, request: access_service_pb2.DisableClientRequest, context: grpc.ServicerContext
    ) -> access_service_pb2.Client:
        def work(principal: Principal, deadline: Deadline) -> access_service_pb2.Client:
            name = parse_name("clients", request.name, field="name")
            return client_out(self.disable_client(principal, name, deadline=deadline))

        return self.calls.run("DisableClient", context, work)

    def EnableClient(  # noqa: N802
        self, request: access_service_pb2.EnableClientRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> Proposal:
            name = parse_name("clients", request.name, field="name")
            return self.enable_client(principal, name, deadline=deadline)

        return self._propose("EnableClient", context, work)

    def CreateOperator(  # noqa: N802
        self, request: access_service_pb2.CreateOperatorRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> Proposal:
            return self.create_operator(principal, new_operator_in(request), deadline=deadline)

        return self._propose("CreateOperator", context, work)

    def UpdateOperator(  # noqa: N802
        self, request: access_service_pb2.UpdateOperatorRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> Proposal:
            return self.update_operator(principal, operator_update_in(request), deadline=deadline)

        return self._propose("UpdateOperator", context, work)

    def GetOperator(  # noqa: N802
        self, request: access_service_pb2.GetOperatorRequest, context: grpc.ServicerContext
    ) -> access_service_pb2.Operator:
        def work(principal: Principal, _: Deadline) -> access_service_pb2.Operator:
            return operator_out(self.get_operator(principal, parse_name("operators", request.name, field="name")))

        return self.calls.run("GetOperator", context, work)

    def ListOperators(  # noqa: N802
        self, request: access_service_pb2.ListOperatorsRequest, context: grpc.ServicerContext
    ) -> access_service_pb2.ListOperatorsResponse:
        def work(principal: Principal, _: Deadline) -> access_service_pb2.ListOperatorsResponse:
            found, token = self.list_operators(principal, page=Page.parse(request.page_size, request.page_token))
            return access_service_pb2.ListOperatorsResponse(operators=map(operator_out, found), next_page_token=token)

        return self.calls.run("ListOperators", context, work)

    def DisableOperator(  # noqa: N802
        self, request: access_service_pb2.DisableOperatorRequest, context: grpc.ServicerContext
    ) -> access_service_pb2.Operator:
        def work(principal: Principal, deadline: Deadline) -> access_service_pb2.Operator:
            name = parse_name("operators", request.name, field="name")
            return operator_out(self.disable_operator(principal, name, deadline=deadline))

        return self.calls.run("DisableOperator", context, work)

    def EnableOperator(  # noqa: N802
        self, request: access_service_pb2.EnableOperatorRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> Proposal:
            name = parse_name("operators", request.name, field="name")
            return self.enable_operator(principal, name, deadline=deadline)

        return self._propose("EnableOperator", context, work)

    def ShowAccess(  # noqa: N802
        self, request: access_service_pb2.ShowAccessRequest, context: grpc.ServicerContext
    ) -> access_service_pb2.ShowAccessResponse:
        def work(principal: Principal, _: Deadline) -> access_service_pb2.ShowAccessResponse:
            collection = request.name.partition("/")[0]
            if request.name:
                kind = collection if collection in {"operators", "signers"} else "clients"
                parse_name(kind, request.name, field="name")
            return access_out(self.show_access(principal, request.name))

        return self.calls.run("ShowAccess", context, work)

    def _propose(
        self, method: str, context: grpc.ServicerContext, work: Callable[[Principal, Deadline], Proposal]
    ) -> proposal_service_pb2.Proposal:
        return self.calls.run(method, context, lambda principal, deadline: proposal_out(work(principal, deadline)))
