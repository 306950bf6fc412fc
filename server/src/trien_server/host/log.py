"""The log: one line an event on standard error. Fields are names, reasons and numbers, never messages (P12)."""

import sys
from collections.abc import Mapping
from typing import TextIO, cast

import structlog

from trien_server.host.lines import Lines


class Log:
    """Writes lines as JSON for machines, or as text for people. Never waits for whoever reads them, never raises."""

    def __init__(self, *, form: str) -> None:
        renderer = (
            structlog.processors.JSONRenderer(ensure_ascii=False)
            if form == "json"
            else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        )
        self._lines = Lines(sys.stderr, on_lost=lambda lost: self.report("log_lines_lost", {"lines": str(lost)}))
        self._logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            structlog.WriteLogger(cast(TextIO, self._lines)),  # it only writes and flushes
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.add_log_level,
                renderer,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        )

    def call(self, *, event: str, **fields: str | float | None) -> None:
        """Writes what a call was and how it ended."""
        shown = {key: value for key, value in fields.items() if value is not None}
        if "fault" in shown:
            self._logger.error(event, **shown)
        else:
            self._logger.info(event, **shown)

    def report(self, event: str, fields: Mapping[str, str]) -> None:
        """Writes what needs an operator's attention."""
        self._logger.warning(event, **{f"{key}_" if key == "event" else key: value for key, value in fields.items()})

    def info(self, event: str, **fields: str | int | float) -> None:
        """Writes what an operator likes to know."""
        self._logger.info(event, **fields)
