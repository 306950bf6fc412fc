"""KeyService at the gRPC edge."""

from dataclasses import dataclass

import grpc
from trien.v1 import key_service_pb2, key_service_pb2_grpc, proposal_service_pb2

from trien_server.core.errors import InvalidArgument
from trien_server.core.names import parse_id, parse_name
from trien_server.core.principal import Principal
from trien_server.core.records import Key, KeyState, ProtectionLevel
from trien_server.rpc import translate
from trien_server.rpc.calls import Calls
from trien_server.rpc.installation_keys import installation_key_out, purpose_in
from trien_server.rpc.proposals import proposal_out
from trien_server.services.deadline import Deadline
from trien_server.services.installation_keys import ListInstallationKeys, RotateInstallationKey
from trien_server.services.key_generation import CreateKey
from trien_server.services.key_lifecycle import CancelKeyDestruction, DestroyKey, DisableKey, EnableKey
from trien_server.services.keys import GetKey, ListKeys
from trien_server.services.paging import Page


@dataclass(frozen=True, kw_only=True)
class KeyServicer(key_service_pb2_grpc.KeyServiceServicer):
    """Translates the methods of KeyService."""

    calls: Calls
    create: CreateKey
    get: GetKey
    list_: ListKeys
    disable: DisableKey
    enable: EnableKey
    destroy: DestroyKey
    cancel_destruction: CancelKeyDestruction
    rotate_installation_key: RotateInstallationKey
    list_installation_keys: ListInstallationKeys

    def CreateKey(  # noqa: N802 - gRPC's name
        self, request: key_service_pb2.CreateKeyRequest, context: grpc.ServicerContext
    ) -> key_service_pb2.Key:
        def work(principal: Principal, deadline: Deadline) -> key_service_pb2.Key:
            name = f"keys/{parse_id(request.key_id, field='key_id')}"
            key_type = translate.key_type_in(request.key.key_type, field="key.key_type")
            return key_out(
                self.create(
                    principal,
                    name=name,
                    key_type=key_type,
                    protection_level=_protection_level_in(request.key.protection_level),
                    deadline=deadline,
                )
            )

        return self.calls.run("CreateKey", context, work)

    def GetKey(  # noqa: N802
        self, request: key_service_pb2.GetKeyRequest, context: grpc.ServicerContext
    ) -> key_service_pb2.Key:
        def work(principal: Principal, _: Deadline) -> key_service_pb2.Key:
            return key_out(self.get(principal, parse_name("keys", request.name, field="name")))

        return self.calls.run("GetKey", context, work)

    def ListKeys(  # noqa: N802
        self, request: key_service_pb2.ListKeysRequest, context: grpc.ServicerContext
    ) -> key_service_pb2.ListKeysResponse:
        def work(principal: Principal, _: Deadline) -> key_service_pb2.ListKeysResponse:
            page = Page.parse(request.page_size, request.page_token)
            found, token = self.list_(principal, page=page, state=_state_in(request.state))
            keys = [key_out(key) for key in found]
            return key_service_pb2.ListKeysResponse(keys=keys, next_page_token=token)

        return self.calls.run("ListKeys", context, work)

    def DisableKey(  # noqa: N802
        self, request: key_service_pb2.DisableKeyRequest, context: grpc.ServicerContext
    ) -> key_service_pb2.Key:
        def work(principal: Principal, deadline: Deadline) -> key_service_pb2.Key:
            return key_out(self.disable(principal, _name_of(request.name), deadline=deadline))

        return self.calls.run("DisableKey", context, work)

    def EnableKey(  # noqa: N802
        self, request: key_service_pb2.EnableKeyRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            return proposal_out(self.enable(principal, _name_of(request.name), deadline=deadline))

        return self.calls.run("EnableKey", context, work)

    def DestroyKey(  # noqa: N802
        self, request: key_service_pb2.DestroyKeyRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            name = _name_of(request.name)
            return proposal_out(self.destroy(principal, name, delay_days=request.delay_days, deadline=deadline))

        return self.calls.run("DestroyKey", context, work)

    def CancelKeyDestruction(  # noqa: N802
        self, request: key_service_pb2.CancelKeyDestructionRequest, context: grpc.ServicerContext
    ) -> key_service_pb2.Key:
        def work(principal: Principal, deadline: Deadline) -> key_service_pb2.Key:
            return key_out(self.cancel_destruction(principal, _name_of(request.name), deadline=deadline))

        return self.calls.run("CancelKeyDestruction", context, work)

    def RotateInstallationKey(  # noqa: N802
        self, request: key_service_pb2.RotateInstallationKeyRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            purpose = purpose_in(request.purpose)
            return proposal_out(self.rotate_installation_key(principal, purpose, deadline=deadline))

        return self.calls.run("RotateInstallationKey", context, work)

    def ListInstallationKeys(  # noqa: N802
        self, request: key_service_pb2.ListInstallationKeysRequest, context: grpc.ServicerContext
    ) -> key_service_pb2.ListInstallationKeysResponse:
        def work(principal: Principal, _: Deadline) -> key_service_pb2.ListInstallationKeysResponse:
            page = Page.parse(request.page_size, request.page_token)
            found, token = self.list_installation_keys(principal, page=page)
            return key_service_pb2.ListInstallationKeysResponse(
                installation_keys=[installation_key_out(key) for key in found], next_page_token=token
            )

        return self.calls.run("ListInstallationKeys", context, work)


def _name_of(value: str) -> str:
    return parse_name("keys", value, field="name")


def _protection_level_in(value: "key_service_pb2.ProtectionLevel.ValueType") -> ProtectionLevel:
    """Returns the wanted protection level, by default TOKEN."""
    if value == key_service_pb2.PROTECTION_LEVEL_UNSPECIFIED:
        return ProtectionLevel.TOKEN
    try:
        return ProtectionLevel(key_service_pb2.ProtectionLevel.Name(value))
    except ValueError as unknown:
        raise InvalidArgument("key.protection_level", "expected one of trien.v1.ProtectionLevel") from unknown


def _state_in(value: "key_service_pb2.Key.State.ValueType") -> KeyState | None:
    """Returns the wanted state, or None for all."""
    if value == key_service_pb2.Key.STATE_UNSPECIFIED:
        return None
    try:
        return KeyState(key_service_pb2.Key.State.Name(value))
    except ValueError as unknown:
        raise InvalidArgument("state", "expected one of trien.v1.Key.State") from unknown


def key_out(key: Key) -> key_service_pb2.Key:
    message = key_service_pb2.Key(
        name=key.name,
        key_type=translate.key_type_out(key.key_type),
        protection_level=key_service_pb2.ProtectionLevel.Value(key.protection_level.value),
        state=key_service_pb2.Key.State.Value(key.state.value),
        public_key=key.public_key,
        create_time=translate.time_out(key.create_time),
        wrapping_generation=key.wrapping_generation,
    )
    translate.set_time(message.destroy_time, key.destroy_time)
    return message
