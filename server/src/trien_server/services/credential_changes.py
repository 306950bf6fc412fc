"""RenewCredential, UpdateCredential and RestrictCredential: another certificate, another policy."""

from collections.abc import Sequence
from dataclasses import dataclass

from trien_server.core.errors import InvalidArgument, NotStricter, PermissionDenied, StateConflict
from trien_server.core.policy import Policy
from trien_server.core.principal import Principal
from trien_server.core.records import (
    AuthenticatorKind,
    Credential,
    CredentialState,
    Key,
    KeyState,
    Proposal,
    Record,
    RevocationPolicy,
)
from trien_server.services.changes import Change, Changes
from trien_server.services.credential_holders import (
    Entitlement,
    activator_rows,
    activators_of,
    check_activators,
    check_clients,
    client_rows,
    clients_of,
    entitlement_of,
)
from trien_server.services.credentials import (
    CredentialView,
    check_key,
    organizations_of,
    require_administered,
    view_of,
)
from trien_server.services.deadline import Deadline
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.texts import parse_title
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """Another certificate chain for a credential; `key` is empty for the present one."""

    name: str
    key: str
    certificate_chain: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class CredentialTerms:
    """All that can be changed of a credential while its certificate stays."""

    name: str
    display_name: str
    activators: tuple[Entitlement, ...]
    clients: tuple[str, ...]
    max_items: int
    client_collected_otp: bool
    authenticator_kinds: tuple[AuthenticatorKind, ...]
    hours: tuple[str, ...]
    revocation_policy: RevocationPolicy

    def policy(self) -> Policy:
        """Returns the policy. Raises `InvalidArgument` that names the first fault."""
        return Policy.parse(
            max_items=self.max_items,
            client_collected_otp=self.client_collected_otp,
            authenticator_kinds=self.authenticator_kinds,
            hours=self.hours,
            revocation_policy=self.revocation_policy,
        )


class RenewCredential:
    """Gives credentials another certificate; name, policy, activators and clients stay.

    With the same key, what is pending or approved goes on: signed attributes have to name the new certificate. With
    another key, every authorization ends (`core.authorization.assert_key`), for persons decided on signatures of the
    old one; and the old key is disabled, so that no other credential comes to sign with it.
    """

    method = "CredentialService.RenewCredential"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(
            Plan(
                method=self.method,
                command=Renewal,
                make=self._plan,
                concerns=lambda view, renewal: organizations_of(view, renewal.name),
            )
        )

    def __call__(self, principal: Principal, renewal: Renewal, *, deadline: Deadline) -> Proposal:
        """Proposes it.

        Raises `PermissionDenied`, `StateConflict` for one that is revoked, `CertificateNotValid`, or
        `InvalidArgument` for a key or a chain that does not fit, or is what it has.
        """
        return self._proposals.propose(principal, self.method, renewal, deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, renewal: Renewal, agreement: Agreement) -> Change:
        before = _changeable(view, renewal.name)
        key = renewal.key or before.key
        if renewal.certificate_chain == before.certificate_chain:
            raise InvalidArgument("certificate_chain", "the credential has this chain")
        check_key(
            view,
            key,
            renewal.certificate_chain,
            of=before.name,
            at=agreement.at,
            field="key",
            chain_field="certificate_chain",
        )
        slow: list[Record] = [next_version(before, key=key, certificate_chain=renewal.certificate_chain)]
        old = view.require(Key, before.key)
        if key != before.key and old.state is KeyState.ENABLED:
            slow.append(next_version(old, state=KeyState.DISABLED))
        return Change(kind="credential_renewed", slow=slow)


class UpdateCredential:
    """Gives credentials another title, policy, activators or clients."""

    method = "CredentialService.UpdateCredential"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(
            Plan(
                method=self.method,
                command=CredentialTerms,
                make=self._plan,
                concerns=lambda view, terms: organizations_of(view, terms.name),
            )
        )

    def __call__(self, principal: Principal, terms: CredentialTerms, *, deadline: Deadline) -> Proposal:
        """Proposes it. Raises `PermissionDenied`, `StateConflict`, or `InvalidArgument` that names the first fault."""
        return self._proposals.propose(principal, self.method, terms, deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, terms: CredentialTerms, _: Agreement) -> Change:
        slow = _rows(view, _changeable(view, terms.name), terms)
        if not slow:
            raise InvalidArgument("credential", "it is so: nothing would change")
        return Change(kind="credential_updated", slow=slow)


class RestrictCredential:
    """Makes policies stricter at once."""

    method = "CredentialService.RestrictCredential"

    def __init__(self, *, changes: Changes, transactions: Transactions) -> None:
        self._changes = changes
        self._transactions = transactions

    def __call__(self, principal: Principal, terms: CredentialTerms, *, deadline: Deadline) -> CredentialView:
        """Returns the credential as it is then; no signature whose transaction begins later is granted by more.

        What is so already stays, so that a lost answer can be asked for again. Raises `PermissionDenied`,
        `StateConflict`, `InvalidArgument`, or `NotStricter` that says what would allow more (P9).
        """

        def prepare(view: TrustedView) -> Change:
            before = require_administered(view, principal, terms.name, self.method)
            slow = _rows(view, _changeable(view, before.name), terms)
            findings = _looser(view, before, terms)
            if findings:
                raise NotStricter(
                    f"It is not provably stricter: {'; '.join(findings)}.",
                    metadata={"notStricter": " | ".join(findings)},
                )
            return Change(kind="credential_restricted", slow=slow)

        self._changes.make(principal.name, prepare, deadline=deadline)
        return self._transactions.read(
            lambda view: view_of(view, require_administered(view, principal, terms.name, self.method))
        )


def _changeable(view: TrustedView, name: str) -> Credential:
    credential = view.get(Credential, name)
    if credential is None:
        raise PermissionDenied
    if credential.state is CredentialState.REVOKED:
        raise StateConflict("The credential is revoked for ever; make a new one.")
    return credential


def _rows(view: TrustedView, before: Credential, terms: CredentialTerms) -> list[Record]:
    """Returns the rows that change when a credential gets these terms: none when it has them."""
    activators = check_activators(view, before.signer, terms.activators)
    check_clients(view, terms.clients)
    title = parse_title(terms.display_name, field="credential.display_name")
    after = next_version(before, display_name=title, **terms.policy().values())
    changed: list[Record] = [] if next_version(before) == after else [after]
    changed += activator_rows(view, before.name, activators)
    return changed + list(client_rows(view, before.name, terms.clients))


def _looser(view: TrustedView, before: Credential, terms: CredentialTerms) -> list[str]:
    findings = terms.policy().looser_than(Policy.of(before))
    if parse_title(terms.display_name, field="credential.display_name") != before.display_name:
        findings.append("display_name: another title")
    held = {row.signer: entitlement_of(row) for row in activators_of(view, before.name)}
    findings += _looser_activators(held, check_activators(view, before.signer, terms.activators))
    allowed = {row.client for row in clients_of(view, before.name)}
    return findings + [f"clients: {client} may not ask now" for client in terms.clients if client not in allowed]


def _looser_activators(held: dict[str, Entitlement], wanted: Sequence[Entitlement]) -> list[str]:
    findings = []
    for entitlement in wanted:
        now = held.get(entitlement.signer)
        if now is None:
            findings.append(f"activators: {entitlement.signer} may not activate now")
        elif not entitlement.within(now):
            findings.append(f"activators: {entitlement.signer} would have more time")
    return findings
