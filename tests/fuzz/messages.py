"""Hypothesis strategies for any message, made from its descriptor: a new rpc is fuzzed without a line here."""

import importlib
import pkgutil
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trien.v1
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

_DEEPEST = 4
_SELDOM = {
    "items_crc32c",
    "pss_salt_length",
    "lifetime",
    "start_time",
    "end_time",
    "timeout",
    "page_token",
    "challenge",
}
"""Fields that a right request does without, and whose random values nearly always end it."""
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_TEXTS = [
    "",
    "\0",
    "a\0b",
    " ",
    "\n",
    "../../../etc/passwd",
    "%00",
    "%s%n",
    "' OR '1'='1",
    "hồ-sơ",
    "１２３４５６",
    "\u202e",
    "\ufeff",
    "İ",
    "\U0010ffff",
    "a" * 64,
    "x" * 201,
    "ẹ̀" * 300,
    "credentials/" + "a" * 5_000,
    "123456",
    "00000000",
    "!",
    "AA==",
    "_w==",
    "AGE=",
]


def methods() -> list[MethodDescriptor]:
    """Returns every rpc of trien.v1."""
    modules = [
        importlib.import_module(f"trien.v1.{found.name}")
        for found in pkgutil.iter_modules(trien.v1.__path__)
        if found.name.endswith("_pb2")
    ]
    return [
        method
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


class Known:
    """Values that mean something to the server, by the field's name, so that a request gets behind the first checks."""

    def __init__(self, values: Mapping[str, Sequence[Any]]) -> None:
        self._values = values
        texts = [value for found in values.values() for value in found if isinstance(value, str)]
        blobs = [value for found in values.values() for value in found if isinstance(value, bytes)]
        self._any_text = st.one_of(st.sampled_from(texts), st.sampled_from(_TEXTS), st.text(max_size=30))
        sizes = st.sampled_from([b"", bytes(31), bytes(33), bytes(20_000)])
        self._any_blob = st.one_of(st.sampled_from(blobs), st.binary(max_size=80), sizes)

    def anything(self, field: FieldDescriptor) -> st.SearchStrategy[Any]:
        """Returns values for a text or bytes field: anything."""
        return st.one_of(self._any_blob if field.type == FieldDescriptor.TYPE_BYTES else self._any_text)

    def fitting(self, field: FieldDescriptor, method: str) -> st.SearchStrategy[Any]:
        """Returns values that a text or bytes field of a method's request may well have; None when none is known."""
        exact = [*self._values.get(f"{method}.{field.name}", ()), *self._values.get(field.name, ())]
        alike = [
            value
            for key, found in self._values.items()
            if key[0] == "*" and field.name.endswith(key[1:])
            for value in found
        ]
        found = exact or alike
        return st.sampled_from(found) if found else st.none()


def messages(
    descriptor: Descriptor, known: Known, method: str, *, wild: bool, depth: int = 0
) -> st.SearchStrategy[Message]:
    """Returns messages of a type: `wild` with any value that a field can have, else with values that may be right."""
    chosen: dict[str, st.SearchStrategy[Any]] = {}
    for field in descriptor.fields:
        if field.message_type is not None and depth >= _DEEPEST:
            continue
        if wild:
            chosen[field.name] = _mostly(_values(field, known, method, depth, wild=True))
        elif field.name not in _SELDOM:
            chosen[field.name] = _values(field, known, method, depth, wild=False)
    fields = st.fixed_dictionaries(chosen)
    alternatives = [oneof for oneof in descriptor.oneofs if len(oneof.fields) > 1]
    picks = st.tuples(*(st.sampled_from([field.name for field in oneof.fields]) for oneof in alternatives))
    return st.tuples(fields, picks).map(
        lambda drawn: _build(
            descriptor,
            {
                name: value
                for name, value in drawn[0].items()
                if not any(
                    name in [field.name for field in oneof.fields] and name != pick
                    for oneof, pick in zip(alternatives, drawn[1], strict=True)
                )
            },
        )
    )


def _mostly(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Present more often than not: a request without its names is refused at once."""
    return st.integers(0, 11).flatmap(lambda number: st.none() if number == 11 else values)


def requests(method: MethodDescriptor, known: Known) -> st.SearchStrategy[bytes]:
    """Returns serialized requests of an rpc, some with fields that nobody knows."""
    unknown = st.one_of(
        st.just(b""),
        st.just(b""),
        st.binary(max_size=30).map(lambda content: b"\xc2\x3e" + bytes([len(content)]) + content),  # field 1000
        st.just(b"\xfa\xff\xff\xff\x0f\x00"),  # the highest field number
        st.just(b"\xc0\x3e\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    )
    return st.tuples(_nearly_right(method, known), unknown).map(
        lambda pair: pair[0].SerializePartialToString() + pair[1]
    )


def _nearly_right(method: MethodDescriptor, known: Known) -> st.SearchStrategy[Message]:
    """Returns requests that are right but for a few fields, at any depth: what is refused at once hides the rest."""
    right = messages(method.input_type, known, method.name, wild=False)
    wild = messages(method.input_type, known, method.name, wild=True)
    mixed = st.tuples(right, wild, st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.1, 0.3]))
    return mixed.map(lambda drawn: _mix(drawn[0], drawn[1], random.Random(drawn[2]), drawn[3]))


def _mix(right: Any, wild: Any, dice: random.Random, share: float) -> Any:
    for field in right.DESCRIPTOR.fields:
        if dice.random() >= share:
            if field.message_type is not None and not field.is_repeated and right.HasField(field.name):
                _mix(getattr(right, field.name), getattr(wild, field.name), dice, share)
            continue
        right.ClearField(field.name)
        if field.is_repeated:
            getattr(right, field.name).extend(getattr(wild, field.name))
        elif field.message_type is not None:
            if wild.HasField(field.name):
                getattr(right, field.name).CopyFrom(getattr(wild, field.name))
        else:
            setattr(right, field.name, getattr(wild, field.name))
    return right


def damaged(valid: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Returns serialized messages that were cut off, changed, or had something put in between."""
    return st.tuples(valid, st.lists(st.tuples(st.sampled_from(_DAMAGES), st.integers(0, 2**20)), max_size=4)).map(
        lambda pair: _damage(*pair)
    )


def _values(field: FieldDescriptor, known: Known, method: str, depth: int, *, wild: bool) -> st.SearchStrategy[Any]:
    one = _value(field, known, method, depth, wild=wild)
    if not field.is_repeated:
        return one
    if not wild:
        return st.lists(one, min_size=1, max_size=2).map(lambda found: [value for value in found if value is not None])
    many = st.tuples(one, st.sampled_from([101, 1_001, 3_000])).map(lambda pair: [pair[0]] * pair[1])
    few = st.one_of(st.lists(one, min_size=1, max_size=3), st.lists(one, min_size=1, max_size=1))
    return st.integers(0, 19).flatmap(lambda number: many if number == 19 else st.just([]) if number == 18 else few)


def _value(field: FieldDescriptor, known: Known, method: str, depth: int, *, wild: bool) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, known, method, wild=wild, depth=depth + 1)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return known.anything(field) if wild else known.fitting(field, method)
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_ENUM:
            numbers = st.sampled_from([value.number for value in field.enum_type.values])
            if not wild:
                return st.sampled_from([value.number for value in field.enum_type.values if value.number])
            return st.one_of(numbers, st.sampled_from([-1, 99, 2**31 - 1, -(2**31)]))
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return st.floats(width=32)
    if not wild:
        return st.sampled_from([0, 6])
    least, most = _INTEGERS[field.cpp_type]
    edges = [edge for edge in (least, -1, 0, 1, 6, 8, 60, 600, 10**9, 253_402_300_800, most) if least <= edge <= most]
    return st.one_of(*[st.sampled_from([0, 6, 8])] * 3, st.sampled_from(edges), st.integers(least, most))


def _build(descriptor: Descriptor, chosen: dict[str, Any]) -> Message:
    message: Any = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        value = chosen.get(field.name)
        if value is None:
            continue
        if field.is_repeated:
            getattr(message, field.name).extend(value)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)
    return message  # type: ignore[no-any-return]


_DAMAGES: list[Callable[[bytes, int], bytes]] = [
    lambda content, at: content[:at],
    lambda content, at: content[at:],
    lambda content, at: content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :] if content else b"\xff",
    lambda content, at: content[:at] + b"\xff\xfe\xfd" + content[at:],
    lambda content, at: content[:at] + b"\xff" * 10 + content[at:],
    lambda content, at: content[:at] + b"\x0a\xff\xff\xff\xff\x0f" + content[at:],
    lambda content, at: content[:at] + b"\x0b" * 200 + content[at:],
    lambda content, at: content + content,
    lambda content, at: content[:at] + b"\xed\xa0\x80" + content[at + 3 :],  # a surrogate, which UTF-8 has not
    lambda content, at: b"\x0a\x80\x02" * 120 + content,
]


def _damage(content: bytes, damages: list[tuple[Callable[[bytes, int], bytes], int]]) -> bytes:
    for damage, number in damages:
        content = damage(content, number % max(len(content), 1))
    return content
