"""Other people's words inside a text of ours: quoted so that they can pass for nothing but a quotation.

A client chooses its titles, and the person reads them beside a code, in a program that makes links of what looks like
one. So only what a title needs is kept: letters that are written from left to right, digits, a few marks of
punctuation. All else becomes a space.
"""

import re
import unicodedata

_PUNCTUATION = frozenset(" ,-/()&+';!?%–—.:…")
_JOINING = r" .…,'+–—-"
"""What may stand between the digits of a code as people write it: `123 456`, `123-456`."""
_LONG_NUMBER = re.compile(rf"[0-9](?:[{_JOINING}]*[0-9]){{3,}}")
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")
_BEFORE_A_WORD = re.compile(r"([.:…])(?=[^ ])")
INVISIBLE = frozenset(
    chr(code)
    for first, last in (
        (0x034F, 0x034F),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180D),
        (0x180F, 0x180F),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFFA0, 0xFFA0),
        (0xE0100, 0xE01EF),
    )
    for code in range(first, last + 1)
)
"""Letters and marks that show nothing (Default_Ignorable_Code_Point of Unicode)."""
_MOST_MARKS = 2
_CUT = "…"


def length(text: str) -> int:
    """Returns a text's length in UTF-16 code units, which is what a short message counts in (3GPP TS 23.038, UCS2)."""
    return len(text.encode("utf-16-le")) // 2


def quotable(words: str, *, longest: int) -> str:
    """Returns what of `words` can be quoted, on one line of at most `longest` UTF-16 code units; "" when nothing.

    Nothing in it is made a link: a space follows each dot and colon, and there is no at sign and no double slash. A
    number of four digits or more, with or without something between them, becomes an ellipsis, for it could pass for a
    code; a year from 1900 to 2099 stays. No double quotation mark, control, format or bidirectional character is in
    it, and it is in Unicode's normal form C.
    """
    kept = _kept(unicodedata.normalize("NFKC", words))
    for run, one in (("'+", "'"), ("/+", "/"), (r"\.{2,}", _CUT)):
        kept = re.sub(run, one, kept)
    kept = _LONG_NUMBER.sub(_masked, kept)
    kept = _BEFORE_A_WORD.sub(r"\1 ", kept)
    return _shortened(unicodedata.normalize("NFC", " ".join(kept.split())), longest)


def _kept(words: str) -> str:
    kept: list[str] = []
    marks = _MOST_MARKS
    for character in words:
        category = unicodedata.category(character)
        if character in INVISIBLE:
            continue
        if category in {"Mn", "Mc"}:
            if marks < _MOST_MARKS:
                kept.append(character)
            marks += 1
            continue
        marks = _MOST_MARKS
        if category == "Nd":
            kept.append(str(unicodedata.decimal(character)))
        elif category in {"Lu", "Ll", "Lt", "Lo"} and unicodedata.bidirectional(character) == "L":
            kept.append(character)
            marks = 0
        else:
            kept.append(character if character in _PUNCTUATION else " ")
    return "".join(kept)


def _masked(number: re.Match[str]) -> str:
    return number[0] if _YEAR.fullmatch(number[0]) else _CUT


def _shortened(text: str, longest: int) -> str:
    if length(text) <= longest:
        return text if any(character.isalnum() for character in text) else ""
    cut = len(text)
    while cut and length(text[:cut]) + length(_CUT) > longest:
        cut -= 1
    while cut and unicodedata.category(text[cut]).startswith("M"):
        cut -= 1  # a letter keeps its marks, or goes
    return text[:cut].rstrip(" ,-/(&+';.:…–—") + _CUT
