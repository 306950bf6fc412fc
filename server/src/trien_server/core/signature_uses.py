"""Uses of a signer's credentials, as the signer and auditors see them."""

import hashlib
from collections.abc import Sequence
from datetime import datetime

from trien_server.core.encoding import microseconds

_BEHIND_ALL_TIMES = 10**18
"""Microseconds since 1970, in the year 33658."""


def use_name(signer: str, *, at: datetime, identifier: str) -> str:
    """Returns a use's name. By name, the uses of a signer come newest first."""
    return f"{signer}/uses/{_BEHIND_ALL_TIMES - microseconds(at):018d}-{identifier}"


def list_fingerprint(digests: Sequence[bytes]) -> str:
    """Returns 16 hex digits by which people recognize what was signed; too few to prove anything.

    Of one digest they are its beginning; of several the beginning of SHA-256 over all of them, in their order.
    """
    whole = digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()
    return whole[:8].hex()
