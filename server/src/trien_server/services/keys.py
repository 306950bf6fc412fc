"""GetKey and ListKeys."""

from trien_server.core.errors import PermissionDenied
from trien_server.core.principal import Principal
from trien_server.core.records import Key, KeyState
from trien_server.services.access import require_operator
from trien_server.services.paging import Page, page_of
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView


class GetKey:
    """Reads keys."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str) -> Key:
        """Returns it. Raises `PermissionDenied`."""

        def work(view: TrustedView) -> Key:
            require_operator(view, principal, "KeyService.GetKey")
            key = view.get(Key, name)
            if key is None:
                raise PermissionDenied
            return key

        return self._transactions.read(work)


class ListKeys:
    """Lists keys."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, *, page: Page, state: KeyState | None = None) -> tuple[list[Key], str]:
        """Returns a page by name, of one state or all, and the token of the next or "". Raises `PermissionDenied`."""

        def work(view: TrustedView) -> tuple[list[Key], str]:
            require_operator(view, principal, "KeyService.ListKeys")
            equal = {} if state is None else {"state": state}
            shown, token = page_of(view.find(Key, limit=page.size + 1, after=page.after, **equal), page)
            return list(shown), token

        return self._transactions.read(work)
