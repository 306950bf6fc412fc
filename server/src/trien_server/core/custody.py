"""Custody of the installation's keys: the shares of two people, and the file of keys that both together open.

The key-encryption key is the exclusive or of two random components of 256 bits; one of them tells nothing of it. Share
and export are TOML, read strictly: whatever was changed in one is refused with a reason.
"""

import hashlib
import hmac
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from trien_server.core.encoding import encode_all
from trien_server.core.secret import Secret
from trien_server.core.toml_values import toml_value

COMPONENT_SIZE: Final = 32
WRAPPED_SIZE: Final = 40
"""A key of 256 bits in AES-KWP (RFC 5649)."""

_CHECK_VALUE = re.compile(r"[0-9a-f]{32}")
_LABEL = re.compile(r"[a-z][a-z -]{0,60} [1-9][0-9]{0,5}")
_GROUP = 4


class CustodyRefused(Exception):  # noqa: N818
    """A share or an export is not what it has to be; the message says what is wrong, and nothing of a secret."""


def key_check_value(key: Secret) -> str:
    """Returns the check value of a key-encryption key, 32 hexadecimal digits: it tells nothing of the key."""
    return hmac.digest(key.reveal(), encode_all("trien/key-encryption-key", []), "sha256").hex()[:32]


@dataclass(frozen=True, kw_only=True)
class KeyShare:
    """One of the two components of a key-encryption key, and which key it is of."""

    number: int
    custodian: str
    component: Secret
    key_check_value: str

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over all of the share: for a record on paper."""
        content = encode_all(
            "trien/key-share", [self.number, self.custodian, self.key_check_value, self.component.reveal()]
        )
        return hashlib.sha256(content).hexdigest()[:32]


def split(components: Sequence[Secret], custodians: Sequence[str]) -> tuple[KeyShare, KeyShare]:
    """Returns the shares of two random components. Raises `CustodyRefused` when they cannot be two people's."""
    if len(components) != 2 or len(custodians) != 2 or custodians[0] == custodians[1]:
        raise CustodyRefused("a key is held by two custodians, each with one share")
    first, second = components
    if any(len(component.reveal()) != COMPONENT_SIZE for component in components) or first == second:
        raise CustodyRefused(f"a component has {COMPONENT_SIZE} random bytes, and the two are different")
    check = key_check_value(_exclusive_or(first, second))
    made = [
        KeyShare(number=number, custodian=custodian, component=component, key_check_value=check)
        for number, (component, custodian) in enumerate(zip(components, custodians, strict=True), start=1)
    ]
    return made[0], made[1]


def join(shares: Sequence[KeyShare]) -> Secret:
    """Returns the key-encryption key of both shares, in any order.

    Raises `CustodyRefused` unless they are the two shares of one key.
    """
    if len(shares) != 2:
        raise CustodyRefused(f"{len(shares)} share given: it takes both, each from its custodian")
    first, second = shares
    if first.number == second.number:
        raise CustodyRefused(f"both are share {first.number}: it takes share 1 and share 2")
    if first.key_check_value != second.key_check_value:
        raise CustodyRefused(
            f"the shares are of different keys: {first.custodian}'s of {first.key_check_value}, "
            f"{second.custodian}'s of {second.key_check_value}"
        )
    key = _exclusive_or(first.component, second.component)
    if not hmac.compare_digest(key_check_value(key), first.key_check_value):
        raise CustodyRefused("the two components do not make the key that the shares name")
    return key


def _exclusive_or(first: Secret, second: Secret) -> Secret:
    return Secret(bytes(a ^ b for a, b in zip(first.reveal(), second.reveal(), strict=True)))


def write_share(share: KeyShare) -> Secret:
    """Returns a share as the text of its file."""
    digits = share.component.reveal().hex()
    groups = " ".join(digits[place : place + _GROUP] for place in range(0, len(digits), _GROUP))
    lines = [
        f"# Share {share.number} of 2 of a key-encryption key of Trien. Whoever has both shares and the export has the",
        "# installation's keys: keep it apart from the other one, and let nobody copy it.",
        "trien_key_share = 1",
        f"number = {share.number}",
        f"custodian = {toml_value(share.custodian)}",
        f'component = "{groups}"',
        f'key_check_value = "{share.key_check_value}"',
        f'fingerprint = "{share.fingerprint}"',
        "",
    ]
    return Secret("\n".join(lines).encode())


def read_share(content: Secret) -> KeyShare:
    """Returns the share of a file's content. Raises `CustodyRefused`."""
    read = _Fields(content.reveal(), "trien_key_share", "a share of a key")
    component = read.text("component").replace(" ", "")
    if not re.fullmatch(r"[0-9a-f]{64}", component):
        raise CustodyRefused("component: expected 64 hexadecimal digits")
    share = KeyShare(
        number=read.integer("number"),
        custodian=read.text("custodian"),
        component=Secret(bytes.fromhex(component)),
        key_check_value=read.check_value("key_check_value"),
    )
    fingerprint = read.check_value("fingerprint")
    read.end()
    if share.number not in (1, 2):
        raise CustodyRefused("number: expected 1 or 2")
    if not hmac.compare_digest(share.fingerprint, fingerprint):
        raise CustodyRefused("fingerprint: it is not the share's: something in the file was changed or mistyped")
    return share


@dataclass(frozen=True, kw_only=True)
class ExportedKey:
    """A key of the installation, wrapped by the key-encryption key; its check value says which it is."""

    label: str
    check_value: str
    wrapped: bytes
    trusted: bool = False
    """Whether it is a wrapping key with CKA_TRUSTED, which takes the security officer's PIN to be brought back."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """The keys that custodians can bring to another token."""

    time: datetime
    key_check_value: str
    custodians: tuple[tuple[str, str], ...]
    """Name and share's fingerprint of each."""

    keys: tuple[ExportedKey, ...]

    def check_values(self) -> dict[str, str]:
        """Returns the check value of each key by its label."""
        return {key.label: key.check_value for key in self.keys}

    def code(self, key: Secret) -> bytes:
        """Returns the code that the key-encryption key gives everything in it."""
        content = encode_all(
            "trien/exported-keys",
            [
                self.time,
                self.key_check_value,
                self.custodians,
                tuple((one.label, one.check_value, one.wrapped, one.trusted) for one in self.keys),
            ],
        )
        own = hmac.digest(key.reveal(), encode_all("trien/exported-keys-code", []), "sha256")
        return hmac.digest(own, content, "sha256")


def write_export(export: Export, key: Secret) -> str:
    """Returns an export as the text of its file."""
    lines = [
        "# Keys of a Trien installation, wrapped (AES-KWP, RFC 5649) by a key-encryption key whose two shares two",
        "# custodians hold. `trien-server token import-keys` brings them to another token.",
        "trien_exported_keys = 1",
        f'time = "{export.time.isoformat()}"',
        f'key_check_value = "{export.key_check_value}"',
        f'code = "{export.code(key).hex()}"',
    ]
    for name, fingerprint in export.custodians:
        lines += ["", "[[custodian]]", f"name = {toml_value(name)}", f'share = "{fingerprint}"']
    for one in export.keys:
        lines += ["", "[[key]]", f"label = {toml_value(one.label)}", f'check_value = "{one.check_value}"']
        lines += [f"trusted = {toml_value(one.trusted)}", f'wrapped = "{one.wrapped.hex()}"']
    return "\n".join([*lines, ""])


def read_export(content: bytes, key: Secret) -> Export:
    """Returns what a file's content says, of which the key-encryption key says that all of it is as it was written.

    Raises `CustodyRefused`.
    """
    read = _Fields(content, "trien_exported_keys", "an export of keys")
    try:
        time = datetime.fromisoformat(read.text("time"))
        code = bytes.fromhex(read.text("code"))
    except ValueError:
        raise CustodyRefused("time or code: not as it was written") from None
    named = read.check_value("key_check_value")
    if not hmac.compare_digest(named, key_check_value(key)):
        raise CustodyRefused(f"key_check_value: the export is by another key ({named}) than these shares are of")
    custodians = tuple((one.text("name"), one.check_value("share")) for one in read.tables("custodian"))
    keys = tuple(_read_key(one) for one in read.tables("key"))
    read.end()
    if time.tzinfo is None:
        raise CustodyRefused("time: expected one with its zone")
    export = Export(time=time, key_check_value=named, custodians=custodians, keys=keys)
    if not hmac.compare_digest(export.code(key), code):
        raise CustodyRefused("code: something in the file was changed")
    if len(export.check_values()) != len(keys):
        raise CustodyRefused("a key is there twice")
    return export


def _read_key(read: "_Fields") -> ExportedKey:
    wrapped = read.text("wrapped")
    if not re.fullmatch(rf"[0-9a-f]{{{2 * WRAPPED_SIZE}}}", wrapped):
        raise CustodyRefused(f"wrapped: expected {2 * WRAPPED_SIZE} hexadecimal digits")
    label = read.text("label")
    if not _LABEL.fullmatch(label):
        raise CustodyRefused("label: expected one of the installation's keys")
    found = ExportedKey(
        label=label,
        check_value=read.check_value("check_value"),
        wrapped=bytes.fromhex(wrapped),
        trusted=read.boolean("trusted"),
    )
    read.end()
    return found


def write_check_values(values: Mapping[str, str]) -> str:
    """Returns the list of exported keys that a configuration names."""
    lines = [
        "# Which of the installation's keys custodians can bring back, by their check values. On the token such a key",
        "# counts only while it is named here: let nobody but the server's administrator write to this file.",
    ]
    return "\n".join([*lines, *(f'{toml_value(label)} = "{value}"' for label, value in values.items()), ""])


def read_check_values(content: bytes) -> dict[str, str]:
    """Returns check values by label. Raises `CustodyRefused`."""
    found = _toml(content, "a list of exported keys")
    for label, value in found.items():
        if not (_LABEL.fullmatch(label) and isinstance(value, str) and _CHECK_VALUE.fullmatch(value)):
            raise CustodyRefused(f"{label}: expected the label of a key and its check value, 32 hexadecimal digits")
    return found


def _toml(content: bytes, what: str) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        # Without the parser's words: they may quote what stands there.
        raise CustodyRefused(f"not {what}: it cannot be read as TOML") from None


class _Fields:
    """The fields of a table, each taken once; what is left in the end is refused."""

    def __init__(self, content: bytes | dict[str, Any], version: str = "", what: str = "") -> None:
        self._left = _toml(content, what) if isinstance(content, bytes) else dict(content)
        if version and self._left.pop(version, None) != 1:
            raise CustodyRefused(f"not {what} of this version: it begins without {version} = 1")

    def _take(self, name: str, kind: type) -> Any:
        value = self._left.pop(name, None)
        if type(value) is not kind:
            raise CustodyRefused(f"{name}: missing, or of another kind")
        return value

    def text(self, name: str) -> str:
        return str(self._take(name, str))

    def integer(self, name: str) -> int:
        return int(self._take(name, int))

    def boolean(self, name: str) -> bool:
        return bool(self._take(name, bool))

    def check_value(self, name: str) -> str:
        value = self.text(name)
        if not _CHECK_VALUE.fullmatch(value):
            raise CustodyRefused(f"{name}: expected 32 hexadecimal digits")
        return value

    def tables(self, name: str) -> list["_Fields"]:
        found = self._take(name, list)
        if not all(isinstance(one, dict) for one in found):
            raise CustodyRefused(f"{name}: expected tables")
        return [_Fields(one) for one in found]

    def end(self) -> None:
        if self._left:
            raise CustodyRefused(f"{', '.join(sorted(self._left))}: unknown")
