"""Who calls, as gRPC shows it."""

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from trien_server.core.errors import Unauthenticated
from trien_server.core.principal import Principal
from trien_server.core.secret import Secret
from trien_server.services.authenticate import Authenticate

_BEARER = "bearer "


class Identify:
    """Finds the principal of a call. May be used from any thread."""

    def __init__(self, *, authenticate: Authenticate) -> None:
        self._authenticate = authenticate

    def __call__(self, context: grpc.ServicerContext) -> Principal:
        """Returns it: by certificate on the port that demands one, where a token is not looked at, else by token.

        Raises `Unauthenticated`.
        """
        for pem in context.auth_context().get("x509_pem_cert", ()):
            if isinstance(pem, bytes):
                return self._authenticate.by_certificate(_der_of(pem))
        for key, value in context.invocation_metadata():
            if key == "authorization" and isinstance(value, str) and value.lower().startswith(_BEARER):
                return self._authenticate.by_token(Secret(value[len(_BEARER) :].strip().encode()))
        raise Unauthenticated("A client certificate or `authorization: Bearer …` is required.")


def _der_of(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
