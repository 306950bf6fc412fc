"""OrganizationService at the gRPC edge."""

from dataclasses import dataclass

import grpc
from trien.v1 import organization_service_pb2, organization_service_pb2_grpc, proposal_service_pb2

from trien_server.core.names import parse_id, parse_name
from trien_server.core.principal import Principal
from trien_server.core.records import Organization
from trien_server.rpc import translate
from trien_server.rpc.calls import Calls
from trien_server.rpc.proposals import proposal_out
from trien_server.services.deadline import Deadline
from trien_server.services.organizations import (
    CreateOrganization,
    GetOrganization,
    ListOrganizations,
    OrganizationValues,
    UpdateOrganization,
)
from trien_server.services.paging import Page


@dataclass(frozen=True, kw_only=True)
class OrganizationServicer(organization_service_pb2_grpc.OrganizationServiceServicer):
    """Translates the methods of OrganizationService."""

    calls: Calls
    create: CreateOrganization
    get: GetOrganization
    list_: ListOrganizations
    update: UpdateOrganization

    def CreateOrganization(  # noqa: N802
        self, request: organization_service_pb2.CreateOrganizationRequest, context: grpc.ServicerContext
    ) -> organization_service_pb2.Organization:
        def work(principal: Principal, deadline: Deadline) -> organization_service_pb2.Organization:
            identifier = parse_id(request.organization_id, field="organization_id")
            values = _values_in(request.organization, name=f"organizations/{identifier}")
            created = self.create(
                principal,
                name=values.name,
                display_name=values.display_name,
                parent=values.parent,
                start_time=values.start_time,
                end_time=values.end_time,
                successor=values.successor,
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

    def ListOrganizations(  # noqa: N802
        self, request: organization_service_pb2.ListOrganizationsRequest, context: grpc.ServicerContext
    ) -> organization_service_pb2.ListOrganizationsResponse:
        def work(principal: Principal, _: Deadline) -> organization_service_pb2.ListOrganizationsResponse:
            found, token = self.list_(principal, page=Page.parse(request.page_size, request.page_token))
            return organization_service_pb2.ListOrganizationsResponse(
                organizations=map(organization_out, found), next_page_token=token
            )

        return self.calls.run("ListOrganizations", context, work)

    def UpdateOrganization(  # noqa: N802
        self, request: organization_service_pb2.UpdateOrganizationRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            wanted = request.organization
            name = parse_name("organizations", wanted.name, field="organization.name")
            return proposal_out(self.update(principal, _values_in(wanted, name=name), deadline=deadline))

        return self.calls.run("UpdateOrganization", context, work)


def _values_in(wanted: organization_service_pb2.Organization, *, name: str) -> OrganizationValues:
    start, end = (
        translate.time_in(getattr(wanted, field), field=f"organization.{field}") if wanted.HasField(field) else None
        for field in ("start_time", "end_time")
    )
    parent, successor = (
        parse_name("organizations", getattr(wanted, field), field=f"organization.{field}")
        if getattr(wanted, field)
        else None
        for field in ("parent", "successor")
    )
    return OrganizationValues(
        name=name,
        display_name=wanted.display_name,
        parent=parent,
        start_time=start,
        end_time=end,
        successor=successor,
    )


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
