"""`trien audit report`: the evidence of one signature, checked here, for people and for programs."""

import hashlib
import importlib.util
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import audit_reading, audit_texts, options
from trien_client.cli.evidence import Document, Facts, Result, gather
from trien_client.cli.files import new_file, require_file, require_writable
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import CommandError, ExitCode, OutputFormat, show

if TYPE_CHECKING:
    from cryptography import x509

    from trien_client.log import LogKey

_SIGNING_KINDS = ["signing_granted", "signing_resumed"]
_PART = 1 << 20


class Language(StrEnum):
    """What a report is written in."""

    VI = "vi"
    EN = "en"


def report(
    me: Officer,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The report to write, a PDF.")],
    entry: Annotated[
        str | None, typer.Option("--entry", metavar="ENTRY", help="The signature's entry: auditEntries/…")
    ] = None,
    digest: audit_reading.DigestOption = None,
    document: Annotated[
        Path | None,
        typer.Option("--document", metavar="FILE", help="The document: as it was signed, or a signed PDF."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the facts as JSON, too.")
    ] = None,
    lang: Annotated[Language, typer.Option("--lang", help="The report's language.")] = Language.VI,
    log_key: Annotated[
        str | None,
        typer.Option(
            "--log-key",
            metavar="FILE|KEY",
            help=(
                "The log's keys (`log-keys`), as you got them from elsewhere, instead of the connection file's; without"
                " either those that the server names."
            ),
        ),
    ] = None,
    trust_anchors: options.TrustAnchors = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the files.")] = False,
) -> None:
    """Write the evidence of one signature as a PDF.

    It says who signed, when, by which authority, and proves it.
    What can be checked is checked here first: the proof in the log, the signatures with the certificate, the digest of
    the document. The report says of each fact whether it was verified or only told. When a check fails it says so, too,
    and the command ends with 5.

    \b
    Examples:
      trien audit report --document decision-signed.pdf --out evidence.pdf
      trien audit report --entry auditEntries/k7m2… --out evidence.pdf --json evidence.json --lang en
    """
    if entry is None and (digest is None) is (document is None):
        raise CommandError("Say which signature: --entry (with --document, if you have it), --digest or --document.")
    require_report_library()
    require_writable(out, overwrite=force)
    if json_file is not None:
        require_writable(json_file, overwrite=force)
    from trien_client.cli.evidence_pdf import write_pdf

    looked_at = None if document is None else _read_document(document)
    name = _find(me, entry, digest, looked_at)
    facts = _facts(me, name, looked_at, _keys(log_key or me.target.log_key()), _anchors(trust_anchors))
    if json_file is not None:
        with new_file(json_file, overwrite=force) as file:
            file.write(audit_texts.as_json(facts.content).encode() + b"\n")
    with new_file(out, overwrite=force) as file:
        file.write(write_pdf(facts.content, lang.value))
    results = [one["result"] for one in facts.content["checks"]]
    counts = {result.value.lower(): results.count(result.value) for result in Result}
    show(
        OutputFormat.JSON if me.output is OutputFormat.JSON else OutputFormat.TEXT,
        f"Wrote {out} about {name}.\n"
        f"Checks: {counts['verified']} verified, {counts['told']} only told, {counts['failed']} failed.",
        {"file": str(out), "entry": name, "checks": facts.content["checks"]},
    )
    if facts.failed:
        raise CommandError(
            f"These checks failed: {', '.join(facts.failed)}. The report says why. Tell your security officer.",
            exit_code=ExitCode.NOT_TRUSTED,
        )


def require_report_library() -> None:
    """Raises `CommandError` when what makes PDFs is not installed."""
    if importlib.util.find_spec("reportlab") is None:
        raise CommandError("Reports need the extra `report`: install trien-client[report].")


def _facts(
    me: Officer,
    name: str,
    document: Document | None,
    keys: "list[LogKey] | None",
    anchors: "tuple[x509.Certificate, ...]",
) -> Facts:
    from trien.v1 import audit_service_pb2

    audit = me.client.audit
    # It waits until a checkpoint covers the entry.
    me.client.call(audit.GetReceipt, audit_service_pb2.GetReceiptRequest(audit_entry=name))
    found = me.client.call(audit.GetEvidence, audit_service_pb2.GetEvidenceRequest(audit_entry=name))
    if found.audit_entry.name != name:
        raise CommandError("The server answered about another entry.", exit_code=ExitCode.NOT_TRUSTED)
    return gather(found, made=datetime.now(UTC), document=document, log_keys=keys, anchors=anchors)


def _find(me: Officer, entry: str | None, digest: str | None, document: Document | None) -> str:
    """Returns the entry's name. Raises `CommandError` when it is not clear which one is meant."""
    if entry is not None:
        return options.full_name("auditEntries", entry)
    wanted = [digest] if digest is not None else [made.hex() for made in (document.digests if document else ())]
    names: list[str] = []
    for one in wanted:
        request = audit_reading.request_of(kind=_SIGNING_KINDS, digest=one)
        request.newest_first = True
        for page in audit_reading.pages(me, request):
            names += [found.name for found in page.audit_entries if found.name not in names]
            audit_reading.tell_of(list(page.findings))
    if not names:
        raise CommandError("The log has no signature of this document.", exit_code=ExitCode.REFUSED)
    if len(names) > 1:
        raise CommandError(f"There are several signatures of it. Say which: --entry {' or '.join(names[:10])}.")
    return names[0]


def _read_document(path: Path) -> Document:
    """Makes a document's digests: of the file, or, for a signed PDF, of what each of its signatures covers."""
    require_file(path)
    content = path.read_bytes()
    digests = [hashlib.new(function, content).digest() for function in ("sha256", "sha384", "sha512")]
    if content.startswith(b"%PDF"):
        digests += _signed_parts(path)
    return Document(name=path.name, digests=tuple(dict.fromkeys(digests)))


def _signed_parts(path: Path) -> Iterable[bytes]:
    from pyhanko.pdf_utils.misc import PdfReadError
    from pyhanko.pdf_utils.reader import PdfFileReader

    found: list[bytes] = []
    with path.open("rb") as file:
        try:
            found.extend(signature.compute_digest() for signature in PdfFileReader(file).embedded_signatures)
        except (PdfReadError, ValueError, KeyError):
            return found
    return found


def _keys(given: str | None) -> "list[LogKey] | None":
    if given is None:
        return None
    from trien_client._errors import ProofNotValid
    from trien_client.log import read_log_keys

    try:
        return list(read_log_keys(given))
    except ProofNotValid as fault:
        raise CommandError(f"--log-key: {fault}") from None


def _anchors(path: Path | None) -> "tuple[x509.Certificate, ...]":
    if path is None:
        return ()
    from trien_client._trust import load_certificates

    return load_certificates(path)
