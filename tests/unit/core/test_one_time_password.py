"""One-time passwords against the RFCs' vectors, and the replay memory."""

import base64
from datetime import UTC, datetime, timedelta

import pyotp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trien_server.core.errors import InvalidArgument
from trien_server.core.one_time_password import (
    HOTP_LOOK_AHEAD,
    HOTP_RESYNCHRONIZATION,
    accept,
    candidates,
    otpauth_uri,
    parse_one_time_password,
)
from trien_server.core.records import AuthenticatorKind, AuthenticatorState
from trien_server.core.secret import Secret

TOTP, HOTP = AuthenticatorKind.TOTP, AuthenticatorKind.HOTP

# RFC 4226, appendix D.
RFC_4226_SECRET = Secret(b"12345678901234567890")
RFC_4226 = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"]

# RFC 6238, appendix B, with the secrets of erratum 2866: as long as the hash.
RFC_6238 = [
    (59, "94287082", "SHA1"),
    (59, "46119246", "SHA256"),
    (59, "90693936", "SHA512"),
    (1111111109, "07081804", "SHA1"),
    (1111111109, "68084774", "SHA256"),
    (1111111109, "25091201", "SHA512"),
    (1111111111, "14050471", "SHA1"),
    (1111111111, "67062674", "SHA256"),
    (1111111111, "99943326", "SHA512"),
    (1234567890, "89005924", "SHA1"),
    (1234567890, "91819424", "SHA256"),
    (1234567890, "93441116", "SHA512"),
    (2000000000, "69279037", "SHA1"),
    (2000000000, "90698825", "SHA256"),
    (2000000000, "38618901", "SHA512"),
    (20000000000, "65353130", "SHA1"),
    (20000000000, "77737706", "SHA256"),
    (20000000000, "47863826", "SHA512"),
]
SECRETS = {
    "SHA1": b"12345678901234567890",
    "SHA256": b"12345678901234567890123456789012",
    "SHA512": b"1234567890" * 6 + b"1234",
}
AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def state(next_value: int = 0, resynchronization: int | None = None) -> AuthenticatorState:
    return AuthenticatorState(name="a", next_value=next_value, resynchronization=resynchronization)


def hotp(password: str, memory: AuthenticatorState) -> tuple[int | None, AuthenticatorState]:
    given = Secret(password.encode())
    shown = candidates(RFC_4226_SECRET, kind=HOTP, digits=6, hash_function="SHA1", at=AT, state=memory, password=given)
    return accept(given, among=shown, kind=HOTP, state=memory)


def test_the_vectors_of_rfc_4226_are_accepted_in_turn() -> None:
    memory, accepted = state(), []
    for password in RFC_4226:
        value, memory = hotp(password, memory)
        accepted.append(value)
    assert accepted == list(range(10))
    assert memory.next_value == 10


@pytest.mark.parametrize(("seconds", "password", "hash_function"), RFC_6238)
def test_the_vectors_of_rfc_6238_are_accepted(seconds: int, password: str, hash_function: str) -> None:
    at = datetime.fromtimestamp(seconds, UTC)
    secret = Secret(SECRETS[hash_function])
    shown = candidates(
        secret, kind=TOTP, digits=8, hash_function=hash_function, at=at, state=state(), password=Secret(b"")
    )
    value, memory = accept(Secret(password.encode()), among=shown, kind=TOTP, state=state())
    assert value == seconds // 30
    assert memory.next_value == seconds // 30 + 1


@pytest.mark.requirement("ASVS 5.0.0-6.5.1", "ASVS 5.0.0-6.5.5", "NIST 800-63B-4 3.1.4.2 once")
@pytest.mark.promise("P2")
def test_a_totp_is_accepted_one_step_either_side_and_once() -> None:
    secret = Secret(b"x" * 20)
    generator = pyotp.TOTP(base64.b32encode(secret.reveal()).decode())
    for offset in range(-3, 4):
        shown = candidates(
            secret, kind=TOTP, digits=6, hash_function="SHA1", at=AT, state=state(), password=Secret(b"")
        )
        password = Secret(generator.at(AT + timedelta(seconds=30 * offset)).encode())
        value, memory = accept(password, among=shown, kind=TOTP, state=state())
        assert (value is not None) is (abs(offset) <= 1)
        if value is not None:
            assert accept(password, among=shown, kind=TOTP, state=memory) == (None, memory)


@pytest.mark.requirement("ASVS 5.0.0-6.5.1")
@pytest.mark.promise("P2")
@settings(deadline=None)  # other processes may have the cores meanwhile
@given(st.lists(st.integers(0, 12), min_size=1, max_size=30))
def test_no_order_of_passwords_opens_a_counter_twice_or_backwards(order: list[int]) -> None:
    generator = pyotp.HOTP(base64.b32encode(RFC_4226_SECRET.reveal()).decode())
    memory, accepted = state(), []
    for counter in order:
        value, memory = hotp(generator.at(counter), memory)
        if value is not None:
            accepted.append(value)
    assert accepted == sorted(set(accepted))


def test_a_counter_far_ahead_needs_two_passwords_in_a_row() -> None:
    generator = pyotp.HOTP(base64.b32encode(RFC_4226_SECRET.reveal()).decode())
    far = HOTP_LOOK_AHEAD + 20
    value, memory = hotp(generator.at(far), state())
    assert (value, memory.next_value, memory.resynchronization) == (None, 0, far)
    value, _ = hotp(generator.at(far + 2), memory)
    assert value is None
    value, memory = hotp(generator.at(far + 1), memory)
    assert (value, memory.next_value, memory.resynchronization) == (far + 1, far + 2, None)
    beyond = memory.next_value + HOTP_LOOK_AHEAD + HOTP_RESYNCHRONIZATION + 1
    assert hotp(generator.at(beyond), memory) == (None, memory)


@pytest.mark.parametrize("first", [0, 3, HOTP_LOOK_AHEAD, HOTP_LOOK_AHEAD + 7])
def test_an_authenticator_that_is_out_of_step_is_believed_only_by_two_codes_in_a_row(first: int) -> None:
    generator = pyotp.HOTP("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")
    memory = AuthenticatorState(name="a", next_value=0, out_of_step=True)
    value, memory = hotp(generator.at(first), memory)
    assert (value, memory.next_value, memory.out_of_step) == (None, 0, True)
    assert hotp(generator.at(first), memory)[0] is None
    value, forgotten = hotp("000000", memory)
    assert (value, forgotten.resynchronization, forgotten.out_of_step) == (None, None, True)
    assert hotp(generator.at(first + 1), forgotten)[0] is None
    value, memory = hotp(generator.at(first + 1), memory)
    assert (value, memory.next_value, memory.out_of_step) == (first + 1, first + 2, False)
    assert hotp(generator.at(first + 2), memory)[0] == first + 2


@pytest.mark.parametrize(
    "text",
    [
        "12345",
        "123456789",
        "12345a",
        " 123456",
        "123456 ",
        "１２３４５６",
        "١٢٣٤٥٦",
        "",
        "123\n456",
        "123456\n",
        "-12345",
    ],
)
def test_anything_but_six_to_eight_ascii_digits_is_refused_unread(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_one_time_password(text, field_name="code")
    assert not text.strip() or text.strip() not in refused.value.message


def test_leading_zeros_count() -> None:
    assert parse_one_time_password("000000", field_name="code") != Secret(b"0")
    generator = pyotp.HOTP(base64.b32encode(b"x" * 20).decode())
    counter = next(counter for counter in range(1000) if generator.at(counter).startswith("0"))
    memory = state(counter)
    shown = candidates(
        Secret(b"x" * 20), kind=HOTP, digits=6, hash_function="SHA1", at=AT, state=memory, password=Secret(b"")
    )
    assert accept(Secret(generator.at(counter).encode()), among=shown, kind=HOTP, state=memory)[0] == counter
    short = generator.at(counter).lstrip("0").encode()
    assert accept(Secret(short), among=shown, kind=HOTP, state=memory)[0] is None


def test_the_uri_makes_the_same_codes_in_an_app() -> None:
    for kind, hash_function, digits in ((TOTP, "SHA1", 6), (TOTP, "SHA256", 8), (HOTP, "SHA512", 7)):
        secret = Secret(b"s" * 20)
        uri = otpauth_uri(
            secret, kind=kind, digits=digits, hash_function=hash_function, account="Hoàng Trịnh Đôn", issuer="Trien"
        )
        parsed = pyotp.parse_uri(uri.reveal().decode())
        shown = candidates(
            secret, kind=kind, digits=digits, hash_function=hash_function, at=AT, state=state(), password=Secret(b"")
        )
        code = parsed.at(AT) if isinstance(parsed, pyotp.TOTP) else parsed.at(0)
        assert accept(Secret(code.encode()), among=shown, kind=kind, state=state())[0] is not None
        assert parsed.name == "Hoàng Trịnh Đôn"


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret(b"topsecret")
    assert "topsecret" not in f"{secret!r} {secret} {[secret]}"
    shown = candidates(
        Secret(b"x" * 20), kind=HOTP, digits=6, hash_function="SHA1", at=AT, state=state(), password=Secret(b"")
    )
    assert shown[0].password.reveal().decode() not in repr(shown)
    with pytest.raises(TypeError):
        secret.__reduce__()
