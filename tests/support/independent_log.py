"""Verifies a published log as its specifications say, and with none of this repository's code.

RFC 6962, section 2.1 (the tree), C2SP signed-note, tlog-checkpoint and tlog-tiles, as an auditor would write it who has
only these texts. It computes the tree by its recursive definition, not by tiles.
"""

import base64
import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

Fetch = Callable[[str], bytes | None]
"""Returns what is published under a path, or None when it is not there."""


def from_folder(folder: Path) -> Fetch:
    def fetch(path: str) -> bytes | None:
        file = folder / path
        return file.read_bytes() if file.is_file() else None

    return fetch


def from_web(prefix: str) -> Fetch:
    def fetch(path: str) -> bytes | None:
        try:
            with urllib.request.urlopen(f"{prefix}/{path}", timeout=30) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as refused:
            refused.close()
            if refused.code != 404:
                raise
            return None

    return fetch


@dataclass(frozen=True)
class Found:
    """What was verified."""

    origin: str
    size: int
    root: bytes
    leaves: list[bytes]
    tiles: int


def mth(leaf_hashes: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, by its definition, over hashed leaves."""
    if not leaf_hashes:
        return hashlib.sha256(b"").digest()
    if len(leaf_hashes) == 1:
        return leaf_hashes[0]
    k = 1
    while k * 2 < len(leaf_hashes):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(leaf_hashes[:k]) + mth(leaf_hashes[k:])).digest()


def verify_note(text: str, vkey: str) -> str:
    """Returns the body of a note that the key signed."""
    body, _, signatures = text.rpartition("\n\n")
    body += "\n"
    name, key_id, encoded = vkey.split("+", 2)
    key = base64.b64decode(encoded)
    verified = 0
    for line in signatures.splitlines():
        dash, signer, signature = line.split(" ")
        assert dash == "\u2014"
        content = base64.b64decode(signature)
        if signer != name or content[:4].hex() != key_id:
            continue
        if key[0] == 1:
            assert hashlib.sha256(name.encode() + b"\n" + key).digest()[:4].hex() == key_id
            ed25519.Ed25519PublicKey.from_public_bytes(key[1:]).verify(content[4:], body.encode())
        else:
            assert key[0] == 2
            public = serialization.load_der_public_key(key[1:])
            assert isinstance(public, ec.EllipticCurvePublicKey)
            public.verify(content[4:], body.encode(), ec.ECDSA(hashes.SHA256()))
        verified += 1
    assert verified == 1, f"the note is not signed by {name}"
    return body


def follow(text: str, first: str | None = None) -> str:
    """Returns the present key: from the first one, which is trusted, each signed by the one before."""
    begin, *rest = text.split("\n\ntrien log succession\n")
    key = begin.strip()
    assert first is None or key == first
    for part in rest:
        body = verify_note("trien log succession\n" + part, key)
        _, origin, following = body.splitlines()
        assert origin == key.split("+")[0]
        key = following
    return key


def index_path(index: int) -> str:
    digits = str(index)
    digits = digits.zfill((len(digits) + 2) // 3 * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return "/".join(["x" + group for group in groups[:-1]] + groups[-1:])


def _get(fetch: Fetch, level: str, index: int, width: int) -> bytes:
    """Fetches a tile or bundle; a partial one may have made room for the full one."""
    whole = f"tile/{level}/{index_path(index)}"
    content = fetch(f"{whole}.p/{width}") if width < 256 else None
    if content is None:
        content = fetch(whole)
    assert content is not None, f"{whole} of width {width} is not published"
    return content


def _unpack(bundle: bytes, width: int) -> list[bytes]:
    leaves, at = [], 0
    while len(leaves) < width:
        length = int.from_bytes(bundle[at : at + 2], "big")
        leaves.append(bundle[at + 2 : at + 2 + length])
        assert len(leaves[-1]) == length > 0
        at += 2 + length
    return leaves


def verify(fetch: Fetch, *, first_key: str | None = None) -> Found | None:
    """Verifies all that is published: checkpoint, keys, each leaf, each tile. None when nothing is."""
    note = fetch("checkpoint")
    if note is None:
        return None
    keys = fetch("log-keys")
    assert keys is not None
    body = verify_note(note.decode(), follow(keys.decode(), first_key))
    origin, size_text, root_text = body.splitlines()[:3]
    size, root = int(size_text), base64.b64decode(root_text)

    leaves: list[bytes] = []
    for begin in range(0, size, 256):
        width = min(256, size - begin)
        leaves += _unpack(_get(fetch, "entries", begin // 256, width), width)
    assert len(leaves) == size
    level_hashes = [hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves]
    assert mth(level_hashes) == root

    tiles = level = 0
    while level_hashes:
        for begin in range(0, len(level_hashes), 256):
            wanted = level_hashes[begin : begin + 256]
            found = _get(fetch, str(level), begin // 256, len(wanted))
            assert found[: 32 * len(wanted)] == b"".join(wanted), (level, begin)
            tiles += 1
        full = len(level_hashes) // 256
        level_hashes = [mth(level_hashes[256 * at : 256 * (at + 1)]) for at in range(full)]
        level += 1
    return Found(origin=origin, size=size, root=root, leaves=leaves, tiles=tiles)
