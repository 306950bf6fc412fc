"""What a question stands for, and codes that are as likely as each other."""

import dataclasses
from collections import Counter
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.challenges import (
    assert_answerable,
    code_message,
    fingerprint,
    new_code,
    question,
    question_uri,
)
from trien_server.core.errors import ChallengeNotPending
from trien_server.core.records import Authorization, AuthorizationState, Challenge, ItemKind
from trien_server.host.randomness import SystemRandomness

AT = datetime(2026, 11, 24, 8, tzinfo=UTC)
NONCE = bytes(16)


class Draws:
    """The port `Randomness`, with the numbers that a test wants drawn."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)

    def bytes(self, size: int) -> bytes:
        return self.numbers.pop(0).to_bytes(size, "big")


def authorization(name: str = "a", **changes: object) -> Authorization:
    made = Authorization(
        name=f"credentials/c/authorizations/{name}",
        credential="credentials/c",
        key="keys/c",
        client="clients/office",
        approver=None,
        algorithm=SignatureAlgorithm.RSA_PSS_SHA256,
        pss_salt_length=32,
        item_kind=ItemKind.DIGEST,
        digests=(b"\x01" * 32, b"\x02" * 32),
        used=bytes(2),
        signed_digests=(b"", b""),
        state=AuthorizationState.PENDING,
        approval=None,
        create_time=AT,
        expire_time=AT + timedelta(minutes=10),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


CHALLENGE = Challenge(
    name="signers/s/challenges/c",
    signer="signers/s",
    client="clients/office",
    authenticator="signers/s/authenticators/a",
    authorizations=("credentials/c/authorizations/a",),
    nonce=NONCE,
    create_time=AT,
    expire_time=AT + timedelta(minutes=5),
)


@pytest.mark.promise("P2", "P3")
def test_whatever_is_signed_otherwise_is_another_question() -> None:
    one, two = authorization("a"), authorization("b")
    lists = [
        [one, two],
        [two, one],
        [one],
        [one, authorization("c")],
        [authorization(digests=(b"\x02" * 32, b"\x01" * 32)), two],
        [authorization(digests=(b"\x01" * 32,)), two],
        [authorization(digests=(b"\x01" * 31 + b"\x00", b"\x02" * 32)), two],
        [authorization(algorithm=SignatureAlgorithm.RSA_PKCS1_SHA256, pss_salt_length=None), two],
        [authorization(pss_salt_length=20), two],
        [authorization(item_kind=ItemKind.SIGNED_ATTRIBUTES), two],
    ]
    questions = {question("signers/s/challenges/c", NONCE, each) for each in lists}
    questions.add(question("signers/s/challenges/d", NONCE, lists[0]))
    questions.add(question("signers/s/challenges/c", b"\x01" * 16, lists[0]))
    assert len(questions) == len(lists) + 2
    assert all(len(asked) == 32 for asked in questions)


def test_the_uri_and_the_fingerprint_say_the_question() -> None:
    asked = bytes.fromhex("4f2a91c3" + "00" * 28)
    assert fingerprint(asked) == "4f2a 91c3"
    uri = question_uri(suite="OCRA-1:HOTP-SHA256-8:QH64", question=asked, count=20)
    assert uri == (
        f"ocra:?suite=OCRA-1:HOTP-SHA256-8:QH64&question=4f2a91c3{'00' * 28}&fingerprint=4f2a%2091c3&count=20"
    )
    assert parse_qs(urlsplit(uri).query)["fingerprint"] == ["4f2a 91c3"]


@pytest.mark.promise("P2")
def test_the_mac_of_a_code_is_for_one_challenge_and_one_list() -> None:
    other = dataclasses.replace(CHALLENGE, name="signers/s/challenges/d")
    renewed = dataclasses.replace(CHALLENGE, nonce=b"\x01" * 16)
    messages = {
        code_message(challenge, asked, code)
        for challenge in (CHALLENGE, other, renewed)
        for asked in (bytes(32), b"\x01" * 32)
        for code in (b"123456", b"1234567")
    }
    assert len(messages) == 12


@pytest.mark.requirement("ASVS 5.0.0-6.5.3")
def test_a_draw_that_would_prefer_some_codes_is_thrown_away() -> None:
    end = 2**32 - 2**32 % 10**6
    drawn = Draws(2**32 - 1, end, end - 1)
    assert new_code(drawn, digits=6).reveal() == b"999999"
    assert not drawn.numbers
    assert new_code(Draws(7), digits=8).reveal() == b"00000007"


@pytest.mark.requirement("ASVS 5.0.0-6.5.3", "NIST 800-63B-4 3.1.3.2 length")
@pytest.mark.parametrize("digits", [6, 7, 8])
def test_every_digit_of_a_code_is_as_likely_as_any_other(digits: int) -> None:
    codes = [new_code(SystemRandomness(), digits=digits).reveal().decode() for _ in range(5_000)]
    assert all(len(code) == digits and code.isdecimal() for code in codes)
    for position in range(digits):
        counts = Counter(code[position] for code in codes)
        # 500 of each are expected; eight standard deviations either side do not happen by chance.
        assert all(330 < counts[digit] < 670 for digit in "0123456789")


@pytest.mark.requirement("NIST 800-63B-4 3.1.3.2 lifetime")
def test_a_challenge_waits_for_one_answer_about_its_list_until_it_expires() -> None:
    names = CHALLENGE.authorizations
    assert_answerable(CHALLENGE, names, at=AT + timedelta(minutes=5, microseconds=-1))
    refused = [
        (dataclasses.replace(CHALLENGE, answered=True), names, AT),
        (CHALLENGE, names, AT + timedelta(minutes=5)),
        (CHALLENGE, (*names, "credentials/c/authorizations/b"), AT),
        (CHALLENGE, (), AT),
    ]
    for challenge, asked, at in refused:
        with pytest.raises(ChallengeNotPending):
            assert_answerable(challenge, asked, at=at)
    assert len(refused) == 4
