"""What rsyslog, which is not ours, reads of the messages that go over TLS (RFC 5424, RFC 5425)."""

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.test_audit_sink_contract import entries
from tests.support.syslog_receivers import wait_until

from trien_server.audit.syslog import SyslogStream
from trien_server.core.audit_lines import LONGEST_MESSAGE
from trien_server.host.private_ca import PrivateCa

RSYSLOGD = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin:/sbin")
_DRIVER = [
    Path(folder, "rsyslog", "lmnsd_gtls.so") for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")
]

pytestmark = [
    pytest.mark.promise("P10"),
    pytest.mark.skipif(
        RSYSLOGD is None or not any(file.exists() for file in _DRIVER), reason="rsyslog with rsyslog-gnutls is missing"
    ),
]

CONFIGURATION = """
global(workDirectory="{folder}" maxMessageSize="16k" DefaultNetstreamDriver="gtls"
  DefaultNetstreamDriverCAFile="{folder}/ca.pem" DefaultNetstreamDriverCertFile="{folder}/server.pem"
  DefaultNetstreamDriverKeyFile="{folder}/server.key")
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid")
input(type="imtcp" port="{port}" address="127.0.0.1")
template(name="fields" type="list" option.jsonf="on") {{
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="id" name="msgid" format="jsonf")
  property(outname="facility" name="syslogfacility" format="jsonf")
  property(outname="severity" name="syslogseverity" format="jsonf")
  property(outname="version" name="protocol-version" format="jsonf")
  property(outname="data" name="structured-data" format="jsonf")
  property(outname="text" name="msg" format="jsonf")
}}
action(type="omfile" file="{folder}/out" template="fields" asyncWriting="off" flushOnTXEnd="on")
"""


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Runs rsyslogd with TLS; it wants a certificate of the sender."""
    ca = PrivateCa.create("Receivers' CA")
    server, client = ca.issue_server(["localhost"]), ca.issue_client("trien")
    for name, content in (
        ("ca.pem", ca.identity.certificate),
        ("server.pem", server.certificate),
        ("server.key", server.private_key),
        ("client.pem", client.certificate + client.private_key),
    ):
        (tmp_path / name).write_bytes(content)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "rsyslog.conf").write_text(CONFIGURATION.format(folder=tmp_path, port=port))
    assert RSYSLOGD is not None
    command = [RSYSLOGD, "-n", "-f", str(tmp_path / "rsyslog.conf"), "-i", str(tmp_path / "pid")]
    with (tmp_path / "log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_until(lambda: _listens(port) or process.poll() is not None)
            assert process.poll() is None, (tmp_path / "log").read_text()
            yield tmp_path, port
        finally:
            process.terminate()
            process.wait(30)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_rsyslog_reads_every_field_of_every_message(rsyslog: tuple[Path, int], record_property: object) -> None:
    folder, port = rsyslog
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "client.pem")
    sink = SyslogStream(host="localhost", port=port, context=context, hostname="trien1", timeout=30.0)
    sent = entries(300) + entries(1, first=300, size=20_000)
    sink.write(sent)

    def read() -> list[dict[str, str]]:
        if not (folder / "out").exists():
            return []
        return [json.loads(line) for line in (folder / "out").read_text().splitlines() if line.endswith("}")]

    wait_until(lambda: len(read()) >= len(sent))
    sink.close()
    found = read()
    assert len(found) == len(sent) == 301
    for (position, entry), message in zip(sent, found, strict=True):
        assert (message["host"], message["app"], message["id"]) == ("trien1", "trien", "signing_granted")
        assert (message["facility"], message["severity"], message["version"]) == ("13", "6", "1")
        assert f'[trienAudit@32473 position="{position}" name="{entry.name}"' in message["data"]
        text = message["text"].removeprefix("\ufeff")
        assert entry.details.startswith(text)
        assert text == entry.details or len(message["data"]) + len(text.encode()) > LONGEST_MESSAGE - 200
