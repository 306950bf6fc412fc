"""What is measured, how long and how often."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from trien_client._algorithms import KeyType, SignatureAlgorithm

KEY_TYPES: Final = (KeyType.RSA_3072, KeyType.RSA_2048, KeyType.EC_P256)
"""The keys that are measured when none is named."""

FEWEST_ROUNDS: Final = 3
"""A median of fewer says nothing about the noise."""

CLIENTS_OF_AN_APPLICATION: Final = 8
"""How many clients call as one application. A server process has at most 12 of one application's requests at work."""

MOST_CLIENTS: Final = 24
"""What one server process admits at once; more would measure refusals."""

VERIFIED_EVERY: Final = 16
"""The generator verifies the signatures of every sixteenth request. The server verifies each of all (P6)."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the table: a key, an algorithm, and how many digests a request has."""

    key_type: KeyType
    algorithm: SignatureAlgorithm
    digests: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole run. Service and token are measured in turns, `rounds` times, for `seconds` each."""

    cases: tuple[Case, ...]
    rounds: int
    seconds: float
    warm_up_seconds: float
    workers: int
    clients: int
    generators: int
    token_processes: int = field(default_factory=lambda: os.cpu_count() or 1)

    @property
    def key_types(self) -> tuple[KeyType, ...]:
        """The kinds of keys that each person needs."""
        return tuple(dict.fromkeys(case.key_type for case in self.cases))


def make_plan(
    *,
    key_types: Sequence[KeyType] = (),
    digests: Sequence[int] = (),
    pkcs1: bool = False,
    rounds: int = FEWEST_ROUNDS,
    seconds: float | None = None,
    quick: bool = False,
    workers: int = 1,
    clients: int = 16,
) -> Plan:
    """Returns the plan that the options of `trien bench` ask for.

    Raises `ValueError` for what cannot be measured.
    """
    chosen = tuple(dict.fromkeys(key_types)) or KEY_TYPES
    if KeyType.EC_ED25519 in chosen:
        raise ValueError("Ed25519 signs no digests, so it is not measured")
    if rounds < FEWEST_ROUNDS:
        raise ValueError(f"a median takes at least {FEWEST_ROUNDS} rounds")
    if not 1 <= clients <= MOST_CLIENTS:
        raise ValueError(f"1 to {MOST_CLIENTS} clients: a server process admits no more requests at once")
    step = seconds if seconds is not None else 1.0 if quick else 5.0
    return Plan(
        cases=tuple(
            Case(key_type=key_type, algorithm=algorithm_for(key_type, pkcs1=pkcs1), digests=count)
            for key_type in chosen
            for count in tuple(dict.fromkeys(digests)) or (1,)
        ),
        rounds=rounds,
        seconds=step,
        warm_up_seconds=min(1.0, step / 2),
        workers=workers,
        clients=clients,
        generators=min(clients, 2),
    )


def algorithm_for(key_type: KeyType, *, pkcs1: bool) -> SignatureAlgorithm:
    """Returns the SDK's default algorithm; with `pkcs1` RSASSA-PKCS1-v1_5 for RSA keys."""
    return SignatureAlgorithm.RSA_PKCS1_SHA256 if pkcs1 and key_type.is_rsa else key_type.default_algorithm
