"""What is said about authorizations, and what is checked before a person is asked to decide on them."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from trien_client._client import Client
from trien_client._errors import AuthorizationNotPending, Refusal
from trien_client._resources import Approval, Authorization, AuthorizationState, AuthorizedItem
from trien_client.cli.options import present_activators
from trien_client.cli.outcome import CommandError, clock_time, plain

MOST_AUTHORIZATIONS = 100
_ID = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(f"credentials/{_ID}/authorizations/{_ID}", re.ASCII)
_KINDS = {"digest": "digest", "document_digest": "document", "data_digest": "piece of data"}


def require_names(names: Sequence[str]) -> None:
    """Raises `CommandError` for what cannot be authorizations' names, or is named twice."""
    for name in names:
        if _NAME.fullmatch(name) is None:
            raise CommandError(
                f"{name!r} is not an authorization: names are credentials/…/authorizations/…, as"
                " `trien authorizations list` shows them."
            )
    if len(set(names)) < len(names):
        raise CommandError("An authorization is named twice.")
    if len(names) > MOST_AUTHORIZATIONS:
        raise CommandError(f"{len(names)} authorizations are too many at once: at most {MOST_AUTHORIZATIONS}.")


@contextmanager
def named(name: str) -> Iterator[None]:
    """Makes a refusal inside say which authorization it is about."""
    try:
        yield
    except Refusal as error:
        error.metadata.setdefault("authorization", name)
        raise


def require_pending(client: Client, names: Sequence[str]) -> list[Authorization]:
    """Returns the authorizations when all of them wait for a decision.

    Raises the refusal that the server would answer with, before the person is asked for a password.
    """
    found = []
    for name in names:
        with named(name):
            authorization = client.get_authorization(name)
            if authorization.state is not AuthorizationState.PENDING:
                raise AuthorizationNotPending(f"{name} is {authorization.state}, not pending.")
        found.append(authorization)
    return found


def decider(client: Client, authorizations: Sequence[Authorization], signer: str | None) -> str:
    """Returns the person who decides: the one that is named, or the only one who can decide on all.

    Raises `CommandError` when nobody can, or it is not clear who.
    """
    persons: list[str] | None = None
    for authorization in authorizations:
        able = _able(client, authorization)
        if signer is not None and signer not in able:
            raise CommandError(
                f"{signer} cannot decide on {authorization.name}. Give --signer {' or '.join(able) or 'another one'}."
            )
        persons = able if persons is None else [person for person in persons if person in able]
    if signer is not None:
        return signer
    if not persons:
        raise CommandError("Nobody can decide on all of these: approve each person's by themselves.")
    if len(persons) > 1:
        raise CommandError(f"Several people can decide. Say whose code it is: --signer {' or '.join(persons)}.")
    return persons[0]


def _able(client: Client, authorization: Authorization) -> list[str]:
    if authorization.approver is not None:
        return [authorization.approver]
    return present_activators(client.get_credential(credential_of(authorization)))


def credential_of(authorization: Authorization) -> str:
    """The credential that would sign."""
    return authorization.name.partition("/authorizations/")[0]


def has_expired(authorization: Authorization) -> bool:
    """Tells whether its time is over, by this computer's clock."""
    return authorization.expire_time is not None and authorization.expire_time <= datetime.now(UTC)


def is_open(authorization: Authorization) -> bool:
    """Tells whether it waits for a decision."""
    return authorization.state is AuthorizationState.PENDING and not has_expired(authorization)


def is_approved(authorization: Authorization) -> bool:
    """Tells whether the person said yes."""
    return authorization.state in {AuthorizationState.APPROVED, AuthorizationState.USED}


def listing(authorizations: Sequence[Authorization], *, everything: bool) -> str:
    """The authorizations for people, one block each: their names are wider than a column of a table."""
    if not authorizations:
        return "There is no authorization." if everything else "Nothing waits for a decision."
    return "\n".join(_block(authorization) for authorization in authorizations)


def _block(authorization: Authorization) -> str:
    lines = [
        authorization.name,
        *([f"  title:       {titled(authorization)}"] if authorization.title else []),
        f"  state:       {_state(authorization)}",
        f"  to sign:     {_count(authorization.items)} with {authorization.algorithm or 'an unknown algorithm'}",
        f"  fingerprint: {grouped(authorization.fingerprint)}",
        f"  client:      {authorization.client}",
    ]
    if authorization.approved_by is not None:
        lines.append(f"  approved by: {authorization.approved_by}")
    elif authorization.approver is not None:
        lines.append(f"  approver:    {authorization.approver}")
    if authorization.create_time is not None:
        lines.append(f"  made:        {_local(authorization.create_time)}")
    return "\n".join(lines)


def titled(authorization: Authorization) -> str:
    """Writes its title as what it is: nobody but the application says that it is true."""
    return f"“{plain(authorization.title)}” (the application's words)"


def denial(authorization: Authorization) -> str:
    """The denied authorization for people."""
    title = f"\n  title: {titled(authorization)}" if authorization.title else ""
    return f"Denied: {authorization.name}{title}"


def _state(authorization: Authorization) -> str:
    end = authorization.expire_time
    if end is None or authorization.state not in {AuthorizationState.PENDING, AuthorizationState.APPROVED}:
        return str(authorization.state)
    if has_expired(authorization):
        return f"{authorization.state}, expired at {_local(end)}"
    now = datetime.now(UTC)
    used = sum(item.used for item in authorization.items)
    part = f", {used} of {len(authorization.items)} used" if used else ""
    return f"{authorization.state}{part} until {clock_time(end - now, now=now.astimezone())}"


def _local(time: datetime) -> str:
    return time.astimezone().isoformat(sep=" ", timespec="seconds")


def _count(items: Sequence[AuthorizedItem]) -> str:
    kind = _KINDS.get(items[0].kind, "item") if items else "item"
    if len(items) == 1:
        return f"1 {kind}"
    return f"{len(items)} {kind.replace('piece', 'pieces') if ' ' in kind else kind + 's'}"


def grouped(fingerprint: str) -> str:
    """Writes a fingerprint in groups of four, for eyes that compare."""
    return " ".join(fingerprint[start : start + 4] for start in range(0, len(fingerprint), 4))


def summary(authorizations: Sequence[Authorization]) -> str:
    """What a person is shown before approving: each authorization in a few short lines."""
    lines = [
        f"\n  {authorization.name}\n    {_count(authorization.items)} with {authorization.algorithm},"
        f" fingerprint {grouped(authorization.fingerprint)}"
        + (f"\n    title: {titled(authorization)}" if authorization.title else "")
        for authorization in authorizations
    ]
    return "".join(lines)


def approval_line(approval: Approval) -> str:
    """The approval for people."""
    count = len(approval.authorizations)
    what = approval.authorizations[0] if count == 1 else f"{count} authorizations"
    return f"Approved: {what} (by {approval.signer}, {approval.audit_entry})"


def approval_content(approval: Approval) -> dict[str, object]:
    """The approval for programs."""
    return {
        "signer": approval.signer,
        "authorizations": list(approval.authorizations),
        "assurance": approval.assurance,
        "create_time": _iso(approval.create_time),
        "audit_entry": approval.audit_entry,
        "leaf_hash": approval.leaf_hash.hex(),
    }


def listing_content(authorization: Authorization) -> dict[str, object]:
    """One authorization for programs."""
    return {
        "name": authorization.name,
        "title": authorization.title,
        "state": authorization.state,
        "expired": has_expired(authorization),
        "algorithm": authorization.algorithm,
        "pss_salt_length": authorization.pss_salt_length,
        "items": [{"kind": item.kind, "digest": item.digest.hex(), "used": item.used} for item in authorization.items],
        "fingerprint": authorization.fingerprint,
        "client": authorization.client,
        "approver": authorization.approver,
        "approved_by": authorization.approved_by,
        "assurance": authorization.assurance,
        "create_time": _iso(authorization.create_time),
        "expire_time": _iso(authorization.expire_time),
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
