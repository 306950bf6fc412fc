"""What poppler's `pdfsig` says about a PDF's signatures: a judge that shares no code with ours.

It exits with 0 for invalid signatures too, so its text is read.
"""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PdfsigFinding:
    """One signature, as pdfsig sees it."""

    validation: str
    certificate: str
    kind: str
    hash_algorithm: str
    whole_document: bool

    @property
    def is_valid(self) -> bool:
        return self.validation == "Signature is Valid."

    @property
    def is_trusted(self) -> bool:
        return self.certificate == "Certificate is Trusted."


def pdfsig(path: Path, anchors_pem: bytes = b"") -> list[PdfsigFinding]:
    """Returns the signatures in the file's order, their chains judged by the given trust anchors (PEM).

    pdfsig takes its trust anchors from an NSS database, which `certutil` makes.
    """
    with tempfile.TemporaryDirectory() as folder:
        database = f"sql:{folder}"
        _run("certutil", "-N", "-d", database, "--empty-password")
        for number, anchor in enumerate(re.findall(rb"-----BEGIN.*?-----END CERTIFICATE-----", anchors_pem, re.DOTALL)):
            file = Path(folder) / f"{number}.pem"
            file.write_bytes(anchor + b"\n")
            _run("certutil", "-A", "-d", database, "-n", f"anchor {number}", "-t", "C,C,C", "-i", str(file))
        process = _run("pdfsig", "-nssdir", database, str(path))
    findings = []
    for block in re.split(r"^Signature #\d+:$", process.stdout, flags=re.MULTILINE)[1:]:
        fields = dict(re.findall(r"^  - ([^:\n]+): (.*)$", block, flags=re.MULTILINE))
        findings.append(
            PdfsigFinding(
                validation=fields.get("Signature Validation", ""),
                certificate=fields.get("Certificate Validation", ""),
                kind=fields.get("Signature Type", ""),
                hash_algorithm=fields.get("Signing Hash Algorithm", ""),
                whole_document="Total document signed" in block,
            )
        )
    return findings


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={"LC_ALL": "C", "PATH": os.defpath}
    )
