"""Options that several commands share, and the client that they make."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client._algorithms import SignatureAlgorithm
from trien_client.cli.outcome import CommandError, OutputFormat

if TYPE_CHECKING:
    from trien_client._client import Client
    from trien_client._connection import ConnectionFile
    from trien_client._resources import Credential


class Means(StrEnum):
    """By what a person approves, other than a code that an app shows by itself."""

    OCRA = "ocra"
    DELIVERY = "delivery"


Connection = Annotated[
    Path | None,
    typer.Option(
        "--connection",
        envvar="TRIEN_CONNECTION",
        metavar="FILE",
        help="How to reach the server: a connection.json, as `trien-server sandbox` writes it.",
    ),
]
Address = Annotated[
    str | None, typer.Option("--address", metavar="HOST:PORT", help="The server, instead of --connection.")
]
CaFile = Annotated[
    Path | None, typer.Option("--ca-file", metavar="FILE", help="The CA of the server's TLS certificate (PEM).")
]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", metavar="FILE", help="A file with this application's token.")
]
CertificateFile = Annotated[
    Path | None,
    typer.Option(
        "--certificate-file", metavar="FILE", help="This application's certificate (PEM), instead of a token."
    ),
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", metavar="FILE", help="The key of --certificate-file.")]
TrustAnchors = Annotated[
    Path | None,
    typer.Option(
        "--trust-anchors", metavar="FILE", help="The CA certificates (PEM) that signers' certificates lead to."
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=1, help="How long to wait for the server.")]
Output = Annotated[OutputFormat, typer.Option("--output", help="What to print.")]
OneTimePasswordFile = Annotated[
    str | None,
    typer.Option(
        "--otp-file",
        metavar="FILE",
        help="Read the one-time password from a file, or from the standard input with `-`. Without it you are asked,"
        " and what you type is not shown. It is never an argument: other users of a computer can see those.",
    ),
]
Signer = Annotated[
    str | None,
    typer.Option(
        "--signer",
        metavar="NAME",
        help="Whose one-time password it is. Needed when several people may use a credential.",
    ),
]
CredentialName = Annotated[
    str,
    typer.Option(
        "--credential", metavar="NAME", help="The credential that signs, for example credentials/hoang-trinh-don-rsa."
    ),
]


Algorithm = Annotated[
    SignatureAlgorithm | None,
    typer.Option(
        "--algorithm",
        metavar="NAME",
        help="The signature algorithm. Without it the one that suits the key: RSA_PSS_SHA256 for RSA, ECDSA_P256_SHA256"
        " for P-256. Older readers may need RSA_PKCS1_SHA256.",
    ),
]


_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_EXAMPLES = {
    "auditEntries": "k7m2q9x4t8w3z6",
    "clients": "e-office",
    "credentials": "hoang-trinh-don-rsa",
    "keys": "hoang-trinh-don-2026",
    "operators": "tran-thi-b",
    "organizations": "ubnd-xa-phu-lam",
    "proposals": "k7m2q9x4t8w3z6",
    "signers": "hoang-trinh-don",
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """How to reach the server."""

    connection: Path | None
    address: str | None
    ca_file: Path | None
    token_file: Path | None
    certificate_file: Path | None
    key_file: Path | None
    trust_anchors: Path | None
    timeout: float
    log_key: str | None = None

    def connect(self) -> "Client":
        """Makes the client. Explicit options are preferred to the connection file's values."""
        from trien_client._client import Client
        from trien_client._secret import Secret

        file = self._file()
        address = self.address or (file.address if file is not None else None)
        ca_file = self.ca_file or (file.ca_file if file is not None else None)
        if address is None or ca_file is None:
            raise CommandError(
                "Say which server: set TRIEN_CONNECTION to its connection.json, or give --connection FILE, or --address"
                " with --ca-file and --token-file."
            )
        token = None
        if self.certificate_file is None:
            if self.token_file is not None:
                token = Secret(self.token_file.read_text(encoding="ascii").strip())
            elif file is not None:
                # A token goes only to the server that its file names.
                if address != file.address:
                    raise CommandError("Give --token-file too: the connection file's token is for its own server.")
                token = file.require_token()
            else:
                raise CommandError("Say who calls: --token-file, or --certificate-file with --key-file.")
        return Client(
            address,
            ca_certificates=ca_file,
            token=token,
            certificate=self.certificate_file,
            key=self.key_file,
            trust_anchors=self.anchors(),
            timeout=self.timeout,
            log_key=self.known_log_key(),
        )

    def known_log_key(self) -> str | None:
        """The audit log's key, or a file of its keys, if one is known."""
        if self.log_key is not None:
            return self.log_key
        file = self._file()
        return None if file is None else file.log_key

    def anchors(self) -> Path | None:
        """The file of trust anchors, if one is known."""
        if self.trust_anchors is not None:
            return self.trust_anchors
        file = self._file()
        return None if file is None else file.trust_anchors_file

    def _file(self) -> "ConnectionFile | None":
        return None if self.connection is None else load_connection(self.connection)


def load_connection(path: Path) -> "ConnectionFile":
    """Reads a connection file; a missing one is most often that of a sandbox that was stopped."""
    from trien_client._connection import ConnectionFile

    if not path.exists():
        named = ", which TRIEN_CONNECTION names," if os.environ.get("TRIEN_CONNECTION") == str(path) else ""
        raise CommandError(f"The connection file {path}{named} is missing. Is the sandbox running? (make run)")
    return ConnectionFile.load(path)


def require_signer(client: "Client", credential: str, signer: str | None, *, several: bool = False) -> None:
    """Raises `CommandError` when it is not clear or not possible whose password it is, before anyone is asked for it.

    Whether the person may sign at this time, the server says. With `several` anyone who may can do it.
    """
    read = client.get_credential(credential)
    known = [activator.signer for activator in read.activators]
    if signer is not None and signer not in known:
        raise CommandError(f"{signer} may not use {credential}. Give --signer {' or '.join(known) or 'another one'}.")
    present = present_activators(read)
    if signer is None and len(present) > 1 and not several:
        raise CommandError(
            f"Several people may use {credential}. Say whose code it is: --signer {' or '.join(present)}."
        )


def present_activators(credential: "Credential") -> list[str]:
    """Returns who may use the credential now, by this computer's clock."""
    now = datetime.now(UTC)
    return [
        activator.signer
        for activator in credential.activators
        if (activator.start_time is None or activator.start_time <= now)
        and (activator.end_time is None or now < activator.end_time)
    ]


def full_name(collection: str, name: str) -> str:
    """Returns `name` with its collection: people may leave out `credentials/`, `keys/` and so on.

    Raises `CommandError` when it cannot be a name there.
    """
    full = name if "/" in name else f"{collection}/{name}"
    if not full.startswith(f"{collection}/") or _ID.fullmatch(full.removeprefix(f"{collection}/")) is None:
        raise CommandError(
            f"{name!r} is not a name in {collection}: names are like {_EXAMPLES[collection]}, with lower-case letters,"
            " digits and hyphens."
        )
    return full
