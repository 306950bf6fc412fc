"""One running copy of the sandbox for the tests that do it no harm."""

from collections.abc import Iterator

import pytest
from tests.support.administration import Administrator, Connection, e_office
from tests.support.sandbox import Installation, running_sandbox


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A server that tests share: none of them stops it or damages its files."""
    with running_sandbox(tmp_path_factory.mktemp("shared") / "installation") as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="session")
def administrator(installation: Installation) -> Iterator[Administrator]:
    with Administrator(installation) as connected:
        yield connected


@pytest.fixture(scope="session")
def client(installation: Installation) -> Iterator[Connection]:
    with e_office(installation) as connected:
        yield connected


@pytest.fixture
def nothing_unforeseen_is_logged(installation: Installation) -> Iterator[None]:
    """No request of such a test may fail by a defect of the server."""
    before = installation.log_path.stat().st_size
    yield
    written = installation.log_path.read_bytes()[before:].decode()
    assert "Traceback" not in written
    assert '"fault"' not in written
    assert '"INTERNAL"' not in written
