"""The token: its module, whether it is there, the PIN, the installation's keys, and what it does when it is asked."""

from collections.abc import Iterator

from trien_server.cli.doctor.files import require_files
from trien_server.cli.doctor.findings import Finding, NotLookedAt, Severity, error, note, warning
from trien_server.cli.doctor.subject import Subject
from trien_server.cli.token import prove_threads, try_wrapping
from trien_server.hsm.trials import ONE_TIME_PASSWORDS, PROBE, SEALS

_NEEDED = {
    SEALS: "Nothing can be sealed, and no server starts, with such a token.",
    ONE_TIME_PASSWORDS: "No secret of a one-time password can be kept with such a token.",
    PROBE: "No server starts with such a token: it is probed with such a key.",
}


def module(subject: Subject) -> Iterator[Finding]:
    """Yields what is wrong with the PKCS#11 module itself."""
    require_files(subject, "token")
    examined = subject.token
    path = subject.config.token.module
    if examined.module is None:
        yield error(
            f"token.module: {path} cannot be used: {examined.ended}.",
            "Name the PKCS#11 library of the token's maker, for this machine's processor: a file that ends in .so.",
        )
    elif examined.module.is_softhsm:
        yield note(
            "The token is SoftHSM: it keeps keys in files, and whoever copies these and the PIN has the keys.",
            "Use it for development and tests, never in production.",
        )


def token(subject: Subject) -> Iterator[Finding]:
    """Yields what keeps the configured token from being found."""
    examined, settings = subject.token, subject.config.token
    if examined.tokens is None:
        yield error(
            f"The module did not tell which tokens there are: {examined.ended or 'it ended'}.",
            "Look whether the device is connected and switched on, and try the tools of its maker.",
        )
        return
    wanted = f"label {settings.label!r}" if settings.label is not None else f"serial number {settings.serial!r}"
    there = "; ".join(f"{label!r}, serial number {serial}" for label, serial in examined.tokens) or "none"
    if examined.matching == 0:
        yield error(
            f"No token has the {wanted}. There are: {there}.",
            "Correct token.label or token.serial, connect the device, or, for SoftHSM, look whether "
            "token.softhsm_configuration_file names the right folder and this user may read it.",
        )
    elif examined.matching > 1:
        yield error(
            f"{examined.matching} tokens have the {wanted}. There are: {there}.",
            "Set token.serial in the place of token.label.",
        )


def pin(subject: Subject) -> Iterator[Finding]:
    """Yields why the PIN is of no use. A run tries it once; a wrong one counts towards the token's lock."""
    examined, path = subject.token, subject.config.token.pin_file
    if examined.pin_refused:
        yield error(
            f"{examined.pin_refused} It is that of {path}, was tried once, and not again.",
            "Correct the file before anything tries again: tokens lock after a few wrong PINs.",
        )
    elif examined.pin_locked:
        yield error(
            "The token has locked the PIN after wrong ones: it was not tried.",
            "The token's security officer sets a new one, with the tools of its maker.",
        )
    elif examined.pin_final_try:
        yield error(
            "The token says that one more wrong PIN locks it: the PIN was not tried.",
            f"Compare {path} with what the token's keeper has, then log in once with the tools of its maker.",
        )
    elif not examined.logged_in:
        yield error(
            f"The token let nobody log in: {examined.ended or 'it did not answer'}.",
            "Try the tools of its maker; a device that hangs is disconnected, or its service started anew.",
        )


def keys(subject: Subject) -> Iterator[Finding]:
    """Yields which of the installation's keys are missing, there twice, or have other attributes than they must."""
    faults = subject.token.key_faults
    if faults is None:
        raise NotLookedAt(f"the token ended it: {subject.token.ended or 'it did not answer'}")
    for fault in faults.values():
        yield error(f"{fault[:1].upper()}{fault[1:]}.", _key_advice(fault))


def _key_advice(fault: str) -> str:
    if "no key" in fault:
        return (
            "Look whether this is the right token. On a new one `trien-server init` makes what is missing; of an "
            "installation that is at work, restore the token: another key opens nothing of its database."
        )
    if "not one" in fault:
        return (
            "Find out with the tools of the token's maker which one is older and remove the other: it was put there "
            "by somebody with the PIN. No server starts meanwhile."
        )
    return "Somebody with the PIN put it there, or changed it. Restore the token; no server starts with this key."


def mechanisms(subject: Subject) -> Iterator[Finding]:
    """Yields what the token does not do, as trying on throw-away keys showed."""
    trials = subject.token.trials
    if trials is None:
        raise NotLookedAt(f"the token ended it: {subject.token.ended or 'it did not answer'}")
    for trial in trials:
        if not trial.answer:
            continue
        text = f"The token does not do {trial.what}: {trial.answer}."
        if trial.what in _NEEDED:
            yield error(text, f"{_NEEDED[trial.what]} Switch the mechanism on, or use another token.")
        else:
            yield warning(text, "Make no keys for it, or switch the mechanism on in the token.")


def threads(subject: Subject) -> Iterator[Finding]:
    """Yields a finding when the module does not bear several threads at once, as a server uses it."""
    fault = prove_threads(subject.config)
    if fault is not None:
        yield error(
            fault,
            "The module does not lock, or crashes. Ask its maker for a version that bears CKF_OS_LOCKING_OK (PKCS #11, "
            "C_Initialize): no server starts with this one.",
        )


def wrapping(subject: Subject) -> Iterator[Finding]:
    """Yields what `trien-server token check` warns of: wrapped keys that the token does not keep closed."""
    hsm = subject.open_token()
    try:
        tried = try_wrapping(hsm)
    finally:
        hsm.close()
    if not tried.wrapped:
        reason = next(iter(tried.refused.values()))
        yield warning(f"The token wraps no keys: {reason}.", "Make keys on the token alone: protection level TOKEN.")
        return
    for key_type, reason in tried.refused.items():
        yield note(
            f"The token wraps no {key_type} keys: {reason}.",
            "Make such keys on the token: protection level TOKEN.",
        )
    for finding in tried.findings:
        yield Finding(
            severity=Severity.WARNING,
            text=finding,
            advice="Whoever has the PIN may take wrapped keys out. Make keys on the token (protection level TOKEN), or "
            "use a token that enforces it.",
        )
