"""How a person makes an authenticator of one's own with an enrolment code.

with EnrolmentClient("sign.example.vn:8443", ca_certificates="ca.pem", code=code) as enrolment:
    begun = enrolment.begin()
    print(trien_client.qr.terminal(begun.otpauth_uri.reveal()))
    enrolment.confirm(begun, input("The code that the app shows: "))
"""

from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from trien.v1 import signer_service_pb2, signer_service_pb2_grpc

from trien_client._secret import Secret
from trien_client._transport import Endpoint, FileSource, Transport

_PREFIX = "trien-enrol-"


@dataclass(frozen=True, kw_only=True)
class BegunEnrolment:
    """What the server hands out once: the URI with the secret, what completes the enrolment, for OCRA the question."""

    name: str
    kind: str
    digits: int
    otpauth_uri: Secret = field(repr=False)
    confirmation_key: Secret = field(repr=False)
    question: bytes


class EnrolmentClient:
    """Enrols one authenticator, as the person who has the enrolment code. May be used from any thread."""

    def __init__(self, address: str, *, ca_certificates: FileSource, code: str | Secret, timeout: float = 30.0) -> None:
        """Reads the file; nothing is connected yet. `address` is the server's port for bearer tokens.

        `code` may come with or without its prefix, with blanks and hyphens anywhere. Raises `ValueError` for what
        cannot be an address or a code, and `OSError`.
        """
        typed = "".join((code.reveal() if isinstance(code, Secret) else code).split())
        whole = typed if typed.lower().startswith(_PREFIX) else f"{_PREFIX}{typed}"
        self._timeout: Final = timeout
        self._transport: Final = Transport(
            Endpoint.of(address, ca_certificates=ca_certificates, token=whole, certificate=None, key=None)
        )
        self._stub: Final = signer_service_pb2_grpc.SignerServiceStub(self._transport.channel)

    def begin(self, *, one_time_password: str | None = None) -> BegunEnrolment:
        """Gets the new authenticator's secret, once; it is not tried again, for then nobody would have it.

        `one_time_password` is a code of an authenticator that the person has: with it nobody need wait. Raises
        `EnrolmentNotPending` and other `TrienError`s.
        """
        request = signer_service_pb2.BeginEnrolmentRequest(one_time_password=one_time_password or "")
        begun = self._transport.call(self._stub.BeginEnrolment, request, timeout=self._timeout)
        return BegunEnrolment(
            name=begun.enrolment.name,
            kind=signer_service_pb2.Authenticator.Kind.Name(begun.enrolment.kind),
            digits=begun.enrolment.digits,
            otpauth_uri=Secret(begun.otpauth_uri),
            confirmation_key=Secret(begun.confirmation_key),
            question=begun.question,
        )

    def confirm(self, begun: BegunEnrolment, one_time_password: str) -> str:
        """Puts the authenticator in force by its first code, and returns its name.

        Raises `OneTimePasswordRejected` with how many tries are left, and other `TrienError`s.
        """
        request = signer_service_pb2.ConfirmEnrolmentRequest(
            confirmation_key=begun.confirmation_key.reveal(), one_time_password=one_time_password.replace(" ", "")
        )
        return self._transport.call(self._stub.ConfirmEnrolment, request, timeout=self._timeout).name

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
