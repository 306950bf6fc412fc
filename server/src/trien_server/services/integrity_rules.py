"""What has to hold between rows that are good by themselves: rules for `CheckIntegrity`."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature

from trien_server.core import records
from trien_server.core.approval import approval_text, public_key_hash, statement_digest, verify_approval
from trien_server.core.audit import commit_details, committed_details
from trien_server.core.errors import Refusal
from trien_server.core.items import SignatureScheme
from trien_server.core.records import (
    SHOWING_KINDS,
    Approval,
    AuditEntry,
    AuditErasure,
    AuditErasureState,
    Authenticator,
    AuthenticatorState,
    Authorization,
    AuthorizationState,
    Challenge,
    GrantedRequest,
    ItemKind,
    Key,
    Proposal,
    ProposalState,
    Record,
    Signer,
    SignerAttempts,
)
from trien_server.core.verification import SignatureDoesNotVerify, verify_signature
from trien_server.services.findings import Fault, Finding
from trien_server.services.integrity import REQUEST_PURGE, Rule, Trusted

SIGN = "SignDigests"
ED25519_SIGNATURE_SIZE = 64

REFERENCES: Mapping[type[Record], Mapping[str, type[Record]]] = {
    records.Organization: {"parent": records.Organization, "successor": records.Organization},
    records.Signer: {"organization": records.Organization},
    records.Authenticator: {"signer": records.Signer},
    records.Enrolment: {"signer": records.Signer, "replaces": records.Authenticator},
    records.Credential: {"key": records.Key, "signer": records.Signer},
    records.Activator: {"credential": records.Credential, "signer": records.Signer},
    records.CredentialClient: {"credential": records.Credential, "client": records.Client},
    records.CertificateAuthority: {"key": records.Key},
    records.IssuedCertificate: {
        "authority": records.CertificateAuthority,
        "key": records.Key,
        "signer": records.Signer,
    },
    records.CertificateStatus: {"credential": records.Credential},
    records.Authorization: {
        "credential": records.Credential,
        "key": records.Key,
        "client": records.Client,
        "approver": records.Signer,
        "approval": records.Approval,
    },
    records.Challenge: {
        "signer": records.Signer,
        "client": records.Client,
        "authenticator": records.Authenticator,
        "authorizations": records.Authorization,
    },
    records.Approval: {
        "signer": records.Signer,
        "client": records.Client,
        "authenticator": records.Authenticator,
        "authorizations": records.Authorization,
    },
    records.SignatureUse: {
        "signer": records.Signer,
        "credential": records.Credential,
        "client": records.Client,
        "approver": records.Signer,
        "audit_entry": records.AuditEntry,
    },
    records.GrantedRequest: {"client": records.Client, "audit_entry": records.AuditEntry},
}
"""Which fields name rows of which tables."""

_COLLECTIONS: Mapping[tuple[str, ...], type[Record]] = {
    ("organizations",): records.Organization,
    ("signers",): records.Signer,
    ("signers", "authenticators"): records.Authenticator,
    ("signers", "enrolments"): records.Enrolment,
    ("keys",): records.Key,
    ("installationKeys",): records.InstallationKey,
    ("credentials",): records.Credential,
    ("credentials", "signers"): records.Activator,
    ("credentials", "clients"): records.CredentialClient,
    ("clients",): records.Client,
    ("operators",): records.Operator,
    ("proposals",): records.Proposal,
    ("certificateAuthorities",): records.CertificateAuthority,
    ("certificateAuthorities", "certificates"): records.IssuedCertificate,
    ("auditErasures",): records.AuditErasure,
}


def kind_of(name: str) -> type[Record] | None:
    """Returns the slow record that a name is of, or None for a name of no known collection."""
    if "/" not in name:
        return records.RequestPurge if name == REQUEST_PURGE else records.Installation
    return _COLLECTIONS.get(tuple(name.split("/")[::2]))


def _finding(fault: Fault, record: Record, text: str) -> Finding:
    return Finding(fault=fault, table=record.table, name=record.name, text=text)


def references(trusted: Trusted, record: Record) -> Iterator[Finding]:
    """What a row names is there, or may have been removed."""
    for field, kind in REFERENCES[type(record)].items():
        value = getattr(record, field)
        for name in value if isinstance(value, tuple) else (value,):
            if name and not trusted.is_there(kind, name) and not _may_be_removed(trusted, kind, record):
                yield _finding(Fault.REFERENCE, record, f"{field} {name} is missing")


def _may_be_removed(trusted: Trusted, kind: type[Record], by: Record) -> bool:
    """Tells whether what a row names may be gone: no kind that is removed is over before what names it was made."""
    match by:
        case AuditEntry(time=since):
            return trusted.may_be_removed(kind, since)
        case Authorization() | Challenge() | Approval() | GrantedRequest():
            return trusted.may_be_removed(kind, by.create_time)
    return False


def entry(trusted: Trusted, record: AuditEntry) -> Iterator[Finding]:
    """An entry's leaf is its own, and what it tells of is there: the row that it put in force, or the decision.

    What an entry told whose details were erased nobody knows; its leaf still commits to its head.
    """
    erased = record.salt == b"" and record.details == ""
    try:
        fits = committed_details(record) == commit_details(record.salt, record.details) or erased
    except ValueError:
        fits = False
    if not fits:
        yield _finding(Fault.LOG, record, "its leaf does not commit to it")
    if not trusted.has_place(record.name):
        yield _finding(Fault.LOG, record, "it has no place in the log, and waits for none")
    if erased and not trusted.is_agreed_erasure(record.name):
        yield _finding(Fault.LOG, record, "its details were erased, and nobody agreed on that")
    if record.subject is not None:
        yield from _subject(trusted, record)
    if not erased:
        yield from _told(trusted, record, json.loads(record.details))


def _subject(trusted: Trusted, entry: AuditEntry) -> Iterator[Finding]:
    name, version = str(entry.subject), entry.subject_version or 0
    if version > 1 and not trusted.snapshot.find(AuditEntry, limit=1, subject=name, subject_version=version - 1):
        yield _finding(Fault.LOG, entry, f"the entry of version {version - 1} of {name} is missing")
    kind = kind_of(name)
    if kind is None:
        yield _finding(Fault.LOG, entry, f"{name} is of no known kind")
        return
    newest = trusted.snapshot.latest_change(name)
    if newest is not None and newest.record.name == entry.name and not trusted.is_there(kind, name):
        text = f"the row is missing, of which the log names version {version} ({entry.name})"
        yield Finding(fault=Fault.DELETED, table=kind.table, name=name, text=text)


def _told(trusted: Trusted, entry: AuditEntry, details: dict[str, Any]) -> Iterator[Finding]:
    """A decision's entry and its rows were written in one transaction."""
    told: dict[str, tuple[tuple[type[Record], str], ...]] = {
        "signing_granted": ((GrantedRequest, "request"), (Approval, "approval"), (Authorization, "authorization")),
        "signing_resumed": ((GrantedRequest, "request"), (Approval, "approval"), (Authorization, "authorization")),
        "authorizations_approved": ((Approval, "approval"),),
        "authorization_created": ((Authorization, "authorization"),),
    }
    for kind, field in told.get(entry.kind, ()):
        name = details.get(field)
        if isinstance(name, str) and not trusted.is_there(kind, name) and not _may_be_removed(trusted, kind, entry):
            text = f"the row is missing that {entry.name} ({entry.kind}) tells of"
            yield Finding(fault=Fault.DELETED, table=kind.table, name=name, text=text)
    if "acceptedValue" in details:
        yield from _consumed(trusted, entry, str(details["authenticator"]), int(details["acceptedValue"]))
    name = details.get("challenge") if entry.kind == "authorizations_approved" else None
    if isinstance(name, str):
        challenge = trusted.get(Challenge, name)
        if challenge is None and _may_be_removed(trusted, Challenge, entry):
            return
        if challenge is None:
            text = f"the row is missing that {entry.name} ({entry.kind}) tells of"
            yield Finding(fault=Fault.DELETED, table=Challenge.table, name=name, text=text)
        elif not challenge.answered:
            yield _finding(Fault.REPLAY_MEMORY, challenge, f"it was answered ({entry.name}), and is put back")


def _consumed(trusted: Trusted, where: Record, authenticator: str, value: int) -> Iterator[Finding]:
    state = trusted.get(AuthenticatorState, authenticator)
    if state is not None and state.next_value <= value:
        text = f"it would accept {value} again, which was accepted: {where.name}"
        yield _finding(Fault.REPLAY_MEMORY, state, text)


def erasure(trusted: Trusted, record: AuditErasure) -> Iterator[Finding]:
    """What was erased is not back."""
    for name in record.audit_entries:
        found = trusted.get(AuditEntry, name)
        if found is None and not trusted.is_there(AuditEntry, name):
            yield _finding(Fault.REFERENCE, record, f"audit_entries {name} is missing")
        elif found is not None and found.details and record.state is AuditErasureState.DONE:
            yield _finding(Fault.LOG, found, f"its details were erased ({record.name}), and are back")


def person(trusted: Trusted, record: Signer) -> Iterator[Finding]:
    """The count of failures has a row from the start."""
    if not trusted.is_there(SignerAttempts, record.name):
        text = "the count of wrong one-time passwords is missing"
        yield Finding(fault=Fault.DELETED, table=SignerAttempts.table, name=record.name, text=text)


def authenticator(trusted: Trusted, record: Authenticator) -> Iterator[Finding]:
    """The replay memory of what shows codes has a row from the start."""
    if record.kind in SHOWING_KINDS and not trusted.is_there(AuthenticatorState, record.name):
        text = "the replay memory is missing"
        yield Finding(fault=Fault.DELETED, table=AuthenticatorState.table, name=record.name, text=text)


def approval(trusted: Trusted, record: Approval) -> Iterator[Finding]:
    """An approval and the authorizations of its list name each other, and its code is used up."""
    for name in record.authorizations:
        found = trusted.get(Authorization, name)
        if found is not None and found.approval != record.name:
            yield _finding(Fault.DECISION, found, f"{record.name} approves it, and it names {found.approval}")
    by = trusted.get(Authenticator, record.authenticator)
    if by is not None and by.kind in SHOWING_KINDS:
        yield from _consumed(trusted, record, record.authenticator, record.accepted_value)


def authorization(trusted: Trusted, record: Authorization) -> Iterator[Finding]:
    """State, approval and used positions fit each other."""
    used = record.used
    approved = record.state in {AuthorizationState.APPROVED, AuthorizationState.USED}
    if not (
        len(record.digests) == len(used) == len(record.signed_digests)
        and bytes(bool(digest) for digest in record.signed_digests) == used
        and approved is (record.approval is not None)
        and (record.state is AuthorizationState.USED) is (bool(used) and all(used))
        and (approved or not any(used))
    ):
        yield _finding(Fault.DECISION, record, f"it is {record.state}, with positions used {used.hex()}")
    for digest, signed in zip(record.digests, record.signed_digests, strict=False):
        if signed and record.item_kind is not ItemKind.SIGNED_ATTRIBUTES and signed != digest:
            yield _finding(Fault.DECISION, record, f"{signed.hex()} was signed for {digest.hex()}")
    decision = None if record.approval is None else trusted.get(Approval, record.approval)
    if decision is not None and record.name not in decision.authorizations:
        yield _finding(Fault.DECISION, record, f"{decision.name} does not approve it")


def granted(trusted: Trusted, record: GrantedRequest) -> Iterator[Finding]:
    """The positions that a request opened are used, and its recorded signatures verify."""
    if record.method != SIGN:
        return
    found = trusted.get(Authorization, record.subject)
    if found is None:
        if not trusted.is_there(Authorization, record.subject) and not _may_be_removed(trusted, Authorization, record):
            yield _finding(Fault.REFERENCE, record, f"subject {record.subject} is missing")
        return
    positions = [int(position) for position in record.positions]
    if any(position >= len(found.used) or not found.used[position] for position in positions):
        yield _finding(Fault.REPLAY_MEMORY, found, f"{record.name} used positions that are open again")
        return
    outcome = trusted.snapshot.outcome(record.name)
    if outcome is None:
        if record.completed:
            yield _finding(Fault.OUTCOME, record, "its recorded signatures are missing")
        return
    yield from _signatures(trusted, record, found, [found.signed_digests[at] for at in positions], outcome.signatures)


def _signatures(
    trusted: Trusted,
    record: GrantedRequest,
    authorization: Authorization,
    digests: list[bytes],
    signatures: tuple[bytes, ...],
) -> Iterator[Finding]:
    key = trusted.get(Key, authorization.key)
    if len(signatures) != len(digests):
        yield _finding(Fault.OUTCOME, record, f"{len(signatures)} signatures are recorded for {len(digests)} positions")
    elif authorization.item_kind is ItemKind.DATA:
        # Ed25519 signs data, which is not kept: that these are signatures at all is what can be seen.
        for signature in signatures:
            if len(signature) != ED25519_SIGNATURE_SIZE:
                yield _finding(Fault.OUTCOME, record, f"a recorded signature has {len(signature)} bytes")
    elif key is not None:
        scheme = SignatureScheme(algorithm=authorization.algorithm, pss_salt_length=authorization.pss_salt_length)
        for digest, signature in zip(digests, signatures, strict=True):
            try:
                verify_signature(key.public_key, scheme, message=digest, signature=signature)
            except SignatureDoesNotVerify:
                yield _finding(Fault.OUTCOME, record, f"a recorded signature is not one of {digest.hex()}")


def proposal(_: Trusted, record: Proposal) -> Iterator[Finding]:
    """The digest is the statement's, and who approved it did so with a key that is not the proposer's."""
    if statement_digest(record.statement) != record.digest:
        yield _finding(Fault.PROPOSAL, record, "its digest is not that of its statement")
    if record.state not in {ProposalState.EXECUTED, ProposalState.OUTDATED}:
        return
    certificate, signature = record.approval_certificate or b"", record.approval_signature or b""
    try:
        verify_approval(certificate, approval_text(record.name, record.digest), signature)
        own = public_key_hash(certificate, field="") == record.proposer_key_hash
    except (InvalidSignature, ValueError, Refusal):
        yield _finding(Fault.PROPOSAL, record, "its approval does not verify")
        return
    if own or record.decider == record.proposer:
        yield _finding(Fault.PROPOSAL, record, "its proposer approved it")


_OWN: Mapping[type[Record], tuple[Rule, ...]] = {
    AuditEntry: (entry,),
    AuditErasure: (erasure,),
    Signer: (person,),
    Authenticator: (authenticator,),
    Approval: (approval,),
    Authorization: (authorization,),
    GrantedRequest: (granted,),
    Proposal: (proposal,),
}
RULES: Mapping[type[Record], tuple[Rule, ...]] = {
    kind: (*((references,) if kind in REFERENCES else ()), *_OWN.get(kind, ())) for kind in {*REFERENCES, *_OWN}
}
"""The rules of each table."""
