"""Who calls: finds the principal behind a bearer token or a certificate."""

import base64
import hashlib
import hmac
from collections.abc import Sequence

from trien_server.core.enrolments import parse_code
from trien_server.core.errors import Unauthenticated
from trien_server.core.ports import Clock, Randomness
from trien_server.core.principal import AuthenticatedBy, Principal, PrincipalKind
from trien_server.core.records import Client, Enrolment, Operator, State
from trien_server.core.secret import Secret
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

    def __init__(self, *, transactions: Transactions, clock: Clock) -> None:
        self._transactions = transactions
        self._clock = clock

    def by_token(self, token: Secret) -> Principal:
        """Returns the client with that bearer token, or the enrolment with that code. Raises `Unauthenticated`."""
        halves = parse_code(token.reveal().decode("utf-8", "replace"))
        if halves is not None:
            return self._by_enrolment_code(*halves)
        shown = hash_token(token)

        def work(view: TrustedView) -> Principal:
            clients = view.find(Client, token_hash=shown, limit=2)
            previous = () if clients else view.find(Client, previous_token_hash=shown, limit=2)
            client = self._client_of(clients, previous)
            if client is None:
                raise Unauthenticated("The bearer token is not known.")
            return _principal_of(client, AuthenticatedBy.BEARER_TOKEN, shown)

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
        shown = hashlib.sha256(encoded).digest()

        def work(view: TrustedView) -> Principal:
            for operator in view.find(Operator, certificate_fingerprint=shown, limit=2):
                if operator.state is State.ENABLED:
                    return Principal(
                        kind=PrincipalKind.OPERATOR,
                        name=operator.name,
                        authenticated_by=AuthenticatedBy.CERTIFICATE,
                        shown=shown,
                    )
            clients = view.find(Client, certificate_fingerprint=shown, limit=2)
            previous = () if clients else view.find(Client, previous_certificate_fingerprint=shown, limit=2)
            client = self._client_of(clients, previous)
            if client is None:
                raise Unauthenticated("The certificate is not registered.")
            return _principal_of(client, AuthenticatedBy.CERTIFICATE, shown)

        return self._transactions.read(work)

    def _client_of(self, present: Sequence[Client], previous: Sequence[Client]) -> Client | None:
        """Returns the enabled client that is known by what was shown, now or until the overlap ends."""
        at = self._clock.now()
        for client in present:
            if client.state is State.ENABLED:
                return client
        for client in previous:
            ends = client.previous_expire_time
            if client.state is State.ENABLED and ends is not None and at < ends:
                return client
        return None


def _principal_of(client: Client, by: AuthenticatedBy, shown: bytes) -> Principal:
    return Principal(
        kind=PrincipalKind.CLIENT,
        name=client.name,
        authenticated_by=by,
        shown=shown,
        calls_per_minute=client.calls_per_minute,
        concurrent_items=client.concurrent_items,
    )
