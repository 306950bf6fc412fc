"""Translates clients, operators and what is in force for them between messages and the core's values."""

from collections.abc import Iterable

from trien.v1 import access_service_pb2

from trien_server.core.errors import InvalidArgument
from trien_server.core.names import parse_id, parse_name
from trien_server.core.records import Client, Operator
from trien_server.core.roles import Role
from trien_server.rpc import translate
from trien_server.services.client_changes import ClientUpdate, Restriction
from trien_server.services.clients import NewClient
from trien_server.services.operators import OperatorValues
from trien_server.services.show_access import Access


def new_client_in(request: access_service_pb2.CreateClientRequest) -> NewClient:
    """Returns the command. Raises `InvalidArgument`."""
    wanted = request.client
    return NewClient(
        name=f"clients/{parse_id(request.client_id, field='client_id')}",
        display_name=wanted.display_name,
        token_hash=wanted.token_hash or None,
        certificate_fingerprint=wanted.certificate_fingerprint or None,
        organizations=_organizations_in(wanted.organizations, field="client.organizations"),
        methods=tuple(wanted.methods),
        calls_per_minute=wanted.calls_per_minute,
        concurrent_items=wanted.concurrent_items,
    )


def client_update_in(request: access_service_pb2.UpdateClientRequest) -> ClientUpdate:
    """Returns the command. Raises `InvalidArgument`."""
    wanted = request.client
    return ClientUpdate(
        name=parse_name("clients", wanted.name, field="client.name"),
        display_name=wanted.display_name,
        token_hash=wanted.token_hash or None,
        certificate_fingerprint=wanted.certificate_fingerprint or None,
        organizations=_organizations_in(wanted.organizations, field="client.organizations"),
        methods=tuple(wanted.methods),
        calls_per_minute=wanted.calls_per_minute,
        concurrent_items=wanted.concurrent_items,
        overlap_hours=request.overlap_hours,
    )


def restriction_in(request: access_service_pb2.RestrictClientRequest) -> Restriction:
    """Returns what is to be narrowed. Raises `InvalidArgument`."""
    return Restriction(
        organizations=_organizations_in(request.organizations, field="organizations"),
        methods=tuple(request.methods),
        calls_per_minute=request.calls_per_minute,
        concurrent_items=request.concurrent_items,
        end_previous=request.end_previous,
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


def new_operator_in(request: access_service_pb2.CreateOperatorRequest) -> OperatorValues:
    """Returns the command. Raises `InvalidArgument`."""
    return _operator_in(f"operators/{parse_id(request.operator_id, field='operator_id')}", request.operator)


def operator_update_in(request: access_service_pb2.UpdateOperatorRequest) -> OperatorValues:
    """Returns the command. Raises `InvalidArgument`."""
    return _operator_in(parse_name("operators", request.operator.name, field="operator.name"), request.operator)


def _operator_in(name: str, wanted: access_service_pb2.Operator) -> OperatorValues:
    return OperatorValues(
        name=name,
        display_name=wanted.display_name,
        certificate=wanted.certificate,
        roles=tuple(_role_in(role) for role in wanted.roles),
        organizations=_organizations_in(wanted.organizations, field="operator.organizations"),
    )


def operator_out(operator: Operator) -> access_service_pb2.Operator:
    return access_service_pb2.Operator(
        name=operator.name,
        display_name=operator.display_name,
        certificate=operator.certificate,
        roles=_roles_out(operator.roles),
        organizations=operator.organizations,
        state=access_service_pb2.Operator.State.Value(operator.state.value),
        create_time=translate.time_out(operator.create_time),
    )


def access_out(access: Access) -> access_service_pb2.ShowAccessResponse:
    return access_service_pb2.ShowAccessResponse(
        name=access.name,
        enabled=access.enabled,
        roles=_roles_out(access.roles),
        organizations=access.organizations,
        methods=access.methods,
        credentials=[
            access_service_pb2.CredentialAccess(credential=found.credential, why_not=found.why_not)
            for found in access.credentials
        ],
        more_credentials=access.more_credentials,
        calls_per_minute=access.calls_per_minute,
        concurrent_items=access.concurrent_items,
    )


def _organizations_in(names: Iterable[str], *, field: str) -> tuple[str, ...]:
    return tuple(parse_name("organizations", name, field=field) for name in names)


def _role_in(value: "access_service_pb2.Role.ValueType") -> Role:
    try:
        return Role(access_service_pb2.Role.Name(value))
    except ValueError as unknown:
        raise InvalidArgument("operator.roles", "expected roles of trien.v1.Role") from unknown


def _roles_out(roles: Iterable[str]) -> list["access_service_pb2.Role.ValueType"]:
    return [access_service_pb2.Role.Value(role) for role in roles]
