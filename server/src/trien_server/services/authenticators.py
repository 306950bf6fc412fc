"""CreateAuthenticator: has a person's one-time passwords delivered. The other kinds are enrolled: see `enrolments`."""

from dataclasses import dataclass

from trien_server.core.delivery_addresses import parse_address
from trien_server.core.errors import AlreadyExists, InvalidArgument
from trien_server.core.principal import Principal
from trien_server.core.records import DELIVERED_KINDS, Authenticator, AuthenticatorKind, Proposal, Signer, SignerKind
from trien_server.services.changes import Change
from trien_server.services.deadline import Deadline
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.trusted import TrustedView


@dataclass(frozen=True, kw_only=True)
class NewAuthenticator:
    """An authenticator whose codes the server makes and sends to `address`. 0 digits are 6."""

    name: str
    signer: str
    kind: AuthenticatorKind
    digits: int
    address: str


class CreateAuthenticator:
    """Makes authenticators of kind SMS and EMAIL."""

    method = "SignerService.CreateAuthenticator"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(Plan(method=self.method, command=NewAuthenticator, make=self._plan))

    def __call__(self, principal: Principal, new: NewAuthenticator, *, deadline: Deadline) -> Proposal:
        """Proposes the authenticator. Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`."""
        return self._proposals.propose(principal, self.method, new, deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, new: NewAuthenticator, agreement: Agreement) -> Change:
        if new.kind not in DELIVERED_KINDS:
            raise InvalidArgument("authenticator.kind", "expected SMS or EMAIL; the others are enrolled")
        require_person(view, new.signer, field="parent")
        if view.get(Authenticator, new.name) is not None:
            raise AlreadyExists(f"{new.name} exists.")
        authenticator = Authenticator(
            name=new.name,
            signer=new.signer,
            kind=new.kind,
            digits=parse_digits(new.digits, kind=new.kind, field="authenticator.digits"),
            hash_function="",
            period=0,
            encrypted_secret=b"",
            address=parse_address(new.kind, new.address, field="authenticator.address"),
            create_time=agreement.at,
        )
        return Change(kind="authenticator_created", slow=[authenticator])


def parse_digits(digits: int, *, kind: AuthenticatorKind, field: str) -> int:
    """Returns how many digits a code has, by default the kind's own. Raises `InvalidArgument`."""
    chosen = digits or (8 if kind is AuthenticatorKind.OCRA else 6)
    if not 6 <= chosen <= 8:
        raise InvalidArgument(field, "expected 6 to 8")
    return chosen


def require_person(view: TrustedView, name: str, *, field: str) -> Signer:
    """Returns the person. Raises `InvalidArgument` when there is none, or it is an agency."""
    person = view.get(Signer, name)
    if person is None:
        raise InvalidArgument(field, "there is no such person")
    if person.kind is not SignerKind.PERSON:
        raise InvalidArgument(field, "an agency has no authenticators: persons activate its seal")
    return person
