"""OrganizationService at the gRPC edge."""

from dataclasses import dataclass

import grpc
from trien.v1 import organization_service_pb2, organization_service_pb2_grpc

from trien_server.core.names import parse_id, parse_name
from trien_server.core.principal import Principal
from trien_server.core.records import Organization
from trien_server.rpc import translate
from trien_server.rpc.calls import Calls
from trien_server.services.deadline import Deadline
from trien_server.services.organizations import CreateOrganization, GetOrganization


@dataclass(frozen=True, kw_only=True)
class OrganizationServicer(organization_service_pb2_grpc.OrganizationServiceServicer):
    """Translates the methods of OrganizationService."""

    calls: Calls
    create: CreateOrganization
    get: GetOrganization

    def CreateOrganization(  # noqa: N802
        self, request: organization_service_pb2.CreateOrganizationRequest, context: grpc.ServicerContext
    ) -> organization_service_pb2.Organization:
        def work(principal: Principal, deadline: Deadline) -> organization_service_pb2.Organization:
            wanted = request.organization
            start, end = (
                translate.time_in(getattr(wanted, field), field=f"organization.{field}")
                if wanted.HasField(field)
                else None
                for field in ("start_time", "end_time")
            )
            created = self.create(
                principal,
                name=f"organizations/{parse_id(request.organization_id, field='organization_id')}",
                display_name=wanted.display_name,
                parent=parse_name("organizations", wanted.parent, field="organization.parent")
                if wanted.parent
                else None,
                start_time=start,
                end_time=end,
                deadline=deadline,
            )
            return organization_out(created)

        return self.calls.run("CreateOrganization", context, work)

    def GetOrganization(  # noqa: N802
        self, request: organization_service_pb2.GetOrganizationRequest, context: grpc.ServicerContext
    ) -> organization_service_pb2.Organization:
        def work(principal: Principal, _: Deadline) -> organization_service_pb2.Organization:
            name = parse_name("organizations", request.name, field="name")
            return organization_out(self.get(principal, name))

        return self.calls.run("GetOrganization", context, work)


def organization_out(organization: Organization) -> organization_service_pb2.Organization:
    message = organization_service_pb2.Organization(
        name=organization.name,
        display_name=organization.display_name,
        parent=organization.parent or "",
        successor=organization.successor or "",
        create_time=translate.time_out(organization.create_time),
    )
    translate.set_time(message.start_time, organization.start_time)
    translate.set_time(message.end_time, organization.end_time)
    return message
