"""Connection files: how to reach a server, who one is there, and what to trust.

`trien-server sandbox` writes one as `connection.json`; paths in it are relative to the file.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from trien_client._errors import ConnectionFileError
from trien_client._secret import Secret

Identity = str
"""As whom to call: `client` with the client's token, `client_certificate`, or an operator's name."""


@dataclass(frozen=True, kw_only=True)
class CertificateIdentity:
    """A caller that is known by a certificate."""

    name: str
    certificate_file: Path
    key_file: Path


@dataclass(frozen=True, kw_only=True)
class SandboxSigner:
    """A person of a sandbox, with what makes the person's one-time passwords."""

    name: str
    display_name: str
    otpauth_uri: Secret = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class SandboxCredential:
    """A credential of a sandbox and the persons who may activate it."""

    name: str
    activators: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ConnectionFile:
    """What a connection file says."""

    path: Path
    sandbox: bool
    """Whether it is a sandbox's. Only then may it hold what makes people's one-time passwords."""
    address: str
    mutual_tls_address: str | None
    ca_file: Path
    trust_anchors_file: Path | None
    log_key: str | None
    """The audit log's key, which receipts are verified with."""
    token: Secret | None
    certificates: Mapping[str, CertificateIdentity]
    credentials: tuple[SandboxCredential, ...]
    signers: tuple[SandboxSigner, ...]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads the file at `path`.

        Raises `ConnectionFileError` that says what is wrong, without anything of the content.
        """
        file = Path(path)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConnectionFileError(f"The connection file {file} cannot be read: {error.strerror}.") from None
        except ValueError:
            raise ConnectionFileError(f"The connection file {file} is not JSON.") from None
        try:
            return cls._parse(file, content)
        except (KeyError, TypeError, AttributeError) as error:
            missing = f"it has no {error}" if isinstance(error, KeyError) else "a field has another form"
            raise ConnectionFileError(f"The connection file {file} is not one of Trien's: {missing}.") from None

    @classmethod
    def _parse(cls, file: Path, content: dict[str, Any]) -> Self:
        folder = file.parent
        client = content.get("client") or {}
        anchors = content.get("trust_anchors_file")
        return cls(
            path=file,
            sandbox=content.get("sandbox") is True,
            address=content["address"],
            mutual_tls_address=content.get("mutual_tls_address"),
            ca_file=folder / content["ca_file"],
            trust_anchors_file=None if anchors is None else folder / anchors,
            log_key=content.get("log_key"),
            token=Secret(client["token"]) if client.get("token") else None,
            certificates={
                identity: CertificateIdentity(
                    name=found.get("name", identity),
                    certificate_file=folder / found["certificate_file"],
                    key_file=folder / found["key_file"],
                )
                for identity, found in [
                    *(
                        [("client_certificate", content["client_certificate"])]
                        if "client_certificate" in content
                        else ()
                    ),
                    *((operator["name"], operator) for operator in content.get("operators", ())),
                ]
            },
            credentials=tuple(
                SandboxCredential(name=item["name"], activators=tuple(item.get("activators", ())))
                for item in content.get("credentials", ())
            ),
            signers=tuple(
                SandboxSigner(
                    name=item["name"],
                    display_name=item.get("display_name", item["name"]),
                    otpauth_uri=Secret(item["otpauth_uri"]),
                )
                for item in content.get("signers", ())
                if item.get("otpauth_uri")
            ),
        )

    def certificate_of(self, identity: Identity) -> CertificateIdentity:
        """Returns the certificate of `identity`.

        Raises `ConnectionFileError` when the file has none, or no address that takes certificates.
        """
        found = self.certificates.get(identity)
        if found is None or self.mutual_tls_address is None:
            raise ConnectionFileError(f"The connection file {self.path} has no {identity} or no mutual_tls_address.")
        return found

    def require_token(self) -> Secret:
        """Returns the client's bearer token.

        Raises `ConnectionFileError` when the file has none.
        """
        if self.token is None:
            raise ConnectionFileError(f"The connection file {self.path} has no client with a token.")
        return self.token
