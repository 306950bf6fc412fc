"""QR codes of questions, for screens and terminals.

An application shows the QR code of `challenge.ocra_question.uri` beside `challenge.fingerprint`: the person compares
the fingerprint with the one that the authenticator shows, and types the code that it answers.
"""

import io

import segno

_BLOCKS = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
"""By which modules are dark, the upper and the lower: what is drawn is the light, and the ground is dark."""


def svg(text: str, *, scale: int = 4) -> str:
    """Returns an SVG element for a web page, `scale` pixels a module, with the quiet zone around it."""
    # Black on white also where the page is dark: many readers know no other.
    return _made(text).svg_inline(scale=scale, light="white", omitsize=False)


def png(text: str, *, scale: int = 4) -> bytes:
    """Returns a PNG file's bytes, `scale` pixels a module, with the quiet zone around it."""
    buffer = io.BytesIO()
    _made(text).save(buffer, kind="png", scale=scale)
    return buffer.getvalue()


def terminal(text: str) -> str:
    """Returns half-block characters with colours, dark on light whatever the terminal's own colours are."""
    rows = [[*row] for row in _made(text).matrix_iter(border=2)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        blocks = (_BLOCKS[bool(up), bool(down)] for up, down in zip(upper, lower, strict=True))
        lines.append(f"\x1b[97;40m{''.join(blocks)}\x1b[0m")
    return "\n".join(lines)


def _made(text: str) -> segno.QRCode:
    return segno.make_qr(text, error="m", boost_error=False)
