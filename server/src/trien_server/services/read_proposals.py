"""Reads proposals: statements hold personal data, so limits to organizations hold for them too."""

import itertools
from dataclasses import replace

from trien_server.core.errors import PermissionDenied
from trien_server.core.principal import Principal
from trien_server.core.records import Operator, Proposal, ProposalState
from trien_server.services.access import require_operator
from trien_server.services.paging import Page, page_of
from trien_server.services.proposals import LARGEST_STATEMENT, Proposals
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView


class GetProposal:
    """Reads proposals."""

    def __init__(self, *, transactions: Transactions, proposals: Proposals) -> None:
        self._transactions = transactions
        self._proposals = proposals

    def __call__(self, principal: Principal, name: str) -> Proposal:
        """Returns it. Raises `PermissionDenied`."""

        def work(view: TrustedView) -> Proposal:
            operator = require_operator(view, principal, "ProposalService.GetProposal")
            proposal = view.get(Proposal, name)
            if proposal is None:
                raise PermissionDenied
            self._proposals.require_within(view, operator, proposal)
            return proposal

        return self._transactions.read(work)


class ListProposals:
    """Lists proposals."""

    def __init__(self, *, transactions: Transactions, proposals: Proposals) -> None:
        self._transactions = transactions
        self._proposals = proposals

    def __call__(self, principal: Principal, *, state: ProposalState | None, page: Page) -> tuple[list[Proposal], str]:
        """Returns a page by name, of one state or all, and the token of the next or "".

        Statements are read whole, so a page may hold fewer than were asked for; also for an operator who is limited
        to organizations. Raises `PermissionDenied`.
        """

        def work(view: TrustedView) -> tuple[list[Proposal], str]:
            operator = require_operator(view, principal, "ProposalService.ListProposals")
            equal = {} if state is None else {"state": state}
            found = view.find(Proposal, limit=page.size + 1, after=page.after, **equal)
            # A page is no larger than the largest statement, so that it fits an answer; one proposal always does.
            sizes = itertools.accumulate(len(proposal.statement.encode()) for proposal in found)
            fitting = max(1, sum(size <= LARGEST_STATEMENT for size in sizes))
            shown, token = page_of(found, replace(page, size=min(page.size, fitting)))
            return [proposal for proposal in shown if self._is_shown(view, operator, proposal)], token

        return self._transactions.read(work)

    def _is_shown(self, view: TrustedView, operator: Operator, proposal: Proposal) -> bool:
        try:
            self._proposals.require_within(view, operator, proposal)
        except PermissionDenied:
            return False
        return True
