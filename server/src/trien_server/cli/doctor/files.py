"""Files: whose they are, whether what the configuration names can be used, and who else can read or change them."""

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from trien_server.cli.checks import file_findings, secret_faults
from trien_server.cli.doctor.findings import Finding, NotLookedAt, error, warning
from trien_server.cli.doctor.subject import Subject
from trien_server.config import Config

_MISSING = "The server does not start with it. Put the file in place, or correct the key in the configuration."
_ADVICE = {
    "chmod": "Do what it says. If others than the server's people have accounts here, change the secret too.",
    "is not the key of": "Take key and certificate of the same renewal: write both files, then send SIGHUP.",
    "PEM": "Write it as PEM: certificates the server's own first, the key PKCS #8 without a password.",
}
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = 0o077


def user(subject: Subject) -> Iterator[Finding]:
    """Yields a finding when root looks at what another user's server works with.

    What root opens first, such as SQLite's side files and locks, that server could not open afterwards.
    """
    if os.geteuid() != 0:
        return
    for path in (subject.config.token.pin_file, subject.database):
        if path is not None and path.exists() and path.stat().st_uid != 0:
            name = _user_name(path.stat().st_uid)
            yield error(
                f"This is root, and {path} belongs to {name}: what root opens, that user's server may not be able to "
                "open afterwards.",
                f"Run it as the server's user: runuser -u {name} -- trien-server doctor --config FILE",
            )
            return


def files(subject: Subject) -> Iterator[Finding]:
    """Yields which of the files that the configuration names are missing or cannot be used."""
    for fault in file_findings(subject.config):
        yield error(fault, next((advice for words, advice in _ADVICE.items() if words in fault), _MISSING))
    yield from _log_places(subject.config)


def _log_places(config: Config) -> Iterator[Finding]:
    """Yields where the audit log cannot go, though it is to: the server runs on, and nobody gets it there."""
    folder, file = config.audit.tile_folder, config.audit.export_file
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        yield error(
            f"audit.tile_folder: {folder} is no folder that this user may write to.",
            "Make the folder, owned by the server's user: it is not made by itself, for it may be a mount.",
        )
    if file is not None and not os.access(file if file.exists() else file.parent, os.W_OK):
        yield error(
            f"audit.export_file: this user may not write to {file}.", "Make its folder, owned by the server's user."
        )
    if config.syslog is not None:
        named = {"syslog.key_file": config.syslog.key_file, "syslog.ca_file": config.syslog.ca_file}
        named["syslog.certificate_file"] = config.syslog.certificate_file
        for key, path in named.items():
            if path is not None and not os.access(path, os.R_OK):
                yield error(f"{key}: this user cannot read {path}.", _MISSING)
        yield from _key_findings("syslog.key_file", config.syslog.key_file)


def _key_findings(key: str, path: Path | None) -> Iterator[Finding]:
    for fault in [] if path is None or not path.exists() else secret_faults(path):
        yield error(f"{key}: {fault}", _ADVICE["chmod"])


def require_files(subject: Subject, section: str) -> None:
    """Raises `NotLookedAt` when a file that a section of the configuration names cannot be used."""
    for fault in file_findings(subject.config):
        if fault.startswith(f"{section}."):
            raise NotLookedAt(f"{fault.partition(':')[0]} cannot be used")


def permissions(subject: Subject) -> Iterator[Finding]:
    """Yields who else could read secrets, or change what the server believes."""
    for what, path in _believed(subject):
        if path.exists():
            yield from _change_findings(what, path)
    for what, path in _confidential(subject):
        if path.exists() and path.stat().st_mode & _OTHERS:
            yield warning(
                f"{what}: others than its owner may read {path} (mode {stat.S_IMODE(path.stat().st_mode):04o}).",
                f"Run: chmod {'700' if path.is_dir() else '600'} {path}",
            )


def left_behind(subject: Subject) -> Iterator[Finding]:
    """Yields which secrets that `init` made are still here, though they belong offline or to one person."""
    folder = subject.folder
    if folder is None:
        return
    so_pin, ca_key = folder / "token-so-pin", folder / "tls" / "ca.key"
    if so_pin.exists():
        yield warning(
            f"The PIN of the token's security officer is on this machine: {so_pin}.",
            "Take it offline: who has it and the server's PIN can make a trusted wrapping key of their own.",
        )
    if ca_key.exists():
        yield warning(
            f"The private CA's key is on this machine: {ca_key}.",
            "Take it offline: who has it makes certificates that this server's callers trust.",
        )
    keys = sorted((folder / "operators").glob("*.key"))
    if keys:
        names = ", ".join(path.stem for path in keys)
        yield warning(
            f"Keys of operators are on this machine, in {folder / 'operators'}: {names}.",
            "Give each person the files of that name, and remove them here: who has two keys is two operators.",
        )


def _change_findings(what: str, path: Path) -> Iterator[Finding]:
    """Judges a file or folder, and the folder that it is in: who may write there may put another in its place.

    Of a symbolic link both: the folder that has the link, and the one that has what it leads to.
    """
    for judged in dict.fromkeys((path, path.absolute().parent, path.resolve().parent)):
        status = judged.stat()
        sticky = judged.is_dir() and status.st_mode & stat.S_ISVTX
        if status.st_mode & _OTHERS_WRITE and not sticky:
            yield error(
                f"{what}: others than its owner may write to {judged} (mode {stat.S_IMODE(status.st_mode):04o}).",
                f"Run: chmod go-w {judged}. Then look whether what is there is still yours.",
            )
        if status.st_uid not in (0, os.geteuid()):
            yield error(
                f"{what}: {judged} belongs to {_user_name(status.st_uid)}, neither root nor this user.",
                f"Look whether what is there is yours, then run: chown {_user_name(os.geteuid())} {judged}",
            )


def _believed(subject: Subject) -> Iterator[tuple[str, Path]]:
    config = subject.config
    if subject.path is not None:
        yield "the configuration", subject.path
    yield "token.module", config.token.module
    yield "token.pin_file", config.token.pin_file
    yield "server.tls_key_file", config.server.tls_key_file
    yield "server.tls_certificate_file", config.server.tls_certificate_file
    yield "server.client_ca_file", config.server.client_ca_file
    for key, path in _optional(config):
        if path is not None:
            yield key, path
    if subject.database is not None:
        yield "store.url", subject.database


def _optional(config: Config) -> Iterator[tuple[str, Path | None]]:
    yield "token.softhsm_configuration_file", config.token.softhsm_configuration_file
    yield "token.exported_keys_file", config.token.exported_keys_file
    if config.email is not None:
        yield "email.password_file", config.email.password_file
        yield "email.ca_file", config.email.ca_file
    if config.sms is not None:
        yield "sms.secret_file", config.sms.secret_file
        yield "sms.bearer_token_file", config.sms.bearer_token_file
        yield "sms.ca_file", config.sms.ca_file
    if config.syslog is not None:
        yield "syslog.key_file", config.syslog.key_file
        yield "syslog.certificate_file", config.syslog.certificate_file
        yield "syslog.ca_file", config.syslog.ca_file
    yield "audit.tile_folder", config.audit.tile_folder
    yield "audit.export_file", config.audit.export_file


def _confidential(subject: Subject) -> Iterator[tuple[str, Path]]:
    """What holds personal data or keys. Files with secrets are judged where they are read (`files`)."""
    if subject.database is not None:
        yield "store.url", subject.database
    if subject.token_folder is not None:
        yield "SoftHSM's tokens", subject.token_folder


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
