"""A Hypothesis state machine: people and applications do anything in any order, and the model says what comes of it."""

import hashlib
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.property.reference import (
    UNAVAILABLE,
    Approve,
    Create,
    Deny,
    Fetch,
    Granted,
    Prediction,
    Question,
    Sign,
    State,
    Switch,
    Unlock,
    comparable,
)
from tests.property.service import ACTIVATORS, ALGORITHMS, ECDSA, PKCS1, PSS, SWITCHES, Answer, Service
from tests.support.world import CHAIR, CLERK, FOREIGN, OFFICE, P256, PORTAL

DIGESTS = [hashlib.sha256(b"document %d" % number).digest() for number in range(5)]
TIMES = [timedelta(seconds=seconds) for seconds in (1, 15, 30, 31, 61)]
LONG_TIMES = [timedelta(minutes=minutes) for minutes in (3, 11, 16, 61)] * 3 + [
    timedelta(days=days) for days in (1.1, 8)
]

PLACES = st.integers(0, 9)
"""A place in a list of what there is, counted from the newest."""
CLIENTS = st.sampled_from([OFFICE.name] * 7 + [PORTAL.name] * 2 + [FOREIGN.name])
CREDENTIALS = st.sampled_from([*ACTIVATORS, P256, "credentials/none"])
DOCUMENTS = st.lists(st.sampled_from(DIGESTS), min_size=1, max_size=4).map(tuple)
BAD_DOCUMENTS = st.sampled_from([(), (DIGESTS[0], b"short")])
CODES = st.sampled_from(
    ["fresh"] * 7 + ["now", "before", "after", "used", "wrong", "another's", "too early", "too late"]
)
BREAKS = st.one_of(
    st.tuples(st.just(""), st.integers(1, 20)),
    st.sampled_from([("sign", 1), ("transact", 1), ("transact", 2), ("transact", 3), ("decrypt", 1)]),
)
"""Which call breaks: the how manieth, of any method or of one."""
WHICH = st.sampled_from(["all", "all", "some", "first", "last", "swapped", "other", "too many", "unused"])
"""Which of the authorized digests are sent."""
PEOPLE = st.sampled_from([None, None, None, CHAIR, CLERK, "signers/none"])


def mostly(strategy: st.SearchStrategy[Any], rarely: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 11).flatmap(lambda number: rarely if number == 11 else strategy)


class Machine(RuleBasedStateMachine):
    """Every question goes to the service and to the model; answer and state have to be the same."""

    kind: ClassVar[str] = "memory"
    counts: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.service = Service(self.kind)
        self.facts = self.service.facts()
        self.model = self.service.state()
        self.asked: list[Create | Approve | Sign] = []
        self.outcomes: dict[tuple[str, str], tuple[bytes, ...]] = {}
        self.typed: dict[str, str] = {}
        self.crashed = False
        self.counts["examples"] += 1

    # What people and applications do

    @rule(
        client=CLIENTS,
        credential=CREDENTIALS,
        second=st.booleans(),
        digests=mostly(DOCUMENTS, BAD_DOCUMENTS),
        approver=PEOPLE,
        minutes=st.sampled_from([1, 10, 10, 60, 24 * 60]),
        bound=st.booleans(),
    )
    def create(
        self,
        client: str,
        credential: str,
        second: bool,
        digests: tuple[bytes, ...],
        approver: str | None,
        minutes: int,
        bound: bool,
    ) -> None:
        self.ask(
            Create(
                client=client,
                credential=credential,
                algorithm=self.algorithm(credential, second),
                digests=digests,
                approver=approver,
                lifetime=timedelta(minutes=minutes),
                request_id=_new_id() if bound else None,
            )
        )

    @rule(
        credential=st.sampled_from(list(ACTIVATORS)),
        second=st.booleans(),
        digests=DOCUMENTS,
        more=st.booleans(),
        which=WHICH,
        data=st.sampled_from(["right", "right", "wrong", "another's"]),
    )
    def open(
        self, credential: str, second: bool, digests: tuple[bytes, ...], more: bool, which: str, data: str
    ) -> None:
        """An authorization, or two by one code, from the beginning to the first use of what opens them."""
        names = []
        for _ in range(1 + more):
            made = self.ask(
                Create(
                    client=OFFICE.name,
                    credential=credential,
                    algorithm=self.algorithm(credential, second),
                    digests=digests,
                    approver=None,
                    lifetime=timedelta(minutes=10),
                    request_id=_new_id(),
                )
            )
            names.append(made.subject or "credentials/none/authorizations/none")
        signer = ACTIVATORS[credential]
        code = self.code("fresh", signer)
        self.ask(Approve(client=OFFICE.name, names=tuple(names), signer=signer, code=code, request_id=_new_id()))
        for name in names:
            self.ask(Fetch(client=OFFICE.name, name=name))
            self.ask(self.opening(name, which=which, data=data, other=names[0]))

    @rule(
        client=mostly(st.none(), CLIENTS),
        places=st.lists(PLACES, min_size=1, max_size=4),
        distinct=mostly(st.just(True), st.just(False)),
        signer=PEOPLE,
        code=CODES,
        bound=st.booleans(),
    )
    def approve(
        self, client: str | None, places: list[int], distinct: bool, signer: str | None, code: str, bound: bool
    ) -> None:
        names = [self.authorization(place) for place in places]
        if distinct:
            names = list(dict.fromkeys(names))
        if code == "fresh" and len(names) > 1:
            names = [name for name in names if self.approver_of(name) == self.approver_of(names[0])]
        person = signer or self.approver_of(names[0])
        self.ask(
            Approve(
                client=client or self.client_of(names[0]),
                names=tuple(names),
                signer=person,
                code=self.code(code, person),
                request_id=_new_id() if bound else None,
            )
        )

    @rule(many=st.sampled_from([0, 101]))
    def approve_none_or_too_many(self, many: int) -> None:
        names = tuple(f"{P256}/authorizations/x{number}" for number in range(many))
        code = self.code("now", CHAIR)
        self.ask(Approve(client=OFFICE.name, names=names, signer=CHAIR, code=code, request_id=None))

    @rule(client=mostly(st.none(), CLIENTS), place=PLACES)
    def deny(self, client: str | None, place: int) -> None:
        name = self.authorization(place)
        self.ask(Deny(client=client or self.client_of(name), name=name))

    @rule(client=mostly(st.none(), CLIENTS), place=PLACES)
    def fetch(self, client: str | None, place: int) -> None:
        name = self.authorization(place)
        self.ask(Fetch(client=client or self.client_of(name), name=name))

    @rule(times=st.integers(2, 6), client=CLIENTS, credential=st.sampled_from(list(ACTIVATORS)))
    def guess(self, times: int, client: str, credential: str) -> None:
        """Wrong codes in a row, and then a right one."""
        signer = ACTIVATORS[credential]
        for number in range(times + 1):
            code = self.code("wrong" if number < times else "fresh", signer)
            self.ask(
                Sign(
                    client=client,
                    credential=credential,
                    algorithm=self.algorithm(credential, second=False),
                    digests=tuple(DIGESTS[:1]),
                    request_id=_new_id(),
                    code=code,
                )
            )

    @rule(
        where=BREAKS,
        crash=st.booleans(),
        after=st.booleans(),
        waits=st.sampled_from([1, 1, 31, 31, 16 * 60]),
        credential=st.sampled_from(list(ACTIVATORS)),
        digests=DOCUMENTS,
    )
    def sign_broken(
        self,
        where: tuple[str, int],
        crash: bool,
        after: bool,
        waits: int,
        credential: str,
        digests: tuple[bytes, ...],
    ) -> None:
        """A signature whose way is broken somewhere, and its retry with the code of before."""
        question = Sign(
            client=OFFICE.name,
            credential=credential,
            algorithm=self.algorithm(credential, second=False),
            digests=digests,
            request_id=_new_id(),
            code=self.code("fresh", ACTIVATORS[credential]),
        )
        self.service.breaker.arm(method=where[0], call=where[1], crash=crash, after=after)
        self.ask(question)
        self.service.clock.advance(timedelta(seconds=waits))
        self.ask(question)

    @rule(
        client=CLIENTS,
        credential=CREDENTIALS,
        second=st.booleans(),
        digests=mostly(DOCUMENTS, BAD_DOCUMENTS),
        signer=PEOPLE,
        code=CODES,
    )
    def sign_at_once(
        self, client: str, credential: str, second: bool, digests: tuple[bytes, ...], signer: str | None, code: str
    ) -> None:
        person = signer or ACTIVATORS.get(credential, CHAIR)
        self.ask(
            Sign(
                client=client,
                credential=credential,
                algorithm=self.algorithm(credential, second),
                digests=digests,
                request_id=_new_id(),
                signer=signer,
                code=self.code(code, person),
            )
        )

    @rule(
        place=PLACES,
        client=mostly(st.none(), CLIENTS),
        which=WHICH,
        algorithm=mostly(st.none(), st.sampled_from([ECDSA, PSS, PKCS1])),
        credential=mostly(st.none(), CREDENTIALS),
        data=mostly(st.just("right"), st.sampled_from(["wrong", "another's", "empty"])),
    )
    def sign_opened(
        self,
        place: int,
        client: str | None,
        which: str,
        algorithm: str | None,
        credential: str | None,
        data: str,
    ) -> None:
        question = self.opening(self.authorization(place), which=which, data=data, other=self.authorization(place + 1))
        given = {"client": client, "algorithm": algorithm, "credential": credential}
        self.ask(replace(question, **{field: value for field, value in given.items() if value is not None}))

    def opening(self, name: str, *, which: str, data: str, other: str) -> Sign:
        """Returns a request to sign with an authorization: with its digests and data, or not quite."""
        found = self.model.authorizations.get(name)
        digests = found.digests if found is not None else tuple(DIGESTS[:1])
        unused = tuple(d for d, used in zip(digests, found.used if found else (), strict=False) if not used)
        return Sign(
            client=self.client_of(name),
            credential=found.credential if found else P256,
            algorithm=found.algorithm if found else ECDSA,
            digests={
                "all": digests,
                "some": digests[::2],
                "first": digests[:1],
                "last": digests[-1:],
                "swapped": digests[::-1],
                "other": (*digests[:-1], hashlib.sha256(digests[-1]).digest()),
                "too many": (*digests, digests[0]),
                "unused": unused or digests,
            }[which],
            request_id=_new_id(),
            opens=name,
            data={
                "right": self.service.opens(name),
                "wrong": bytes(32),
                "another's": self.service.opens(other),
                "empty": b"",
            }[data],
        )

    # Retries

    @rule(place=PLACES, code=CODES)
    def again(self, place: int, code: str) -> None:
        """The same request again, also with another code or none that is right: it is not part of the content."""
        question = self.earlier(place)
        if isinstance(question, Approve):
            question = replace(question, code=self.code(code, question.signer))
        elif isinstance(question, Sign) and question.opens is None:
            person = question.signer or ACTIVATORS.get(question.credential, CHAIR)
            question = replace(question, code=self.code(code, person))
        if question is not None:
            self.ask(question)

    @rule(place=PLACES)
    def complete(self, place: int) -> None:
        """A retry of what was granted and has no outcome."""
        unfinished = [key for key, granted in self.model.granted.items() if not granted.completed]
        if unfinished:
            key = unfinished[place % len(unfinished)]
            self.ask(next(asked for asked in reversed(self.asked) if (asked.client, asked.request_id) == key))

    @rule(place=PLACES, how=st.sampled_from(["content", "content", "order", "client", "kind", "algorithm"]))
    def altered(self, place: int, how: str) -> None:
        """The same request id with other content, of another client, or for another method."""
        bound = [asked for asked in self.asked if (asked.client, asked.request_id) in self.model.granted]
        if not bound:
            return
        question = bound[-1 - place % len(bound)]
        assert question.request_id is not None
        if how == "client":
            question = replace(question, client=PORTAL.name if question.client == OFFICE.name else OFFICE.name)
        elif how == "kind":
            code = self.code("fresh", CHAIR)
            question = (
                Sign(
                    client=question.client,
                    credential=P256,
                    algorithm=ECDSA,
                    digests=tuple(DIGESTS[:2]),
                    request_id=question.request_id,
                    code=code,
                )
                if not isinstance(question, Sign)
                else Approve(
                    client=question.client,
                    names=(self.authorization(place),),
                    signer=CHAIR,
                    code=code,
                    request_id=question.request_id,
                )
            )
        elif isinstance(question, Approve):
            names = question.names[::-1] if how == "order" else (*question.names, f"{P256}/authorizations/other")
            question = replace(question, names=tuple(dict.fromkeys(names)))
            question = replace(question, code=self.code("fresh", question.signer))
        else:
            digests = question.digests[::-1] if how == "order" else (*question.digests, DIGESTS[place % len(DIGESTS)])
            algorithm = self.algorithm(question.credential, second=question.algorithm == PSS)
            question = replace(question, **({"algorithm": algorithm} if how == "algorithm" else {"digests": digests}))
            if isinstance(question, Sign) and question.opens is None:
                person = question.signer or ACTIVATORS.get(question.credential, CHAIR)
                question = replace(question, code=self.code("fresh", person))
        self.ask(question)

    @rule(credential=st.sampled_from(list(ACTIVATORS)), name=st.sampled_from(["activator", "client", "key"]))
    def retry_without_the_right(self, credential: str, name: str) -> None:
        """A retry of what was signed, after the right to it was taken away, and after it was given back."""
        signer = ACTIVATORS[credential]
        question = Sign(
            client=OFFICE.name,
            credential=credential,
            algorithm=self.algorithm(credential, second=False),
            digests=tuple(DIGESTS[:2]),
            request_id=_new_id(),
            code=self.code("fresh", signer),
        )
        right = {"activator": f"{credential}/{signer}", "client": OFFICE.name}.get(name, f"keys/{credential[12:]}")
        self.ask(question)
        self.ask(Switch(name=right, enabled=False))
        self.ask(question)
        self.ask(Switch(name=right, enabled=True))
        self.ask(question)

    @rule(place=PLACES)
    def approve_another_list_under_the_same_id(self, place: int) -> None:
        name = self.authorization(place)
        signer = self.approver_of(name)
        code = self.code("fresh", signer)
        question = Approve(client=OFFICE.name, names=(name,), signer=signer, code=code, request_id=_new_id())
        self.ask(question)
        self.ask(replace(question, names=(name, self.authorization(place + 1)) if place % 2 else (f"{name}x",)))

    # What happens around them

    @rule(time=st.sampled_from(TIMES))
    def a_moment(self, time: timedelta) -> None:
        self.service.clock.advance(time)

    @rule(time=st.sampled_from(LONG_TIMES))
    def a_while(self, time: timedelta) -> None:
        self.service.clock.advance(time)

    @rule(name=st.sampled_from(sorted(SWITCHES)), seldom=st.integers(0, 4))
    def switch_off(self, name: str, seldom: int) -> None:
        if not seldom:
            self.ask(Switch(name=name, enabled=False))

    @rule(place=PLACES)
    def switch_on(self, place: int) -> None:
        if self.model.disabled:
            self.ask(Switch(name=sorted(self.model.disabled)[place % len(self.model.disabled)], enabled=True))

    @rule()
    def switch_all_on(self) -> None:
        for name in sorted(self.model.disabled):
            self.ask(Switch(name=name, enabled=True))

    @rule(signer=st.sampled_from([CHAIR, CLERK]))
    def unlock(self, signer: str) -> None:
        self.ask(Unlock(signer=signer))

    @rule(where=BREAKS, crash=st.booleans(), after=st.booleans())
    def break_a_call(self, where: tuple[str, int], crash: bool, after: bool) -> None:
        """Lets one of the next question's calls of token or store fail, or the process end there."""
        self.service.breaker.arm(method=where[0], call=where[1], crash=crash, after=after)

    @rule()
    def restart(self) -> None:
        self.service.restart()

    # What holds after each step

    @invariant()
    def one_code_gave_one_approval(self) -> None:
        steps = Counter((approval.signer, approval.step) for approval in self.model.approvals.values())
        assert all(count == 1 for count in steps.values()), steps
        for name, approval in self.model.approvals.items():
            assert [self.model.authorizations[found].approval for found in approval.authorizations] == [name] * len(
                approval.authorizations
            )

    @invariant()
    def nothing_is_signed_without_an_entry_before(self) -> None:
        assert self.service.without_entry == []
        strange = {"record_not_trusted", "signature_does_not_verify", "key_mismatch"}
        assert not strange & {event.name for event in self.service.world.events}

    def teardown(self) -> None:
        try:
            self.service.breaker.disarm()
            self.counts["rows"] += self.service.every_row_verifies()
            self.counts["signatures"] += self.service.token.signatures
        finally:
            self.service.close()

    # How a question is asked

    def ask(self, question: Question) -> Answer:
        """Asks service and model, and compares."""
        before, made_before = self.model, self.service.token.signatures
        broke = self.service.breaker.broke
        answer = self.service.ask(question)
        broken = self.service.breaker.broke > broke
        self.service.breaker.disarm()
        if answer.reason == "CRASHED":
            self.service.restart()
        now = self.service.state()
        at = self.service.clock.now()
        prediction = self.facts.predict(before, question, at, self.service.new_names(before, now))
        self.counts["questions"] += 1
        self.counts[f"answered {answer.reason}"] += 1
        if broken:
            self.counts["broken"] += 1
            self._check_broken(question, answer, prediction, before, now)
        else:
            assert answer.reason == prediction.answer, (question, answer, prediction.answer)
            self._assert_same(prediction.after, now, question)
            self._check_answer(question, answer, prediction)
            assert self.service.token.signatures - made_before == prediction.signatures
        self._remember(question, prediction, now)
        return answer

    def _check_broken(
        self, question: Question, answer: Answer, prediction: Prediction, before: State, now: State
    ) -> None:
        """A failure on the way: an honest answer, and a state that the way leads through."""
        at = self.service.clock.now()
        assert answer.reason in {prediction.answer, "CRASHED", *UNAVAILABLE}, (question, answer, prediction.answer)
        if answer.reason == "OK":
            self._assert_same(prediction.after, now, question)
            self._check_answer(question, answer, prediction)
            return
        held, given_up = prediction.between or (before, before)
        # Only one call breaks, so a lease is held on only by who crashed, or could not write what came of it.
        ways = [given_up] if answer.reason == "HSM_UNAVAILABLE" else [held, prediction.after]
        possible = [comparable(state, at) for state in (before, *ways)]
        assert comparable(now, at) in possible, (question, answer, comparable(now, at), possible)

    def _assert_same(self, expected: State, now: State, question: Question) -> None:
        at = self.service.clock.now()
        wanted, found = comparable(expected, at), comparable(now, at)
        for part in vars(wanted):
            assert getattr(found, part) == getattr(wanted, part), (part, question)

    def _check_answer(self, question: Question, answer: Answer, prediction: Prediction) -> None:
        assert answer.remaining == prediction.remaining, (question, answer)
        if answer.reason != "OK" or not prediction.subject:
            return
        assert answer.subject == prediction.subject, (question, answer)
        if isinstance(question, Sign):
            self.service.signatures_verify(question, answer.signatures)
            same = self.outcomes.setdefault((question.client, question.request_id), answer.signatures)
            assert same == answer.signatures

    def _remember(self, question: Question, prediction: Prediction, now: State) -> None:
        """Takes over what is there; what was granted stays bound to its content, which no row shows."""
        contents: dict[tuple[str, str], object] = {}
        for state in (self.model, prediction.after):
            contents |= {key: granted.content for key, granted in state.granted.items()}
        now.granted = {key: _with(granted, contents[key]) for key, granted in now.granted.items()}
        self.model = now
        if isinstance(question, (Create, Approve, Sign)):
            self.asked.append(question)

    # Choosing

    @staticmethod
    def algorithm(credential: str, second: bool) -> str:
        known: Sequence[str] = sorted(ALGORITHMS.get(credential, {ECDSA}))
        return known[-1 if second else 0]

    def authorization(self, place: int) -> str:
        """Returns one of those that are there, the newest first; rarely one that is not."""
        names = list(self.model.authorizations)
        if not names or place == 9:
            return f"{P256}/authorizations/none"
        order = sorted(names, key=lambda name: (self.model.authorizations[name].expires, name), reverse=True)
        return order[place % len(order)]

    def client_of(self, name: str) -> str:
        found = self.model.authorizations.get(name)
        return OFFICE.name if found is None else found.client

    def approver_of(self, name: str) -> str:
        found = self.model.authorizations.get(name)
        return CHAIR if found is None else found.approver or ACTIVATORS[found.credential]

    def earlier(self, place: int) -> Create | Approve | Sign | None:
        return self.asked[-1 - place] if place < len(self.asked) else None

    def code(self, which: str, signer: str) -> str:
        """Returns what a person types; for a fresh code they wait for the next step first."""
        person = signer if signer in {CHAIR, CLERK} else CHAIR
        if which == "fresh":
            self.service.clock.advance(timedelta(seconds=30))
        step = int(self.service.clock.now().timestamp()) // 30
        moved = {"before": -1, "after": 1, "too early": 2, "too late": -2}.get(which, 0)
        match which:
            case "used":
                return self.typed.get(person, "000000")
            case "another's":
                person = CLERK if person == CHAIR else CHAIR
            case "wrong":
                shown = {self.service.shows(person, step + distance) for distance in range(-2, 3)}
                return next(code for code in map("{:06}".format, range(6)) if code not in shown)
        self.typed[person] = self.service.shows(person, step + moved)
        return self.typed[person]


def _with(granted: Granted, content: object) -> Granted:
    return replace(granted, content=content)


def _new_id() -> str:
    return str(uuid.uuid4())
