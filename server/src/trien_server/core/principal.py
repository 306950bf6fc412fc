"""Who calls."""

from dataclasses import dataclass, field
from enum import StrEnum


class PrincipalKind(StrEnum):
    CLIENT = "CLIENT"
    OPERATOR = "OPERATOR"
    ENROLMENT = "ENROLMENT"


class AuthenticatedBy(StrEnum):
    """How a principal showed who it is."""

    BEARER_TOKEN = "BEARER_TOKEN"
    CERTIFICATE = "CERTIFICATE"
    ENROLMENT_CODE = "ENROLMENT_CODE"


@dataclass(frozen=True, kw_only=True)
class Principal:
    """The one on whose behalf a use case runs: kind, name, how it authenticated, and the calling client.

    Who shows an enrolment code is the enrolment: that person has no other identity yet. `shown` is the SHA-256 of the
    token or certificate that was shown, checked again in each transaction; None for what the server itself does.
    The limits are a client's, 0 for none.
    """

    kind: PrincipalKind
    name: str
    authenticated_by: AuthenticatedBy
    shown: bytes | None = field(default=None, repr=False, compare=False)
    calls_per_minute: int = 0
    concurrent_items: int = 0

    @property
    def client(self) -> str | None:
        """The calling application's name, or None when an operator calls."""
        return self.name if self.kind is PrincipalKind.CLIENT else None
