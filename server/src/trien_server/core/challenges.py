"""Challenges: what a code of an OCRA authenticator, or one that was delivered, answers (P2).

A challenge stands for an exact, ordered list of authorizations. Whoever changes one digest, or the order, has
another question, so a code that the person saw approve one list opens no other.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote, urlencode

from trien_server.core.encoding import encode_all
from trien_server.core.errors import ChallengeNotPending
from trien_server.core.ports import Randomness
from trien_server.core.records import Authorization, Challenge
from trien_server.core.sealing import LONGEST_CHALLENGE
from trien_server.core.secret import Secret

LIFETIME = LONGEST_CHALLENGE
NONCE_SIZE = 16


def question(challenge: str, nonce: bytes, authorizations: Sequence[Authorization]) -> bytes:
    """Returns what stands for the list: SHA-256 over the challenge's name, its nonce and the list in order."""
    values: list[object] = [challenge, nonce]
    for authorization in authorizations:
        values += [
            authorization.name,
            authorization.algorithm,
            authorization.pss_salt_length,
            authorization.item_kind,
            authorization.digests,
        ]
    return hashlib.sha256(encode_all("trien/challenge", values)).digest()


def fingerprint(question: bytes) -> str:
    """Returns the first 32 bits of a question as people compare them: `4f2a 91c3`."""
    digits = question[:4].hex()
    return f"{digits[:4]} {digits[4:]}"


def question_uri(*, suite: str, question: bytes, count: int) -> str:
    """Returns what an application shows as a QR code: `ocra:?suite=…&question=…&fingerprint=…&count=…`."""
    values = {"suite": suite, "question": question.hex(), "fingerprint": fingerprint(question), "count": count}
    return f"ocra:?{urlencode(values, quote_via=quote, safe=':')}"


def new_code(randomness: Randomness, *, digits: int) -> Secret:
    """Returns a code to be delivered, each as likely as any other."""
    codes = 10**digits
    while True:
        drawn = int.from_bytes(randomness.bytes(4), "big")
        if drawn < 2**32 - 2**32 % codes:  # Beyond it the remainder would prefer the lower codes.
            return Secret(f"{drawn % codes:0{digits}}".encode("ascii"))


def code_message(challenge: Challenge, question: bytes, code: bytes) -> bytes:
    """Returns what the token authenticates for a delivered code: it opens this challenge and this list alone."""
    return encode_all("trien/delivered-code", [challenge.name, challenge.nonce, question, code])


def assert_answerable(challenge: Challenge, authorizations: Sequence[str], *, at: datetime) -> None:
    """Raises `ChallengeNotPending` unless the challenge waits for an answer about this list."""
    if challenge.answered:
        raise ChallengeNotPending("The challenge was answered before; make a new one.")
    if at >= challenge.expire_time:
        raise ChallengeNotPending("The challenge has expired; make a new one.")
    if challenge.authorizations != tuple(authorizations):
        raise ChallengeNotPending("The challenge is for another list of authorizations, or another order.")
