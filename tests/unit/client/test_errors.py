"""The SDK's errors mirror the API's reasons."""

import datetime
import re

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from trien.v1 import errors_pb2

import trien_client
from trien_client import OneTimePasswordRejected, Refusal, TrienError, _errors
from trien_client._retry import is_retried
from trien_client._status import error_of, refusal_of

REASONS = [name for name in errors_pb2.ErrorReason.keys() if name != "ERROR_REASON_UNSPECIFIED"]  # noqa: SIM118
RETRIED = {"BUSY", "HSM_UNAVAILABLE", "LOG_NOT_SEALED", "STORE_UNAVAILABLE"}


def encoded(reason: str, domain: str = "trien", retry_after: float | None = None, **metadata: str) -> bytes:
    info = AnyMessage()
    info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata))
    details = [info]
    if retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(datetime.timedelta(seconds=retry_after))
        retry = AnyMessage()
        retry.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        details.insert(0, retry)
    return bytes(status_pb2.Status(code=9, message=f"told: {reason}", details=details).SerializeToString())


def test_there_is_one_class_per_reason_and_one_reason_per_class() -> None:
    assert set(_errors.REFUSALS) == set(REASONS)
    assert len({refusal.__name__ for refusal in _errors.REFUSALS.values()}) == len(REASONS) == 42


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn: dict[str, str | None] = {}
    path: list[str] = []
    for line in (_errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:[│ ] {3})*)(?:[├└]── )?([A-Z]\w+)(?:  +(.*))?$", line)
        if match is None:
            continue
        depth = len(match[1]) // 4 + (1 if "── " in line else 0)
        del path[depth:]
        drawn[match[2]] = path[-1] if path else None
        path.append(match[2])
        refusal = getattr(_errors, match[2])
        if match[2] in {known.__name__ for known in _errors.REFUSALS.values()}:
            assert refusal.reason in (match[3] or ""), line
    actual = {
        name: value.__bases__[0].__name__ if value is not TrienError else None
        for name, value in vars(_errors).items()
        if isinstance(value, type) and issubclass(value, TrienError)
    }
    assert drawn == actual
    assert len(drawn) == 56


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_raised_as_its_class(reason: str) -> None:
    error = refusal_of([("grpc-status-details-bin", encoded(reason, retry_after=2.5, key="value"))], "")
    assert type(error) is _errors.REFUSALS[reason]
    assert error.reason == reason
    assert error.metadata == {"key": "value"}
    assert error.retry_after == datetime.timedelta(seconds=2.5)
    assert str(error) == f"told: {reason}"
    assert is_retried(error) is (reason in RETRIED)


def test_a_reason_of_a_newer_server_is_a_refusal_with_its_name() -> None:
    error = refusal_of([("grpc-status-details-bin", encoded("MOON_IN_THE_WRONG_PHASE"))], "")
    assert type(error) is Refusal
    assert error.reason == "MOON_IN_THE_WRONG_PHASE"
    assert error.retry_after is None


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("grpc-status-details-bin", b"\xff\xff\xff")],
        [("grpc-status-details-bin", encoded("BUSY", domain="proxy.example"))],
        [("grpc-status-details-bin", status_pb2.Status(code=14).SerializeToString())],
        [("something-else", "text")],
    ],
)
def test_what_is_not_an_answer_of_trien_is_no_refusal(metadata: list[tuple[str, str | bytes]]) -> None:
    assert refusal_of(metadata, "") is None


def test_a_failure_without_a_call_is_a_transport_error() -> None:
    assert isinstance(error_of(grpc.RpcError(), address="localhost:1"), trien_client.TransportError)


@pytest.mark.parametrize(("text", "remaining"), [("3", 3), ("0", 0), ("", None), ("many", None), ("-1", None)])
def test_remaining_attempts_are_read_from_the_metadata(text: str, remaining: int | None) -> None:
    assert OneTimePasswordRejected("no", metadata={"remainingAttempts": text}).remaining_attempts == remaining
    assert OneTimePasswordRejected("no").remaining_attempts is None


def test_every_public_name_can_be_loaded_and_every_error_is_public() -> None:
    for name in trien_client.__all__:
        assert getattr(trien_client, name) is not None
    errors = {
        name for name, value in vars(_errors).items() if isinstance(value, type) and issubclass(value, TrienError)
    }
    assert errors <= set(trien_client.__all__)
    assert sorted(trien_client._HOME_OF) == trien_client.__all__
    with pytest.raises(AttributeError):
        trien_client.nonsense  # noqa: B018


@pytest.mark.parametrize(
    ("code", "kind", "retried"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Unavailable", True),
        (grpc.StatusCode.CANCELLED, "Unavailable", True),  # a server that stops says it to calls that just arrived
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DeadlineExceeded", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "MessageTooLarge", False),
        (grpc.StatusCode.UNKNOWN, "TransportError", False),
    ],
)
def test_what_grpc_itself_says_is_retried_only_when_the_server_was_away(
    code: grpc.StatusCode, kind: str, retried: bool
) -> None:
    class Failure(grpc.RpcError, grpc.Call):  # type: ignore[misc]
        def code(self) -> grpc.StatusCode:
            return code

        def details(self) -> str:
            return ""

        def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
            return ()

    Failure.__abstractmethods__ = frozenset()
    error = error_of(Failure(), address="host:1")
    assert type(error).__name__ == kind
    assert is_retried(error) is retried
