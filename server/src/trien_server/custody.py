"""The installation's keys in the custody of two people: made so, brought to another token, added to by a rotation.

Every step leaves a state from which the same command goes on: shares before the export, the export before the list that
the configuration names, the list before the keys.
"""

import os
import resource
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from trien_server.config import TokenSection
from trien_server.core.custody import (
    COMPONENT_SIZE,
    CustodyRefused,
    Export,
    KeyShare,
    join,
    key_check_value,
    read_export,
    read_share,
    split,
    write_export,
    write_share,
)
from trien_server.core.secret import Secret
from trien_server.host.exported_keys import add_to_list
from trien_server.host.files import read_secret, require_own, write_private, write_whole
from trien_server.hsm import FIRST_KEYS, bring_keys, export_new_keys


@dataclass(frozen=True, kw_only=True)
class Custody:
    """Who holds the shares, in which files they are handed over, and where the export goes."""

    custodians: tuple[str, str]
    share_files: tuple[Path, Path]
    export_file: Path


def keep_out_of_core_files() -> None:
    """Lets no core file be written from now on: shares and keys are in this process's memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def make_shares(custody: Custody) -> tuple[KeyShare, KeyShare]:
    """Returns the shares: those of an earlier run, or new ones, each written to its file (mode 0600).

    Raises `CustodyRefused` when the export is there and a share is not: it could be opened by nobody; `OSError`, also
    for a share that is there and that somebody else can have put there.
    """
    kept = [path.exists() for path in custody.share_files]
    if all(kept):
        for path in custody.share_files:
            require_own(path)  # else somebody who wrote to both media would have chosen the key
        shares = read_shares(custody.share_files)
        if tuple(share.custodian for share in shares) != custody.custodians:
            raise CustodyRefused(f"{custody.share_files[0]} and the other one are not the shares of these custodians")
        return shares
    if custody.export_file.exists():
        raise CustodyRefused(
            f"{custody.export_file} is there, but not both shares that open it: bring them, or move it away"
        )
    # A share alone is what an interrupted run left: nothing was wrapped by it yet.
    made = split([Secret(secrets.token_bytes(COMPONENT_SIZE)) for _ in range(2)], custody.custodians)
    for share, path in zip(made, custody.share_files, strict=True):
        write_private(path, write_share(share).reveal())
    return made


def read_shares(paths: Sequence[Path]) -> tuple[KeyShare, KeyShare]:
    """Returns the two shares in their files, by number. Raises `CustodyRefused`, `OSError`."""
    found = []
    for path in paths:
        try:
            found.append(read_share(read_secret(path)))
        except CustodyRefused as fault:
            raise CustodyRefused(f"{path}: {fault}") from None
    join(found)
    first, second = sorted(found, key=lambda share: share.number)
    return first, second


def make_in_custody(
    token: TokenSection, labels: Sequence[str], *, shares: Sequence[KeyShare], export_file: Path, so_pin: Secret | None
) -> Export:
    """Makes those keys that the export lacks, exports them, and brings all of the labels to the token.

    With the security officer's PIN wrapping keys are trusted ones. Run again after an interruption, it goes on.
    Returns the export. Raises `CustodyRefused`, `KeyMismatch`, `NotProvisioned`, `PinRejected`, `HsmUnavailable`,
    `OSError`.
    """
    key = join(shares)
    found = _read_export(export_file, key) if export_file.exists() else None
    export = found or Export(
        time=datetime.now(UTC),
        key_check_value=key_check_value(key),
        custodians=tuple((share.custodian, share.fingerprint) for share in shares),
        keys=(),
    )
    missing = [label for label in labels if label not in export.check_values()]
    if missing:
        _name_token(token)
        made = export_new_keys(
            module_path=str(token.module),
            pin=read_secret(token.pin_file),
            labels=missing,
            key_encryption_key=key,
            trusted=so_pin is not None,
            token_label=token.label,
            token_serial=token.serial,
        )
        export = Export(
            time=datetime.now(UTC),
            key_check_value=export.key_check_value,
            custodians=export.custodians,
            keys=(*export.keys, *made),
        )
        write_whole(export_file, write_export(export, key).encode(), mode=0o600)
    _bring(token, export, labels, key, so_pin)
    return export


def import_keys(
    token: TokenSection, *, export_file: Path, share_files: Sequence[Path], so_pin: Secret | None
) -> tuple[Export, tuple[str, ...]]:
    """Brings all keys of an export to the token, and names them in the configuration's list.

    Returns the export, and the labels of what the token lacked. Raises as `make_in_custody`.
    """
    key = join(read_shares(share_files))
    export = _read_export(export_file, key)
    lacking = [label for label in FIRST_KEYS if label not in export.check_values()]
    if lacking:
        raise CustodyRefused(f"{export_file}: it lacks {', '.join(lacking)}")
    return export, _bring(token, export, list(export.check_values()), key, so_pin)


def _bring(
    token: TokenSection, export: Export, labels: Sequence[str], key: Secret, so_pin: Secret | None
) -> tuple[str, ...]:
    if token.exported_keys_file is None:
        raise CustodyRefused(
            "the configuration has no token.exported_keys_file: without that list, exported keys are not believed"
        )
    wanted = [one for one in export.keys if one.label in labels]
    add_to_list(token.exported_keys_file, {one.label: one.check_value for one in wanted})
    _name_token(token)
    return bring_keys(
        module_path=str(token.module),
        pin=read_secret(token.pin_file),
        keys=wanted,
        key_encryption_key=key,
        so_pin=so_pin,
        token_label=token.label,
        token_serial=token.serial,
    )


def _read_export(path: Path, key: Secret) -> Export:
    try:
        return read_export(path.read_bytes(), key)
    except CustodyRefused as fault:
        raise CustodyRefused(f"{path}: {fault}") from None


def _name_token(token: TokenSection) -> None:
    if token.softhsm_configuration_file is not None:
        os.environ["SOFTHSM2_CONF"] = str(token.softhsm_configuration_file)
