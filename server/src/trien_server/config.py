"""The configuration: the types below are its documentation.

A value comes from the first of these that has it:

    1. `--set SECTION.KEY=VALUE` on the command line
    2. the environment: `TRIEN_SECTION__KEY`, such as `TRIEN_TOKEN__PIN_FILE`
    3. the configuration file (TOML)
    4. the default

Unknown keys are refused, with the nearest known one. Secrets are never values: a key that ends in
`_file` says where one is. Relative paths in the file start from the file's folder.
"""

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trien_server.core.retention import DEFAULT_DAYS, LEAST_DAYS

_PREFIX = "TRIEN_"
_MAIL_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")

_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[A-Za-z0-9][A-Za-z0-9._-]*)):(?P<port>[0-9]{1,5})")
_LAST_PORT = 65535
_PUBLIC_URL = re.compile(r"https://[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServiceSection(_Section):
    """[service]"""

    name: str = Field(default="Trien", description="The issuer that people see in their authenticator app.")
    time_zone: str = Field(
        default="Asia/Ho_Chi_Minh", description="The time zone (tz database) of the hours in credentials' policies."
    )


class ServerSection(_Section):
    """[server]"""

    token_address: str = Field(default="127.0.0.1:8443", description="Where clients with bearer tokens connect.")
    certificate_address: str = Field(
        default="127.0.0.1:8444", description="Where callers with client certificates connect."
    )
    tls_certificate_file: Path = Field(description="The server's certificate chain, PEM.")
    tls_key_file: Path = Field(description="Its private key, PEM, readable by the owner alone.")
    client_ca_file: Path = Field(description="The CA of client certificates, PEM.")
    workers: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="How many processes share the ports; with more than one, a supervisor replaces the dead."
    )
    threads: Annotated[int, Field(ge=4, le=256)] = Field(
        default=32, description="How many calls a process works on at once."
    )
    concurrent_calls: Annotated[int, Field(ge=8)] = Field(
        default=256,
        description="How many calls may be open in a process; more are refused at once (RESOURCE_EXHAUSTED).",
    )
    signing_requests: Annotated[int, Field(ge=1)] = Field(
        default=24,
        description="How many requests to sign a process admits at once, of one client half; more are refused as BUSY.",
    )
    message_size: Annotated[int, Field(ge=64 * 1024)] = Field(
        default=2 * 1024 * 1024, description="The largest message, in bytes."
    )
    drain_seconds: Annotated[float, Field(ge=0, le=60)] = Field(
        default=1.0, description="How long a stopping server says NOT_SERVING before it takes no more calls."
    )
    grace_seconds: Annotated[float, Field(ge=1, le=600)] = Field(
        default=30.0, description="How long calls that are at work may take to finish when the server stops."
    )
    reflection: bool = Field(default=False, description="Whether gRPC reflection answers.")


class TokenSection(_Section):
    """[token]"""

    module: Path = Field(description="The PKCS#11 module's path.")
    label: str | None = Field(default=None, description="The token's label.")
    serial: str | None = Field(default=None, description="The token's serial number, instead of its label.")
    pin_file: Path = Field(description="A file with the user PIN, readable by the owner alone.")
    sessions: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="How many sessions sign at once; by default one a processor."
    )
    unwrapped_keys: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=256,
        description="How many wrapped keys a process keeps open in the token; beyond it the least recently used go.",
    )
    softhsm_configuration_file: Path | None = Field(
        default=None, description="For SoftHSM alone: its softhsm2.conf, handed on as SOFTHSM2_CONF."
    )
    exported_keys_file: Path | None = Field(
        default=None,
        description="The list of the token's keys that custodians can bring back; without it no such key counts.",
    )


class StoreSection(_Section):
    """[store]"""

    url: str = Field(description="The database, such as sqlite:////var/lib/trien/trien.db.")


class DeliverySection(_Section):
    """[delivery]"""

    language: Literal["vi", "en"] = Field(
        default="vi", description="The language of the texts that come with one-time passwords."
    )


class EmailSection(_Section):
    """[email]: without it no one-time password is sent by e-mail"""

    host: Annotated[str, Field(min_length=1)] = Field(description="The mail server's name or address.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="Its port; by default 587, and 465 with implicit TLS."
    )
    tls: Literal["starttls", "implicit", "none"] = Field(
        default="starttls", description="How the connection is encrypted; `none` for a server on this machine alone."
    )
    ca_file: Path | None = Field(
        default=None, description="The CA of the mail server's certificate, PEM; by default the system's CAs."
    )
    user: str | None = Field(default=None, description="Who logs in; by default nobody.")
    password_file: Path | None = Field(
        default=None, description="A file with the password, readable by the owner alone."
    )
    from_address: str = Field(description="The sender's mail address.")


class SmsSection(_Section):
    """[sms]: without it no one-time password is sent by SMS"""

    url: str = Field(description="Where the SMS gateway takes messages, https; http for one on this machine alone.")
    secret_file: Path = Field(
        description="A file with the secret that signs messages (`whsec_…`), readable by the owner alone."
    )
    ca_file: Path | None = Field(
        default=None, description="The CA of the gateway's certificate, PEM; by default the system's CAs."
    )
    bearer_token_file: Path | None = Field(
        default=None, description="A file with a bearer token that the gateway asks for, readable by the owner alone."
    )


class CaSection(_Section):
    """[ca]: the installation's own CA, made by `trien-server ca create`"""

    crl_folder: Path | None = Field(
        default=None, description="A folder where the CA's revocation lists are kept fresh, for a web server to serve."
    )
    crl_url: str | None = Field(
        default=None,
        description="The URL under which that folder is served; new certificates name it. Without it they name none.",
    )
    crl_hours: Annotated[int, Field(ge=1, le=720)] = Field(
        default=24, description="After how many hours a new list is made; one is also made after a revocation."
    )
    crl_days: Annotated[int, Field(ge=1, le=90)] = Field(
        default=7, description="Within how many days a list says that the next one comes."
    )


class RevocationSection(_Section):
    """[revocation]: how the revocation status of other CAs' certificates is learnt"""

    network: bool = Field(
        default=False, description="Whether the OCSP responders and lists that certificates name are asked."
    )
    allowed_hosts: str = Field(
        default="",
        description="Hosts, with spaces between, that may have any address and port; others public ones, 80 and 443.",
    )
    crl_folder: Path | None = Field(
        default=None, description="A folder with lists of other CAs, `*.crl`, that something else keeps fresh."
    )
    check_seconds: Annotated[int, Field(ge=10, le=86400)] = Field(
        default=3600, description="How often each certificate is asked about."
    )
    valid_hours: Annotated[int, Field(ge=1, le=720)] = Field(
        default=24, description="How long an answer counts at most, also when its CA says longer."
    )
    timeout_seconds: Annotated[float, Field(ge=1, le=60)] = Field(
        default=10.0, description="How long one answer may take."
    )


class EnrolmentSection(_Section):
    """[enrolment]"""

    replacement_wait_hours: Annotated[int, Field(ge=0, le=720)] = Field(
        default=24,
        description="How long a person who has or had an authenticator is told before another one can be enrolled.",
    )


class WebSection(_Section):
    """[web]: without an address there is no enrolment page"""

    address: str | None = Field(
        default=None,
        description="Where the enrolment page is served, with the server's certificate; off by default.",
    )
    public_url: str | None = Field(
        default=None,
        description="The page's address as people see it, such as https://sign.district.example; enrolment codes are "
        "sent as links to it.",
    )


class BackupSection(_Section):
    """[backup]"""

    recipients: str = Field(
        default="",
        description="Who can open backups: age1…, with spaces between; `--recipient` adds to them.",
    )


class RetentionSection(_Section):
    """[retention]"""

    request_days: Annotated[int, Field(ge=LEAST_DAYS, le=36_500)] = Field(
        default=DEFAULT_DAYS,
        description="After how many days records of requests go: outcomes, authorizations, approvals, uses.",
    )


class AuditSection(_Section):
    """[audit]"""

    tile_folder: Path | None = Field(
        default=None,
        description="A folder where the audit log is published, for a web server to serve; every node may have one.",
    )
    token_checkpoint_seconds: Annotated[int, Field(ge=1, le=86400)] = Field(
        default=60, description="How often the newest checkpoint of the log is also kept on the token."
    )
    export_file: Path | None = Field(
        default=None, description="A file to which every audit entry is appended as a line of JSON."
    )


class SyslogSection(_Section):
    """[syslog]: without it the audit log goes to no syslog receiver"""

    url: str = Field(
        description="The receiver: `tls://HOST:PORT`; on this machine also `tcp://`, `udp://` or `unix:///dev/log`."
    )
    ca_file: Path | None = Field(
        default=None, description="The CA of the receiver's certificate, PEM; by default the system's CAs."
    )
    certificate_file: Path | None = Field(
        default=None, description="The certificate chain that the receiver asks of the server, PEM."
    )
    key_file: Path | None = Field(default=None, description="Its private key, PEM, readable by the owner alone.")
    hostname: str = Field(default="", description="What messages say they come from; by default this machine's name.")
    timeout_seconds: Annotated[float, Field(ge=1, le=10)] = Field(
        default=5.0, description="How long the receiver may take for some hundred messages."
    )


class LogSection(_Section):
    """[log]"""

    format: Literal["json", "text"] = Field(default="json", description="Lines for machines or for people.")


class Config(_Section):
    """Everything that can be set."""

    service: ServiceSection = ServiceSection()
    server: ServerSection
    token: TokenSection
    store: StoreSection
    delivery: DeliverySection = DeliverySection()
    email: EmailSection | None = None
    sms: SmsSection | None = None
    ca: CaSection = CaSection()
    revocation: RevocationSection = RevocationSection()
    enrolment: EnrolmentSection = EnrolmentSection()
    web: WebSection = WebSection()
    backup: BackupSection = BackupSection()
    retention: RetentionSection = RetentionSection()
    audit: AuditSection = AuditSection()
    syslog: SyslogSection | None = None
    log: LogSection = LogSection()


SECTIONS: Mapping[str, type[BaseModel]] = {
    "service": ServiceSection,
    "server": ServerSection,
    "token": TokenSection,
    "store": StoreSection,
    "delivery": DeliverySection,
    "email": EmailSection,
    "sms": SmsSection,
    "ca": CaSection,
    "revocation": RevocationSection,
    "enrolment": EnrolmentSection,
    "web": WebSection,
    "backup": BackupSection,
    "retention": RetentionSection,
    "audit": AuditSection,
    "syslog": SyslogSection,
    "log": LogSection,
}


_OTHER_CALLS = 2


def waiters_of(server: ServerSection) -> int:
    """Returns how many calls may wait for authorizations at once: an eighth of the threads."""
    return max(1, server.threads // 8)


def senders_of(server: ServerSection) -> int:
    """Returns how many codes may be delivered at once, each for as long as its carrier takes: a sixteenth."""
    return max(1, server.threads // 16)


class BadConfiguration(Exception):  # noqa: N818
    """The configuration cannot be used; each line of the message is one fault."""


@dataclass(frozen=True, kw_only=True)
class LoadedConfig:
    """A configuration, and for each key where its value came from."""

    config: Config
    sources: Mapping[str, str]


def load(path: Path | None, *, environment: Mapping[str, str], overrides: Sequence[str] = ()) -> LoadedConfig:
    """Reads file, environment and overrides. Raises `BadConfiguration` with every fault that was found."""
    values: dict[str, dict[str, Any]] = {}
    sources: dict[str, str] = {}
    faults: list[str] = []
    if path is not None:
        _merge_file(path, values, sources, faults)
    for name in sorted(environment):
        section, separator, key = name.removeprefix(_PREFIX).lower().partition("__")
        if name.startswith(_PREFIX) and separator:
            _set(section, key, environment[name], f"environment {name}", values, sources, faults)
    for override in overrides:
        name, separator, value = override.partition("=")
        section, dot, key = name.partition(".")
        if not (separator and dot):
            faults.append(f"--set {override}: expected SECTION.KEY=VALUE")
            continue
        _set(section, key, value, "--set", values, sources, faults)
    if faults:
        raise BadConfiguration("\n".join(faults))
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise BadConfiguration("\n".join(_fault_of(fault, sources) for fault in error.errors())) from None
    most = config.server.threads - waiters_of(config.server) - senders_of(config.server) - _OTHER_CALLS
    if config.server.signing_requests > most:
        raise BadConfiguration(
            f"server.signing_requests: at most {most} with {config.server.threads} server.threads, "
            "for waiting, delivering codes and other calls need some"
        )
    _check_token(config.token)
    _check_time_zone(config.service)
    faults = _address_faults(config.server)
    faults += _web_faults(config.web)
    faults += [] if config.email is None else _email_faults(config.email)
    faults += [] if config.sms is None else _sms_faults(config.sms)
    faults += _ca_faults(config.ca)
    faults += [] if config.syslog is None else _syslog_faults(config.syslog)
    if faults:
        raise BadConfiguration("\n".join(faults))
    return LoadedConfig(config=config, sources=sources)


def _check_time_zone(service: ServiceSection) -> None:
    try:
        ZoneInfo(service.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadConfiguration(
            f"service.time_zone: {service.time_zone!r} is no time zone; expected one such as 'Asia/Ho_Chi_Minh'"
        ) from None


def _check_token(token: TokenSection) -> None:
    if (token.label is None) == (token.serial is None):
        raise BadConfiguration("token: set either label or serial")


def _address_faults(server: ServerSection) -> list[str]:
    named = {"token_address": server.token_address, "certificate_address": server.certificate_address}
    faults = [
        f"server.{key}: expected HOST:PORT with a port from 0 to 65535, such as '127.0.0.1:8443' or '[::1]:8443'"
        for key, address in named.items()
        if _host_and_port(address) is None
    ]
    addresses = [_host_and_port(address) for address in named.values()]
    if not faults and addresses[0] == addresses[1] and addresses[0] is not None and addresses[0][1] != 0:
        faults.append("server.certificate_address: expected another address than server.token_address")
    return faults


def _web_faults(web: WebSection) -> list[str]:
    faults = []
    if web.address is not None and _host_and_port(web.address) is None:
        faults.append("web.address: expected HOST:PORT with a port from 0 to 65535, such as '0.0.0.0:8445'")
    if web.public_url is not None and _PUBLIC_URL.fullmatch(web.public_url) is None:
        faults.append("web.public_url: expected https, a host and nothing behind it: 'https://sign.district.example'")
    return faults


def _host_and_port(address: str) -> tuple[str, int] | None:
    """Returns what an address is made of, or None when it is none. An IPv6 address is in brackets."""
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found["port"]) > _LAST_PORT:
        return None
    if found["ipv6"] is not None:
        try:
            return str(ipaddress.IPv6Address(found["ipv6"])), int(found["port"])
        except ValueError:
            return None
    return found["host"].lower(), int(found["port"])


def _email_faults(email: EmailSection) -> list[str]:
    faults = []
    if email.tls == "none" and not _is_loopback(email.host):
        faults.append(f"email.tls: 'none' is for a mail server on this machine, which {email.host} is not")
    if (email.user is None) != (email.password_file is None):
        faults.append("email: set both user and password_file, or neither")
    if email.user is not None and not (email.user.isascii() and email.user.isprintable()):
        faults.append("email.user: expected ASCII characters")
    if _MAIL_ADDRESS.fullmatch(email.from_address) is None:
        faults.append("email.from_address: expected one mail address, such as 'no-reply@district.example'")
    return faults


def _sms_faults(sms: SmsSection) -> list[str]:
    try:
        url = urlsplit(sms.url)
        url.port  # noqa: B018 - parsed when it is asked for
    except ValueError as fault:
        return [f"sms.url: {fault}"]
    if url.scheme not in {"https", "http"} or not url.hostname:
        return ["sms.url: expected a URL with https, such as 'https://gateway.example/messages'"]
    faults = []
    if url.username is not None or url.password is not None or url.fragment:
        faults.append("sms.url: a user, password or fragment has no place in it; see sms.bearer_token_file")
    if not (sms.url.isascii() and sms.url.isprintable() and " " not in sms.url):
        faults.append("sms.url: expected ASCII characters without spaces")
    if url.scheme == "http" and not _is_loopback(url.hostname):
        faults.append(f"sms.url: http is for a gateway on this machine, which {url.hostname} is not; use https")
    return faults


def _syslog_faults(syslog: SyslogSection) -> list[str]:
    try:
        url = urlsplit(syslog.url)
        port = url.port
    except ValueError as fault:
        return [f"syslog.url: {fault}"]
    expected = "syslog.url: expected one such as 'tls://siem.district.example:6514' or 'unix:///dev/log'"
    if url.username is not None or url.query or url.fragment:
        return [expected]
    if url.scheme == "unix":
        faults = [] if url.path.startswith("/") and not url.netloc else [expected]
    elif url.scheme in {"tls", "tcp", "udp"} and url.hostname and port and url.path in {"", "/"}:
        faults = []
        if url.scheme != "tls" and not _is_loopback(url.hostname):
            faults.append(f"syslog.url: {url.scheme} is for a receiver on this machine, not {url.hostname}; use tls")
    else:
        return [expected]
    if (syslog.certificate_file is None) != (syslog.key_file is None):
        faults.append("syslog: set both certificate_file and key_file, or neither")
    if url.scheme != "tls" and (syslog.ca_file is not None or syslog.certificate_file is not None):
        faults.append("syslog: ca_file, certificate_file and key_file are for a URL with tls")
    if not (syslog.hostname.isascii() and (syslog.hostname == "" or syslog.hostname.isprintable())):
        faults.append("syslog.hostname: expected ASCII characters")
    return faults


def _ca_faults(ca: CaSection) -> list[str]:
    faults = []
    if ca.crl_hours >= 24 * ca.crl_days:
        faults.append(f"ca.crl_hours: expected less than the {ca.crl_days} days of ca.crl_days")
    if ca.crl_url is not None:
        try:
            url = urlsplit(ca.crl_url)
            usable = url.scheme == "http" and bool(url.hostname) and not (url.query or url.fragment or url.username)
        except ValueError:
            usable = False
        if not (usable and ca.crl_url.isascii() and ca.crl_url.isprintable() and " " not in ca.crl_url):
            # RFC 5280, section 8: a list behind https would have to be fetched to verify the connection it comes by.
            faults.append("ca.crl_url: expected a URL with http, such as 'http://pki.district.example/crl'")
    return faults


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _merge_file(path: Path, values: dict[str, dict[str, Any]], sources: dict[str, str], faults: list[str]) -> None:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadConfiguration(f"{path}: there is no such file; `trien-server init --dir DIR` makes one") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfiguration(f"{path}: {error}") from None
    for section, table in content.items():
        if not isinstance(table, dict):
            faults.append(f"{path}: {section}: expected a section [{section}]{_suggest(section, list(SECTIONS))}")
            continue
        for key, value in table.items():
            resolved = value
            if isinstance(value, str) and (key.endswith(("_file", "_folder")) or key == "module"):
                resolved = str((path.parent / value).absolute())
            elif key == "url" and isinstance(value, str) and value.startswith("sqlite:///"):
                resolved = f"sqlite:///{(path.parent / value.removeprefix('sqlite:///')).absolute()}"
            _set(section, key, resolved, str(path), values, sources, faults)


def _set(
    section: str,
    key: str,
    value: Any,
    source: str,
    values: dict[str, dict[str, Any]],
    sources: dict[str, str],
    faults: list[str],
) -> None:
    sections = SECTIONS
    if section not in sections:
        faults.append(f"{source}: unknown section {section!r}{_suggest(section, list(sections))}")
    elif key not in sections[section].model_fields:
        names = list(sections[section].model_fields)
        faults.append(f"{source}: unknown key {section}.{key}{_suggest(key, names)}")
    else:
        values.setdefault(section, {})[key] = value
        sources[f"{section}.{key}"] = source


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or [one for one in known if name in one][:1]
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def _fault_of(fault: Any, sources: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    source = sources.get(key)
    return f"{key}: {fault['msg']}" + (f" (from {source})" if source else "")
