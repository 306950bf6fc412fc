"""GetEvidence: all that is known of one signature, or of one refusal, with the proofs of it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.audit_selection import details_of
from trien_server.core.errors import RecordNotTrusted
from trien_server.core.items import SignatureScheme
from trien_server.core.ports import Report
from trien_server.core.principal import Principal
from trien_server.core.records import (
    Approval,
    AuditEntry,
    Authenticator,
    Client,
    Credential,
    GrantedRequest,
    ItemKind,
    Key,
    Organization,
    Record,
    Signer,
)
from trien_server.core.verification import SignatureDoesNotVerify, verify_signature
from trien_server.services.audit_entries import PositionedEntry, log_size
from trien_server.services.receipts import ReceiptOfEntry, make_receipt, prove_digest, require_entry
from trien_server.services.signed_log import LogFaults, LogKeys, distrust_log, read_published_keys, read_signed_log
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView

R = TypeVar("R", bound=Record)

MOST_ITEM_RECEIPTS = 64
"""For how many digests each gets a receipt: of more, GetReceipt makes the ones that are wanted."""

_MOST_LATER = 2000
"""How many entries behind this one are searched for what else became of the request: some minutes of a busy log."""
_WINDOW = 100
"""How many of them are in memory at a time: each may be about a thousand digests."""
_SIGNING = frozenset({"signing_granted", "signing_resumed"})


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of an entry. Records are as they are now; what does not exist any more is None or empty."""

    entry: PositionedEntry
    signer: Signer | None
    organization: Organization | None
    approver: Signer | None
    authenticator: Authenticator | None
    client: Client | None
    assurance: str
    approve_time: datetime | None
    credential: str
    certificate_chain: tuple[bytes, ...]
    algorithm: SignatureAlgorithm | None
    digests: tuple[bytes, ...]
    signatures: tuple[bytes, ...]
    receipts: tuple[ReceiptOfEntry, ...]
    log_keys: LogKeys | None
    later_entries: tuple[PositionedEntry, ...]


class GetEvidence:
    """Gathers evidence in one snapshot, for the application whose request it was and for who reads the log."""

    method = "AuditService.GetEvidence"

    def __init__(self, *, transactions: Transactions, report: Report) -> None:
        self._transactions = transactions
        self._report = report

    def __call__(self, principal: Principal, name: str) -> Evidence:
        """Returns what is known; receipts are there once a checkpoint covers the entry.

        Raises `PermissionDenied` for another's entry and for one that does not exist, `RecordNotTrusted`, and
        `LogNotTrusted`, after reporting it.
        """
        try:
            return self._transactions.read(lambda view: self._gather(view, principal, name))
        except LogFaults as fault:
            raise distrust_log(self._report, fault) from fault

    def _gather(self, view: TrustedView, principal: Principal, name: str) -> Evidence:
        entry = require_entry(view, principal, name, self.method)
        details = _Details(details_of(entry))
        found = PositionedEntry(entry=entry, position=view.position(name))
        signer = details.record(view, Signer, "signer")
        approval = details.record(view, Approval, "approval")
        return Evidence(
            entry=found,
            signer=signer,
            organization=None if signer is None else view.get(Organization, signer.organization),
            approver=details.record(view, Signer, "approver"),
            authenticator=details.record(view, Authenticator, "authenticator"),
            client=details.record(view, Client, "client"),
            assurance=details.text("assurance"),
            approve_time=None if approval is None else approval.create_time,
            credential=details.text("credential"),
            certificate_chain=_chain_then(view, details),
            algorithm=details.algorithm,
            digests=details.digests("signedDigests"),
            signatures=self._signatures(view, entry, details),
            receipts=tuple(_receipts(view, found, details)),
            log_keys=read_published_keys(view),
            later_entries=tuple(_later(view, found, details)),
        )

    def _signatures(self, view: TrustedView, entry: AuditEntry, details: "_Details") -> tuple[bytes, ...]:
        """Returns the recorded signatures, each verified (P6); none that this server cannot verify.

        Of data that Ed25519 signed only the digest was kept.
        """
        request, algorithm = details.text("request"), details.algorithm
        key = details.record(view, Key, "key")
        signable = entry.kind in _SIGNING and details.text("itemKind") != ItemKind.DATA
        if not (signable and request and algorithm is not None and key is not None):
            return ()
        recorded = view.signatures(request) or ()
        digests = details.digests("signedDigests")
        scheme = SignatureScheme.parse(algorithm, details.salt_length, key_type=key.key_type)
        try:
            for digest, signature in zip(digests, recorded, strict=bool(recorded)):
                verify_signature(key.public_key, scheme, message=digest, signature=signature)
        except (SignatureDoesNotVerify, ValueError) as fault:
            self._report("signature_does_not_verify", {"key": key.name, "reason": str(fault)})
            return ()
        return recorded


class _Details:
    """What an entry's details say, in their types; what is not there is empty."""

    def __init__(self, details: Mapping[str, object]) -> None:
        self._details = details

    def text(self, name: str) -> str:
        value = self._details.get(name)
        return value if isinstance(value, str) else ""

    def record(self, view: TrustedView, kind: type[R], name: str) -> R | None:
        """Returns the record in force that the details name."""
        return view.get(kind, self.text(name)) if self.text(name) else None

    def digests(self, name: str) -> tuple[bytes, ...]:
        found = self._details.get(name)
        return tuple(bytes.fromhex(str(digest)) for digest in found) if isinstance(found, list) else ()

    @property
    def algorithm(self) -> SignatureAlgorithm | None:
        return SignatureAlgorithm(self.text("algorithm")) if self.text("algorithm") else None

    @property
    def salt_length(self) -> int | None:
        found = self._details.get("pssSaltLength")
        return found if isinstance(found, int) else None


def _chain_then(view: TrustedView, details: _Details) -> tuple[bytes, ...]:
    """Returns the credential's chain if its certificate is still the one that the entry names."""
    credential = details.record(view, Credential, "credential")
    if credential is None or not credential.certificate_chain:
        return ()
    fingerprint = hashlib.sha256(credential.certificate_chain[0]).hexdigest()
    return credential.certificate_chain if fingerprint == details.text("certificate") else ()


def _receipts(view: TrustedView, found: PositionedEntry, details: _Details) -> list[ReceiptOfEntry]:
    log = read_signed_log(view)
    position = found.position
    if log is None or position is None or position >= log.size:
        return []
    entry = found.entry
    made = [make_receipt(log, entry, position)]
    count = len(details.digests("digests"))
    if entry.items_root and entry.salt and count <= MOST_ITEM_RECEIPTS:
        made += [make_receipt(log, entry, position, prove_digest(entry, index)) for index in range(count)]
    return made


def _later(view: TrustedView, found: PositionedEntry, details: _Details) -> list[PositionedEntry]:
    """Returns the entries about the same request behind this one. One that cannot be trusted was reported."""
    request = details.text("request")
    if not request or found.position is None:
        return []
    first = found.position + 1
    end = min(first + _MOST_LATER, log_size(view))
    later = [
        PositionedEntry(entry=entry, position=position)
        for begin in range(first, end, _WINDOW)
        for position, entry in view.log(begin, min(begin + _WINDOW, end))
        if isinstance(entry, AuditEntry)
        and request in entry.details  # a name is written as it is: most entries need not be parsed
        and details_of(entry).get("request") == request
    ]
    return later + _last(view, request, found, later)


def _last(
    view: TrustedView, request: str, found: PositionedEntry, later: list[PositionedEntry]
) -> list[PositionedEntry]:
    """Returns the entry that the request's record names last, unless it is known."""
    granted = view.get(GrantedRequest, request)
    known = {found.entry.name, *(one.entry.name for one in later)}
    if granted is None or granted.audit_entry in known:
        return []
    try:
        last = view.get(AuditEntry, granted.audit_entry)
    except RecordNotTrusted:
        return []
    if last is None or last.time < found.entry.time:
        return []
    return [PositionedEntry(entry=last, position=view.position(last.name))]
