"""Drives service and token in turns and collects what they did."""

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from trien_client.bench.figures import Round, ServiceStep, TokenStep, together
from trien_client.bench.installation import Installation, Token
from trien_client.bench.machine import Machine, look_at_machine
from trien_client.bench.plan import VERIFIED_EVERY, Case, Plan
from trien_client.bench.population import Person, Population
from trien_client.bench.process import Child, Crew, Message

Say = Callable[[str], None]
"""Tells a person how far the run is."""

_LATE_SECONDS: Final = 90.0
"""How much longer than planned a step may take: its last requests have 30 seconds."""


@dataclass(frozen=True, kw_only=True)
class CaseRounds:
    """All rounds of one case."""

    case: Case
    rounds: tuple[Round, ...]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A whole run: what was planned, where, and what came of it."""

    plan: Plan
    machine: Machine
    store: str
    cases: tuple[CaseRounds, ...]


def measure(plan: Plan, folder: Path, *, say: Say) -> Measured:
    """Makes a server in the empty `folder`, measures, and stops it.

    Raises `ServerNotStarted`, `ChildFailed`, or `TrienError` when people could not be made.
    """
    machine = look_at_machine(folder)
    say("making a server")
    with Installation(folder, workers=plan.workers) as installation:
        say(f"making {plan.clients} people with keys: {', '.join(plan.key_types)}")
        persons = Population(installation).make(plan.clients, plan.key_types)
        token = installation.copy_token(folder / "token-alone")
        with (
            _generators(plan, installation, persons, folder) as generators,
            _token_processes(plan, token, persons, folder) as tokens,
        ):
            cases = tuple(
                CaseRounds(
                    case=case,
                    rounds=_measure_case(
                        plan, case, generators, tokens, server_cpu_seconds=installation.cpu_seconds, say=say
                    ),
                )
                for case in plan.cases
            )
        return Measured(plan=plan, machine=machine, store=installation.store, cases=cases)


def _measure_case(
    plan: Plan,
    case: Case,
    generators: Crew,
    tokens: Crew,
    *,
    server_cpu_seconds: Callable[[], float | None],
    say: Say,
) -> tuple[Round, ...]:
    done: list[Round] = []
    for number in range(plan.rounds):
        # Each of both comes first in turn: a machine that slows down or speeds up favours neither.
        if number % 2:
            token = _drive_token(plan, case, tokens)
            service = _drive_service(plan, case, generators, server_cpu_seconds)
        else:
            service = _drive_service(plan, case, generators, server_cpu_seconds)
            token = _drive_token(plan, case, tokens)
        done.append(Round(service=service, token=token))
        failed = f", {service.errors.total()} requests failed" if service.errors else ""
        say(
            f"{case.key_type}, {case.digests} a request, round {number + 1} of {plan.rounds}: "
            f"service {service.rate:.1f}/s, token alone {token.rate:.1f}/s{failed}"
        )
    return tuple(done)


def _drive_service(
    plan: Plan, case: Case, generators: Crew, server_cpu_seconds: Callable[[], float | None]
) -> ServiceStep:
    before = server_cpu_seconds()
    answers = generators.ask(_step(plan, case), timeout=_longest(plan))
    after = server_cpu_seconds()
    step = together(
        [
            ServiceStep(
                signatures=answer["signatures"],
                requests=answer["requests"],
                seconds=answer["seconds"],
                latencies=tuple(answer["latencies"]),
                signatures_in_all=answer["signatures_in_all"],
                verified=answer["verified"],
                cpu_seconds=answer["cpu_seconds"],
                errors=Counter(answer["errors"]),
            )
            for answer in answers
        ]
    )
    return replace(step, server_cpu_seconds=None if before is None or after is None else after - before)


def _drive_token(plan: Plan, case: Case, tokens: Crew) -> TokenStep:
    answers = tokens.ask(_step(plan, case), timeout=_longest(plan))
    return TokenStep(
        rate=float(sum(answer["signatures"] / answer["seconds"] for answer in answers)),
        signatures=sum(answer["signatures"] for answer in answers),
        cpu_seconds=sum(answer["cpu_seconds"] for answer in answers),
    )


def _step(plan: Plan, case: Case) -> Message:
    return {
        "key_type": case.key_type,
        "algorithm": case.algorithm,
        "digests": case.digests,
        "seconds": plan.seconds,
        "warm_up_seconds": plan.warm_up_seconds,
    }


def _longest(plan: Plan) -> float:
    return plan.warm_up_seconds + plan.seconds + _LATE_SECONDS


def _generators(plan: Plan, installation: Installation, persons: Sequence[Person], folder: Path) -> Crew:
    """Starts the processes that call the service; the people are dealt out to them."""

    def setup(dealt: Sequence[Person]) -> Message:
        return {
            "address": installation.address,
            "ca_file": str(installation.ca_file),
            "verified_every": VERIFIED_EVERY,
            "persons": [_described(person) for person in dealt],
        }

    return Crew(
        Child(
            "trien_client.bench.load",
            setup(persons[number :: plan.generators]),
            log=folder / f"generator-{number}.log",
        )
        for number in range(plan.generators)
    )


def _described(person: Person) -> Message:
    return {
        "signer": person.signer,
        "secret": person.secret.reveal(),
        "digits": person.digits,
        "token": person.token.reveal(),
        "credentials": {
            key_type: {"name": made.name, "certificate": base64.b64encode(made.certificate).decode()}
            for key_type, made in person.credentials.items()
        },
    }


def _token_processes(plan: Plan, token: Token, persons: Sequence[Person], folder: Path) -> Crew:
    """Starts the processes that drive the copied token; each uses the keys of all people in turn."""
    setup = {
        "module": token.module,
        "label": token.label,
        "pin": token.pin,
        "keys": {
            key_type: [base64.b64encode(person.credentials[key_type].public_key).decode() for person in persons]
            for key_type in plan.key_types
        },
    }
    return Crew(
        Child(
            "trien_client.bench.ceiling",
            setup,
            log=folder / f"token-{number}.log",
            environment={"SOFTHSM2_CONF": str(token.configuration)},
        )
        for number in range(plan.token_processes)
    )
