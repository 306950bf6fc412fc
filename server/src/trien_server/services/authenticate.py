"""Who calls: finds the principal behind a bearer token or a certificate."""

import base64
import hashlib
import hmac

from trien_server.core.errors import Unauthenticated
from trien_server.core.ports import Randomness
from trien_server.core.principal import AuthenticatedBy, Principal, PrincipalKind
from trien_server.core.records import Client, Enrolment, Operator, State
from trien_server.core.secret import Secret
from trien_server.services.enrolments import parse_code
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView


def hash_token(token: Secret) -> bytes:
    """Returns what is stored of a bearer token: SHA-256, for tokens are 256 random bits."""
    return hashlib.sha256(token.reveal()).digest()


def new_token(randomness: Randomness) -> Secret:
    """Returns a bearer token: 256 random bits, base64url, behind a prefix that secret scanners can find."""
    return Secret(b"trien_" + base64.urlsafe_b64encode(randomness.bytes(32)).rstrip(b"="))


class Authenticate:
    """Finds principals. Deny by default: whoever is not found and enabled is refused alike."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def by_token(self, token: Secret) -> Principal:
        """Returns the client with that bearer token, or the enrolment with that code. Raises `Unauthenticated`."""
        halves = parse_code(token.reveal().decode("utf-8", "replace"))
        if halves is not None:
            return self._by_enrolment_code(*halves)

        def work(view: TrustedView) -> Principal:
            for client in view.find(Client, token_hash=hash_token(token), limit=2):
                if client.state is State.ENABLED:
                    return Principal(
                        kind=PrincipalKind.CLIENT, name=client.name, authenticated_by=AuthenticatedBy.BEARER_TOKEN
                    )
            raise Unauthenticated("The bearer token is not known.")

        return self._transactions.read(work)

    def _by_enrolment_code(self, first: bytes, second: bytes) -> Principal:
        def work(view: TrustedView) -> Principal:
            for enrolment in view.find(Enrolment, first_half_hash=first, limit=2):
                expected = enrolment.second_half_hash
                if expected is not None and hmac.compare_digest(expected, second):
                    return Principal(
                        kind=PrincipalKind.ENROLMENT,
                        name=enrolment.name,
                        authenticated_by=AuthenticatedBy.ENROLMENT_CODE,
                    )
            raise Unauthenticated("The enrolment code is not known.")

        return self._transactions.read(work)

    def by_certificate(self, encoded: bytes) -> Principal:
        """Returns the operator or client with that certificate (DER), by its fingerprint.

        Raises `Unauthenticated`.
        """
        fingerprint = hashlib.sha256(encoded).digest()

        def work(view: TrustedView) -> Principal:
            for operator in view.find(Operator, certificate_fingerprint=fingerprint, limit=2):
                if operator.state is State.ENABLED:
                    return Principal(
                        kind=PrincipalKind.OPERATOR, name=operator.name, authenticated_by=AuthenticatedBy.CERTIFICATE
                    )
            for client in view.find(Client, certificate_fingerprint=fingerprint, limit=2):
                if client.state is State.ENABLED:
                    return Principal(
                        kind=PrincipalKind.CLIENT, name=client.name, authenticated_by=AuthenticatedBy.CERTIFICATE
                    )
            raise Unauthenticated("The certificate is not registered.")

        return self._transactions.read(work)
