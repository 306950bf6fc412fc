"""OCRA against the vectors of RFC 6287, appendix C: the server's and the SDK's."""

import hashlib
from typing import Any, Protocol

import pytest

import trien_client.ocra
from trien_server.core.ocra import OcraSuite, ocra, suite_of
from trien_server.core.secret import Secret

KEY_20 = b"12345678901234567890"
KEY_32 = b"12345678901234567890123456789012"
KEY_64 = (b"1234567890" * 7)[:64]
PIN = hashlib.sha1(b"1234").digest()
TIME = 0x132D0B6


class Answers(Protocol):
    """Answers a question of a suite with a secret."""

    def __call__(self, secret: bytes, suite: str, question: str, **inputs: Any) -> str: ...


def by_server(secret: bytes, suite: str, question: str, **inputs: Any) -> str:
    return ocra(Secret(secret), OcraSuite.parse(suite), question, **inputs)


@pytest.fixture(params=[by_server, trien_client.ocra.ocra], ids=["server", "SDK"])
def answer(request: pytest.FixtureRequest) -> Answers:
    made: Answers = request.param
    return made


def repeated(digit: int) -> str:
    return str(digit) * 8


# Appendix C.1: one-way challenge response.
QN08 = ["237653", "243178", "653583", "740991", "608993", "388898", "816933", "224598", "750600", "294470"]
COUNTER_PIN = [
    "65347737", "86775851", "78192410", "71565254", "10104329",
    "65983500", "70069104", "91771096", "75011558", "08522129",
]  # fmt: skip
PIN_ONLY = ["83238735", "01501458", "17957585", "86776967", "86807031"]
COUNTER = [
    "07016083", "63947962", "70123924", "25341727", "33203315",
    "34205738", "44343969", "51946085", "20403879", "31409299",
]  # fmt: skip
WITH_TIME = ["95209754", "55907591", "22048402", "24218844", "36209546"]
# Appendix C.2: mutual challenge response, the server's and the client's side.
SERVER_256 = {"CLI22220SRV11110": "28247970", "CLI22221SRV11111": "01984843", "CLI22222SRV11112": "65387857"}
CLIENT_256 = {"SRV11110CLI22220": "15510767", "SRV11111CLI22221": "90175646", "SRV11112CLI22222": "33777207"}
# Appendix C.3: plain signatures.
SIGNATURES = {"SIG10000": "53095496", "SIG11000": "04110475", "SIG12000": "31331128"}


def test_the_vectors_of_one_way_challenge_response(answer: Answers) -> None:
    checked = 0
    suite = "OCRA-1:HOTP-SHA1-6:QN08"
    for digit, expected in enumerate(QN08):
        assert answer(KEY_20, suite, repeated(digit)) == expected
        checked += 1
    suite = "OCRA-1:HOTP-SHA256-8:C-QN08-PSHA1"
    for counter, expected in enumerate(COUNTER_PIN):
        assert answer(KEY_32, suite, "12345678", counter=counter, pin_digest=PIN) == expected
        checked += 1
    suite = "OCRA-1:HOTP-SHA256-8:QN08-PSHA1"
    for digit, expected in enumerate(PIN_ONLY):
        assert answer(KEY_32, suite, repeated(digit), pin_digest=PIN) == expected
        checked += 1
    suite = "OCRA-1:HOTP-SHA512-8:C-QN08"
    for counter, expected in enumerate(COUNTER):
        assert answer(KEY_64, suite, repeated(counter), counter=counter) == expected
        checked += 1
    suite = "OCRA-1:HOTP-SHA512-8:QN08-T1M"
    for digit, expected in enumerate(WITH_TIME):
        assert answer(KEY_64, suite, repeated(digit), time_step=TIME) == expected
        checked += 1
    assert checked == 40


def test_the_vectors_of_mutual_challenge_response_and_signatures(answer: Answers) -> None:
    suite = "OCRA-1:HOTP-SHA256-8:QA08"
    for question, expected in (SERVER_256 | CLIENT_256 | SIGNATURES).items():
        assert answer(KEY_32, suite, question) == expected


def test_a_password_answers_its_question_alone(answer: Answers) -> None:
    suite = suite_of(hash_function="SHA256", digits=8)
    questions = [hashlib.sha256(bytes([number])).hexdigest() for number in range(200)]
    answers = {answer(KEY_32, suite, question) for question in questions}
    assert len(answers) == 200
    assert answer(KEY_32, suite, questions[0]) == answer(KEY_32, suite, questions[0].upper())


@pytest.mark.parametrize(
    "text",
    ["", "OCRA-2:HOTP-SHA1-6:QN08", "OCRA-1:HOTP-MD5-6:QN08", "OCRA-1:HOTP-SHA1-0:QN08", "OCRA-1:HOTP-SHA1-6:QX08",
     "OCRA-1:HOTP-SHA1-6:QN65", "OCRA-1:HOTP-SHA1-6:QN08-PMD5", "OCRA-1:HOTP-SHA1-6:QN08\n"],
)  # fmt: skip
def test_other_suites_are_refused(answer: Answers, text: str) -> None:
    with pytest.raises(ValueError, match="not an OCRA suite"):
        answer(KEY_32, text, "12345678")


def test_inputs_that_the_suite_does_not_ask_for_are_refused(answer: Answers) -> None:
    suite = "OCRA-1:HOTP-SHA256-8:C-QN08-PSHA1"
    for arguments in ({}, {"counter": 1}, {"counter": 1, "pin_digest": PIN, "time_step": 1}, {"pin_digest": PIN}):
        with pytest.raises(ValueError, match="other inputs"):
            answer(KEY_32, suite, "12345678", **arguments)
    for question in ("", "1234567a", "1" * 17):
        with pytest.raises(ValueError, match="question"):
            answer(KEY_32, suite, question, counter=0, pin_digest=PIN)
