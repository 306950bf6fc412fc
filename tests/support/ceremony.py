"""The folder of a ceremony: a plan, officers' requests, and media for shares and export."""

import hashlib
import subprocess
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.support.sandbox import environment

EXAMPLE = Path(__file__).parents[2] / "deploy" / "ceremony" / "example.toml"
OFFICERS = ("nguyen-van-a", "tran-thi-b")
MEDIA = {
    "/media/backup/": "backup/",
    "/media/custodian-c/": "c/",
    "/media/custodian-d/": "d/",
}
_VENDORS_TOKEN = ("module", "label", "pin_file", "so_pin_file")


class Ceremony:
    """The example's plan with a SoftHSM token, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("backup", "c", "d"):
            (folder / name).mkdir(parents=True)
        for officer in OFFICERS:
            self.request(officer)
        self.plan = folder / "ceremony.toml"
        text = EXAMPLE.read_text().replace("softhsm = false", "softhsm = true")
        text = text.replace('directory = "/var/lib/trien"', 'directory = "installation"')
        text = text.replace('hosts = ["sign.district.example"]', 'hosts = ["localhost", "127.0.0.1", "::1"]')
        for medium, there in MEDIA.items():
            text = text.replace(medium, there)
        lines = [line for line in text.splitlines() if line.partition(" =")[0] not in _VENDORS_TOKEN]
        self.write("\n".join(lines) + "\n")

    def write(self, text: str) -> None:
        """Writes the plan."""
        self.plan.write_text(text)

    def replace(self, old: str, new: str) -> None:
        """Changes the plan."""
        text = self.plan.read_text()
        assert old in text, old
        self.write(text.replace(old, new))

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.plan.read_bytes()).hexdigest()

    @property
    def installation(self) -> Path:
        return self.folder / "installation"

    @property
    def export(self) -> Path:
        return self.folder / "backup" / "trien-keys.toml"

    @property
    def shares(self) -> tuple[Path, Path]:
        return self.folder / "c" / "share.toml", self.folder / "d" / "share.toml"

    @property
    def record(self) -> Path:
        return self.folder / "record.txt"

    def components(self) -> list[str]:
        """Returns the digits of both components, as no output may show them."""
        return [share.read_text().partition('component = "')[2].partition('"')[0] for share in self.shares]

    def request(self, officer: str, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        """Makes an officer's key and request, as `trien access operators request` does."""
        own = key or ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, officer)])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(own, hashes.SHA256())
        (self.folder / f"{officer}.csr").write_bytes(request.public_bytes(Encoding.PEM))
        path = self.folder / f"{officer}.key"
        path.touch(mode=0o600)
        path.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def command(self, *options: str) -> list[str]:
        """Returns the command that holds the ceremony; without options it is confirmed."""
        given = options or ("--sha256", self.sha256)
        return [sys.executable, "-m", "trien_server", "ceremony", str(self.plan), *given]

    def hold(
        self, *options: str, around: tuple[str, ...] = (), typed: str = "", **added: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs the command to its end, under another one when it is given; `added` joins the environment."""
        return subprocess.run(
            [*around, *self.command(*options)],
            input=typed,
            capture_output=True,
            text=True,
            timeout=300,
            cwd=self.folder,
            env=environment(**added),
            check=False,
        )

    def made(self) -> list[str]:
        """Returns all files and folders there are, but those that a ceremony begins with."""
        before = {"ceremony.toml", "backup", "c", "d", *(f"{one}.{end}" for one in OFFICERS for end in ("csr", "key"))}
        return sorted(
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if str(path.relative_to(self.folder)) not in before
        )
