"""CreateClient, GetClient and DisableClient."""

import base64

from trien_server.core.errors import AlreadyExists, InvalidArgument, PermissionDenied
from trien_server.core.ports import Clock, Randomness
from trien_server.core.principal import Principal
from trien_server.core.records import Client, Operator, State
from trien_server.core.secret import Secret
from trien_server.services.access import require_operator
from trien_server.services.authenticate import hash_token
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.texts import parse_title
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView


class CreateClient:
    """Enters calling applications."""

    def __init__(self, *, changes: Changes, clock: Clock, randomness: Randomness) -> None:
        self._changes = changes
        self._clock = clock
        self._randomness = randomness

    def __call__(
        self,
        principal: Principal,
        *,
        name: str,
        display_name: str,
        certificate_fingerprint: bytes | None,
        deadline: Deadline,
    ) -> tuple[Client, Secret | None]:
        """Returns the new client and its bearer token, or None when it calls with a certificate.

        Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`.
        """
        if certificate_fingerprint is not None and len(certificate_fingerprint) != 32:
            raise InvalidArgument("client.certificate_fingerprint", "expected 32 bytes, a SHA-256 digest")
        token = None if certificate_fingerprint else _new_token(self._randomness)
        client = Client(
            name=name,
            display_name=parse_title(display_name, field="client.display_name"),
            token_hash=None if token is None else hash_token(token),
            certificate_fingerprint=certificate_fingerprint,
            create_time=self._clock.now(),
        )

        def prepare(view: TrustedView) -> Change:
            require_operator(view, principal)
            if certificate_fingerprint is not None:
                for kind in (Client, Operator):
                    if not view.has_none(kind, certificate_fingerprint=certificate_fingerprint):
                        raise AlreadyExists("The certificate belongs to another client or operator.")
            return Change(kind="client_created", slow=[client])

        self._changes.make(principal.name, prepare, deadline=deadline)
        return client, token


class GetClient:
    """Reads clients."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str) -> Client:
        """Returns it. Raises `PermissionDenied`."""

        def work(view: TrustedView) -> Client:
            require_operator(view, principal)
            return _require(view, name)

        return self._transactions.read(work)


class DisableClient:
    """Shuts calling applications out."""

    def __init__(self, *, changes: Changes) -> None:
        self._changes = changes

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Client:
        """Disables the client: no request whose transaction begins later is granted. Raises `PermissionDenied`."""
        disabled: Client | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal disabled
            require_operator(view, principal)
            disabled = next_version(_require(view, name), state=State.DISABLED)
            return Change(kind="client_disabled", slow=[disabled])

        self._changes.make(principal.name, prepare, deadline=deadline)
        if disabled is None:
            raise AssertionError("a change was made without being prepared")
        return disabled


def _require(view: TrustedView, name: str) -> Client:
    client = view.get(Client, name)
    if client is None:
        raise PermissionDenied
    return client


def _new_token(randomness: Randomness) -> Secret:
    """Returns a bearer token: 256 random bits, base64url, behind a prefix that secret scanners can find."""
    return Secret(b"trien_" + base64.urlsafe_b64encode(randomness.bytes(32)).rstrip(b"="))
