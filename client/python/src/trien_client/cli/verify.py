"""`trien verify`: tells whether signatures are good, without asking the server."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client._algorithms import SignatureAlgorithm
from trien_client.cli import options
from trien_client.cli.outcome import CommandError, ExitCode, OutputFormat, plain, reported, show
from trien_client.cli.sign_file import SUFFIX

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from trien_client.cli.findings import Finding


def verify(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Signed PDFs, signatures such as a.xml.p7s beside a.xml, or one file with --signature.",
        ),
    ],
    signature: Annotated[
        Path | None,
        typer.Option("--signature", metavar="FILE", help="A signature beside the file, not in it: CMS, or raw."),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", metavar="FILE", help="With a raw --signature: the signer's certificates (PEM)."),
    ] = None,
    algorithm: Annotated[
        SignatureAlgorithm | None,
        typer.Option(
            "--algorithm",
            metavar="NAME",
            help="With a raw --signature: the algorithm; without it the one that suits the key.",
        ),
    ] = None,
    trust_anchors: options.TrustAnchors = None,
    connection: options.Connection = None,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """Tell whether signatures are good, who signed, and when.

    Good means: the file was not changed since, and the certificate can be trusted, for it leads to one of the trust
    anchors. Revocation is not asked about. The time is what the signer's computer said, unless there is a time stamp.

    \b
    Examples:
      trien verify decision-signed.pdf --trust-anchors ca.pem
      trien verify signed/*.pdf
      trien verify contract.docx --signature contract.docx.p7s
      trien verify a.xml --signature a.sig --certificate a.pem --connection sandbox/connection.json
    """
    with reported(output):
        from trien_client._trust import load_certificates

        target = options.Target(
            connection=connection,
            address=None,
            ca_file=None,
            token_file=None,
            certificate_file=None,
            key_file=None,
            trust_anchors=trust_anchors,
            timeout=1,
        )
        try:
            anchors_file = target.anchors()
        except CommandError as error:
            raise CommandError(f"{error} Or give the CA's certificate with --trust-anchors.") from None
        if anchors_file is None:
            raise CommandError(
                "Say whom to trust: --trust-anchors FILE with the CA's certificate, or set TRIEN_CONNECTION to a"
                " connection.json."
            )
        if signature is None and (certificate is not None or algorithm is not None):
            raise CommandError("--certificate and --algorithm belong to --signature.")
        if signature is not None and len(files) > 1:
            raise CommandError("--signature belongs to one file.")
        beside = None if signature is None else Beside(signature, certificate, algorithm)
        anchors = load_certificates(anchors_file)
        if len(files) == 1:
            verdict = _verdict(files[0], beside, anchors)
            show(output, verdict.text, verdict.content)
            exit_code = verdict.exit_code
        else:
            verdicts = [_verdict_on_one_of_many(file, anchors) for file in files]
            exit_code = max(verdict.exit_code for verdict in verdicts)
            show(
                output,
                "\n\n".join(f"{plain(str(file))}\n{one.text}" for file, one in zip(files, verdicts, strict=True)),
                {"good": exit_code is ExitCode.DONE, "files": [verdict.content for verdict in verdicts]},
            )
        if exit_code is not ExitCode.DONE:
            raise typer.Exit(int(exit_code))


@dataclass(frozen=True)
class Beside:
    """A signature that lies beside its file, and what is given with it."""

    signature: Path
    certificate: Path | None = None
    algorithm: SignatureAlgorithm | None = None

    def verify(self, file: Path, anchors: "Sequence[Certificate]") -> "Finding":
        """Verifies it. Raises `CommandError` when it cannot be told what kind of signature it is."""
        from trien_client._trust import load_certificates
        from trien_client.cli.detached import read_cms, verify_cms
        from trien_client.cli.findings import verify_detached

        content = self.signature.read_bytes()
        if self.certificate is not None:
            return verify_detached(file, content, load_certificates(self.certificate), self.algorithm, anchors)
        signed = read_cms(content)
        if signed is None:
            raise CommandError(
                f"{self.signature} is not a CMS signature: a raw one needs --certificate, the signer's certificate."
            )
        return verify_cms(file, signed, anchors)


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    text: str
    content: dict[str, object]
    exit_code: ExitCode


def _verdict(
    file: Path,
    beside: Beside | None,
    anchors: "Sequence[Certificate]",
) -> _Verdict:
    from trien_client.cli.files import require_file

    if beside is None and file.suffix == SUFFIX:
        beside, file = Beside(file), file.with_suffix("")
    for needed in (file,) if beside is None else (file, beside.signature):
        require_file(needed)
    findings = _inside(file, anchors) if beside is None else [beside.verify(file, anchors)]
    good = bool(findings) and all(finding.good for finding in findings)
    text = "\n".join(finding.text(number, len(findings)) for number, finding in enumerate(findings, start=1))
    return _Verdict(
        text=text or f"{file} holds no signature.{_hint(file)}",
        content={"file": str(file), "good": good, "signatures": [finding.content() for finding in findings]},
        exit_code=ExitCode.DONE if good else ExitCode.REFUSED,
    )


def _inside(file: Path, anchors: "Sequence[Certificate]") -> "list[Finding]":
    from trien_client.cli.findings import verify_pdf

    try:
        return verify_pdf(file, anchors)
    except CommandError as error:
        raise CommandError(f"{error}{_hint(file)}", exit_code=error.exit_code) from None


def _hint(file: Path) -> str:
    beside = file.with_name(file.name + SUFFIX)
    return f" For the signature that lies beside it give --signature {beside}." if beside.is_file() else ""


def _verdict_on_one_of_many(file: Path, anchors: "Sequence[Certificate]") -> _Verdict:
    # One file that cannot be read does not keep the others from being looked at.
    try:
        return _verdict(file, None, anchors)
    except (CommandError, OSError) as error:
        message = str(error) if isinstance(error, CommandError) else f"{file}: {error.strerror}."
        return _Verdict(
            text=f"NOT GOOD: {plain(message)}",
            content={"file": str(file), "good": False, "signatures": [], "error": message},
            exit_code=ExitCode.USAGE,
        )
