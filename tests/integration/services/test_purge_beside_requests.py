"""A purge of many rows goes on beside requests, in small transactions, on a real database."""

import statistics
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.world import CHAIR, OFFICE, P256, World, digests, new_request_id

from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.records import (
    Approval,
    Assurance,
    Authorization,
    AuthorizationState,
    GrantedRequest,
    ItemKind,
    Record,
    SignatureUse,
)
from trien_server.core.retention import DEFAULT_DAYS
from trien_server.core.signature_uses import use_name
from trien_server.services.integrity_rules import SIGN
from trien_server.store.schema import migrate
from trien_server.store.urls import open_store

LATER = "credentials/later"


def old_rows(world: World, number: int, audit_entry: str) -> list[Record]:
    """Returns what one signature leaves."""
    at, (digest,) = world.clock.now(), digests(1, of=str(number))
    authorization, approval = f"{P256}/authorizations/old-{number}", f"approvals/old-{number}"
    given: dict[str, Any] = {"client": OFFICE.name, "create_time": at}
    return [
        Approval(
            name=approval,
            signer=CHAIR,
            authenticator=f"{CHAIR}/authenticators/phone",
            accepted_value=0,
            assurance=Assurance.CLIENT_COLLECTED_OTP,
            authorizations=(authorization,),
            **given,
        ),
        Authorization(
            name=authorization,
            credential=P256,
            key="keys/chair-p256",
            approver=CHAIR,
            algorithm=SignatureAlgorithm.ECDSA_P256_SHA256,
            pss_salt_length=None,
            item_kind=ItemKind.DIGEST,
            digests=(digest,),
            used=b"\x01",
            signed_digests=(digest,),
            state=AuthorizationState.USED,
            approval=approval,
            expire_time=at + timedelta(minutes=10),
            **given,
        ),
        GrantedRequest(
            name=f"{OFFICE.name}/requests/old-{number}",
            method=SIGN,
            content_hash=bytes(32),
            subject=authorization,
            audit_entry=audit_entry,
            positions=("0",),
            lease_holder="",
            lease_expire_time=at,
            completed=False,
            **given,
        ),
        SignatureUse(
            name=use_name(CHAIR, at=at, identifier=str(number)),
            signer=CHAIR,
            credential=P256,
            client=OFFICE.name,
            approver=CHAIR,
            audit_entry=audit_entry,
            items=1,
            fingerprint="0" * 16,
            time=at,
        ),
    ]


def timed(world: World, stop: Callable[[], bool], *, most: int) -> list[float]:
    """Signs one request after the other, and returns how long each took."""
    took = []
    while len(took) < most and not stop():
        world.next_step()
        begun = time.perf_counter()
        world.sign(digests(1, of=new_request_id()), credential=LATER)
        took.append(time.perf_counter() - begun)
    return took


@pytest.mark.slow
@pytest.mark.promise("P8")
def test_requests_are_not_starved_while_many_rows_are_removed(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    url = f"sqlite:///{tmp_path / 'trien.db'}"
    migrate(url)
    world = World(store=open_store(url, on_fatal=lambda reason: pytest.fail(reason)))
    world.store.now = world.clock.now
    world.populate()
    entry = world.sign(digests(1)).audit_entry
    signatures = 5_000
    for begin in range(0, signatures, 250):
        rows = [row for number in range(begin, begin + 250) for row in old_rows(world, number, entry)]
        world.use.transactions.run(lambda ledger, rows=rows: [ledger.insert(row) for row in rows], timeout=60.0)  # type: ignore[misc]
    world.clock.advance(timedelta(days=DEFAULT_DAYS + 2))
    world.add_credential(LATER, world.key(P256).key_type, CHAIR, CHAIR)
    alone = timed(world, lambda: False, most=60)

    purging = world.new_process().request_purging
    removed: list[int] = []
    thread = threading.Thread(target=lambda: removed.append(purging.purge()))
    begun = time.perf_counter()
    thread.start()
    beside = timed(world, lambda: not thread.is_alive(), most=100_000)
    thread.join(300)
    seconds = time.perf_counter() - begun
    world.store.close()

    before, during = statistics.median(alone), statistics.median(beside)
    rate = f"{removed[0] / seconds:.0f} rows a second"
    record_property(
        "count",
        f"rows removed {removed[0]} ({rate}) beside {len(beside)} requests; median of a request {before * 1000:.1f} ms"
        f" alone, {during * 1000:.1f} ms beside it, longest {max(beside) * 1000:.0f} ms",
    )
    assert removed[0] >= 4 * signatures
    assert len(beside) > 50
    assert during < 5 * before + 0.05
