"""A strict reader of DER (ITU-T X.690, clauses 8, 10 and 11).

It accepts one encoding of a value and refuses every other: what was checked must be what is signed.
"""

from dataclasses import dataclass

BOOLEAN, INTEGER, OCTET_STRING, NULL, OBJECT_IDENTIFIER = 0x01, 0x02, 0x04, 0x05, 0x06
SEQUENCE, SET = 0x30, 0x31

_DEEPEST = 16
_CONSTRUCTED = 0x20
_UNIVERSAL_CONSTRUCTED_ONLY = {0x10, 0x11}


class NotDer(ValueError):  # noqa: N818
    """The bytes are not DER; the message says where and why."""


@dataclass(frozen=True)
class Element:
    """A value: its identifier octet, its contents, and the whole of its encoding."""

    tag: int
    content: bytes
    encoded: bytes

    def children(self) -> "list[Element]":
        """Returns the values that a constructed value is made of."""
        return _read_all(self.content)


class Budget:
    """How many values may be read. Reading costs about 1.5 µs a value, whoever sent them."""

    def __init__(self, values: int) -> None:
        self._left = values

    def spend(self) -> None:
        """Takes one. Raises `NotDer` when none is left."""
        self._left -= 1
        if self._left < 0:
            raise NotDer("too many values")


def parse(data: bytes, budget: Budget | None = None) -> Element:
    """Returns the one value that `data` encodes, checked to its depth; `budget` bounds how many values that are.

    Raises `NotDer`: lengths that are indefinite or longer than needed, tags in the long form, bytes
    behind the end, unsorted sets, or a primitive value in a form that DER does not know.
    """
    element, end = _read(data, 0)
    if end != len(data):
        raise NotDer(f"{len(data) - end} bytes behind the end")
    _check(element, 0, budget or Budget(len(data)))
    return element


def encode(tag: int, *contents: bytes) -> bytes:
    """Returns the encoding of one value with that identifier octet (X.690, clauses 8.1 and 10.1)."""
    content = b"".join(contents)
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _read_all(data: bytes) -> list[Element]:
    elements, offset = [], 0
    while offset < len(data):
        element, offset = _read(data, offset)
        elements.append(element)
    return elements


def _read(data: bytes, offset: int) -> tuple[Element, int]:
    if offset + 2 > len(data):
        raise NotDer(f"cut off at byte {offset}")
    tag, length, start = data[offset], data[offset + 1], offset + 2
    if tag & 0x1F == 0x1F:
        raise NotDer(f"a tag in the long form at byte {offset}")
    if length & 0x80:
        count = length & 0x7F
        octets = data[start : start + count]
        if not 1 <= count <= 4 or len(octets) != count:
            raise NotDer(f"an indefinite or cut off length at byte {offset}")
        length, start = int.from_bytes(octets, "big"), start + count
        if length < 0x80 or octets[0] == 0:
            raise NotDer(f"a length that is not minimal at byte {offset}")
    end = start + length
    if end > len(data):
        raise NotDer(f"cut off inside the value at byte {offset}")
    return Element(tag, data[start:end], data[offset:end]), end


def _check(element: Element, depth: int, budget: Budget) -> None:
    budget.spend()
    if depth > _DEEPEST:
        raise NotDer("nested too deep")
    number, constructed = element.tag & 0x1F, bool(element.tag & _CONSTRUCTED)
    if element.tag & 0xC0 == 0:
        if number == 0:
            raise NotDer("the reserved tag 0")
        if constructed != (number in _UNIVERSAL_CONSTRUCTED_ONLY):
            raise NotDer(f"tag {number} in the wrong form")
        if not constructed:
            _check_primitive(number, element.content)
    if constructed:
        children = element.children()
        for child in children:
            _check(child, depth + 1, budget)
        if element.tag == SET:
            encodings = [child.encoded for child in children]
            if encodings != sorted(encodings):
                raise NotDer("a set that is not sorted")


def _check_primitive(number: int, content: bytes) -> None:
    match number:
        case 0x01 if content not in (b"\x00", b"\xff"):
            raise NotDer("a boolean that is neither 00 nor FF")
        case 0x02 | 0x0A if not content or (
            len(content) > 1 and (content[0], content[1] >> 7) in ((0x00, 0), (0xFF, 1))
        ):
            raise NotDer("an integer that is not minimal")
        case 0x05 if content:
            raise NotDer("a null with contents")
        case 0x06 if not _is_object_identifier(content):
            raise NotDer("a malformed object identifier")
        case 0x03 if not _is_bit_string(content):
            raise NotDer("a malformed bit string")


def _is_object_identifier(content: bytes) -> bool:
    starts = [index for index in range(len(content)) if index == 0 or not content[index - 1] & 0x80]
    return bool(content) and not content[-1] & 0x80 and all(content[index] != 0x80 for index in starts)


def _is_bit_string(content: bytes) -> bool:
    if not content or content[0] > 7 or (len(content) == 1 and content[0]):
        return False
    unused = content[0]
    return len(content) == 1 or content[-1] & ((1 << unused) - 1) == 0
