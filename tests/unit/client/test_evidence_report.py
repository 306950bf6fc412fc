"""The evidence report: what is checked, what is said of it, and that the PDF says what the JSON says (P10, P12)."""

import base64
import dataclasses
import hashlib
import json
import re
import subprocess
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.log_keys import LogKeyPair
from tests.support.sealed_log import SealedLog
from tests.support.world import CLERK, OFFICE, P256, RSA, SEAL, World, digests, populated
from trien.v1 import audit_service_pb2

from trien_client.cli.evidence import Document, Facts, gather
from trien_client.cli.evidence_pdf import write_pdf
from trien_client.cli.evidence_words import ENGLISH, VIETNAMESE, WORDS
from trien_client.log import LogKey, follow_keys
from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.rpc.evidence import evidence_out

pytestmark = pytest.mark.promise("P10")

MADE = datetime(2026, 11, 25, 1, 2, 3, tzinfo=UTC)
Message = audit_service_pb2.Evidence


@dataclasses.dataclass(frozen=True)
class Told:
    """A world's evidence, as a server sends it."""

    world: World
    evidence: Message

    def copy(self) -> Message:
        made = Message()
        made.CopyFrom(self.evidence)
        return made

    @property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        from tests.support.world import _ca

        return tuple(x509.load_pem_x509_certificates(_ca().identity.certificate))


@cache
def told(count: int = 2, credential: str = SEAL) -> Told:
    """Returns the evidence of one call over so many documents."""
    world = populated()
    log = SealedLog(world)
    log.enter_key()
    algorithm = SignatureAlgorithm.RSA_PSS_SHA256 if credential == RSA else SignatureAlgorithm.ECDSA_P256_SHA256
    signed = world.sign(digests(count), credential=credential, algorithm=algorithm)
    log.seal()
    return Told(world, evidence_out(world.use.get_evidence(OFFICE, signed.audit_entry)))


def facts(
    evidence: Message,
    *,
    document: Document | None = None,
    keys: list[LogKey] | None = None,
    anchors: tuple[x509.Certificate, ...] = (),
) -> Facts:
    return gather(evidence, made=MADE, document=document, log_keys=keys, anchors=anchors)


def results(found: Facts) -> dict[str, str]:
    return {one["check"]: one["result"] for one in found.content["checks"]}


def text_of(pdf: bytes, folder: Path, *, layout: str = "-raw") -> str:
    """Returns a PDF's text as poppler reads it: cell after cell, or with `-layout` line after line."""
    path = folder / "report.pdf"
    path.write_bytes(pdf)
    made = subprocess.run(["pdftotext", layout, str(path), "-"], capture_output=True, check=True, timeout=120)
    return unicodedata.normalize("NFC", made.stdout.decode())


def squeezed(text: str) -> str:
    """Returns a text without its spaces and line ends: a cell's lines break where they have to."""
    return re.sub(r"\s+", "", text)


def test_everything_that_can_be_verified_is(tmp_path: Path) -> None:
    one = told()
    document = Document(name="quyết-định.pdf", digests=(b"\0" * 32, digests(2)[1]))
    keys = follow_keys(one.evidence.log_keys.text)
    found = facts(one.evidence, document=document, keys=keys, anchors=one.anchors)
    assert results(found) == dict.fromkeys(
        ("ENTRY", "LOG", "LOG_KEY", "ITEMS", "CERTIFICATE", "CERTIFICATE_AUTHORITY", "SIGNATURES", "DOCUMENT"),
        "VERIFIED",
    ) | {"PEOPLE": "TOLD"}
    assert found.content["document_items"] == [1]
    assert [item["result"] for item in found.content["items"]] == ["VERIFIED", "VERIFIED"]
    json.dumps(found.content)


def test_what_was_only_told_is_said_to_be_so() -> None:
    found = facts(told().evidence)
    assert results(found)["LOG_KEY"] == "TOLD"
    assert results(found)["CERTIFICATE_AUTHORITY"] == "TOLD"
    bare = told().copy()
    for name in ("signatures", "certificate_chain", "receipts"):
        bare.ClearField(name)
    assert results(facts(bare)) == {
        "ENTRY": "VERIFIED",
        "LOG": "TOLD",
        "CERTIFICATE": "TOLD",
        "SIGNATURES": "TOLD",
        "PEOPLE": "TOLD",
    }
    erased = told().copy()
    erased.audit_entry.details, erased.audit_entry.salt = "", b""
    assert results(facts(erased))["ENTRY"] == "TOLD"


def changed_details(evidence: Message) -> None:
    details = json.loads(evidence.audit_entry.details)
    details["approver"] = "signers/somebody-else"
    evidence.audit_entry.details = json.dumps(details)


def other_digest(evidence: Message) -> None:
    evidence.audit_entry.details = evidence.audit_entry.details.replace(digests(2)[0].hex(), "00" * 32)


def swap_signatures(evidence: Message) -> None:
    first, second = evidence.signatures
    evidence.signatures[:] = [second, first]


def other_certificate(evidence: Message) -> None:
    evidence.certificate_chain[0] = told(1, P256).evidence.certificate_chain[0]


def other_receipt(evidence: Message) -> None:
    evidence.receipts[0].CopyFrom(told(1, P256).evidence.receipts[0])
    evidence.log_keys.CopyFrom(told(1, P256).evidence.log_keys)


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (changed_details, "ENTRY"),
        (other_digest, "ENTRY"),
        (lambda evidence: setattr(evidence.audit_entry, "kind", "refused"), "ENTRY"),
        (lambda evidence: evidence.audit_entry.time.FromSeconds(1), "ENTRY"),
        (lambda evidence: setattr(evidence.audit_entry, "salt", b"x" * 32), "ENTRY"),
        (lambda evidence: setattr(evidence.receipts[0], "text", "nonsense"), "LOG"),
        (lambda evidence: setattr(evidence.log_keys, "text", f"{LogKeyPair.generate().key.vkey}\n"), "LOG"),
        (other_receipt, "LOG"),
        (lambda evidence: evidence.receipts[1].CopyFrom(evidence.receipts[2]), "ITEMS"),
        (lambda evidence: evidence.receipts.pop(), "ITEMS"),
        (other_certificate, "CERTIFICATE"),
        (lambda evidence: evidence.certificate_chain.__setitem__(0, b"nonsense"), "CERTIFICATE"),
        (swap_signatures, "SIGNATURES"),
        (lambda evidence: evidence.signatures.pop(), "SIGNATURES"),
        (lambda evidence: evidence.signatures.__setitem__(1, b""), "SIGNATURES"),
    ],
)
def test_a_lie_of_the_server_fails_a_check(change: Callable[[Message], Any], failed: str, tmp_path: Path) -> None:
    evidence = told().copy()
    change(evidence)
    found = facts(evidence)
    assert failed in found.failed
    shown = squeezed(text_of(write_pdf(found.content, "en"), tmp_path))
    assert squeezed(f"CHECKS THAT FAILED: {len(found.failed)}") in shown
    assert squeezed(ENGLISH.good.partition(".")[0]) not in shown


def test_another_document_a_foreign_authority_and_a_foreign_key_are_told_of() -> None:
    one = told()
    found = facts(
        one.evidence,
        document=Document(name="other", digests=(b"\1" * 32,)),
        keys=[LogKey.parse(LogKeyPair.generate().key.vkey)],
        anchors=tuple(x509.load_der_x509_certificate(chain) for chain in told(1, P256).evidence.certificate_chain),
    )
    assert set(found.failed) == {"DOCUMENT", "LOG", "CERTIFICATE_AUTHORITY"}


def test_a_certificate_that_was_not_valid_then_fails() -> None:
    evidence = told().copy()
    evidence.audit_entry.time.FromDatetime(told().world.clock.now() + timedelta(days=400))
    assert "CERTIFICATE" in facts(evidence).failed


def certificate_of(name: str, key: Any, issuer: str, issuer_key: Any, *, authority: bool) -> x509.Certificate:
    """Returns a certificate that is valid for a hundred years around now."""
    builder = x509.CertificateBuilder(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
        key.public_key(),
        x509.random_serial_number(),
        MADE - timedelta(days=18_000),
        MADE + timedelta(days=18_000),
    )
    constraints = x509.BasicConstraints(ca=authority, path_length=None)
    return builder.add_extension(constraints, critical=True).sign(issuer_key, hashes.SHA256())


def test_a_certificate_that_another_signer_issued_fails_though_its_chain_ends_in_the_authority() -> None:
    root_key, clerk_key, forged_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = certificate_of("root", root_key, "root", root_key, authority=True)
    clerk = certificate_of("clerk", clerk_key, "root", root_key, authority=False)
    forged = certificate_of("chair", forged_key, "clerk", clerk_key, authority=False)
    evidence = told().copy()
    for chain, anchors, result in (
        ([clerk, root], (root,), {"VERIFIED"}),
        ([clerk], (root,), {"VERIFIED"}),
        ([forged, clerk, root], (root,), {"FAILED"}),
        ([forged, clerk], (root,), {"FAILED"}),
        ([forged], (clerk,), {"VERIFIED", "FAILED"}),
    ):
        del evidence.certificate_chain[:]
        evidence.certificate_chain.extend(one.public_bytes(Encoding.DER) for one in chain)
        details = json.loads(evidence.audit_entry.details)
        details["certificate"] = hashlib.sha256(evidence.certificate_chain[0]).hexdigest()
        evidence.audit_entry.details = json.dumps(details)
        found = results(facts(evidence, anchors=anchors))
        assert {found[check] for check in ("CERTIFICATE", "CERTIFICATE_AUTHORITY") if check in found} == result


@pytest.mark.parametrize("language", ["vi", "en"])
def test_the_pdf_says_what_the_json_says(language: str, tmp_path: Path) -> None:
    one = told()
    document = Document(name="quyết-định.pdf", digests=(digests(2)[1],))
    content = facts(one.evidence, document=document, anchors=one.anchors).content
    shown = squeezed(text_of(write_pdf(content, language), tmp_path))
    words = WORDS[language]
    compared = 0
    said = [
        words.title,
        *(value for name, value in content["about"].items() if value and name not in {"approve_time", "assurance"}),
        words.assurances[content["about"]["assurance"]],
        content["entry"]["name"],
        content["entry"]["kind"],
        content["algorithm"],
        f"{content['document']} ({words.columns['index']} 2)",
        *(content["certificate"][name] for name in ("subject", "issuer", "serial_number", "sha256")),
        *(item["digest"] for item in content["items"]),
        *(str(content["proof"][name]) for name in ("position", "leaf_hash", "origin", "size", "root", "log_key")),
        *content["proof"]["receipt"].splitlines(),
        *content["proof"]["log_keys"].splitlines(),
        *words.sections.values(),
        *words.steps,
        *(words.checks[check["check"]] for check in content["checks"]),
        "24/11/2026 15:00:00 (UTC+7)",
        "25/11/2026 08:02:03 (UTC+7)",
    ]
    for text in said:
        expected = words.authenticators.get(text, text)
        assert squeezed(unicodedata.normalize("NFC", expected)) in shown, text
        compared += 1
    for result, times in ((one, [check["result"] for check in content["checks"]].count(one)) for one in words.results):
        expected_times = times + [item["result"] for item in content["items"]].count(result)
        assert shown.count(squeezed(words.results[result])) >= expected_times
    assert compared > 50
    assert "□" not in shown


def test_the_receipt_in_the_pdf_can_be_copied_line_by_line(tmp_path: Path) -> None:
    content = facts(told().evidence).content
    text = text_of(write_pdf(content, "en"), tmp_path, layout="-layout")
    assert any(squeezed(content["proof"]["receipt"]) in squeezed(page) for page in text.split("\f")), "on one page"
    shown = [line.strip() for line in text.splitlines()]
    for line in content["proof"]["receipt"].splitlines():
        assert line.strip() in shown


def test_a_thousand_documents_take_several_pages_and_none_is_left_out(tmp_path: Path) -> None:
    content = facts(told(1000).evidence).content
    assert len(content["items"]) == 1000
    pdf = write_pdf(content, "vi")
    pages = text_of(pdf, tmp_path).split("\f")
    assert len(pages) > 15
    shown = squeezed("".join(pages))
    assert all(digest.hex() in shown for digest in digests(1000))
    assert sum(VIETNAMESE.columns["digest"] in page for page in pages) > 15, "the head of the table is on each page"
    assert squeezed(VIETNAMESE.page.format(page=2, pages=len(pages) - 1)) in shown


def test_the_same_facts_make_the_same_bytes_and_every_font_is_embedded(tmp_path: Path) -> None:
    content = facts(told().evidence).content
    first = write_pdf(content, "vi")
    assert write_pdf(content, "vi") == first
    (tmp_path / "report.pdf").write_bytes(first)
    fonts = subprocess.run(
        ["pdffonts", str(tmp_path / "report.pdf")], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()[2:]
    assert fonts
    for line in fonts:
        assert re.search(r"\byes\s+yes\s+yes\b", line), line


@pytest.mark.promise("P12")
def test_no_secret_is_in_a_report(tmp_path: Path) -> None:
    one = told()
    content = facts(one.evidence).content
    shown = json.dumps(content) + text_of(write_pdf(content, "vi"), tmp_path)
    secrets = [one.world.tokens[OFFICE.name], *(otp.secret for otp in one.world.otp.values()), one.world.code(CLERK)]
    for secret in secrets:
        assert f'"{secret}"' not in shown
        assert len(secret) <= 8 or secret not in shown
    assert "BEGIN" not in shown


def test_a_text_commands_neither_the_terminal_nor_the_report(tmp_path: Path) -> None:
    evidence = told().copy()
    evidence.client_display_name = "<b>&amp;</b>\x1b[31m\u202eevil<para/>"
    content = facts(evidence).content
    shown = text_of(write_pdf(content, "en"), tmp_path)
    assert "<b>&amp;</b>?[31m?evil<para/>" in shown


def test_both_languages_have_words_for_the_same_things() -> None:
    for name in (
        "sections",
        "labels",
        "assurances",
        "authenticators",
        "kinds",
        "results",
        "checks",
        "findings",
        "columns",
    ):
        assert set(getattr(VIETNAMESE, name)) == set(getattr(ENGLISH, name)), name
    assert len(VIETNAMESE.steps) == len(ENGLISH.steps)


def test_rsa_with_its_salt_is_verified_too() -> None:
    assert results(facts(told(1, RSA).evidence))["SIGNATURES"] == "VERIFIED"
    other = told(1, RSA).copy()
    assert base64.b64encode(other.signatures[0]).decode() == facts(other).content["items"][0]["signature"]
    assert hashlib.sha256(other.certificate_chain[0]).hexdigest() == facts(other).content["certificate"]["sha256"]
