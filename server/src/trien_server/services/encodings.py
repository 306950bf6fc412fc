"""Tells UTF-8 from what older programs write, and says which it may be."""

import re

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_LEGACY = (
    (
        "TCVN3 (ABC)",
        re.compile(rb"[\xa8-\xae\xb5-\xb9]|(?i:[b-df-hj-np-tv-xz])[\xb5-\xcb\xce-\xd1\xd4-\xe1\xe6-\xe9\xeb\xed-\xef]"),
    ),
    ("VNI", re.compile(rb"(?i:[aeiouy])[\xf8\xf9\xfb\xef]|(?i:[aeo])[\xe2\xe3\xe5\xe4\xe1\xe0]")),
    (
        "Windows-1258",
        re.compile(rb"[aeiouyAEIOUY\xc2\xca\xd4\xd5\xdd\xc3\xe2\xea\xf4\xf5\xfd\xe3][\xcc\xec\xde\xd2\xf2]"),
    ),
)
"""Byte patterns that Vietnamese text has in encodings of one byte a letter."""
_LEAST_ZEROS = 4


def decode_utf8(content: bytes) -> str | tuple[int, str]:
    """Returns a text that is UTF-8, without its byte order mark; or the line that shows that it is not, and why."""
    if content.startswith(_UTF16_MARKS) or content[:200].count(b"\0") >= _LEAST_ZEROS:
        return 0, 'it is UTF-16, not UTF-8: save it as "CSV UTF-8"'
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        return line, f'it is not UTF-8{_guess(content)}: save it as "CSV UTF-8"'


def _guess(content: bytes) -> str:
    found = {name: len(pattern.findall(content)) for name, pattern in _LEGACY}
    name = max(found, key=lambda name: found[name])
    return f", but seems to be {name}" if found[name] else ""
