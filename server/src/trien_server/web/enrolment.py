"""`/enrol/{code}`: GET shows a page and changes nothing, POST begins or confirms the enrolment."""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs

from trien_server.core.delivered_text import Language
from trien_server.core.errors import (
    Busy,
    EnrolmentNotPending,
    InvalidArgument,
    OneTimePasswordRejected,
    PermissionDenied,
    Refusal,
    SignerLocked,
    Unauthenticated,
)
from trien_server.core.one_time_password import parse_one_time_password
from trien_server.core.ports import Clock
from trien_server.core.principal import Principal
from trien_server.core.records import Enrolment, EnrolmentState
from trien_server.core.secret import Secret
from trien_server.services.authenticate import Authenticate
from trien_server.services.deadline import Deadline
from trien_server.services.enrolling import BeginEnrolment, ConfirmEnrolment, OpenEnrolment
from trien_server.web.pages import Pages
from trien_server.web.words import WORDS

_SECONDS = 20.0
_PREFIX = "trien-enrol-"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A page with its status, and what becomes of the confirmation key: None leaves it, "" forgets it."""

    status: int
    page: str
    outcome: str
    confirmation_key: Secret | None = None
    forget: bool = False


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What came with a request."""

    code: Secret
    language: Language
    confirmation_key: Secret | None


@dataclass(frozen=True, kw_only=True)
class EnrolmentPage:
    """Translates between the page and the use cases that gRPC's callers reach too."""

    authenticate: Authenticate
    open_: OpenEnrolment
    begin: BeginEnrolment
    confirm: ConfirmEnrolment
    pages: Pages
    clock: Clock

    def show(self, asked: Asked) -> Answer:
        """Answers GET: nothing is consumed, for programs open links in mails before people do."""

        def work(principal: Principal) -> Answer:
            enrolment, begins = self.open_(principal)
            if enrolment.state is EnrolmentState.BEGUN:
                return self._begun_before(asked, enrolment)
            page = self.pages.start(asked.language, enrolment, waits=not begins)
            return Answer(status=200, page=page, outcome="OK")

        return self._answered(asked, work)

    def act(self, asked: Asked, body: bytes) -> Answer:
        """Answers POST."""
        try:
            fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8)
        except ValueError:  # More fields than any form of ours has.
            fields = {}
        act, typed = (fields.get(name, [""])[0] for name in ("act", "code"))
        if act == "begin":
            return self._answered(asked, lambda principal: self._begin(asked, principal, typed))
        if act == "confirm":
            return self._answered(asked, lambda principal: self._confirm(asked, principal, typed))
        return self.fault(asked.language, 400, WORDS[asked.language].not_here, "INVALID_ARGUMENT")

    def fault(self, language: Language, status: int, message: str, outcome: str) -> Answer:
        """Returns a page that says what is wrong."""
        return Answer(status=status, page=self.pages.fault(language, message), outcome=outcome)

    def _begin(self, asked: Asked, principal: Principal, typed: str) -> Answer:
        words = WORDS[asked.language]
        enrolment, begins = self.open_(principal)
        if enrolment.state is EnrolmentState.BEGUN:
            return self._begun_before(asked, enrolment)

        def again(fault: str, refusal: Refusal) -> Answer:
            page = self.pages.start(asked.language, enrolment, waits=True, fault=fault)
            return Answer(status=403, page=page, outcome=refusal.reason)

        try:
            password = None if begins else parse_one_time_password(typed.strip(), field_name="code")
            begun = self.begin(principal, password=password, deadline=Deadline(self.clock, _SECONDS))
        except InvalidArgument as refusal:
            return again(words.not_digits, refusal)
        except OneTimePasswordRejected as refusal:
            return again(_tries(asked.language, refusal), refusal)
        except SignerLocked as refusal:
            return again(words.locked, refusal)
        except EnrolmentNotPending:
            # Another browser began meanwhile; or the enrolment was withdrawn, which reading it says.
            return self._begun_before(asked, self.open_(principal)[0])
        page = self.pages.secret(asked.language, begun)
        return Answer(status=200, page=page, outcome="OK", confirmation_key=begun.confirmation_key)

    def _confirm(self, asked: Asked, principal: Principal, typed: str) -> Answer:
        words = WORDS[asked.language]
        enrolment, _ = self.open_(principal)
        if asked.confirmation_key is None:
            return self.fault(asked.language, 403, words.started, "ENROLMENT_NOT_PENDING")

        def again(fault: str, refusal: Refusal) -> Answer:
            page = self.pages.confirmation(asked.language, enrolment, fault=fault)
            return Answer(status=403, page=page, outcome=refusal.reason)

        try:
            self.confirm(
                principal,
                confirmation_key=asked.confirmation_key,
                password=parse_one_time_password(typed.strip().replace(" ", ""), field_name="code"),
                deadline=Deadline(self.clock, _SECONDS),
            )
        except InvalidArgument as refusal:
            return again(words.not_digits, refusal)
        except OneTimePasswordRejected as refusal:
            if refusal.metadata["remainingAttempts"] == "0":
                return self.fault(asked.language, 403, words.no_more, refusal.reason)
            return again(_tries(asked.language, refusal), refusal)
        return Answer(status=200, page=self.pages.done(asked.language), outcome="OK", forget=True)

    def _begun_before(self, asked: Asked, enrolment: Enrolment) -> Answer:
        """Offers the form for the first code to the browser that began; others learn that somebody did."""
        if asked.confirmation_key is None:
            message = WORDS[asked.language].started
            return self.fault(asked.language, 409, message, "ENROLMENT_NOT_PENDING")
        return Answer(status=200, page=self.pages.confirmation(asked.language, enrolment), outcome="OK")

    def _answered(self, asked: Asked, work: Callable[[Principal], Answer]) -> Answer:
        """Returns what `work` answers for the person who has the code, or the page about a refusal."""
        words = WORDS[asked.language]
        try:
            return work(self.authenticate.by_token(Secret(_PREFIX.encode() + asked.code.reveal())))
        except (Unauthenticated, PermissionDenied) as refusal:
            return self.fault(asked.language, 404, words.unknown, refusal.reason)
        except EnrolmentNotPending as refusal:
            return self.fault(asked.language, 409, words.over, refusal.reason)
        except Busy as refusal:
            return self.fault(asked.language, 503, words.busy, refusal.reason)
        except Refusal as refusal:
            return self.fault(asked.language, 503, words.not_now, refusal.reason)


def _tries(language: Language, refusal: OneTimePasswordRejected) -> str:
    words, left = WORDS[language], refusal.metadata["remainingAttempts"]
    match left:
        case "0":
            return words.locked
        case "1":
            return words.wrong_one
    return words.wrong.format(count=left)
