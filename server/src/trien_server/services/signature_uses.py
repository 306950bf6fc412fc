"""ListSignatureUses: every use of a signer's credentials, newest first."""

import base64
import binascii
import hmac
from datetime import datetime, timedelta

from trien_server.core.encoding import EPOCH, encode_all, microseconds
from trien_server.core.errors import InvalidArgument, Refusal
from trien_server.core.ports import Clock, Hsm
from trien_server.core.principal import Principal, PrincipalKind
from trien_server.core.records import SignatureUse
from trien_server.core.secret import Secret
from trien_server.services.access import require_operator
from trien_server.services.deadline import Deadline
from trien_server.services.enrolments import require_signer
from trien_server.services.one_time_passwords import OneTimePasswords, PreparedCheck, accepted_details
from trien_server.services.paging import Page, page_of
from trien_server.services.persons import require_person_of
from trien_server.services.sign_digests import recordable
from trien_server.services.transactions import Ledger, Transactions
from trien_server.services.trusted import TrustedView

METHOD = "SignerService.ListSignatureUses"
TOKEN_LIFETIME = timedelta(minutes=10)
"""How long a client reads on after one one-time password."""

_MAC_SIZE = 32
_TIME_SIZE = 8


class ListSignatureUses:
    """Lists uses, to a person through a client by one one-time password, or to an operator."""

    method = METHOD

    def __init__(
        self, *, transactions: Transactions, one_time_passwords: OneTimePasswords, hsm: Hsm, clock: Clock
    ) -> None:
        self._transactions = transactions
        self._one_time_passwords = one_time_passwords
        self._tokens = _PageTokens(hsm)
        self._clock = clock

    def __call__(
        self, principal: Principal, name: str, *, password: Secret | None, size: int, token: str, deadline: Deadline
    ) -> tuple[list[SignatureUse], str]:
        """Returns a page, newest first, and the token of the next or "".

        A client shows the person's code, which is consumed, or the token of a page before; that is good for this
        person, this client and ten minutes. Raises `PermissionDenied`, `InvalidArgument`, `OneTimePasswordRejected`,
        `SignerLocked`.
        """
        page = Page.parse(size, "")
        if principal.kind is PrincipalKind.OPERATOR:
            return self._transactions.read(lambda view: self._for_operator(view, principal, name, page, token))
        if not token:
            self._require_code(principal, name, password, deadline)
        at = self._clock.now()
        expires = at + TOKEN_LIFETIME

        def work(view: TrustedView) -> tuple[list[SignatureUse], str]:
            require_person_of(view, principal, METHOD, name)
            after, ends = ("", expires) if not token else self._tokens.open(token, name, principal.name, at=at)
            return self._page(view, principal, name, Page(size=page.size, after=after), ends)

        return self._transactions.read(work)

    def _for_operator(
        self, view: TrustedView, principal: Principal, name: str, page: Page, token: str
    ) -> tuple[list[SignatureUse], str]:
        require_signer(view, require_operator(view, principal, METHOD), name)
        at = self._clock.now()
        after = self._tokens.open(token, name, principal.name, at=at)[0] if token else ""
        return self._page(view, principal, name, Page(size=page.size, after=after), at + TOKEN_LIFETIME)

    def _page(
        self, view: TrustedView, principal: Principal, name: str, page: Page, expires: datetime
    ) -> tuple[list[SignatureUse], str]:
        found = view.find(SignatureUse, signer=name, limit=page.size + 1, after=page.after)
        shown, follows = page_of(found, page)
        uses = list(shown)
        return uses, self._tokens.make(uses[-1].name, name, principal.name, expires) if follows else ""

    def _require_code(self, principal: Principal, name: str, password: Secret | None, deadline: Deadline) -> None:
        """Consumes the person's code; the entry says that the uses were read."""
        deadline.require(0.5)
        if password is None:
            raise InvalidArgument("one_time_password", "required")

        def attempt() -> None:
            def prepare(view: TrustedView) -> tuple[TrustedView, PreparedCheck]:
                client, _ = require_person_of(view, principal, METHOD, name)
                return view, self._one_time_passwords.prepare(
                    view, password, signer=name, client=client.name, at=self._clock.now()
                )

            view, check = self._transactions.read(prepare)

            def decide(ledger: Ledger) -> Refusal | None:
                ledger.assert_unchanged(view)
                details: dict[str, object] = {"client": principal.name, "approver": name}
                accepted = self._one_time_passwords.consume(ledger, check, password, client=principal.name)
                if isinstance(accepted, Refusal):
                    return ledger.refuse(accepted, {"action": "signature_uses_read", **details})
                ledger.record("signature_uses_read", {**details, **accepted_details(accepted)})
                return None

            self._transactions.run(decide, timeout=deadline.remaining())

        try:
            self._transactions.decide(attempt, deadline=deadline)
        except Refusal as refusal:
            if recordable(refusal):
                details = {"action": "signature_uses_read", "principal": principal.name}
                self._transactions.record_refusal(refusal, details)
            raise


class _PageTokens:
    """Page tokens that the token's sealing key makes: for one signer, one caller, and a time."""

    def __init__(self, hsm: Hsm) -> None:
        self._hsm = hsm

    def make(self, after: str, signer: str, caller: str, expires: datetime) -> str:
        """Returns the token of the page behind `after`."""
        ends = microseconds(expires).to_bytes(_TIME_SIZE, "big")
        mac = self._mac(after, signer, caller, expires)
        return base64.urlsafe_b64encode(mac + ends + after.encode()).decode()

    def open(self, token: str, signer: str, caller: str, *, at: datetime) -> tuple[str, datetime]:
        """Returns behind which use its page begins, and until when such tokens are good. Raises `InvalidArgument`."""
        try:
            content = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
            mac, ends, after = content[:_MAC_SIZE], content[_MAC_SIZE:][:_TIME_SIZE], content[_MAC_SIZE + _TIME_SIZE :]
            expires = EPOCH + timedelta(microseconds=int.from_bytes(ends, "big"))
            expected = self._mac(after.decode("ascii"), signer, caller, expires)
        except (binascii.Error, ValueError, OverflowError) as fault:
            raise InvalidArgument("page_token", "not a token that this server gave out") from fault
        if not hmac.compare_digest(mac, expected):
            raise InvalidArgument("page_token", "not a token that this server gave out to you for this signer")
        if at >= expires:
            raise InvalidArgument("page_token", "its time is over: begin anew with a one-time password")
        return after.decode("ascii"), expires

    def _mac(self, after: str, signer: str, caller: str, expires: datetime) -> bytes:
        return self._hsm.authenticate(encode_all("trien/uses-page", [after, signer, caller, expires]))
