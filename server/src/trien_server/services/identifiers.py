"""Random names."""

import base64

from trien_server.core.ports import Randomness


def new_id(randomness: Randomness) -> str:
    """Returns a resource id nobody can guess: 160 random bits in base32, lower case, 32 characters."""
    return base64.b32encode(randomness.bytes(20)).decode().lower()
