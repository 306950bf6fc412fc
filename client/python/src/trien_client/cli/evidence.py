"""What the server tells as evidence, checked here: each fact is VERIFIED, or only TOLD, or it FAILED.

The result is plain data, which the report shows and a JSON file holds.
"""

import base64
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from trien_client import audit_lines

if TYPE_CHECKING:
    from cryptography import x509
    from trien.v1.audit_service_pb2 import Evidence

    from trien_client.log import LogKey


class Result(StrEnum):
    """What a check came to."""

    VERIFIED = "VERIFIED"
    TOLD = "TOLD"
    """Nothing here could show whether it is so: the server says it."""
    FAILED = "FAILED"


class Check(StrEnum):
    """What is checked."""

    ENTRY = "ENTRY"
    """The entry's time, kind and details are what its leaf commits to, and the digests too."""
    LOG = "LOG"
    """The leaf is in the log that a signed checkpoint covers."""
    LOG_KEY = "LOG_KEY"
    """The key that signed the checkpoint follows from the log's key as it was published."""
    ITEMS = "ITEMS"
    """Each receipt of a digest leads to the same entry."""
    CERTIFICATE = "CERTIFICATE"
    """The certificate is the one that the entry names, it was valid then, and each one was issued by the next."""
    CERTIFICATE_AUTHORITY = "CERTIFICATE_AUTHORITY"
    """The chain ends in a certificate that whoever reads the report trusts."""
    SIGNATURES = "SIGNATURES"
    """Every signature verifies with the certificate, over the digest that the entry names."""
    DOCUMENT = "DOCUMENT"
    """The document has one of the digests."""
    PEOPLE = "PEOPLE"
    """Who approved, in which way, and the names of all."""


@dataclass
class Facts:
    """What a report says. `content` is all of it, as JSON can hold it."""

    content: dict[str, Any] = field(default_factory=dict)

    def check(self, check: Check, result: Result, finding: str = "") -> None:
        self.content.setdefault("checks", []).append({"check": check.value, "result": result.value, "finding": finding})

    @property
    def failed(self) -> list[str]:
        """The checks that failed."""
        return [one["check"] for one in self.content["checks"] if one["result"] == Result.FAILED]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document whose digests were made here."""

    name: str
    digests: tuple[bytes, ...]


def gather(
    evidence: "Evidence",
    *,
    made: datetime,
    document: Document | None,
    log_keys: "Sequence[LogKey] | None",
    anchors: "Sequence[x509.Certificate]",
) -> Facts:
    """Checks the server's evidence and returns the facts. `log_keys` are those that were given, not the server's."""
    facts = Facts()
    entry = audit_lines.entry_fields(evidence.audit_entry)
    details = details_of(entry["details"])
    facts.content |= {
        "made": _utc(made),
        "entry": entry,
        "about": _about(evidence),
        "algorithm": details.get("algorithm"),
        "pss_salt_length": details.get("pssSaltLength"),
        "document": None if document is None else document.name,
    }
    _check_entry(facts, evidence)
    _check_log(facts, evidence, log_keys)
    certificate = _check_certificate(facts, evidence, details, anchors)
    _check_signatures(facts, evidence, details, certificate)
    if document is not None:
        _check_document(facts, document)
    facts.check(Check.PEOPLE, Result.TOLD)
    facts.content["later_entries"] = [audit_lines.entry_fields(later) for later in evidence.later_entries]
    return facts


def _about(evidence: "Evidence") -> dict[str, Any]:
    names = (
        "signer",
        "signer_display_name",
        "organization",
        "organization_display_name",
        "approver",
        "approver_display_name",
        "authenticator",
        "authenticator_kind",
        "assurance",
        "client",
        "client_display_name",
        "credential",
    )
    about: dict[str, Any] = {name: getattr(evidence, name) or None for name in names}
    approved = evidence.approve_time if evidence.HasField("approve_time") else None
    about["approve_time"] = None if approved is None else audit_lines.entry_time(approved)
    return about


def _check_entry(facts: Facts, evidence: "Evidence") -> None:
    from trien_client._errors import ProofNotValid
    from trien_client._log_entries import open_entry

    if not evidence.audit_entry.details:
        facts.check(Check.ENTRY, Result.TOLD, "ERASED")
        return
    line = audit_lines.json_line(evidence.audit_entry).decode()
    if not evidence.audit_entry.HasField("position"):
        # The leaf is opened alike, wherever it will stand.
        line = line.replace('"position":null', '"position":0', 1)
    try:
        fault = open_entry(line).fault
    except ProofNotValid as error:
        fault = str(error)
    facts.check(Check.ENTRY, Result.VERIFIED if fault is None else Result.FAILED, fault or "")


def _check_log(facts: Facts, evidence: "Evidence", given: "Sequence[LogKey] | None") -> None:
    from trien_client._errors import ProofNotValid
    from trien_client._log_notes import follow_trusted
    from trien_client.log import follow_keys, parse_receipt

    proof: dict[str, Any] = {"log_keys": evidence.log_keys.text or None, "receipt": None, "item_receipts": []}
    facts.content["proof"] = proof
    if not evidence.receipts:
        facts.check(Check.LOG, Result.TOLD, "NO_CHECKPOINT")
        return
    first, *items = (receipt.text for receipt in evidence.receipts)
    proof |= {"receipt": first, "item_receipts": items}
    try:
        named = evidence.log_keys.text
        # The given ones may be the first alone, from before a rotation.
        followed = follow_keys(named) if given is None else follow_trusted(given, named) if named else given
        keys = list(followed)
        receipt = parse_receipt(first)
        checkpoint = receipt.verify(keys)
        leaf_hash = hashlib.sha256(b"\x00" + evidence.audit_entry.leaf).digest()
        if receipt.leaf_hash != leaf_hash:
            raise ProofNotValid("The receipt is another entry's.")
        proof |= {
            "position": receipt.position,
            "leaf_hash": leaf_hash.hex(),
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
            "log_key": str(keys[0]),
        }
        facts.check(Check.LOG, Result.VERIFIED)
        facts.check(Check.LOG_KEY, Result.TOLD if given is None else Result.VERIFIED)
        if items:
            _check_items(facts, evidence, keys, items)
    except ProofNotValid as error:
        facts.check(Check.LOG, Result.FAILED, str(error))


def _check_items(facts: Facts, evidence: "Evidence", keys: "Sequence[LogKey]", items: Sequence[str]) -> None:
    from trien_client._errors import ProofNotValid
    from trien_client.log import parse_receipt

    wanted = _hexadecimal(details_of(evidence.audit_entry.details).get("digests"))
    try:
        for text, digest in zip(items, wanted, strict=True):
            receipt = parse_receipt(text)
            receipt.verify(keys)
            receipt.require_digest(digest)
            if receipt.entry != evidence.audit_entry.name:
                raise ProofNotValid("The receipt of a digest is another entry's.")
    except (ProofNotValid, ValueError) as error:
        facts.check(Check.ITEMS, Result.FAILED, str(error))
        return
    facts.check(Check.ITEMS, Result.VERIFIED)


def _check_certificate(
    facts: Facts, evidence: "Evidence", details: dict[str, Any], anchors: "Sequence[x509.Certificate]"
) -> "x509.Certificate | None":
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    facts.content["certificate"] = None
    if not evidence.certificate_chain:
        facts.check(Check.CERTIFICATE, Result.TOLD, "NOT_KNOWN")
        return None
    try:
        chain = [x509.load_der_x509_certificate(encoded) for encoded in evidence.certificate_chain]
        facts.content["certificate"] = _shown(chain[0], evidence.certificate_chain)
        _require_certificate(chain, evidence, details)
    except (ValueError, TypeError, InvalidSignature) as error:
        facts.check(Check.CERTIFICATE, Result.FAILED, str(error) or "ISSUER")
        return None
    facts.check(Check.CERTIFICATE, Result.VERIFIED)
    trusted = {anchor.public_bytes(_der()) for anchor in anchors}
    known = bool(trusted) and (
        chain[-1].public_bytes(_der()) in trusted or any(_issued(chain[-1], anchor) for anchor in anchors)
    )
    if not trusted:
        facts.check(Check.CERTIFICATE_AUTHORITY, Result.TOLD)
    else:
        facts.check(Check.CERTIFICATE_AUTHORITY, Result.VERIFIED if known else Result.FAILED)
    return chain[0]


def _require_certificate(chain: "Sequence[x509.Certificate]", evidence: "Evidence", details: dict[str, Any]) -> None:
    """Raises `ValueError` or what verifying raises unless the certificate is that of the entry, and was valid then."""
    if hashlib.sha256(evidence.certificate_chain[0]).hexdigest() != details.get("certificate"):
        raise ValueError("OTHER_CERTIFICATE")
    at = evidence.audit_entry.time.ToDatetime(tzinfo=UTC)
    for certificate in chain:
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            raise ValueError("NOT_VALID_THEN")
    for certificate, issuer in itertools.pairwise(chain):
        _require_issued(certificate, issuer)


def _require_issued(certificate: "x509.Certificate", issuer: "x509.Certificate") -> None:
    """Raises `ValueError` or what verifying raises unless an authority issued a certificate: a signer's key is none."""
    from cryptography.x509 import BasicConstraints, ExtensionNotFound

    certificate.verify_directly_issued_by(issuer)
    try:
        authority = issuer.extensions.get_extension_for_class(BasicConstraints).value.ca
    except ExtensionNotFound:
        authority = False
    if not authority:
        raise ValueError("ISSUER")


def _issued(certificate: "x509.Certificate", issuer: "x509.Certificate") -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        _require_issued(certificate, issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _shown(certificate: "x509.Certificate", chain: Iterable[bytes]) -> dict[str, Any]:
    from cryptography.x509.oid import NameOID

    return {
        "subject": certificate.subject.rfc4514_string({NameOID.TITLE: "title"}),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial_number": f"{certificate.serial_number:x}",
        "not_before": _utc(certificate.not_valid_before_utc),
        "not_after": _utc(certificate.not_valid_after_utc),
        "sha256": hashlib.sha256(certificate.public_bytes(_der())).hexdigest(),
        "chain": [base64.b64encode(encoded).decode() for encoded in chain],
    }


def _check_signatures(
    facts: Facts, evidence: "Evidence", details: dict[str, Any], certificate: "x509.Certificate | None"
) -> None:
    from trien_client._errors import VerificationError

    document_digests, signed = _hexadecimal(details.get("digests")), _hexadecimal(details.get("signedDigests"))
    items: list[dict[str, Any]] = []
    facts.content["items"] = items
    for index, digest in enumerate(document_digests or signed):
        items.append({"index": index, "digest": digest.hex(), "signed_digest": None, "signature": None, "result": None})
        if index < len(signed) and signed[index] != digest:
            items[-1]["signed_digest"] = signed[index].hex()
        if index < len(evidence.signatures):
            items[-1]["signature"] = base64.b64encode(evidence.signatures[index]).decode()
    if not evidence.signatures:
        facts.check(Check.SIGNATURES, Result.TOLD, "NOT_KEPT")
        return
    if certificate is None:
        facts.check(Check.SIGNATURES, Result.TOLD, "NO_CERTIFICATE")
        return
    try:
        if not len(evidence.signatures) == len(signed) == len(items):
            raise VerificationError("Not as many signatures as digests.")
        for item, digest, signature in zip(items, signed, evidence.signatures, strict=True):
            item["result"] = Result.FAILED.value
            _verify(certificate, details, signature, digest)
            item["result"] = Result.VERIFIED.value
    except VerificationError as error:
        facts.check(Check.SIGNATURES, Result.FAILED, str(error))
        return
    facts.check(Check.SIGNATURES, Result.VERIFIED)


def _verify(certificate: "x509.Certificate", details: dict[str, Any], signature: bytes, digest: bytes) -> None:
    from trien_client._algorithms import SignatureAlgorithm
    from trien_client._errors import VerificationError
    from trien_client._verification import verify_signature

    try:
        algorithm = SignatureAlgorithm(str(details.get("algorithm")))
    except ValueError:
        raise VerificationError("The entry names no algorithm that is known here.") from None
    salt = details.get("pssSaltLength")
    verify_signature(certificate, algorithm, signature, digest, pss_salt_length=salt if isinstance(salt, int) else None)


def _check_document(facts: Facts, document: Document) -> None:
    made = {digest.hex() for digest in document.digests}
    found = [item["index"] for item in facts.content["items"] if {item["digest"], item["signed_digest"]} & made]
    facts.content["document_items"] = found
    facts.check(Check.DOCUMENT, Result.VERIFIED if found else Result.FAILED)


def details_of(text: str) -> dict[str, Any]:
    """Returns an entry's details; none when they were erased, or are no JSON object."""
    import json

    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _hexadecimal(value: object) -> list[bytes]:
    if not isinstance(value, list):
        return []
    try:
        return [bytes.fromhex(one) for one in value]
    except (ValueError, TypeError):
        return []


def _der() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
