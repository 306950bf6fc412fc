"""How a command ends: exit codes, and one clear line with advice for everything that can go wrong."""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from trien_client._errors import Refusal, TrienError, VerificationError

EXIT_CODES = """Exit codes:

\b
0  done; for `verify`: every signature is good, the receipt or the log holds
1  refused by the server; for `verify`: a signature is not good, the receipt or the log does not hold
2  the command was not understood, or a file cannot be read or written
3  the server cannot be reached or is not able to work now: try again
4  the one-time password was not accepted, or the signer is locked
5  the server or its answer cannot be trusted: nothing was handed out
6  nobody has decided on the authorization yet: wait again
130  interrupted (Ctrl-C): nothing was written"""


class ExitCode(IntEnum):
    """The exit codes that `--help` documents."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNAVAILABLE = 3
    ONE_TIME_PASSWORD = 4
    NOT_TRUSTED = 5
    NOT_DECIDED = 6
    INTERRUPTED = 130


class OutputFormat(StrEnum):
    """What a command prints."""

    TEXT = "text"
    JSON = "json"


ADVICE: dict[str, str] = {
    "INVALID_ARGUMENT": "Check the names and values that you gave.",
    "INVALID_DIGEST": "Use the digest that belongs to the algorithm, for example SHA-256 for RSA_PSS_SHA256.",
    "INVALID_SIGNED_ATTRIBUTES": "Make the signature anew; if it happens again, tell your administrator.",
    "ALGORITHM_MISMATCH": "Leave --algorithm out, or choose one that fits the credential's key.",
    "TOO_MANY_DIGESTS": "Sign in several smaller parts.",
    "UNAUTHENTICATED": "Check the token or the certificate of this application.",
    "PERMISSION_DENIED": "Check the credential's name (trien credentials list) and --signer, or ask for access to it.",
    "ALREADY_EXISTS": "Choose another name.",
    "NOT_ALLOWED_BY_POLICY": "The signer has to approve in another way; ask your security officer.",
    "ONE_TIME_PASSWORD_REJECTED": "Wait for the next code of your app, and type that one.",
    "SIGNER_LOCKED": "Ask your administrator to unlock the signer.",
    "ACTIVATION_DATA_REJECTED": "Ask for a new authorization.",
    "ACTIVATION_DATA_USED": "This authorization was used; ask for a new one.",
    "AUTHORIZATION_NOT_PENDING": "It was decided before; ask for a new one if you need it.",
    "AUTHORIZATION_NOT_APPROVED": "Wait until the signer has approved; if it was denied, ask for a new authorization.",
    "AUTHORIZATION_EXPIRED": "Ask for a new authorization.",
    "CHALLENGE_NOT_PENDING": "Ask for a new challenge; each serves once, and not for long.",
    "DELIVERY_FAILED": "Ask again in a moment; if it goes on, tell your administrator.",
    "DELIVERY_LIMIT_REACHED": "Wait some minutes, or approve by another authenticator.",
    "DIGESTS_NOT_AUTHORIZED": "Sign exactly what was approved, in the same order.",
    "CREDENTIAL_DISABLED": "Ask your security officer why the credential is disabled.",
    "CERTIFICATE_NOT_VALID": "Ask your registration officer for a new certificate.",
    "CERTIFICATE_REVOKED": "Ask your registration officer for a new certificate.",
    "CERTIFICATE_STATUS_UNKNOWN": "Try again later; if it goes on, tell your security officer.",
    "STATE_CONFLICT": "Look at what it is now (… show), and at what rests on it.",
    "PROPOSAL_NOT_PENDING": "Look at what became of it: trien proposals show.",
    "OWN_PROPOSAL": "Ask another operator to decide; you can withdraw it: trien proposals cancel.",
    "APPROVAL_NOT_VALID": "Read the proposal again: trien proposals show.",
    "LAST_OF_ROLE": "First give the role to another operator.",
    "NOT_STRICTER": "Propose it instead, for a second operator to agree.",
    "RATE_LIMIT_REACHED": "Try again later, or in smaller parts.",
    "ENROLMENT_NOT_PENDING": "Ask your registration officer for a new enrolment.",
    "REQUEST_ID_REUSED": "Start again; a new request gets a new id.",
    "DEADLINE_TOO_SHORT": "Give more time with --timeout.",
    "BUSY": "Try again in a moment.",
    "HSM_UNAVAILABLE": "Try again in a moment; if it goes on, tell your administrator.",
    "STORE_UNAVAILABLE": "Try again in a moment; if it goes on, tell your administrator.",
    "LOG_NOT_SEALED": "Try again in a moment; if it goes on, tell your administrator.",
    "LOG_NOT_TRUSTED": "Tell your administrator: the server's audit log does not continue what was published of it.",
    "CLOCK_NOT_TRUSTED": "Tell your administrator that the server's clock is wrong.",
    "RECORD_NOT_TRUSTED": "Tell your administrator: the server reported a damaged record.",
    "INTERNAL": "Tell your administrator, with the request's id.",
}
"""What a person can do about each reason of the API."""

OFFICER_ADVICE: dict[str, str] = {
    "UNAUTHENTICATED": "Check the certificate and key that you call with.",
    "PERMISSION_DENIED": "Check the name, and what your roles allow: trien access show.",
    "CERTIFICATE_NOT_VALID": "Check the certificate's dates and chain.",
    "CERTIFICATE_REVOKED": "Renew the credential with a new certificate.",
    "CREDENTIAL_DISABLED": "Look at the state of the credential, its key and its signer, and its organization's dates.",
    "BUSY": "Try again in a moment.",
}
"""The same, for who administers."""

MEANS_ADVICE = {
    "ocra": "Each call asks a question of its own: approve again, and answer the new one.",
    "delivery": "Each call sends a code of its own: approve again, and give the new one.",
}
"""What a person can do about a rejected code that answered a challenge, by `means` in the refusal's metadata."""

_FIELD_ADVICE = {
    "one_time_password": "Give the digits that the signer's app shows, alone in one line.",
    "one_time_password.signer": "Say whose one-time password it is with --signer (trien credentials list).",
}
"""What a person can do about a field that is missing or malformed."""

_UNAVAILABLE_REASONS = {
    "BUSY",
    "RATE_LIMIT_REACHED",
    "HSM_UNAVAILABLE",
    "STORE_UNAVAILABLE",
    "CLOCK_NOT_TRUSTED",
    "LOG_NOT_SEALED",
    "LOG_NOT_TRUSTED",
    "DEADLINE_TOO_SHORT",
}
_PASSWORD_REASONS = {"ONE_TIME_PASSWORD_REJECTED", "SIGNER_LOCKED"}


class CommandError(Exception):
    """A command cannot go on; the message is for the person who typed it."""

    def __init__(self, message: str, *, exit_code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def reported(output: OutputFormat, *, officer: bool = False) -> Iterator[None]:
    """Turns what goes wrong inside into one line on the standard error and an exit code; never a traceback.

    With `officer` the advice is for who administers.
    """
    from trien_client._errors import TrienError

    try:
        yield
    except TrienError as error:
        failure = describe(error)
        if officer:
            failure.advice = OFFICER_ADVICE.get(failure.reason, failure.advice)
        fail(output, failure)
    except CommandError as error:
        fail(
            output, Failure("USAGE" if error.exit_code is ExitCode.USAGE else "FAILED", str(error), "", error.exit_code)
        )
    except OSError as error:
        name = f"{error.filename}: " if error.filename is not None else ""
        fail(output, Failure("FILE", f"{name}{error.strerror or 'cannot be read or written'}.", "", ExitCode.USAGE))
    except ValueError as error:
        fail(output, Failure("USAGE", f"{error}.".replace("..", "."), "", ExitCode.USAGE))
    except KeyboardInterrupt:
        fail(output, Failure("INTERRUPTED", "Interrupted; nothing was written.", "", ExitCode.INTERRUPTED))


class Failure:
    """What went wrong, for people and for programs."""

    def __init__(self, reason: str, message: str, advice: str, exit_code: ExitCode, **details: object) -> None:
        self.reason = reason
        # Some messages are the server's, whose sentences may be open.
        self.message = message if message.endswith((".", "!", "?", ")")) else f"{message}."
        self.advice = advice
        self.exit_code = exit_code
        self.details = {name: value for name, value in details.items() if value is not None}


def describe(error: "TrienError") -> Failure:
    """Returns what to say about `error`, and the exit code."""
    from trien_client import _errors

    if isinstance(error, _errors.Refusal):
        if error.reason in _PASSWORD_REASONS:
            code = ExitCode.ONE_TIME_PASSWORD
        elif error.reason in _UNAVAILABLE_REASONS:
            code = ExitCode.UNAVAILABLE
        elif error.metadata.get("field") == "one_time_password":
            code = ExitCode.USAGE
        else:
            code = ExitCode.REFUSED
        remaining = error.remaining_attempts if isinstance(error, _errors.OneTimePasswordRejected) else None
        return Failure(
            error.reason,
            _message(error, remaining),
            _advice(error, remaining),
            code,
            request_id=error.request_id,
            server_request_id=error.metadata.get("requestId"),
            authorization=error.metadata.get("authorization"),
            remaining_attempts=remaining,
            retry_after_seconds=None if error.retry_after is None else round(error.retry_after.total_seconds()),
        )
    if isinstance(error, _errors.ServerNotTrusted):
        advice = "Check the address and the CA file; do not go on until it is clear whose server this is."
        return Failure("SERVER_NOT_TRUSTED", str(error), advice, ExitCode.NOT_TRUSTED)
    if isinstance(error, _errors.DeadlineExceeded):
        advice = "Whether it was done is not known; nothing was written. Try again."
        return Failure("NO_ANSWER", str(error), advice, ExitCode.UNAVAILABLE, request_id=error.request_id)
    if isinstance(error, _errors.TransportError):
        advice = "Check the network and whether the server runs, and try again."
        return Failure(error.code, str(error), advice, ExitCode.UNAVAILABLE, request_id=error.request_id)
    if isinstance(error, _errors.VerificationError):
        return Failure(
            "NOT_VERIFIED", str(error), _distrust_advice(error), ExitCode.NOT_TRUSTED, request_id=error.request_id
        )
    if isinstance(error, _errors.NotDecidedInTime):
        return _not_decided(str(error), error.authorization, request_id=error.request_id)
    if isinstance(error, _errors.TrustNotConfigured):
        advice = "Give the CA's certificate with --trust-anchors."
        return Failure("NO_TRUST_ANCHORS", "There is nothing to verify signatures with.", advice, ExitCode.USAGE)
    return Failure("CONNECTION_FILE", str(error), "Check --connection or TRIEN_CONNECTION.", ExitCode.USAGE)


def still_waiting(authorization: str, seconds: float) -> Failure:
    """Returns what to say when a wait of `seconds` has ended and nobody has decided."""
    return _not_decided(f"Nobody decided within {seconds:g} s; it still waits.", authorization)


def _not_decided(message: str, authorization: str, **details: object) -> Failure:
    advice = f"Wait again with trien authorizations wait {authorization}, or deny it."
    return Failure("NOT_DECIDED", message, advice, ExitCode.NOT_DECIDED, authorization=authorization, **details)


def attempts_message(remaining: int | None) -> str:
    """Returns what to say about a rejected one-time password."""
    rejected = "The one-time password was not accepted."
    match remaining:
        case None:
            return rejected
        case 0:
            return f"{rejected} No attempt remains."
        case 1:
            return f"{rejected} 1 attempt remains."
        case _:
            return f"{rejected} {remaining} attempts remain."


def _message(error: "Refusal", remaining: int | None) -> str:
    if remaining is not None:
        return attempts_message(remaining)
    if error.reason == "SIGNER_LOCKED":
        return "Too many wrong one-time passwords: the signer is locked."
    about = error.metadata.get("authorization")
    return error.message if about is None or about in error.message else f"{about}: {error.message}"


def _distrust_advice(error: "VerificationError") -> str:
    from pyhanko_certvalidator.errors import PathBuildingError

    if isinstance(error.__cause__, PathBuildingError):
        return (
            "Nothing was written. First make sure that --trust-anchors, or the connection file's trust anchors, is the"
            " CA that issued this certificate; if it is, tell your security officer."
        )
    return "Nothing was written. Tell your security officer."


def _advice(error: "Refusal", remaining: int | None) -> str:
    from trien_client._errors import AuthorizationDenied, OneTimePasswordRejected

    if remaining == 0:
        return (
            "The signer is locked for this application for a while: wait some minutes, or ask your administrator to"
            " unlock the signer. Until then no code is accepted, not even the right one."
        )
    if error.reason == "PERMISSION_DENIED" and "authorization" in error.metadata:
        return "Check its name (trien authorizations list): only the application that made it can use it."
    if isinstance(error, AuthorizationDenied):
        return "The signer said no, for good: ask for a new authorization if it is still to be signed."
    if isinstance(error, OneTimePasswordRejected) and error.metadata.get("means") in MEANS_ADVICE:
        return MEANS_ADVICE[error.metadata["means"]]
    advice = _FIELD_ADVICE.get(error.metadata.get("field", ""), ADVICE.get(error.reason, ""))
    if error.retry_after is None:
        return advice
    when = clock_time(error.retry_after, now=datetime.now().astimezone())
    if error.reason == "DELIVERY_LIMIT_REACHED":
        return f"Wait until {when}, or approve by another authenticator."
    if error.reason == "SIGNER_LOCKED":
        return f"Wait until {when}, or ask your administrator to unlock the signer."
    return f"{advice} Not before {when}."


def clock_time(wait: timedelta, *, now: datetime) -> str:
    """Writes the end of a wait: `18:05 (in 15 minutes)`, with the day when it is another one."""
    seconds = math.ceil(wait.total_seconds())
    minutes = math.ceil(seconds / 60)
    end = now + timedelta(seconds=seconds)
    if seconds < 60:
        return f"{end:%H:%M:%S} (in {seconds} {'second' if seconds == 1 else 'seconds'})"
    clock = f"{end:%H:%M}" if end.date() == now.date() else f"{end:%H:%M on %Y-%m-%d}"
    return f"{clock} (in {minutes} {'minute' if minutes == 1 else 'minutes'})"


def fail(output: OutputFormat, failure: Failure) -> None:
    """Says what went wrong and ends the command."""
    if output is OutputFormat.JSON:
        content = {
            "reason": failure.reason,
            "message": failure.message,
            "advice": failure.advice,
            "exit_code": int(failure.exit_code),
            **failure.details,
        }
        typer.echo(json.dumps({"error": content}, ensure_ascii=False), err=True)
    else:
        line = f"trien: {failure.message} {failure.advice}".strip()
        known_to_the_server_as = failure.details.get("server_request_id")
        mark = failure.reason if known_to_the_server_as is None else f"{failure.reason}, {known_to_the_server_as}"
        typer.echo(plain(f"{line} [{mark}]"), err=True)
    raise typer.Exit(int(failure.exit_code)) from None


def show(output: OutputFormat, text: str, content: object) -> None:
    """Prints a result: `text` for people, or `content` as JSON."""
    typer.echo(json.dumps(content, ensure_ascii=False, indent=2) if output is OutputFormat.JSON else text)


def plain(text: str) -> str:
    """Returns `text` as one line without control characters: a file or a server must not command the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def is_terminal() -> bool:
    """Tells whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()
