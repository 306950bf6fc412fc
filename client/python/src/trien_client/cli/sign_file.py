"""`trien sign file`: a signature beside a file of any kind."""

import unicodedata
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from trien_client._algorithms import SignatureAlgorithm
from trien_client.cli import options
from trien_client.cli.outcome import CommandError, OutputFormat, plain, reported, show
from trien_client.cli.receipts import LogKey, ReceiptFile, require_receipt, write_receipt
from trien_client.cli.results import result_content

if TYPE_CHECKING:
    from trien_client._client import Client
    from trien_client._resources import Authorization, SigningResult
    from trien_client.cli.password import PasswordSource
    from trien_client.pyhanko import TrienSigner

_MOST_FILES = 200
_LONGEST_TITLE = 200
SUFFIX = ".p7s"


def file(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="The files to sign, of any kind. They are not changed.")
    ],
    credential: options.CredentialName,
    signature_out: Annotated[
        Path | None,
        typer.Option(
            "--signature-out",
            metavar="FILE",
            help=f"Where the signature goes; without it beside the file: FILE{SUFFIX}.",
        ),
    ] = None,
    pem: Annotated[bool, typer.Option("--pem", help="Write the signature as text (PEM) instead of DER.")] = False,
    algorithm: options.Algorithm = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a signature that is in the way.")] = False,
    signer: options.Signer = None,
    otp_file: options.OneTimePasswordFile = None,
    receipt: ReceiptFile = None,
    log_key: LogKey = None,
    when_approved: Annotated[
        bool,
        typer.Option(
            "--when-approved",
            help="Ask for no password: wait until the signer has approved (trien authorizations), and sign then.",
        ),
    ] = False,
    connection: options.Connection = None,
    address: options.Address = None,
    ca_file: options.CaFile = None,
    token_file: options.TokenFile = None,
    certificate_file: options.CertificateFile = None,
    key_file: options.KeyFile = None,
    trust_anchors: options.TrustAnchors = None,
    timeout: options.Timeout = 30.0,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """Sign files of any kind, each beside itself.

    The signature is a detached CMS (RFC 5652) with the signer's certificate, as `trien verify` and `openssl cms` read
    it. Many files take one password: all are signed or none. With --when-approved the signer sees the file's name as
    the title, of many the first one's and how many more.

    \b
    Examples:
      trien sign file contract.docx --credential hoang-trinh-don-rsa
      trien verify contract.docx --signature contract.docx.p7s
      trien sign file contract.docx --credential hoang-trinh-don-rsa --receipt contract.receipt
      trien sign file *.xml --credential hoang-trinh-don-p256
      trien sign file plan.dwg --credential hoang-trinh-don-rsa --when-approved
    """
    with reported(output):
        job = FileJob(
            pairs=tuple((one, signature_out or one.with_name(one.name + SUFFIX)) for one in files),
            credential=options.full_name("credentials", credential),
            signer=None if signer is None else options.full_name("signers", signer),
            algorithm=algorithm,
            pem=pem,
            force=force,
            otp_file=otp_file,
            when_approved=when_approved,
        )
        if signature_out is not None and len(files) > 1:
            raise CommandError("--signature-out takes one signature: give one file.")
        target = options.Target(
            connection=connection,
            address=address,
            ca_file=ca_file,
            token_file=token_file,
            certificate_file=certificate_file,
            key_file=key_file,
            trust_anchors=trust_anchors,
            timeout=timeout,
            log_key=log_key,
        )
        require_receipt(target, receipt, items=len(files), force=force, inputs=files)
        result = job.run(target)
        write_receipt(target, result, receipt, force=force)
        how = f"{result.algorithm}, approved by {result.approved_by}, {result.audit_entry}"
        show(
            output,
            "\n".join(f"Signed: {signature} ({how})" for _, signature in job.pairs),
            {
                "files": [{"file": str(one), "signature_file": str(signature)} for one, signature in job.pairs],
                **result_content(result),
            },
        )


@dataclass(frozen=True, kw_only=True)
class FileJob:
    """What to sign and how."""

    pairs: tuple[tuple[Path, Path], ...]
    """Each file and where its signature goes."""
    credential: str
    signer: str | None
    algorithm: SignatureAlgorithm | None
    pem: bool
    force: bool
    otp_file: str | None
    when_approved: bool

    def run(self, target: options.Target) -> "SigningResult":
        """Signs all files or none; returns the server's answer."""
        from trien_client.cli.files import new_file
        from trien_client.cli.password import PasswordSource
        from trien_client.cli.prompting import run_together

        self._require_files()
        source = None if self.when_approved else PasswordSource(self.otp_file, what=self._what())
        with target.connect() as client, ExitStack() as opened:
            options.require_signer(client, self.credential, self.signer, several=self.when_approved)
            outputs = [
                (one, opened.enter_context(new_file(signature, overwrite=self.force))) for one, signature in self.pairs
            ]
            signer = self._signer(client, source)
            run_together(signer, [partial(self._sign, signer, *pair) for pair in outputs])
        if signer.result is None:
            raise CommandError("Nothing was signed.")
        return signer.result

    def _signer(self, client: "Client", source: "PasswordSource | None") -> "TrienSigner":
        from trien_client.cli.prompting import PromptingSigner, WaitingSigner

        if source is not None:
            return PromptingSigner(client, self.credential, algorithm=self.algorithm, source=source, signer=self.signer)
        return WaitingSigner(
            client,
            self.credential,
            algorithm=self.algorithm,
            approver=self.signer,
            on_pending=_tell,
            title=title_of([one.name for one, _ in self.pairs]),
        )

    async def _sign(self, signer: "TrienSigner", content: Path, signature: BinaryIO) -> None:
        from trien_client.cms import async_sign_detached, to_pem

        with content.open("rb") as source:
            signed = await async_sign_detached(signer, source)
        signature.write(to_pem(signed) if self.pem else signed)

    def _require_files(self) -> None:
        from trien_client.cli.files import require_file, require_writable

        if self.when_approved and self.otp_file is not None:
            raise CommandError("--when-approved asks for no password here: leave --otp-file out.")
        if len(self.pairs) > _MOST_FILES:
            raise CommandError(f"{len(self.pairs)} files are too many at once: at most {_MOST_FILES}.")
        inputs = tuple(one for one, _ in self.pairs)
        if len({signature for _, signature in self.pairs}) < len(self.pairs):
            raise CommandError("A file is named twice.")
        for one, signature in self.pairs:
            require_file(one)
            require_writable(signature, overwrite=self.force, inputs=inputs)

    def _what(self) -> str:
        names = [one.name for one, _ in self.pairs]
        shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        return shown if len(names) == 1 else f"{len(names)} files: {shown}"


def title_of(names: Sequence[str]) -> str:
    """Returns the title of an authorization for files: the first one's name, and how many more there are.

    It is one line without control characters, in Unicode's normal form C and of at most 200 characters, as the server
    takes it.
    """
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    first = plain(unicodedata.normalize("NFC", names[0])).strip()
    longest = _LONGEST_TITLE - len(more)
    return (first if len(first) <= longest else f"{first[: longest - 1]}…") + more


def _tell(authorization: "Authorization") -> None:
    from trien_client.cli.decisions import grouped

    typer.echo(
        f"Waits for a decision on fingerprint {grouped(authorization.fingerprint)}. To approve:\n"
        f"  trien authorizations approve {authorization.name}",
        err=True,
    )
