"""The demo: a decision is drawn up, signed through a sandbox server with a one-time password, and verified.

    make demo                               everything it makes is in build/demo
    python deploy/demo/demo.py FOLDER       or in FOLDER

It ends with exit code 0 only when every step went as told.
"""

import logging
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType

import pyotp
from asn1crypto import x509  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates
from pyhanko.pdf_utils.images import PdfImage
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign import PdfSignatureMetadata, PdfSigner
from pyhanko.sign.fields import SigSeedSubFilter
from pyhanko.sign.validation import validate_pdf_signature
from pyhanko.sign.validation.status import PdfSignatureStatus
from pyhanko.stamp import StaticStampStyle
from pyhanko_certvalidator import ValidationContext

import decision
import handwriting
from sandbox_process import BIN, SandboxFailed, SandboxProcess, remove_sandbox
from trien_client import Client, ConnectionFile, OneTimePasswordRejected, TrienError, digest_bytes
from trien_client.log import parse_receipt, read_log_keys
from trien_client.pyhanko import TrienSigner

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else ROOT / "build" / "demo"
UNSIGNED, SIGNED, FORGED = FOLDER / "decision.pdf", FOLDER / "signed.pdf", FOLDER / "forged.pdf"
RECEIPT = FOLDER / "decision.receipt"
HANDWRITING = FOLDER / "handwriting.png"
CREDENTIAL = "credentials/hoang-trinh-don-rsa"
STEPS = 5


class DemoFailed(Exception):  # noqa: N818
    """A step did not go as told."""


def main() -> int:
    """Runs the demo and returns the exit code."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    logging.disable(logging.CRITICAL)  # pyHanko logs what is said here in plain words
    started = time.monotonic()
    try:
        with SandboxProcess(FOLDER / "sandbox") as sandbox:
            anchors = _run(sandbox)
    except KeyboardInterrupt:
        print("\ndemo: stopped", file=sys.stderr)
        return 130
    except (DemoFailed, SandboxFailed, decision.FontMissing, TrienError, OSError) as failure:
        print(f"\ndemo: it failed. {failure}", file=sys.stderr)
        return 1
    print(f"\nDone in {time.monotonic() - started:.0f} s; the sandbox is stopped. Look at these in {_shown(FOLDER)}:\n")
    for path, what in (
        (SIGNED, "the signed decision: open it in a PDF reader"),
        (UNSIGNED, "the same before it was signed"),
        (FORGED, "the signed one with one letter of its title changed: its signature is broken"),
        (HANDWRITING, "the image of a handwritten signature, to try with --appearance"),
        (FOLDER / "sandbox.log", "what the server said"),
    ):
        print(f"  {path.name:<17}{what}")
    print("\nTrien's own command finds it good when it is told whom to trust, here the CA of this sandbox:\n")
    print(f"  {_shown(BIN / 'trien')} verify {_shown(SIGNED)} --trust-anchors {_shown(anchors)}")
    print(
        "\nA reader will call the signer unknown: the certificate is from the sandbox's own CA. For real documents it"
        "\ncomes from a CA that your readers trust. Next: `make run` keeps a sandbox up, and docs/getting-started.md."
    )
    return 0


def _run(sandbox: SandboxProcess) -> Path:
    """Does all steps and returns the file of the sandbox's CA."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    remove_sandbox(FOLDER / "sandbox")  # first, for it refuses when another demo is at work in the folder
    for path in (UNSIGNED, SIGNED, FORGED, RECEIPT):
        path.unlink(missing_ok=True)

    _step(1, "A decision of a commune is drawn up, by the layout of Decree 30/2020/NĐ-CP.")
    decision.make(UNSIGNED, on=datetime.now(decision.VIETNAM).date())
    handwriting.draw(HANDWRITING)
    _detail(f"{_shown(UNSIGNED)}: one page, with a place for the signature of {decision.SIGNER}")

    _step(2, "A sandbox server starts. It makes a token in software (SoftHSM), with the keys in it.")
    connection = ConnectionFile.load(sandbox.start())
    _detail(f"it serves gRPC over TLS on {connection.address}")

    _step(3, f"{decision.SIGNER} signs with a one-time password, as from a phone.")
    with Client.from_connection_file(connection) as client:
        password = _one_time_password(connection)
        _sign(client, password)
        _step(4, "The same password is tried once more, for another document.")
        _refused_a_second_time(client, password)

    _step(5, "The signed decision is verified, without the server and without Trien's code.")
    anchors = _verify(connection)
    sandbox.stop()
    _verify_receipt(connection)
    return anchors


def _verify_receipt(connection: ConnectionFile) -> None:
    """Verifies the receipt as an auditor does, when there is no server any more."""
    receipt = parse_receipt(RECEIPT.read_text(encoding="utf-8"))
    checkpoint = receipt.verify(read_log_keys(connection.log_key or ""))
    _detail("the receipt, by the SDK, with the log's key alone: good")
    _detail(f"{receipt.kind}, {receipt.time:%Y-%m-%d %H:%M:%S} UTC, one of {checkpoint.size} entries")


def _one_time_password(connection: ConnectionFile) -> str:
    """Plays the part of the signer's phone: only a sandbox hands out what makes the passwords."""
    activators = next((known.activators for known in connection.credentials if known.name == CREDENTIAL), ())
    signer = next((known for known in connection.signers if known.name in activators), None)
    if signer is None:
        raise DemoFailed(f"The sandbox has nobody who may sign with {CREDENTIAL}.")
    generator = pyotp.parse_uri(signer.otpauth_uri.reveal())
    if not isinstance(generator, pyotp.TOTP):
        raise DemoFailed(f"The sandbox's {signer.name} has no passwords by time.")
    return generator.now()


def _sign(client: Client, password: str) -> None:
    signer = TrienSigner(client, CREDENTIAL, one_time_password=password)
    # By the decree: the image alone, centred between title and name, no text beside it.
    style = StaticStampStyle(background=PdfImage(str(HANDWRITING)), background_opacity=1, border_width=0)
    metadata = PdfSignatureMetadata(field_name=decision.FIELD_NAME, subfilter=SigSeedSubFilter.PADES)
    with UNSIGNED.open("rb") as document, SIGNED.open("wb") as output:
        PdfSigner(metadata, signer, stamp_style=style).sign_pdf(IncrementalPdfFileWriter(document), output=output)
    result = signer.result
    if result is None:
        raise DemoFailed("The document came back without a signature.")
    _detail("the document stayed here: its digest went to the server, with the password")
    _detail(f"the token signed ({result.algorithm}); the signature was verified by the server and again by the SDK")
    _detail(f"the audit log has it as {result.audit_entry}, written before the key was used")
    kept = client.receipt(result, item=0)
    RECEIPT.write_text(kept.text, encoding="utf-8")
    _detail(f"{_shown(RECEIPT)} proves that: entry {kept.receipt.position} of a log that the token signed")


def _refused_a_second_time(client: Client, password: str) -> None:
    algorithm = client.get_credential(CREDENTIAL).algorithms[0]
    function = algorithm.hash_function
    if function is None:
        raise DemoFailed(f"{algorithm} signs no digest.")
    try:
        client.sign_digests(
            CREDENTIAL, algorithm, [digest_bytes(b"another document", function)], one_time_password=password
        )
    except OneTimePasswordRejected as refusal:
        _detail(f"refused, as it must be: one password, one approval ({refusal.remaining_attempts} attempts left)")
    else:
        raise DemoFailed("The server accepted one password twice.")


def _verify(connection: ConnectionFile) -> Path:
    if connection.trust_anchors_file is None:
        raise DemoFailed("The connection file does not name the CA of the signer's certificate.")
    roots = [
        x509.Certificate.load(certificate.public_bytes(Encoding.DER))
        for certificate in load_pem_x509_certificates(connection.trust_anchors_file.read_bytes())
    ]
    status = _status(SIGNED, roots)
    if not status.bottom_line:
        raise DemoFailed(f"pyHanko does not find the signature good: {status.summary()}")
    _detail(f"pyHanko: valid, whole document, signed by {status.signing_cert.subject.native['common_name']}")
    _detail(_pdfsig(connection.trust_anchors_file))
    FORGED.write_bytes(_with_another_letter(SIGNED.read_bytes()))
    if _status(FORGED, roots).bottom_line:
        raise DemoFailed("A changed document was found good.")
    _detail("a copy with one letter of its title changed: not valid any more, as it must be")
    return connection.trust_anchors_file


def _with_another_letter(content: bytes) -> bytes:
    """Changes the first letter of the title in the file's properties, which are signed like all the rest."""
    place = content.rindex(b"/Title") + len(b"/Title")
    place = content.index(b"Q", place)
    return content[:place] + b"K" + content[place + 1 :]


def _status(path: Path, roots: Sequence[x509.Certificate]) -> PdfSignatureStatus:
    with path.open("rb") as file:
        signatures = PdfFileReader(file).embedded_regular_signatures
        if len(signatures) != 1:
            raise DemoFailed(f"{path.name} has {len(signatures)} signatures instead of one.")
        context = ValidationContext(trust_roots=list(roots), allow_fetching=False)
        return validate_pdf_signature(signatures[0], context)


def _pdfsig(anchor: Path) -> str:
    """Asks poppler's pdfsig, which shares no code with pyHanko; its exit code says nothing, so its text is read.

    It takes trust anchors from an NSS database, which `certutil` makes.
    """
    program, certutil = shutil.which("pdfsig"), shutil.which("certutil")
    if program is None or certutil is None:
        return "pdfsig or certutil is not installed (packages poppler-utils, libnss3-tools), so it was not asked"
    with tempfile.TemporaryDirectory() as folder:
        database = f"sql:{folder}"
        _tool(certutil, "-N", "-d", database, "--empty-password")
        _tool(certutil, "-A", "-d", database, "-n", "sandbox", "-t", "C,C,C", "-i", str(anchor))
        answer = _tool(program, "-nssdir", database, str(SIGNED))
    verdicts = re.findall(r"^ *- (?:Signature|Certificate) Validation: (.*)$", answer.stdout, re.MULTILINE)
    if verdicts != ["Signature is Valid.", "Certificate is Trusted."] or "Total document signed" not in answer.stdout:
        raise DemoFailed(f"pdfsig does not find the signature good:\n{answer.stdout}{answer.stderr}")
    return f"pdfsig: whole document; {' '.join(verdicts)}"


def _tool(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _step(number: int, text: str) -> None:
    print(f"\n{number}/{STEPS}  {text}", flush=True)


def _detail(text: str) -> None:
    print(f"     - {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
