"""CreateAuthenticator: gives a person a way to make one-time passwords, or to get them."""

from trien_server.core.delivery_addresses import parse_address
from trien_server.core.errors import InvalidArgument, PermissionDenied
from trien_server.core.ocra import ocra_uri, suite_of
from trien_server.core.one_time_password import TOTP_PERIOD, otpauth_uri
from trien_server.core.ports import Clock, Hsm, Randomness
from trien_server.core.principal import Principal
from trien_server.core.records import (
    DELIVERED_KINDS,
    SHOWING_KINDS,
    Authenticator,
    AuthenticatorKind,
    AuthenticatorState,
    Signer,
    SignerKind,
)
from trien_server.core.secret import Secret
from trien_server.services.access import require_operator
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.trusted import TrustedView

_SECRET_SIZES = {"SHA1": 20, "SHA256": 32, "SHA512": 64}
"""The secret is as long as the hash (RFC 4226, section 4, R6; RFC 6238, section 5.1)."""


class CreateAuthenticator:
    """Makes authenticators; their secrets are kept only encrypted by the token."""

    def __init__(self, *, changes: Changes, hsm: Hsm, clock: Clock, randomness: Randomness, issuer: str) -> None:
        self._changes = changes
        self._hsm = hsm
        self._clock = clock
        self._randomness = randomness
        self._issuer = issuer

    def __call__(
        self,
        principal: Principal,
        *,
        name: str,
        signer: str,
        kind: AuthenticatorKind,
        digits: int = 0,
        hash_function: str = "",
        address: str = "",
        deadline: Deadline,
    ) -> tuple[Authenticator, Secret]:
        """Returns the new authenticator and the URI that carries its secret, which cannot be read again.

        0 digits and an empty hash function are the kind's own. The URI is empty for SMS and EMAIL, which have no
        secret. Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`, `HsmUnavailable`.
        """
        digits = digits or (8 if kind is AuthenticatorKind.OCRA else 6)
        if not 6 <= digits <= 8:
            raise InvalidArgument("authenticator.digits", "expected 6 to 8")
        delivered = kind in DELIVERED_KINDS
        if delivered and hash_function:
            raise InvalidArgument("authenticator.hash", "delivered codes are not made with a hash")
        if not delivered:
            hash_function = hash_function or ("SHA256" if kind is AuthenticatorKind.OCRA else "SHA1")
        secret = None if delivered else Secret(self._randomness.bytes(_SECRET_SIZES[hash_function]))
        authenticator = Authenticator(
            name=name,
            signer=signer,
            kind=kind,
            digits=digits,
            hash_function=hash_function,
            period=TOTP_PERIOD if kind is AuthenticatorKind.TOTP else 0,
            encrypted_secret=b"" if secret is None else self._hsm.encrypt(secret, associated_data=name.encode()),
            address=parse_address(kind, address, field="authenticator.address"),
            create_time=self._clock.now(),
        )
        account = ""

        def prepare(view: TrustedView) -> Change:
            nonlocal account
            require_operator(view, principal)
            person = view.get(Signer, signer)
            if person is None:
                raise PermissionDenied
            if person.kind is not SignerKind.PERSON:
                raise InvalidArgument("parent", "an agency has no authenticators: persons activate its seal")
            account = person.display_name
            return Change(
                kind="authenticator_created",
                slow=[authenticator],
                hot=[AuthenticatorState(name=name, next_value=0)] if kind in SHOWING_KINDS else [],
            )

        self._changes.make(principal.name, prepare, deadline=deadline)
        return authenticator, Secret(b"") if secret is None else self._uri(authenticator, secret, account)

    def _uri(self, authenticator: Authenticator, secret: Secret, account: str) -> Secret:
        kind, digits, hash_function = authenticator.kind, authenticator.digits, authenticator.hash_function
        if kind is AuthenticatorKind.OCRA:
            suite = suite_of(hash_function=hash_function, digits=digits)
            return ocra_uri(secret, suite=suite, account=account, issuer=self._issuer)
        return otpauth_uri(
            secret, kind=kind, digits=digits, hash_function=hash_function, account=account, issuer=self._issuer
        )
