"""KeyService at the gRPC edge."""

from dataclasses import dataclass

import grpc
from trien.v1 import key_service_pb2, key_service_pb2_grpc

from trien_server.core.names import parse_id, parse_name
from trien_server.core.principal import Principal
from trien_server.core.records import Key
from trien_server.rpc import translate
from trien_server.rpc.calls import Calls
from trien_server.services.deadline import Deadline
from trien_server.services.keys import CreateKey, GetKey, ListKeys
from trien_server.services.paging import Page


@dataclass(frozen=True, kw_only=True)
class KeyServicer(key_service_pb2_grpc.KeyServiceServicer):
    """Translates the methods of KeyService."""

    calls: Calls
    create: CreateKey
    get: GetKey
    list_: ListKeys

    def CreateKey(  # noqa: N802 - gRPC's name
        self, request: key_service_pb2.CreateKeyRequest, context: grpc.ServicerContext
    ) -> key_service_pb2.Key:
        def work(principal: Principal, deadline: Deadline) -> key_service_pb2.Key:
            name = f"keys/{parse_id(request.key_id, field='key_id')}"
            key_type = translate.key_type_in(request.key.key_type, field="key.key_type")
            return key_out(self.create(principal, name=name, key_type=key_type, deadline=deadline))

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
            found, token = self.list_(principal, page=Page.parse(request.page_size, request.page_token))
            keys = [key_out(key) for key in found]
            return key_service_pb2.ListKeysResponse(keys=keys, next_page_token=token)

        return self.calls.run("ListKeys", context, work)


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
