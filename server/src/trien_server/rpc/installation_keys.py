"""The methods of KeyService about the installation's own keys, at the gRPC edge."""

from trien.v1 import key_service_pb2

from trien_server.core.errors import InvalidArgument
from trien_server.core.records import InstallationKey, InstallationKeyPurpose
from trien_server.rpc import translate


def purpose_in(value: "key_service_pb2.InstallationKey.Purpose.ValueType") -> InstallationKeyPurpose:
    """Returns the purpose. Raises `InvalidArgument` when none is said."""
    try:
        return InstallationKeyPurpose(key_service_pb2.InstallationKey.Purpose.Name(value))
    except ValueError as unknown:
        raise InvalidArgument("purpose", "expected WRAPPING, SEALING or LOG") from unknown


def installation_key_out(key: InstallationKey) -> key_service_pb2.InstallationKey:
    """Returns the message of a generation."""
    return key_service_pb2.InstallationKey(
        name=key.name,
        purpose=key_service_pb2.InstallationKey.Purpose.Value(key.purpose.value),
        generation=key.generation,
        state=key_service_pb2.InstallationKey.State.Value(key.state.value),
        create_time=translate.time_out(key.create_time),
        public_key=key.public_key or b"",
        origin=key.origin or "",
    )
