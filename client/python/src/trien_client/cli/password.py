"""Where a command gets the one-time password from, and how often it asks."""

import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from trien_client.cli.options import Means
from trien_client.cli.outcome import CommandError, attempts_message, is_terminal

if TYPE_CHECKING:
    from trien_client._authority import OneTimePasswordCallback, OneTimePasswordContext

T = TypeVar("T")


class PasswordSource:
    """Reads the one-time password from a file or the standard input, or asks the person at the terminal."""

    def __init__(self, otp_file: str | None, *, what: str) -> None:
        self.what = what
        """What the password is for, as the person is told before being asked."""
        self._otp_file = otp_file
        self._asked = False
        self._again = "Wait for the next code of your app."
        self._asked_for = "One-time password"
        self._means: Means | None = None
        if otp_file is None and not is_terminal():
            raise CommandError(
                "There is no terminal to ask for the one-time password: use --otp-file, or --otp-file -."
            )
        if otp_file is not None and otp_file != "-" and not Path(otp_file).exists():
            raise CommandError(f"There is no file {otp_file} with a one-time password.")

    def instruct(self, how: str, means: Means) -> None:
        """Says how the person comes to the code: with what it is for, or at once where nobody is asked for it."""
        self._means = means
        self._again = "Look at the code again."
        if means is Means.OCRA:
            self._again = "Look at the answer again."
            self._asked_for = "Answer"
        if self.can_ask_again:
            self.what += how
        else:
            typer.echo(how, err=True)

    @property
    def can_ask_again(self) -> bool:
        """Whether another password can be had: only a person has another one."""
        return self._otp_file is None

    def __call__(self, context: "OneTimePasswordContext") -> str:
        if self._otp_file is not None:
            return self._read(self._otp_file)
        from getpass import getpass

        if not self._asked:
            verb = "To be approved:" if context.authorizations else f"To be signed with {context.credential}: "
            typer.echo(f"{verb}{self.what}", err=True)
            self._asked = True
        whose = "" if context.signer is None else f" of {context.signer}"
        try:
            return getpass(f"{self._asked_for}{whose} (not shown): ", stream=sys.stderr)
        except (KeyboardInterrupt, EOFError):
            # What was typed is not shown, the line's end neither: without one the message would follow the prompt.
            typer.echo(err=True)
            raise KeyboardInterrupt from None

    @staticmethod
    def _read(otp_file: str) -> str:
        if otp_file == "-":
            code = sys.stdin.readline().strip()
        else:
            with Path(otp_file).open(encoding="utf-8") as file:
                code = file.readline().strip()
        if not code:
            where = "The standard input" if otp_file == "-" else otp_file
            raise CommandError(f"{where} holds no one-time password: its first line has to be the code.")
        return code

    def until_accepted(self, attempt: Callable[["OneTimePasswordCallback", str], T]) -> T:
        """Calls `attempt(source, request_id)`, again with the same id while the person may try another password."""
        from trien_client._errors import InvalidArgument, OneTimePasswordRejected

        request_id = str(uuid.uuid4())
        while True:
            try:
                return attempt(self, request_id)
            except OneTimePasswordRejected as error:
                if self._means is not None:
                    error.metadata.setdefault("means", self._means)
                if not self.can_ask_again or error.remaining_attempts == 0:
                    raise
                typer.echo(f"{attempts_message(error.remaining_attempts)} {self._again}", err=True)
            except InvalidArgument as error:
                if not self.can_ask_again or error.field != "one_time_password":
                    raise
                typer.echo(error.message, err=True)
