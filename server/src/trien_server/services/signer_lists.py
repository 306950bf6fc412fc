"""Reads lists of signers: CSV (RFC 4180) in UTF-8, as spreadsheets write it.

Every fault is named with its line and column, so that a person can mend the file; a list with one fault is as good as
none. What a line can say wrong by itself is found here; what it says wrong about this installation, by the import.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from trien_server.core.errors import InvalidArgument
from trien_server.core.names import parse_id
from trien_server.core.records import AuthenticatorKind, SignerKind
from trien_server.services.encodings import decode_utf8
from trien_server.services.signers import parse_contact
from trien_server.services.texts import parse_title

MOST_LINES = 10_000
"""How many lines may follow the first one."""
MOST_FAULTS = 1000
COLUMNS = ("id", "name", "organization", "kind", "position", "email", "phone")
_REQUIRED = COLUMNS[:3]
_ALIASES = {
    "mã": "id",
    "họ tên": "name",
    "họ và tên": "name",
    "tên": "name",
    "đơn vị": "organization",
    "cơ quan": "organization",
    "loại": "kind",
    "chức vụ": "position",
    "thư điện tử": "email",
    "điện thoại": "phone",
    "số điện thoại": "phone",
}
_KINDS = {
    "": SignerKind.PERSON,
    "person": SignerKind.PERSON,
    "cá nhân": SignerKind.PERSON,
    "agency": SignerKind.AGENCY,
    "cơ quan": SignerKind.AGENCY,
}
_FORMULA = re.compile(r"[=+\-@＝＋－＠]")
_OTHER_FONT = re.compile(
    r"[µ¶·¸¹¨©ª«¬®]"  # TCVN3: à ả ã á ạ ă â ê ô ơ đ, read as Latin-1
    r"|[ae][âãåä]|a[áà]|eà|o[âåä]|[aeiou]ø|[aeo]û",  # VNI: a vowel and its mark, read as Latin-1
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class ListFault:
    """What is wrong with a line; `line` counts from 1, 0 is the whole list, and `column` is empty for a whole line."""

    line: int
    column: str
    message: str


@dataclass(frozen=True, kw_only=True)
class ListedSigner:
    """A signer as a line says it, in the form in which it is kept. `organization` is a resource name."""

    line: int
    id: str
    display_name: str
    organization: str
    kind: SignerKind
    position: str
    email: str
    phone: str

    @property
    def name(self) -> str:
        """The resource name."""
        return f"signers/{self.id}"


@dataclass(frozen=True, kw_only=True)
class SignerList:
    """The good lines of a list and the faults of the others, `MOST_FAULTS` at most: whoever counts more stops."""

    signers: tuple[ListedSigner, ...]
    faults: tuple[ListFault, ...]


@dataclass
class _Reading:
    signers: list[ListedSigner] = field(default_factory=list)
    faults: list[ListFault] = field(default_factory=list)
    lines_of_ids: dict[str, int] = field(default_factory=dict)
    lines_of_persons: dict[tuple[object, ...], int] = field(default_factory=dict)

    def fault(self, line: int, column: str, message: str) -> None:
        self.faults.append(ListFault(line=line, column=column, message=message))

    def ended(self) -> SignerList:
        faults = sorted(self.faults, key=lambda fault: fault.line)
        return SignerList(signers=tuple(self.signers), faults=tuple(faults[:MOST_FAULTS]))


def read_signer_list(content: bytes) -> SignerList:
    """Reads a list. Never raises: what is wrong is among the faults."""
    reading = _Reading()
    text = decode_utf8(content)
    if isinstance(text, tuple):
        reading.fault(text[0], "", text[1])
        return reading.ended()
    lines = max(text.count("\n"), text.count("\r"))
    if lines > MOST_LINES + 1:
        reading.fault(0, "", f"it has {lines:,} lines; import {MOST_LINES:,} at a time")
        return reading.ended()
    rows = _rows(text, reading)
    first = next(rows, None)
    if first is None:
        if not reading.faults:
            reading.fault(0, "", "it is empty: the first line names the columns")
        return reading.ended()
    columns = _columns(first[1], first[0], reading)
    if columns is not None:
        for line, cells in rows:
            _read_line(line, cells, columns, reading)
            if len(reading.faults) >= MOST_FAULTS:
                break
        if not reading.signers and not reading.faults:
            reading.fault(0, "", "no line follows the one that names the columns")
    return reading.ended()


def _rows(text: str, reading: _Reading) -> Iterator[tuple[int, list[str]]]:
    """Yields each line's number and cells; lines without any content are left out, as spreadsheets leave them."""
    head = text.lstrip("\r\n ").split("\n", 1)[0]
    separator = ";" if ";" in head and "," not in head else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error:
            reading.fault(line, "", "its quotation marks are not closed, or text follows a closing one")
            return
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, cells
        line = reader.line_num + 1


def _columns(cells: list[str], line: int, reading: _Reading) -> list[str] | None:
    """Returns the names of the columns; None, with faults, when they are not a list of signers'."""
    columns: list[str] = []
    for cell in cells:
        given = unicodedata.normalize("NFC", cell).strip()
        column = _ALIASES.get(given.casefold(), given.casefold())
        if column not in COLUMNS:
            known = ", ".join(COLUMNS)
            reading.fault(line, "", f"{_quoted(given)} is no column; expected {known}, separated by commas")
        elif column in columns:
            reading.fault(line, column, "the column is there twice")
        columns.append(column)
    for column in _REQUIRED:
        if column not in columns:
            reading.fault(line, column, "the column is missing")
    return None if reading.faults else columns


def _read_line(line: int, cells: list[str], columns: list[str], reading: _Reading) -> None:
    if len(cells) != len(columns):
        reading.fault(line, "", f"it has {len(cells)} cells, the first line {len(columns)}: are there commas in one?")
        return
    faults = len(reading.faults)
    given = {column: unicodedata.normalize("NFC", cell).strip() for column, cell in zip(columns, cells, strict=True)}
    parsed: dict[str, str] = {}
    for column in COLUMNS:
        try:
            parsed[column] = _PARSERS[column](given.get(column, ""))
        except InvalidArgument as fault:
            reading.fault(line, column, fault.message.removeprefix(f"{fault.field}: "))
    if len(reading.faults) > faults:
        return
    signer = ListedSigner(
        line=line,
        id=parsed["id"],
        display_name=parsed["name"],
        organization=parsed["organization"],
        kind=SignerKind(parsed["kind"]),
        position=parsed["position"],
        email=parsed["email"],
        phone=parsed["phone"],
    )
    first = reading.lines_of_ids.setdefault(signer.id, line)
    if first != line:
        reading.fault(line, "id", f"line {first} has the same id")
        return
    first = reading.lines_of_persons.setdefault(_person(signer), line)
    if first != line:
        reading.fault(line, "name", f"line {first} says the same but for the id: one person twice?")
        return
    reading.signers.append(signer)


def _person(signer: ListedSigner) -> tuple[object, ...]:
    return (
        signer.display_name.casefold(),
        signer.organization,
        signer.kind,
        signer.position.casefold(),
        signer.email,
        signer.phone,
    )


def _parse_organization(value: str) -> str:
    return f"organizations/{parse_id(value.removeprefix('organizations/'), field='organization')}"


def _parse_kind(value: str) -> str:
    kind = _KINDS.get(value.casefold())
    if kind is None:
        raise InvalidArgument("kind", f"expected person or agency, not {_quoted(value)}")
    return kind


def _parse_words(column: str, value: str) -> str:
    _refuse_formula(column, value)
    title = parse_title(value, field=column, required=column == "name")
    if _OTHER_FONT.search(title) is not None:
        raise InvalidArgument(column, "it seems to be in the encoding of a TCVN3 or VNI font: convert it to Unicode")
    return title


def _parse_email(value: str) -> str:
    _refuse_formula("email", value)
    return parse_contact(AuthenticatorKind.EMAIL, value, field="email")


def _refuse_formula(column: str, value: str) -> None:
    if _FORMULA.match(value) is not None:
        raise InvalidArgument(column, f"it begins with {value[0]!r}: a spreadsheet that opens such a list runs it")


_PARSERS: Mapping[str, Callable[[str], str]] = {
    "id": lambda value: parse_id(value, field="id"),
    "name": lambda value: _parse_words("name", value),
    "organization": _parse_organization,
    "kind": _parse_kind,
    "position": lambda value: _parse_words("position", value),
    "email": _parse_email,
    "phone": lambda value: parse_contact(AuthenticatorKind.SMS, value, field="phone"),
}


def _quoted(text: str) -> str:
    """Returns a cell's text inside a message: short, and without what does not print."""
    shown = "".join(character if character.isprintable() else "�" for character in text)
    return f'"{shown if len(shown) <= 30 else shown[:29] + "…"}"'
