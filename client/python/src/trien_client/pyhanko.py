"""Signs PDFs with pyHanko while the key stays in Trien's hardware security module.

    signer = TrienSigner(client, "credentials/hoang-trinh-don-rsa", one_time_password=ask)
    with open("decision.pdf", "rb") as document:
        writer = IncrementalPdfFileWriter(document)
        metadata = PdfSignatureMetadata(field_name="Signature1", subfilter=SigSeedSubFilter.PADES)
        PdfSigner(metadata, signer).sign_pdf(writer, output=...)

Many PDFs take one one-time password with `sign_together`. With `when_approved` none is asked for here: the person
approves elsewhere what was asked for, and the PDF is signed then.

Any code that takes a pyHanko `Signer` takes a `TrienSigner`. The document is hashed here. What is sent are the CMS
signed attributes and the document's digest, so that the server can check that one belongs to the other.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from asn1crypto import algos, cms, core  # type: ignore[import-untyped]
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from pyhanko.sign.general import SigningError
from pyhanko.sign.signers import Signer
from pyhanko_certvalidator.registry import SimpleCertificateStore

from trien_client._algorithms import HashFunction, SignatureAlgorithm
from trien_client._authority import OneTimePasswordCallback
from trien_client._client import Client
from trien_client._items import Data, Item, SignedAttributes, digest_bytes
from trien_client._resources import SigningResult
from trien_client._two_phases import OnPending
from trien_client._verification import key_type_of, require_fit

__all__ = ["TrienSigner", "WhenApproved", "sign_together"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class WhenApproved:
    """How a decision is asked for: the arguments of `Client.sign_when_approved`.

    The signed attributes are made before the person decides: their signing time is that of the asking.
    """

    approver: str | None = None
    lifetime: timedelta | None = None
    on_pending: OnPending | None = None
    wait: float | None = None


class TrienSigner(Signer):
    """A pyHanko signer whose key is a credential of Trien.

    Making one reads the credential and checks its certificate, so it calls the server: in asynchronous code use
    `await asyncio.to_thread(TrienSigner, …)`. The algorithm is the one that suits the key when none is given.
    `one_time_password` is asked once per signature, and not for pyHanko's dry runs. With `when_approved` it is not
    asked at all: each signature waits until its authorization was approved.

    Raises `TrustNotConfigured`, `VerificationError`, or `AlgorithmMismatch` when the key cannot make such signatures.
    """

    def __init__(
        self,
        client: Client,
        credential: str,
        *,
        algorithm: SignatureAlgorithm | None = None,
        one_time_password: str | OneTimePasswordCallback | None = None,
        signer: str | None = None,
        when_approved: WhenApproved | None = None,
        embed_roots: bool = False,
        timeout: float | None = None,
    ) -> None:
        chain = client.trusted_chain(credential, timeout=timeout)
        certificate = x509.load_der_x509_certificate(chain[0])
        self.key_type = key_type_of(certificate)
        self.algorithm = algorithm or self.key_type.default_algorithm
        require_fit(certificate, self.algorithm)
        self.credential = credential
        self.result: SigningResult | None = None
        """What the server answered to the last signature: its authorization and audit entry."""
        self._gathering: _Gathering | None = None
        self._client = client
        self._one_time_password = one_time_password
        self._signer = signer
        self._when_approved = when_approved
        self._timeout = timeout
        registry = SimpleCertificateStore()  # type: ignore[no-untyped-call]
        registry.register_multiple(asn1_x509.Certificate.load(der) for der in chain[1:])
        super().__init__(
            signing_cert=asn1_x509.Certificate.load(chain[0]),
            cert_registry=registry,
            signature_mechanism=_mechanism(self.algorithm),
            embed_roots=embed_roots,
        )

    async def async_sign_raw(self, data: bytes, digest_algorithm: str, dry_run: bool = False) -> bytes:
        """Signs `data`, which pyHanko hands over as CMS signed attributes."""
        if dry_run:
            return bytes(self.key_type.largest_signature)
        item = self._item(data, digest_algorithm)
        if self._gathering is not None:
            return await self._gathering.signature_of(item)
        self.result = await self.run(lambda: self.sign_items([item]))
        return self.result.signatures[0]

    async def run(self, work: Callable[[], SigningResult]) -> SigningResult:
        """Does `work`, which blocks: in a thread. Override it to do it elsewhere."""
        return await asyncio.to_thread(work)

    def sign_items(self, items: Sequence[Item], *, request_id: str | None = None) -> SigningResult:
        """Has items signed with one one-time password, or under one authorization.

        Override it to ask again after `OneTimePasswordRejected`, with the same `request_id`.
        """
        how = self._when_approved
        if how is not None:
            return self._client.sign_when_approved(
                self.credential,
                self.algorithm,
                items,
                approver=how.approver,
                lifetime=how.lifetime,
                on_pending=how.on_pending,
                wait=how.wait,
                request_id=request_id,
                timeout=self._timeout,
            )
        return self._client.sign_digests(
            self.credential,
            self.algorithm,
            items,
            one_time_password=self._one_time_password,
            signer=self._signer,
            request_id=request_id,
            timeout=self._timeout,
        )

    def _item(self, data: bytes, digest_algorithm: str) -> Item:
        hash_function = self.algorithm.hash_function
        if hash_function is None:
            return Data(data)
        if digest_algorithm.lower() != hash_function.hashlib_name:
            raise SigningError(
                f"{self.algorithm} hashes with {hash_function}, not with {digest_algorithm}:"
                f" set md_algorithm={hash_function.hashlib_name!r}, or take another algorithm."
            )
        document_digest = document_digest_of(data, hash_function)
        if document_digest is None:
            return digest_bytes(data, hash_function)
        return SignedAttributes(document_digest=document_digest, der=data)


class _Gathering:
    """Holds back signatures until every document of a batch has its digest, so that one password is asked for all."""

    def __init__(self, signer: TrienSigner, expected: int) -> None:
        self._signer = signer
        self._expected = expected
        self._waiting: list[tuple[Item, asyncio.Future[bytes]]] = []

    async def signature_of(self, item: Item) -> bytes:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._waiting) == self._expected:
            try:
                items = [waiting for waiting, _ in self._waiting]
                result = await self._signer.run(lambda: self._signer.sign_items(items))
            except BaseException:
                for _, other in self._waiting:
                    other.cancel()
                raise
            self._signer.result = result
            for (_, waiting), signature in zip(self._waiting, result.signatures, strict=True):
                waiting.set_result(signature)
        return await future


async def sign_together(signer: TrienSigner, jobs: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Signs several documents with one one-time password, and returns what the jobs return, in their order.

    Each job has `signer` make exactly one signature, such as `lambda: PdfSigner(…, signer).async_sign_pdf(…)`. The
    person is asked when all documents have been hashed. When one cannot be prepared, nobody is asked.

    Raises what the first failing job raised.
    """
    if not jobs:
        return []
    signer._gathering = _Gathering(signer, len(jobs))
    tasks = [asyncio.ensure_future(job()) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        signer._gathering = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def document_digest_of(data: bytes, hash_function: HashFunction) -> bytes | None:
    """Returns the document's digest when `data` is CMS signed attributes (RFC 5652, sections 5.3 and 11.2).

    None when `data` is something else: then it is a content that is signed without attributes.
    """
    try:
        attributes = cms.CMSAttributes.load(data, strict=True)
        found = [attribute["values"] for attribute in attributes if attribute["type"].native == "message_digest"]
        if len(found) != 1 or len(found[0]) != 1 or not isinstance(found[0][0], core.OctetString):
            return None
        digest = bytes(found[0][0].native)
    except (ValueError, TypeError, KeyError):
        return None
    return digest if len(digest) == hash_function.size else None


def _mechanism(algorithm: SignatureAlgorithm) -> algos.SignedDigestAlgorithm:
    hash_function = algorithm.hash_function
    if hash_function is None:
        return algos.SignedDigestAlgorithm({"algorithm": "ed25519"})
    name = hash_function.hashlib_name
    if algorithm.is_ecdsa:
        return algos.SignedDigestAlgorithm({"algorithm": f"{name}_ecdsa"})
    if algorithm.is_pkcs1:
        return algos.SignedDigestAlgorithm({"algorithm": f"{name}_rsa"})
    # The salt is as long as the digest, as the server makes it. pyHanko's own default is the longest that fits.
    return algos.SignedDigestAlgorithm(
        {
            "algorithm": "rsassa_pss",
            "parameters": algos.RSASSAPSSParams(
                {
                    "hash_algorithm": algos.DigestAlgorithm({"algorithm": name}),
                    "mask_gen_algorithm": algos.MaskGenAlgorithm(
                        {"algorithm": "mgf1", "parameters": algos.DigestAlgorithm({"algorithm": name})}
                    ),
                    "salt_length": hash_function.size,
                    "trailer_field": 1,
                }
            ),
        }
    )
