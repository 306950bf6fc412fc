"""The file of a ceremony: the types below are its documentation, and `deploy/ceremony/example.toml` an example."""

import hashlib
import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trien_server.core.roles import Role, combination_fault

_LINE = Field(min_length=1, max_length=64)
_Line = Annotated[str, _LINE]
_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class BadPlan(Exception):  # noqa: N818
    """The file cannot be used; each line of the message is one fault."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CeremonyTable(_Table):
    """[ceremony]: who is there, and where the record goes"""

    place: _Line = Field(description="Where it takes place.")
    witnesses: tuple[_Line, ...] = Field(min_length=1, description="Who sees it and has no other part in it.")
    present: tuple[_Line, ...] = Field(default=(), description="Who else is present.")
    record_file: Path = Field(description="Where the record goes that all sign on paper: a new file.")


class InstallationTable(_Table):
    """[installation]"""

    directory: Path = Field(description="Where configuration, certificates and the list of keys go: a new folder.")
    name: _Line = Field(default="Trien", description="The issuer that people see in their authenticator app.")
    hosts: tuple[_Line, ...] = Field(min_length=1, description="The server's host names and addresses.")
    token_address: str = Field(default="0.0.0.0:8443", description="Where clients with bearer tokens connect.")
    certificate_address: str = Field(
        default="0.0.0.0:8444", description="Where callers with client certificates connect."
    )
    store_url: str = Field(
        default="sqlite:///trien.db", description="The database; PostgreSQL has to be migrated before, by its owner."
    )
    log_key: Literal["EC_ED25519", "EC_P256"] = Field(
        default="EC_ED25519", description="The key that signs the log, in the token; P-256 where it has no Ed25519."
    )
    client_ca_file: Path | None = Field(
        default=None, description="A CA of officers who bring a certificate, PEM; besides the private one that is made."
    )


class TokenTable(_Table):
    """[token]: an initialized token of a module, or a SoftHSM one that is made"""

    softhsm: bool = Field(default=False, description="Make a SoftHSM token: keys in files, never in production.")
    module: Path | None = Field(default=None, description="The PKCS#11 module's path.")
    label: str | None = Field(default=None, description="The token's label.")
    serial: str | None = Field(default=None, description="Its serial number, instead of the label.")
    pin_file: Path | None = Field(default=None, description="A file with the user PIN; the server goes on reading it.")
    so_pin_file: Path | None = Field(
        default=None,
        description="A file with the security officer's PIN, for a trusted wrapping key; taken away afterwards.",
    )


class CustodianTable(_Table):
    """[[custody.custodian]]: one of the two"""

    name: _Line = Field(description="The person who gets this share and no other.")
    share_file: Path = Field(description="Where the share is written, mode 0600: this person's own medium.")


class CustodyTable(_Table):
    """[custody]: absent, keys can never leave the token, and a backup of it is the vendor's clone"""

    export_file: Path = Field(description="Where the wrapped keys go; without both shares nobody opens them.")
    custodian: tuple[CustodianTable, CustodianTable] = Field(description="The two who hold the shares.")


class CaTable(_Table):
    """[ca]: the installation's own CA, in force from the first moment on; absent, there is none"""

    common_name: _Line = Field(description="The CA's name.")
    organization: _Line = Field(description="The agency whose CA it is.")
    key_type: Literal["EC_P256", "EC_P384", "RSA_3072", "RSA_4096"] = Field(
        default="EC_P384", description="Its key, in the token."
    )
    days: Annotated[int, Field(ge=1, le=7305)] = Field(default=3650, description="How long its certificate is valid.")


class OfficerTable(_Table):
    """[[officer]]: one of the first operators; two at least are security officers"""

    id: str = Field(description="The operator's id, such as tran-thi-b.")
    name: _Line = Field(description="The person's name.")
    roles: tuple[Role, ...] = Field(
        min_length=1, description="Such as SECURITY_OFFICER, REGISTRATION_OFFICER, AUDITOR."
    )
    certificate_request: Path | None = Field(
        default=None, description="A request (PEM) by the person's own key; the private TLS CA certifies it."
    )
    certificate: Path | None = Field(
        default=None, description="Or a certificate (PEM) that installation.client_ca_file issued."
    )


class Plan(_Table):
    """Everything that the file says."""

    ceremony: CeremonyTable
    installation: InstallationTable
    token: TokenTable
    custody: CustodyTable | None = None
    ca: CaTable | None = None
    officer: tuple[OfficerTable, ...] = Field(min_length=2)


TABLES: tuple[type[_Table], ...] = (
    CeremonyTable,
    InstallationTable,
    TokenTable,
    CustodyTable,
    CustodianTable,
    CaTable,
    OfficerTable,
)
T = TypeVar("T", bound=_Table)


@dataclass(frozen=True, kw_only=True)
class LoadedPlan:
    """A plan, and the SHA-256 of the file that it was read from."""

    plan: Plan
    sha256: str


def load_plan(path: Path) -> LoadedPlan:
    """Reads the file; relative paths start from its folder. Raises `BadPlan` with every fault, `OSError`."""
    content = path.read_bytes()
    try:
        read = Plan.model_validate(tomllib.loads(content.decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise BadPlan(f"{path}: {fault}") from None
    except ValidationError as error:
        raise BadPlan("\n".join(_words(fault) for fault in error.errors())) from None
    plan = _absolute(read, path.parent)
    faults = [*_token_faults(plan.token), *_officer_faults(plan), *_custody_faults(plan)]
    if faults:
        raise BadPlan("\n".join(faults))
    return LoadedPlan(plan=plan, sha256=hashlib.sha256(content).hexdigest())


def _words(fault: object) -> str:
    found = dict(fault)  # type: ignore[call-overload]
    return f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}"


def _absolute(table: T, folder: Path) -> T:
    """Returns the table with all paths absolute, also those of the tables in it."""
    changed: dict[str, object] = {}
    for name in type(table).model_fields:
        value = getattr(table, name)
        if isinstance(value, Path):
            changed[name] = (folder / value).absolute()
        elif isinstance(value, _Table):
            changed[name] = _absolute(value, folder)
        elif isinstance(value, tuple) and value and isinstance(value[0], _Table):
            changed[name] = tuple(_absolute(one, folder) for one in value)
    return table.model_copy(update=changed)


def _token_faults(token: TokenTable) -> list[str]:
    named = (token.module, token.label, token.serial, token.pin_file)
    if token.softhsm:
        given = [*named, token.so_pin_file]
        return [] if not any(given) else ["token: with softhsm nothing else is given: token and PINs are made"]
    if token.module is None or token.pin_file is None or (token.label is None) == (token.serial is None):
        return ["token: expected module, pin_file and either label or serial; or softhsm = true"]
    return []


def _officer_faults(plan: Plan) -> list[str]:
    faults = []
    for officer in plan.officer:
        where = f"officer {officer.id}"
        if not _ID.fullmatch(officer.id):
            faults.append(f"{where}: id: expected small letters, digits and hyphens, such as 'tran-thi-b'")
        fault = combination_fault(officer.roles)
        if fault is not None or len(set(officer.roles)) != len(officer.roles):
            faults.append(f"{where}: roles: {fault or 'a role is named twice'}")
        if (officer.certificate is None) == (officer.certificate_request is None):
            faults.append(f"{where}: expected either certificate_request or certificate")
        if officer.certificate is not None and plan.installation.client_ca_file is None:
            faults.append(f"{where}: certificate: installation.client_ca_file has to name the CA that issued it")
    for what, values in (("id", [one.id for one in plan.officer]), ("name", [one.name for one in plan.officer])):
        faults += [f"officer: {what} {value!r} is there twice" for value, count in Counter(values).items() if count > 1]
    if sum(Role.SECURITY_OFFICER in officer.roles for officer in plan.officer) < 2:
        faults.append("officer: at least two are SECURITY_OFFICER: what one of them proposes, another one approves")
    if sum(Role.REGISTRATION_OFFICER in officer.roles for officer in plan.officer) == 1:
        faults.append("officer: one REGISTRATION_OFFICER alone can have nothing approved: name two, or none yet")
    return faults


def _custody_faults(plan: Plan) -> list[str]:
    if plan.custody is None:
        return []
    first, second = plan.custody.custodian
    files = [first.share_file, second.share_file, plan.custody.export_file]
    faults = []
    if first.name == second.name:
        faults.append("custody.custodian: two people, not one twice")
    if len({path.parent for path in files}) != len(files):
        faults.append("custody: both shares and the export go to three different folders, each on a medium of its own")
    if any(plan.installation.directory in path.parents for path in files):
        faults.append("custody: neither a share nor the export belongs into installation.directory")
    return faults
