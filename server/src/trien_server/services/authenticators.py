"""CreateAuthenticator: gives a person a way to make one-time passwords."""

from trien_server.core.errors import InvalidArgument, PermissionDenied
from trien_server.core.one_time_password import TOTP_PERIOD, otpauth_uri
from trien_server.core.ports import Clock, Hsm, Randomness
from trien_server.core.principal import Principal
from trien_server.core.records import Authenticator, AuthenticatorKind, AuthenticatorState, Signer, SignerKind
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
        digits: int,
        hash_function: str,
        deadline: Deadline,
    ) -> tuple[Authenticator, Secret]:
        """Returns the new authenticator and the URI that carries its secret, which cannot be read again.

        Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`, `HsmUnavailable`.
        """
        if not 6 <= digits <= 8:
            raise InvalidArgument("authenticator.digits", "expected 6 to 8")
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
                hot=[AuthenticatorState(name=name, next_value=0)],
            )

        secret = Secret(self._randomness.bytes(_SECRET_SIZES[hash_function]))
        authenticator = Authenticator(
            name=name,
            signer=signer,
            kind=kind,
            digits=digits,
            hash_function=hash_function,
            period=TOTP_PERIOD if kind is AuthenticatorKind.TOTP else 0,
            encrypted_secret=self._hsm.encrypt(secret, associated_data=name.encode()),
            create_time=self._clock.now(),
        )
        self._changes.make(principal.name, prepare, deadline=deadline)
        uri = otpauth_uri(
            secret, kind=kind, digits=digits, hash_function=hash_function, account=account, issuer=self._issuer
        )
        return authenticator, uri
