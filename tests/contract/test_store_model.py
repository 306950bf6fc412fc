"""Random sequences of transactions, done by every adapter: all give the same answers."""

import shutil
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contract.store_factories import (  # noqa: F401
    PostgresqlDatabase,
    postgres_fixture,
    sqlite_template_fixture,
)
from tests.contract.store_records import TIME, attempts, client, entry, sealed
from tests.fakes.store import MemoryStore
from tests.support.postgres import PostgresServer

from trien_server.core.ports import NameTaken, Sealed, Store, Transaction, VersionConflict
from trien_server.core.records import AuditEntry, Client, Outcome, SignerAttempts
from trien_server.store.sqlite.store import SqliteStore

names = st.sampled_from(["a", "B", "ä", "a/b", "𝒔", "\uffff"])
versions = st.integers(1, 4)
small = st.integers(0, 3)

steps = st.one_of(
    st.tuples(st.just("insert"), st.builds(attempts, names, small)),
    st.tuples(st.just("insert"), st.builds(client, names, token_hash=st.sampled_from([None, b"t", b"u"]))),
    st.tuples(
        st.just("insert"),
        st.builds(
            entry,
            names,
            subject=st.none() | names,
            subject_version=st.none() | small,
            time=small.map(lambda n: TIME + timedelta(microseconds=n)),
        ),
    ),
    st.tuples(st.just("replace"), st.builds(attempts, names, small, versions)),
    st.tuples(
        st.just("replace"),
        st.builds(
            lambda row, version: sealed(replace(row.record, version=version)),
            st.builds(client, names, token_hash=st.sampled_from([None, b"t", b"u"])),
            versions,
        ),
    ),
    st.tuples(
        st.just("outcome"),
        st.builds(
            Outcome,
            request=names,
            signatures=st.lists(st.binary(max_size=3), max_size=2).map(tuple),
            create_time=st.just(TIME),
        ),
    ),
    st.tuples(st.just("look"), names, small),
    st.tuples(st.just("fail"), st.none()),
)


class Failed(Exception):  # noqa: N818
    pass


def act(transaction: Transaction, step: tuple[Any, ...]) -> Any:
    if step[0] == "look":
        return look(transaction, step[1], step[2])
    if step[0] == "fail":
        raise Failed
    if step[0] == "outcome":
        transaction.record_outcome(step[1])
        return None
    write = transaction.insert if step[0] == "insert" else transaction.replace
    row: Sealed[Any] = step[1]
    try:
        write(row)
    except (NameTaken, VersionConflict) as error:
        return type(error)
    return "written"


def look(view: Any, name: str, number: int) -> list[Any]:
    return [
        view.get(SignerAttempts, name),
        view.find(SignerAttempts, limit=number + 1, after=name),
        view.find(SignerAttempts, limit=9, failures=number),
        view.find(Client, limit=9, token_hash=None),
        view.find(AuditEntry, limit=9, subject=name),
        view.latest_change(name),
        view.latest_time(),
        view.outcome(name),
    ]


def run(store: Store, transactions: list[list[tuple[Any, ...]]]) -> list[Any]:
    answers: list[Any] = []
    for transaction_steps in transactions:
        try:
            answers.append(
                store.transact(lambda t, steps=transaction_steps: [act(t, step) for step in steps], timeout=10)  # type: ignore[misc]
            )
        except Failed:
            answers.append("failed")
        answers.append([store.read(lambda view, name=name: look(view, name, 1)) for name in ("a", "B")])  # type: ignore[misc]
    return answers


def test_the_adapters_cannot_be_told_apart(sqlite_template: Path, postgres: PostgresServer) -> None:
    done = {"examples": 0, "answers": 0}
    database = PostgresqlDatabase(postgres)
    postgresql = database.open()
    empty = "; ".join(f"DELETE FROM {kind.table}" for kind in (SignerAttempts, Client, AuditEntry))

    @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.lists(steps, min_size=1, max_size=8), min_size=1, max_size=6))
    def compare(transactions: list[list[tuple[Any, ...]]]) -> None:
        postgres.admin(f"{empty}; DELETE FROM outcomes; DELETE FROM unsealed_entries", database=database.database)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trien.db"
            shutil.copy(sqlite_template, path)
            sqlite = SqliteStore(path, on_fatal=print)
            try:
                expected, found = run(MemoryStore(), transactions), run(sqlite, transactions)
            finally:
                sqlite.close()
        assert found == expected
        assert run(postgresql, transactions) == expected
        done["examples"] += 1
        done["answers"] += 2 * len(found)

    compare()
    assert postgresql.counts.conflicts == 0
    postgresql.close()
    assert done["examples"] >= 100
    assert done["answers"] >= 4 * done["examples"]
