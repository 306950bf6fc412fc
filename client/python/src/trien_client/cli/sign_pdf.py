"""`trien sign pdf` and `trien sign pdfs`: sign one PDF, or many with one one-time password."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client._algorithms import SignatureAlgorithm
from trien_client.cli import options
from trien_client.cli.outcome import CommandError, OutputFormat, reported, show
from trien_client.cli.receipts import LogKey, ReceiptFile, require_receipt, write_receipt
from trien_client.cli.results import result_content

if TYPE_CHECKING:
    from trien_client._resources import SigningResult
    from trien_client.cli.pdf import PdfOptions

_MOST_DOCUMENTS = 200

Field = Annotated[
    str | None,
    typer.Option(
        "--field",
        metavar="NAME",
        help="The empty signature field to sign in. Without it the only empty one, or else a new one.",
    ),
]
NewField = Annotated[
    str | None,
    typer.Option("--new-field", metavar="NAME", help="Make a new field, which is not visible, and sign in it."),
]
Appearance = Annotated[
    Path | None,
    typer.Option(
        "--appearance",
        metavar="FILE.png",
        help="What a visible field shows: an image, for example of the handwritten signature, as large as the field"
        " allows. Without it the field says who signed and when.",
    ),
]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why it is signed, as readers show it.")]
Location = Annotated[
    str | None, typer.Option("--location", metavar="TEXT", help="Where it is signed, as readers show it.")
]
Pades = Annotated[bool, typer.Option("--pades/--no-pades", help="PAdES (the default), or plain CMS.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is in the way. What is to be signed never is.")]


def pdf(
    document: Annotated[Path, typer.Argument(metavar="IN", help="The PDF to sign. It is not changed.")],
    signed: Annotated[Path, typer.Argument(metavar="OUT", help="The signed PDF.")],
    credential: options.CredentialName,
    field: Field = None,
    new_field: NewField = None,
    appearance: Appearance = None,
    reason: Reason = None,
    location: Location = None,
    pades: Pades = True,
    algorithm: options.Algorithm = None,
    force: Force = False,
    signer: options.Signer = None,
    otp_file: options.OneTimePasswordFile = None,
    receipt: ReceiptFile = None,
    log_key: LogKey = None,
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
    """Sign a PDF. Earlier signatures in it stay valid.

    OUT is written whole, after the signature was verified, or not at all.

    \b
    Examples:
      trien sign pdf decision.pdf decision-signed.pdf --credential hoang-trinh-don-rsa
      trien sign pdf in.pdf out.pdf --credential ubnd-seal --signer nguyen-thi-hoa --reason "Đóng dấu phát hành"
      trien sign pdf in.pdf out.pdf --credential hoang-trinh-don-rsa --field ChuTich --appearance signature.png
      trien sign pdf in.pdf out.pdf --credential hoang-trinh-don-rsa --otp-file - < code.txt
    """
    with reported(output):
        from trien_client.cli.pdf import PdfOptions

        job = PdfJob(
            pairs=((document, signed),),
            credential=options.full_name("credentials", credential),
            signer=None if signer is None else options.full_name("signers", signer),
            algorithm=algorithm,
            how=PdfOptions(
                field=field,
                new_field=new_field,
                appearance=appearance,
                reason=reason,
                location=location,
                pades=pades,
            ),
            force=force,
            otp_file=otp_file,
        )
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
        require_receipt(target, receipt, items=1, force=force, inputs=[document])
        fields, result = job.run(target)
        write_receipt(target, result, receipt, force=force)
        show(
            output,
            _line(signed, fields[0], result),
            {"file": str(signed), "field": fields[0], **result_content(result)},
        )


def pdfs(
    documents: Annotated[list[Path], typer.Argument(metavar="IN...", help="The PDFs to sign. They are not changed.")],
    folder: Annotated[
        Path,
        typer.Option(
            "--output-dir",
            metavar="FOLDER",
            help="Where the signed PDFs go, with their names. It is made when it is missing.",
        ),
    ],
    credential: options.CredentialName,
    field: Field = None,
    new_field: NewField = None,
    appearance: Appearance = None,
    reason: Reason = None,
    location: Location = None,
    pades: Pades = True,
    algorithm: options.Algorithm = None,
    force: Force = False,
    signer: options.Signer = None,
    otp_file: options.OneTimePasswordFile = None,
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
    """Sign many PDFs with one password: all of them or none.

    The one-time password approves exactly these documents, in this order. At most 200 documents at once.

    \b
    Example:
      trien sign pdfs monday/*.pdf --output-dir signed --credential hoang-trinh-don-rsa
    """
    with reported(output):
        from trien_client.cli.pdf import PdfOptions

        job = PdfJob(
            pairs=tuple((document, folder / document.name) for document in documents),
            credential=options.full_name("credentials", credential),
            signer=None if signer is None else options.full_name("signers", signer),
            algorithm=algorithm,
            how=PdfOptions(
                field=field,
                new_field=new_field,
                appearance=appearance,
                reason=reason,
                location=location,
                pades=pades,
            ),
            force=force,
            otp_file=otp_file,
            folder=folder,
        )
        target = options.Target(
            connection=connection,
            address=address,
            ca_file=ca_file,
            token_file=token_file,
            certificate_file=certificate_file,
            key_file=key_file,
            trust_anchors=trust_anchors,
            timeout=timeout,
        )
        fields, result = job.run(target)
        done = [(target_file, field_name) for (_, target_file), field_name in zip(job.pairs, fields, strict=True)]
        show(
            output,
            "\n".join(_line(target_file, field_name, result) for target_file, field_name in done),
            {
                "documents": [{"file": str(target_file), "field": field_name} for target_file, field_name in done],
                **result_content(result),
            },
        )


@dataclass(frozen=True, kw_only=True)
class PdfJob:
    """What to sign and how."""

    pairs: tuple[tuple[Path, Path], ...]
    """Each document and where it goes when it is signed."""
    credential: str
    signer: str | None
    algorithm: SignatureAlgorithm | None
    how: "PdfOptions"
    force: bool
    otp_file: str | None
    folder: Path | None = None
    """A folder to make when it is missing."""

    def run(self, target: options.Target) -> "tuple[list[str], SigningResult]":
        """Signs all documents or none; returns the fields' names and the server's answer."""
        from trien_client.cli.files import new_file
        from trien_client.cli.password import PasswordSource
        from trien_client.cli.pdf import require_signable, sign_documents
        from trien_client.cli.prompting import PromptingSigner

        self._require_files()
        for document, _ in self.pairs:
            require_signable(document, self.how)
        source = PasswordSource(self.otp_file, what=self._what())
        with target.connect() as client, ExitStack() as files:
            options.require_signer(client, self.credential, self.signer)
            if self.folder is not None:
                files.enter_context(_folder(self.folder))
            # When signing fails, no file appears. A crash while they get their names can leave some of them.
            outputs = [
                (document, files.enter_context(new_file(signed, overwrite=self.force, like=document)))
                for document, signed in self.pairs
            ]
            signer = PromptingSigner(
                client, self.credential, algorithm=self.algorithm, source=source, signer=self.signer
            )
            fields = sign_documents(outputs, signer, self.how)
        if signer.result is None:
            raise CommandError("Nothing was signed.")
        return fields, signer.result

    def _require_files(self) -> None:
        from trien_client.cli.files import require_file, require_writable

        if self.how.field is not None and self.how.new_field is not None:
            raise CommandError("--field signs in a field that is there, --new-field makes one: give one of them.")
        if "." in (self.how.new_field or ""):
            raise CommandError("A new field's name has no full stop in it.")
        if len(self.pairs) > _MOST_DOCUMENTS:
            raise CommandError(f"{len(self.pairs)} documents are too many at once: at most {_MOST_DOCUMENTS}.")
        targets = [signed for _, signed in self.pairs]
        if len(set(targets)) < len(targets):
            raise CommandError("Two of the documents have the same name: sign them into different folders.")
        inputs = tuple(document for document, _ in self.pairs)
        for document, signed in self.pairs:
            require_file(document)
            require_writable(signed, overwrite=self.force, inputs=inputs, folder_is_made=signed.parent == self.folder)

    def _what(self) -> str:
        names = [document.name for document, _ in self.pairs]
        shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        return shown if len(names) == 1 else f"{len(names)} documents: {shown}"


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Makes the folder when it is missing; it vanishes again when nothing was written into it."""
    missing = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if missing:
            with suppress(OSError):
                folder.rmdir()
        raise


def _line(signed: Path, field: str, result: "SigningResult") -> str:
    return (
        f"Signed: {signed} (field {field}, {result.algorithm}, approved by {result.approved_by}, {result.audit_entry})"
    )
