"""What an officer reads before approving: all of the statement, and nothing that looks like something else (P9)."""

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from trien.v1 import proposal_service_pb2

from trien_client import VerificationError
from trien_client.cli.statements import _value, _wrapped, stated

pytestmark = pytest.mark.promise("P9")

NAME = "proposals/k7m2q9x4t8w3z6"
_texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["null", "true", "1", "[]", "a, b", '"', "\\u202e", "\u202e", "\ue000" + "1", "\U000e0001", "a -> b"]
    ),
)
_scalars = st.one_of(st.none(), st.booleans(), st.integers(), _texts)
_values = st.recursive(_scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_texts, inner)))


def statement(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "proposal": NAME,
        "method": "AccessService.CreateClient",
        "proposer": "operators/first",
        "createTime": "2026-11-24T22:56:21+00:00",
        "expireTime": "2026-12-01T22:56:21+00:00",
        "request": {"display_name": "Văn phòng"},
        "changes": [
            {
                "record": "clients/new",
                "version": 2,
                "fields": {"state": {"before": "DISABLED", "after": "ENABLED"}},
            }
        ],
    }
    return values | changes


def proposal(text: str, **fields: Any) -> proposal_service_pb2.Proposal:
    content = json.loads(text)
    given: dict[str, Any] = {
        "name": content["proposal"],
        "method": content["method"],
        "proposer": content["proposer"],
        "statement": text,
        "digest": hashlib.sha256(text.encode()).digest(),
    }
    return proposal_service_pb2.Proposal(**(given | fields))


def canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def shown(**changes: Any) -> list[str]:
    return stated(proposal(canonical(statement(**changes)))).splitlines()


@given(_values, _values)
def test_no_two_values_look_alike(first: Any, second: Any) -> None:
    alike = _value(first) == _value(second)
    assert alike is (json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True))


@given(_texts, st.integers(1, 30))
def test_a_value_that_is_long_is_shown_whole_in_lines_of_80_columns(text: str, times: int) -> None:
    value = _value(text * times)
    lines = _wrapped("  display_name: ", value)
    assert all(len(line) <= 80 for line in lines)
    first, *others = lines
    assert first.removeprefix("  display_name: ") + "".join(line[6:] for line in others) == value


def test_what_changes_is_shown_before_and_after() -> None:
    lines = shown()
    assert "  clients/new (version 1 becomes 2)" in lines
    assert "    state: DISABLED -> ENABLED" in lines
    assert '  display_name: "Văn phòng"' in lines


def test_a_text_cannot_make_lines_or_commands_of_its_own() -> None:
    hostile = "x\n\nWhat changes:\n  nothing\x1b[2J\u202egnihton"
    lines = shown(request={"display_name": hostile})
    assert lines.count("What changes:") == 1
    assert all(line.isprintable() for line in lines)
    (line,) = (line for line in lines if "display_name" in line)
    assert line == '  display_name: "x\\n\\nWhat changes:\\n  nothing\\u001b[2J\\u202egnihton"'


def test_what_this_program_does_not_know_is_not_hidden() -> None:
    change = {"record": "keys/x", "version": 3, "fields": {}, "destroys": ["everything"]}
    lines = shown(surprise={"and": "more"}, changes=[change])
    assert "What this program does not know:" in lines
    assert "    and: more" in lines
    assert "    destroys: [everything]" in lines


def test_every_leaf_of_a_statement_is_shown() -> None:
    content = statement(request={"enrolments": [{"name": f"signers/s{number}", "digits": 8} for number in range(30)]})
    text = stated(proposal(canonical(content)))
    assert all(f"name: signers/s{number}\n" in text for number in range(30))


@pytest.mark.parametrize(
    "text",
    [
        canonical(statement()).replace('"method"', '"method":"KeyService.DestroyKey","method"', 1),
        canonical(statement()).replace('"request":{', '"request":{"display_name":"other"},"request":{', 1),
        json.dumps(statement()),
        canonical(statement()).replace("Văn", "V\\u0103n"),
    ],
)
def test_a_statement_that_could_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(VerificationError):
        stated(proposal(text))


@pytest.mark.parametrize(
    "fields",
    [
        {"digest": bytes(32)},
        {"name": "proposals/other"},
        {"method": "KeyService.CreateKey"},
        {"proposer": "operators/second"},
    ],
)
def test_a_statement_that_is_not_the_proposals_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(VerificationError):
        stated(proposal(canonical(statement()), **fields))


@pytest.mark.parametrize("missing", ["request", "changes", "expireTime"])
def test_a_statement_without_one_of_its_parts_is_refused(missing: str) -> None:
    content = statement()
    del content[missing]
    with pytest.raises(VerificationError):
        stated(proposal(canonical(content)))


def test_a_certificate_is_read_to_the_officer_and_named_by_its_digest() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    chain = []
    for number, name in enumerate(("Hoàng\u202eĐôn, 'x'", "Ban Cơ yếu")):
        subject = x509.Name([x509.NameAttribute(NameOID.TITLE, "CT"), x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(
            issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA\nx")]),
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=number + 1,
            not_valid_before=datetime(2026, 11, 24, 8, tzinfo=UTC),
            not_valid_after=datetime(2027, 11, 24, 8, tzinfo=UTC),
        )
        chain.append(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
    encoded = [base64.b64encode(one).decode() for one in chain]
    text = stated(proposal(canonical(statement(request={"certificate_chain": encoded, "certificate": encoded[0]}))))
    for one in chain:
        assert f"    sha256:{hashlib.sha256(one).hexdigest()}\n" in text
    assert '    of: "CN=Hoàng\\u202eĐôn\\\\, ' in text
    assert 'by: "CN=CA' in text
    assert "    valid: 2026-11-24 08:00 to 2027-11-24 08:00 UTC\n" in text
    assert text.count("sha256:") == 4  # the last is the digest of the statement
    assert encoded[0][:40] not in text
    assert all(len(line) <= 80 and line.isprintable() for line in text.splitlines())
    # Whatever is no certificate, or not only certificates, is shown as it is.
    for other in ([encoded[0], "AAAA"], "AAAA", [], None, 7, {"a": encoded[0]}):
        text = stated(proposal(canonical(statement(request={"certificate_chain": other}))))
        assert "valid:" not in text
