"""RotateInstallationKey and ListInstallationKeys: the generations of the installation's own keys on the token."""

from dataclasses import dataclass

from trien_server.core.errors import StateConflict
from trien_server.core.installation_keys import active_of, installation_key_name
from trien_server.core.ports import Hsm, KeyMismatch
from trien_server.core.principal import Principal
from trien_server.core.records import InstallationKey, InstallationKeyPurpose, InstallationKeyState, Proposal
from trien_server.services.access import require_operator
from trien_server.services.changes import Change
from trien_server.services.deadline import Deadline
from trien_server.services.key_rotation import KeyRotation
from trien_server.services.paging import Page, page_of
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.sealing_generations import read_generations
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView


@dataclass(frozen=True, kw_only=True)
class NewGeneration:
    """Which key gets a new generation."""

    purpose: InstallationKeyPurpose


class RotateInstallationKey:
    """Gives one of the installation's keys a new generation; `KeyRotation` carries out what was agreed on."""

    method = "KeyService.RotateInstallationKey"

    def __init__(self, *, proposals: Proposals, rotation: KeyRotation, hsm: Hsm) -> None:
        self._proposals = proposals
        self._hsm = hsm
        proposals.register(
            Plan(
                method=self.method,
                command=NewGeneration,
                make=self._plan,
                set_on_approval=frozenset({"state_time"}),
                done=lambda _: rotation.ask(),
            )
        )

    def __call__(self, principal: Principal, purpose: InstallationKeyPurpose, *, deadline: Deadline) -> Proposal:
        """Proposes the next generation.

        Raises `PermissionDenied`; `StateConflict` while a rotation is under way, or when the token has a sealing key
        that nobody asked for: whoever had the PIN may have made it, and seals by it in stock.
        """
        return self._proposals.propose(principal, self.method, NewGeneration(purpose=purpose), deadline=deadline)

    def _plan(self, view: TrustedView, new: NewGeneration, agreement: Agreement) -> Change:
        keys = read_generations(view, new.purpose)
        if keys[-1].state is not InstallationKeyState.ACTIVE:
            raise StateConflict(f"{keys[-1].name} is being made: one rotation at a time.")
        active = active_of(keys)
        retiring = [key.name for key in keys if key.state is InstallationKeyState.RETIRING]
        if retiring and new.purpose is InstallationKeyPurpose.SEALING:
            raise StateConflict(f"{retiring[0]} is being replaced: one rotation at a time.")
        generation = active.generation + 1
        if new.purpose is InstallationKeyPurpose.SEALING:
            self._require_none_on_token(generation)
        key = InstallationKey(
            name=installation_key_name(new.purpose, generation),
            purpose=new.purpose,
            generation=generation,
            state=InstallationKeyState.PENDING_GENERATION,
            state_time=agreement.at,
            create_time=agreement.at,
            key_type=active.key_type,
            origin=active.origin,
        )
        return Change(kind="installation_key_requested", slow=[key])

    def _require_none_on_token(self, generation: int) -> None:
        # The security officer makes wrapping keys before they are agreed on; a sealing key is made after it alone.
        try:
            there = self._hsm.has_installation_key(InstallationKeyPurpose.SEALING, generation)
        except KeyMismatch:
            there = True
        if there:
            raise StateConflict(
                f"The token has a sealing key {generation} that no record names: the database was set back, or somebody"
                " with the token's PIN made it. It has to be removed first."
            )


class ListInstallationKeys:
    """Lists the installation's own keys."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, *, page: Page) -> tuple[list[InstallationKey], str]:
        """Returns a page by name, and the token of the next or "". Raises `PermissionDenied`."""

        def work(view: TrustedView) -> tuple[list[InstallationKey], str]:
            require_operator(view, principal, "KeyService.ListInstallationKeys")
            shown, token = page_of(view.find(InstallationKey, limit=page.size + 1, after=page.after), page)
            return list(shown), token

        return self._transactions.read(work)
