"""Counts the codes that are sent, in the transaction that makes the challenge of each."""

from trien_server.core.delivery_limits import (
    MOST_BY_CLIENT,
    MOST_TO_SIGNER,
    MOST_TO_SIGNER_BY_CLIENT,
    SHORTEST_PAUSE,
    after_delivery,
    assert_pause,
    delivery_count_name,
)
from trien_server.core.records import DeliveryCount
from trien_server.services.transactions import Ledger


def count_delivery(ledger: Ledger, *, signer: str, client: str) -> None:
    """Counts one more code to the signer by the client.

    Raises `DeliveryLimitReached`, before anything is written; `NameTaken` or `VersionConflict` when another code
    was counted meanwhile.
    """
    at = ledger.at
    # A moment after midnight the last code is in yesterday's count.
    for name in {delivery_count_name(day, signer=signer) for day in (at - SHORTEST_PAUSE, at)}:
        assert_pause(ledger.get(DeliveryCount, name), at=at)
    counted = [
        after_delivery(ledger.get(DeliveryCount, name), name=name, most=most, at=at)
        for name, most in (
            (delivery_count_name(at, signer=signer), MOST_TO_SIGNER),
            (delivery_count_name(at, signer=signer, client=client), MOST_TO_SIGNER_BY_CLIENT),
            (delivery_count_name(at, client=client), MOST_BY_CLIENT),
        )
    ]
    for count in counted:
        ledger.put_or_keep(count)
