"""`trien-server ceremony`: shows what a file would make, has it confirmed, and makes it."""

import hmac
from collections.abc import Callable, Iterator
from pathlib import Path

from trien_server.ceremony import checks
from trien_server.ceremony.conduct import conduct
from trien_server.ceremony.plan import LoadedPlan, load_plan

LEAST_TYPED = 16
"""How many of the 64 digits have to be typed at least: nobody finds another file with the same 16."""


class NotConfirmed(Exception):  # noqa: N818
    """What was typed is not the file's SHA-256; nothing was made."""


def prepare(path: Path) -> tuple[LoadedPlan, list[str]]:
    """Returns the file's plan and all that keeps it from being made. Raises `BadPlan`, and refusals of the token."""
    loaded = load_plan(path)
    return loaded, checks.find_faults(loaded)


def announce(loaded: LoadedPlan) -> Iterator[str]:
    """Yields what would be made, line by line."""
    plan = loaded.plan
    begun = checks.is_begun(loaded)
    yield f"file            SHA-256 {loaded.sha256}"
    yield f"installation    {plan.installation.directory}{': begun before, to be completed' if begun else ''}"
    yield f"                {plan.installation.name}: {', '.join(plan.installation.hosts)}"
    if plan.token.softhsm:
        yield "token           a SoftHSM token is made"
    else:
        name = plan.token.label or plan.token.serial
        yield f"token           {name}, by {plan.token.module}: empty, and the PINs are right"
    if plan.custody is None:
        yield "keys            sealing, one-time password, wrapping and probe key: can never leave the token"
    else:
        yield "keys            sealing, one-time password and wrapping key: exported under two shares; probe key"
        for number, custodian in enumerate(plan.custody.custodian, start=1):
            yield f"share {number}         {custodian.name}: {custodian.share_file}"
        yield f"export          {plan.custody.export_file}"
    yield f"database        {checks.store_url(plan)}"
    if plan.ca is not None:
        yield f"CA              {plan.ca.common_name}, {plan.ca.organization}: {plan.ca.key_type}, {plan.ca.days} days"
    keys = checks.officer_keys(plan)
    for officer in plan.officer:
        how = "certified by the private TLS CA" if officer.certificate_request else "with a certificate of their own"
        yield f"officer         {officer.name} ({officer.id}): {', '.join(officer.roles)}; {how}"
        yield f"                key's SHA-256 {keys[officer.id]}"
    yield f"record          {plan.ceremony.record_file}"
    for warning in checks.find_warnings(plan):
        yield f"WARNING         {warning}"


def confirm(loaded: LoadedPlan, *, sha256: str | None, ask: Callable[[str], str]) -> None:
    """Has the file's SHA-256 typed, unless the command line has it. Raises `NotConfirmed`."""
    if sha256 is not None:
        if not hmac.compare_digest(sha256.lower().encode(), loaded.sha256.encode()):
            raise NotConfirmed(f"--sha256 is not the file's: {loaded.sha256}. Nothing was made.")
        return
    typed = ask(f"Type the first {LEAST_TYPED} digits of the SHA-256 that was reviewed").replace(" ", "").lower()
    if len(typed) < LEAST_TYPED or not loaded.sha256.startswith(typed):
        raise NotConfirmed("That is not the file's SHA-256. Nothing was made.")


def hold(loaded: LoadedPlan, *, tell: Callable[[str], None]) -> str:
    """Makes everything and returns the record. Raises as `conduct`."""
    return conduct(loaded, tell=tell)
