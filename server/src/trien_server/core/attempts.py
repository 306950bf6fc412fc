"""How often a wrong one-time password may be tried (NIST SP 800-63B-4, section 3.2.2; PSD2 RTS, article 4).

Failures count per signer over all authenticators and clients. Three in a row from one client shut
that client out from this signer; what it fails with after that is its own matter and does not count towards the
signer's lock, so that a broken application does not lock people out of the others. All failures since the last right
one count towards the hundred after which two operators have to act: one alone ends locks, and this count goes on.
"""

from datetime import datetime, timedelta

from trien_server.core.errors import SignerLocked
from trien_server.core.records import ClientAttempts, SignerAttempts

CLIENT_LIMIT = 3
CLIENT_BLOCK = timedelta(minutes=15)
CLIENT_BLOCK_LONGEST = timedelta(days=1)
SIGNER_LIMIT = 5
SIGNER_LOCK = timedelta(seconds=30)
SIGNER_LOCK_LONGEST = timedelta(hours=1)
OPERATOR_LIMIT = 100


def client_attempts_name(signer: str, client: str) -> str:
    """Returns the name of the record that counts a client's failures for a signer."""
    return f"{signer}/{client}"


def assert_open(signer: SignerAttempts, client: ClientAttempts, *, at: datetime) -> None:
    """Raises `SignerLocked` while no password may be evaluated."""
    if signer.failures >= OPERATOR_LIMIT:
        raise SignerLocked(None)
    ends = [end for end in (signer.locked_until, client.blocked_until) if end is not None and end > at]
    if ends:
        raise SignerLocked(max(ends) - at)


def after_failure(
    signer: SignerAttempts, client: ClientAttempts, *, at: datetime
) -> tuple[SignerAttempts, ClientAttempts, int]:
    """Returns both counts after one more wrong password, and how many tries this client has left."""
    failures, lock_failures, locked_until = signer.failures + 1, signer.lock_failures, signer.locked_until
    if client.blocks == 0:
        lock_failures += 1
        if lock_failures >= SIGNER_LIMIT:
            locked_until = at + _doubled(SIGNER_LOCK, lock_failures - SIGNER_LIMIT, SIGNER_LOCK_LONGEST)
    client_failures, blocks, blocked_until = client.failures + 1, client.blocks, None
    if client_failures >= CLIENT_LIMIT:
        blocked_until = at + _doubled(CLIENT_BLOCK, blocks, CLIENT_BLOCK_LONGEST)
        client_failures, blocks = 0, blocks + 1
    left_of_signer = max(SIGNER_LIMIT - lock_failures, 0) if blocks == 0 else CLIENT_LIMIT
    remaining = 0 if blocked_until else min(CLIENT_LIMIT - client_failures, left_of_signer)
    return (
        SignerAttempts(
            name=signer.name,
            version=signer.version + 1,
            failures=failures,
            lock_failures=lock_failures,
            locked_until=locked_until,
        ),
        ClientAttempts(
            name=client.name,
            version=client.version + 1,
            failures=client_failures,
            blocks=blocks,
            blocked_until=blocked_until,
        ),
        remaining,
    )


def after_success(signer: SignerAttempts, client: ClientAttempts) -> tuple[SignerAttempts, ClientAttempts]:
    """Returns both counts after a right password: they begin anew."""
    return (
        SignerAttempts(name=signer.name, version=signer.version + 1, failures=0),
        ClientAttempts(name=client.name, version=client.version + 1, failures=0, blocks=0),
    )


def _doubled(base: timedelta, times: int, longest: timedelta) -> timedelta:
    factor: int = 2 ** min(times, 32)
    return min(base * factor, longest)
