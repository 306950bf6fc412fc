"""The system's random source, behind `core.ports.Randomness`."""

import os


class SystemRandomness:
    """Hands out bytes of the operating system's generator."""

    def bytes(self, size: int) -> bytes:
        return os.urandom(size)
