"""What poppler's `pdfsig` says about a PDF's signatures: a judge that shares no code with ours.

It exits with 0 for invalid signatures too, so its text is read.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PdfsigFinding:
    """One signature, as pdfsig sees it."""

    validation: str
    kind: str
    hash_algorithm: str
    whole_document: bool

    @property
    def is_valid(self) -> bool:
        return self.validation == "Signature is Valid."


def pdfsig(path: Path) -> list[PdfsigFinding]:
    """Returns the signatures in the file's order. Certificates are not judged: pdfsig knows no CA of ours."""
    process = subprocess.run(
        ["pdfsig", "-nocert", str(path)], capture_output=True, text=True, timeout=120, check=False, env={"LC_ALL": "C"}
    )
    findings = []
    for block in re.split(r"^Signature #\d+:$", process.stdout, flags=re.MULTILINE)[1:]:
        fields = dict(re.findall(r"^  - ([^:\n]+): (.*)$", block, flags=re.MULTILINE))
        findings.append(
            PdfsigFinding(
                validation=fields.get("Signature Validation", ""),
                kind=fields.get("Signature Type", ""),
                hash_algorithm=fields.get("Signing Hash Algorithm", ""),
                whole_document="Total document signed" in block,
            )
        )
    return findings
