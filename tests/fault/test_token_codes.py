"""A token that answers each code that PKCS#11 names: refused, recovered, completed by a retry (P1, P2, P7, P8)."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.promises.history import History
from tests.promises.recording import RecordedConnection
from tests.support.administration import Connection, Person, Refused, request_of
from tests.support.sandbox import Installation
from tests.support.shim import Order, Shim
from tests.support.workers import copy_people, judge, running, serving_of, wait_until, workers_of

CODES = {
    "HOST_MEMORY": 0x02, "GENERAL_ERROR": 0x05, "FUNCTION_FAILED": 0x06, "ARGUMENTS_BAD": 0x07,
    "ATTRIBUTE_TYPE_INVALID": 0x12, "ATTRIBUTE_VALUE_INVALID": 0x13, "DATA_INVALID": 0x20, "DATA_LEN_RANGE": 0x21,
    "DEVICE_ERROR": 0x30, "DEVICE_MEMORY": 0x31, "DEVICE_REMOVED": 0x32, "ENCRYPTED_DATA_INVALID": 0x40,
    "ENCRYPTED_DATA_LEN_RANGE": 0x41, "FUNCTION_CANCELED": 0x50, "KEY_HANDLE_INVALID": 0x60, "KEY_SIZE_RANGE": 0x62,
    "KEY_TYPE_INCONSISTENT": 0x63, "KEY_FUNCTION_NOT_PERMITTED": 0x68, "MECHANISM_INVALID": 0x70,
    "MECHANISM_PARAM_INVALID": 0x71, "OPERATION_ACTIVE": 0x90, "OPERATION_NOT_INITIALIZED": 0x91,
    "SESSION_CLOSED": 0xB0, "SESSION_HANDLE_INVALID": 0xB3, "USER_NOT_LOGGED_IN": 0x101, "BUFFER_TOO_SMALL": 0x150,
    "CRYPTOKI_NOT_INITIALIZED": 0x190, "FUNCTION_REJECTED": 0x200,
}  # fmt: skip
_ALWAYS = (
    "HOST_MEMORY", "GENERAL_ERROR", "FUNCTION_FAILED", "ARGUMENTS_BAD", "DEVICE_ERROR", "DEVICE_MEMORY",
    "DEVICE_REMOVED", "SESSION_CLOSED", "SESSION_HANDLE_INVALID", "CRYPTOKI_NOT_INITIALIZED",
)  # fmt: skip
_INIT = (
    "FUNCTION_CANCELED", "KEY_FUNCTION_NOT_PERMITTED", "KEY_HANDLE_INVALID", "KEY_SIZE_RANGE", "KEY_TYPE_INCONSISTENT",
    "MECHANISM_INVALID", "MECHANISM_PARAM_INVALID", "OPERATION_ACTIVE", "USER_NOT_LOGGED_IN",
)  # fmt: skip
NAMED = {
    "C_SignInit": [*_ALWAYS, *_INIT],
    "C_Sign": [
        *_ALWAYS, "BUFFER_TOO_SMALL", "DATA_INVALID", "DATA_LEN_RANGE", "FUNCTION_CANCELED", "FUNCTION_REJECTED",
        "OPERATION_NOT_INITIALIZED", "USER_NOT_LOGGED_IN",
    ],
    "C_DecryptInit": [*_ALWAYS, *_INIT],
    "C_Decrypt": [
        *_ALWAYS, "BUFFER_TOO_SMALL", "ENCRYPTED_DATA_INVALID", "ENCRYPTED_DATA_LEN_RANGE", "FUNCTION_CANCELED",
        "OPERATION_NOT_INITIALIZED", "USER_NOT_LOGGED_IN",
    ],
    "C_FindObjectsInit": [*_ALWAYS, "ATTRIBUTE_TYPE_INVALID", "ATTRIBUTE_VALUE_INVALID", "OPERATION_ACTIVE"],
    "C_FindObjects": [*_ALWAYS, "OPERATION_NOT_INITIALIZED"],
}  # fmt: skip
"""What PKCS#11 v2.40 (sections 5.7, 5.9, 5.11) names for each function, but CKR_PIN_EXPIRED, which is tested apart."""

SOME = {
    "C_SignInit": ["DEVICE_ERROR", "KEY_TYPE_INCONSISTENT"],
    "C_Sign": ["DATA_INVALID", "SESSION_HANDLE_INVALID"],
    "C_Decrypt": ["ENCRYPTED_DATA_INVALID", "GENERAL_ERROR"],
    "C_FindObjects": ["DEVICE_REMOVED"],
}
WITHOUT_CONSUMING = {"C_DecryptInit", "C_Decrypt"}
"""These come before the approval: work that cannot start leaves the code unused."""


class Server:
    """Two workers over the shim, and one client."""

    def __init__(self, tmp_path: Path) -> None:
        peopled = copy_people(tmp_path / "installation")
        self.people = peopled.people
        self.shim = Shim(tmp_path / "shim")
        self.installation = Installation(
            peopled.directory, "server.workers=2", self.shim.setting, **self.shim.environment
        )
        self.history = History()

    def approvals(self, person: Person) -> int:
        with self.installation.read_database() as database:
            query = "SELECT COUNT(*) FROM approvals WHERE signer = ?"
            (count,) = database.execute(query, (person.name,)).fetchone()
        return int(count)


def orders(function: str, code: int) -> list[Order]:
    failing = Order(function, "fail", code)
    if not function.startswith("C_FindObjects"):
        return [failing]
    # Handles are cached: objects are looked for when a session is lost.
    return [failing, Order("C_SignInit", "fail", CODES["SESSION_HANDLE_INVALID"])]


@pytest.mark.promise("P1", "P2", "P7", "P8")
@pytest.mark.parametrize("named", [SOME, pytest.param(NAMED, marks=pytest.mark.slow)], ids=["some", "all"])
def test_each_code_is_a_clear_refusal_and_the_retry_completes_once_the_token_is_back(
    tmp_path: Path, named: dict[str, list[str]], record_property: Callable[[str, object], None]
) -> None:
    server = Server(tmp_path)
    person = server.people[0]
    answers: Counter[str] = Counter()
    recoveries: list[float] = []
    with running(server.installation):
        wait_until(lambda: serving_of(server.installation) == 2, "both workers serve")
        with Connection(server.installation, token=server.installation.population["client"]["token"]) as connection:
            recorded = RecordedConnection(connection, server.history)
            recorded.sign(request_of(person, b"first"), right=True)
            for function, names in named.items():
                for name in names:
                    wanted = request_of(person, f"{function} {name}".encode())
                    before = server.approvals(person)
                    server.shim.order(*orders(function, CODES[name]))
                    with pytest.raises(Refused) as caught:
                        recorded.sign(wanted, right=True)
                    answers[f"{function} {caught.value.reason}"] += 1
                    assert caught.value.reason == "HSM_UNAVAILABLE", (
                        function,
                        name,
                        str(caught.value),
                    )
                    if function in WITHOUT_CONSUMING:
                        assert server.approvals(person) == before, (function, name)
                    server.shim.behave()
                    recoveries.append(completed(recorded, wanted))
                    assert server.approvals(person) == before + 1, (function, name)
        logins = server.shim.counted()["C_Login", "called"]
        assert server.installation.stop() == 0
    with judge(server.installation) as check:
        check(server.history)
    tried = sum(map(len, named.values()))
    record_property(
        "count",
        f"codes {tried} of {len(named)} functions, {dict(answers)}, the retry completed after"
        f" {max(recoveries):.1f} s at most, logins {logins}",
    )
    assert len(recoveries) == tried == answers.total()


def completed(recorded: RecordedConnection, wanted: object) -> float:
    """Repeats a request until it is answered; returns after how many seconds."""
    begun = time.monotonic()
    while True:
        try:
            recorded.sign(wanted, right=True, timeout=20.0)
        except Refused as refused:
            if refused.reason not in {"HSM_UNAVAILABLE", "BUSY"} or time.monotonic() - begun > 60:
                raise
            time.sleep(0.1)
        else:
            return time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.promise("P8")
def test_an_expired_pin_stops_a_worker_until_a_person_acts(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    server = Server(tmp_path)
    person = server.people[0]
    with running(server.installation):
        wait_until(lambda: serving_of(server.installation) == 2, "both workers serve")
        logins = server.shim.counted()["C_Login", "called"]
        with Connection(server.installation, token=server.installation.population["client"]["token"]) as connection:
            recorded = RecordedConnection(connection, server.history)
            recorded.sign(request_of(person, b"first"), right=True)
            wanted = request_of(person, b"a document")
            server.shim.order(Order("C_SignInit", "fail", 0xA3))
            refusals = 0
            for _ in range(5):
                with pytest.raises(Refused, match="HSM_UNAVAILABLE"):
                    recorded.sign(wanted, right=True)
                refusals += 1
            server.shim.behave()
            with pytest.raises(Refused, match="HSM_UNAVAILABLE"):
                recorded.sign(wanted, right=True)
        assert server.shim.counted()["C_Login", "called"] == logins
        assert len(workers_of(server.installation)) == 2
        assert server.installation.stop() == 0
        server.installation.start()
        with Connection(server.installation, token=server.installation.population["client"]["token"]) as connection:
            completed(RecordedConnection(connection, server.history), wanted)
    with judge(server.installation) as check:
        check(server.history)
    record_property("count", f"refusals with an expired PIN {refusals}, logins meanwhile 0")
    assert refusals == 5
