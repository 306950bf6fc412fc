"""`trien sign file` and what `trien verify` and OpenSSL say of it."""

import hashlib
import json
import re
import subprocess
import threading
from pathlib import Path

import pytest
from asn1crypto import cms, pem  # type: ignore[import-untyped]
from asn1crypto.x509 import Certificate  # type: ignore[import-untyped]
from tests.documents.producers import reportlab_page
from tests.fakes.signing_service import SIGNER, Abort, CertificateAuthority, FakeSigningService, Refuse, Tamper
from tests.integration.client.command import CODE, INTERRUPT, Trien, at_terminal

from trien_client import Authorization, Client, SignatureAlgorithm
from trien_client.cli.sign_file import title_of
from trien_client.pyhanko import TrienSigner, WhenApproved

CREDENTIALS = {
    **{algorithm: "rsa" for algorithm in SignatureAlgorithm if algorithm.is_pss or algorithm.is_pkcs1},
    SignatureAlgorithm.ECDSA_P256_SHA256: "p256",
    SignatureAlgorithm.ECDSA_P384_SHA384: "p384",
    SignatureAlgorithm.ED25519: "ed25519",
}


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    file = tmp_path / "bản vẽ.dwg"
    file.write_bytes(bytes(range(256)) * 1000 + b"\r\n.\n")
    return file


def openssl_says(file: Path, signature: Path, root: bytes, form: str = "DER") -> subprocess.CompletedProcess[bytes]:
    (signature.parent / "root.pem").write_bytes(root)
    return subprocess.run(
        [
            *("openssl", "cms", "-verify", "-binary", "-inform", form, "-in", signature, "-content", file),
            *("-CAfile", signature.parent / "root.pem", "-purpose", "any", "-out", "/dev/null"),
        ],
        capture_output=True,
        check=False,
        timeout=60,
    )


def openssl_verifies_ed25519(signature: Path) -> bool:
    """Asks OpenSSL about the signature over the signed attributes (RFC 8419, section 3.1)."""
    signed = cms.ContentInfo.load(signature.read_bytes())["content"]
    [info] = signed["signer_infos"]
    folder = signature.parent
    (folder / "attributes").write_bytes(info["signed_attrs"].untag().dump())
    (folder / "value").write_bytes(info["signature"].native)
    (folder / "certificate").write_bytes(signed["certificates"][0].chosen.dump())
    done = subprocess.run(
        [
            *("openssl", "pkeyutl", "-verify", "-rawin", "-certin", "-inkey", "certificate", "-keyform", "DER"),
            *("-in", "attributes", "-sigfile", "value"),
        ],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    return b"Signature Verified Successfully" in done.stdout


@pytest.mark.parametrize("algorithm", CREDENTIALS)
def test_a_file_is_signed_with_every_algorithm(
    trien: Trien,
    service: FakeSigningService,
    drawing: Path,
    tmp_path: Path,
    authority: CertificateAuthority,
    stranger: CertificateAuthority,
    algorithm: SignatureAlgorithm,
) -> None:
    sign = ["sign", "file", drawing, "--credential", CREDENTIALS[algorithm], "--algorithm", algorithm]
    assert "auditEntries/e1" in trien(*sign, "--otp-file", "-", code=CODE).stdout
    signature = drawing.with_name("bản vẽ.dwg.p7s")
    if algorithm is SignatureAlgorithm.ED25519:
        # `openssl cms` of OpenSSL 3.0 cannot verify it: it is asked for the signature alone.
        assert openssl_verifies_ed25519(signature)
    else:
        verified = openssl_says(drawing, signature, authority.root_pem)
        assert verified.returncode == 0, verified.stderr
    assert openssl_says(drawing, signature, stranger.root_pem).returncode != 0
    [request] = service.requests("SignDigests")
    if algorithm is not SignatureAlgorithm.ED25519:
        item = request.items[0].signed_attributes
        assert item.document_digest == hashlib.new(algorithm[-6:], drawing.read_bytes()).digest()
    for arguments in ([signature], [drawing, "--signature", signature]):
        found = trien("verify", *arguments).stdout
        assert "Signature 1 of 1: GOOD" in found
        assert f"Hoàng Trình Đôn {CREDENTIALS[algorithm]}" in found
        assert "(the signer's own clock)" in found
    (tmp_path / "stranger.pem").write_bytes(stranger.root_pem)
    strange = trien("verify", signature, "--trust-anchors", tmp_path / "stranger.pem", exit_code=1).stdout
    assert "intact, but signed by a CA that is not among your trust anchors (issuer: Test Issuing CA)" in strange
    drawing.write_bytes(drawing.read_bytes() + b" ")
    assert "CHANGED" in trien("verify", signature, exit_code=1).stdout
    assert openssl_says(drawing, signature, authority.root_pem).returncode != 0


def test_the_attributes_are_those_of_cades(trien: Trien, drawing: Path) -> None:
    trien("sign", "file", drawing, "--credential", "p256", "--otp-file", "-", code=CODE)
    shown = subprocess.run(
        ["openssl", "cms", "-cmsout", "-print", "-inform", "DER", "-in", drawing.with_name("bản vẽ.dwg.p7s")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    attributes = shown.partition("signedAttrs:")[2].partition("signatureAlgorithm:")[0]
    assert sorted(re.findall(r"object: ([\w-]+)", attributes)) == [
        "contentType", "id-smime-aa-signingCertificateV2", "messageDigest", "signingTime",
    ]  # fmt: skip
    assert "eContent: <ABSENT>" in shown


def test_a_signature_does_not_pass_for_one_of_its_own_attributes(
    trien: Trien, drawing: Path, tmp_path: Path, authority: CertificateAuthority
) -> None:
    trien("sign", "file", drawing, "--credential", "rsa", "--otp-file", "-", code=CODE)
    message = cms.ContentInfo.load(drawing.with_name("bản vẽ.dwg.p7s").read_bytes())
    [info] = message["content"]["signer_infos"]
    # Taken out of the message, what was signed is a file of its own, and nothing in the message says otherwise.
    attributes = tmp_path / "attributes"
    attributes.write_bytes(info["signed_attrs"].untag().dump())
    raw = tmp_path / "attributes.sig"
    raw.write_bytes(info["signature"].native)
    chain = [Certificate.load(found.chosen.dump()) for found in message["content"]["certificates"]]
    signers = tmp_path / "signers.pem"
    signers.write_bytes(b"".join(pem.armor("CERTIFICATE", found.dump()) for found in chain if not found.ca))
    said = trien("verify", attributes, "--signature", raw, "--certificate", signers, exit_code=1).stdout
    assert "may come from one" in said
    assert "does not verify" not in said
    info["signed_attrs"] = None
    stripped = tmp_path / "attributes.p7s"
    stripped.write_bytes(cms.ContentInfo.load(message.dump(force=True)).dump())
    assert openssl_says(attributes, stripped, authority.root_pem).returncode == 0
    said = trien("verify", attributes, "--signature", stripped, exit_code=1).stdout
    assert "NOT GOOD" in said
    assert "no signed attributes" in said


def test_a_signature_may_be_text_and_go_elsewhere(
    trien: Trien, drawing: Path, tmp_path: Path, authority: CertificateAuthority
) -> None:
    out = tmp_path / "signature.pem"
    sign = ["sign", "file", drawing, "--credential", "p256", "--otp-file", "-", "--pem", "--signature-out", out]
    content = json.loads(trien(*sign, "--output", "json", code=CODE).stdout)
    assert content["files"] == [{"file": str(drawing), "signature_file": str(out)}]
    assert out.read_text().startswith("-----BEGIN CMS-----")
    assert openssl_says(drawing, out, authority.root_pem, "PEM").returncode == 0
    found = json.loads(trien("verify", drawing, "--signature", out, "--output", "json").stdout)
    assert (found["good"], found["signatures"][0]["signed_by"]) == (True, "Hoàng Trình Đôn p256")
    assert "one file" in trien(*sign, drawing, code=CODE, exit_code=2).stderr


def test_many_files_take_one_password_and_are_signed_all_or_none(
    trien: Trien, service: FakeSigningService, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.xml" for number in range(20)]
    for file in files:
        file.write_text(file.name)
    sign = ["sign", "file", *files, "--credential", "p256", "--otp-file", "-"]
    service.plan("SignDigests", Refuse("CREDENTIAL_DISABLED"))
    assert "CREDENTIAL_DISABLED" in trien(*sign, code=CODE, exit_code=1).stderr
    assert list(tmp_path.glob("*.p7s")) == []
    assert trien(*sign, code=CODE).stdout.count("Signed: ") == 20
    assert service.approvals == 1
    signatures = sorted(tmp_path.glob("*.p7s"))
    assert trien("verify", *signatures).stdout.count("GOOD") == 20


def test_what_is_in_the_way_is_kept_and_costs_no_password(
    trien: Trien, service: FakeSigningService, drawing: Path
) -> None:
    sign = ["sign", "file", drawing, "--credential", "p256", "--otp-file", "-"]
    taken = drawing.with_name("bản vẽ.dwg.p7s")
    taken.write_text("mine")
    assert "--force" in trien(*sign, code=CODE, exit_code=2).stderr
    assert taken.read_text() == "mine"
    own = trien(*sign, "--signature-out", drawing, "--force", code=CODE, exit_code=2)
    assert "another name" in own.stderr
    assert "There is no file" in trien("sign", "file", "none", "--credential", "p256", "--otp-file", "-",
                                       code=CODE, exit_code=2).stderr  # fmt: skip
    assert "named twice" in trien(*sign, drawing, "--force", code=CODE, exit_code=2).stderr
    assert service.requests("SignDigests") == []
    trien(*sign, "--force", code=CODE)
    assert taken.read_bytes()[0] == 0x30


def test_what_is_no_signature_is_said_so(trien: Trien, drawing: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.sig"
    other.write_bytes(b"raw")
    assert "needs --certificate" in trien("verify", drawing, "--signature", other, exit_code=2).stderr
    assert "There is no file" in trien("verify", tmp_path / "none.xml.p7s", exit_code=2).stderr
    folder = trien("sign", "file", tmp_path, "--credential", "p256", "--otp-file", "-", code=CODE, exit_code=2)
    assert f"{tmp_path} is a folder" in folder.stderr
    damaged = drawing.with_name("bản vẽ.dwg.p7s")
    trien("sign", "file", drawing, "--credential", "p256", "--otp-file", "-", code=CODE)
    assert f"give --signature {damaged}" in trien("verify", drawing, exit_code=2).stderr
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    said = trien("verify", damaged, exit_code=1).stdout
    assert "NOT GOOD" in said
    assert "certificate: not looked at" in said


def test_an_answer_that_does_not_verify_leaves_no_file(
    trien: Trien, service: FakeSigningService, drawing: Path
) -> None:
    service.plan("SignDigests", Tamper(lambda answer: answer.ClearField("signatures")))
    refused = trien("sign", "file", drawing, "--credential", "p256", "--otp-file", "-", code=CODE, exit_code=5)
    assert "NOT_VERIFIED" in refused.stderr
    assert {file.name for file in drawing.parent.iterdir()} == {drawing.name, "sandbox"}


def test_a_person_may_break_off(trien: Trien, service: FakeSigningService, drawing: Path) -> None:
    code, screen, _ = at_terminal(
        ["sign", "file", str(drawing), "--credential", "p256"],
        [INTERRUPT],
        {"TRIEN_CONNECTION": str(trien.connection)},
    )
    assert code == 130, screen
    assert "bản vẽ.dwg" in screen
    assert service.requests("SignDigests") == []
    assert {file.name for file in drawing.parent.iterdir()} == {drawing.name, "sandbox"}


# When somebody has approved


def decide(client: Client, service: FakeSigningService, *, deny: bool = False) -> threading.Thread:
    """Decides on the first authorization that appears."""

    def work() -> None:
        for _ in range(600):
            if service.authorizations:
                [name] = service.authorizations
                if deny:
                    client.deny_authorization(name)
                else:
                    client.approve_authorizations([name], signer=SIGNER, one_time_password=CODE)
                return
            threading.Event().wait(0.05)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_file_is_signed_when_somebody_has_approved(
    trien: Trien, client: Client, service: FakeSigningService, drawing: Path, authority: CertificateAuthority
) -> None:
    thread = decide(client, service)
    service.plan("SignDigests", Abort(work=True))
    result = trien("sign", "file", drawing, "--credential", "rsa", "--when-approved", "--signer", "hoang-trinh-don")
    thread.join()
    [made] = service.authorizations.values()
    assert (made.approver, made.items[0].WhichOneof("item")) == (SIGNER, "document_digest")
    assert made.title == "bản vẽ.dwg"
    assert f"trien authorizations approve {made.name}" in result.stderr
    assert openssl_says(drawing, drawing.with_name("bản vẽ.dwg.p7s"), authority.root_pem).returncode == 0
    assert "no password here" in trien("sign", "file", drawing, "--credential", "rsa", "--when-approved",
                                       "--force", "--otp-file", "-", code=CODE, exit_code=2).stderr  # fmt: skip


def test_the_title_of_an_authorization_for_files_is_one_that_the_server_takes() -> None:
    assert title_of(["a.xml"]) == "a.xml"
    assert title_of(["a.xml", "b.xml", "c.xml"]) == "a.xml and 2 more"
    assert title_of(["ba\u0309n\nve\u0303\u202e.dwg"]) == "bản�vẽ�.dwg"
    longest = title_of(["x" * 250, "b.xml"])
    assert (len(longest), longest[-12:]) == (200, "… and 1 more")


def test_what_was_denied_is_not_signed(
    trien: Trien, client: Client, service: FakeSigningService, drawing: Path
) -> None:
    thread = decide(client, service, deny=True)
    refused = trien("sign", "file", drawing, "--credential", "p256", "--when-approved", exit_code=1)
    thread.join()
    assert "was denied. The signer said no, for good: ask for a new authorization" in refused.stderr
    assert "Wait until" not in refused.stderr
    assert not drawing.with_name("bản vẽ.dwg.p7s").exists()


def test_a_pdf_is_signed_when_somebody_has_approved(
    trien: Trien, client: Client, service: FakeSigningService, tmp_path: Path
) -> None:
    from tests.integration.client.test_pyhanko_signer import sign

    def approve(authorization: Authorization) -> None:
        client.approve_authorizations([authorization.name], signer=SIGNER, one_time_password=CODE)

    signer = TrienSigner(client, "credentials/rsa", when_approved=WhenApproved(approver=SIGNER, on_pending=approve))
    sign(reportlab_page(tmp_path / "in.pdf"), tmp_path / "out.pdf", signer)
    assert "GOOD" in trien("verify", tmp_path / "out.pdf").stdout
    [made] = service.authorizations.values()
    [item] = service.requests("SignDigests")[0].items
    assert made.items[0].document_digest == item.signed_attributes.document_digest
