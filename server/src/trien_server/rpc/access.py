"""AccessService at the gRPC edge."""

from dataclasses import dataclass

import grpc
from trien.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    proposal_service_pb2,
)

from trien_server.core.names import parse_id, parse_name
from trien_server.core.principal import Principal
from trien_server.core.records import Client
from trien_server.rpc import translate
from trien_server.rpc.calls import Calls
from trien_server.rpc.proposals import proposal_out
from trien_server.services.clients import CreateClient, DisableClient, GetClient, NewClient
from trien_server.services.deadline import Deadline


@dataclass(frozen=True, kw_only=True)
class AccessServicer(access_service_pb2_grpc.AccessServiceServicer):
    """Translates the methods of AccessService."""

    calls: Calls
    create: CreateClient
    get: GetClient
    disable: DisableClient

    def CreateClient(  # noqa: N802
        self, request: access_service_pb2.CreateClientRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            return proposal_out(self.create(principal, _new_client(request), deadline=deadline))

        return self.calls.run("CreateClient", context, work)

    def GetClient(  # noqa: N802
        self, request: access_service_pb2.GetClientRequest, context: grpc.ServicerContext
    ) -> access_service_pb2.Client:
        def work(principal: Principal, _: Deadline) -> access_service_pb2.Client:
            return client_out(self.get(principal, parse_name("clients", request.name, field="name")))

        return self.calls.run("GetClient", context, work)

    def DisableClient(  # noqa: N802
        self, request: access_service_pb2.DisableClientRequest, context: grpc.ServicerContext
    ) -> access_service_pb2.Client:
        def work(principal: Principal, deadline: Deadline) -> access_service_pb2.Client:
            name = parse_name("clients", request.name, field="name")
            return client_out(self.disable(principal, name, deadline=deadline))

        return self.calls.run("DisableClient", context, work)


def _new_client(request: access_service_pb2.CreateClientRequest) -> NewClient:
    wanted = request.client
    return NewClient(
        name=f"clients/{parse_id(request.client_id, field='client_id')}",
        display_name=wanted.display_name,
        token_hash=wanted.token_hash or None,
        certificate_fingerprint=wanted.certificate_fingerprint or None,
        organizations=tuple(
            parse_name("organizations", name, field="client.organizations") for name in wanted.organizations
        ),
        methods=tuple(wanted.methods),
        calls_per_minute=wanted.calls_per_minute,
        concurrent_items=wanted.concurrent_items,
    )


def client_out(client: Client) -> access_service_pb2.Client:
    message = access_service_pb2.Client(
        name=client.name,
        display_name=client.display_name,
        certificate_fingerprint=client.certificate_fingerprint or b"",
        state=access_service_pb2.Client.State.Value(client.state.value),
        create_time=translate.time_out(client.create_time),
        organizations=client.organizations,
        methods=client.methods,
        calls_per_minute=client.calls_per_minute,
        concurrent_items=client.concurrent_items,
    )
    translate.set_time(message.previous_expire_time, client.previous_expire_time)
    return message
