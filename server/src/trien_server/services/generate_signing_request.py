"""GenerateCertificateSigningRequest: a key asks for its certificate."""

import hashlib

from cryptography import x509

from trien_server.core.errors import HsmUnavailable, InvalidArgument
from trien_server.core.ports import Hsm, KeyMismatch
from trien_server.core.principal import Principal
from trien_server.core.records import Credential, Key, KeyPurpose, KeyState, Organization, Signer
from trien_server.core.signing_request import ALGORITHMS, request_information, signing_request, subject_name
from trien_server.services.access import reference_of, require_operator, require_organization
from trien_server.services.deadline import Deadline
from trien_server.services.transactions import Ledger, Transactions
from trien_server.services.trusted import TrustedView


class GenerateSigningRequest:
    """Builds certificate signing requests from the server's own records."""

    def __init__(self, *, transactions: Transactions, hsm: Hsm) -> None:
        self._transactions = transactions
        self._hsm = hsm

    def __call__(self, principal: Principal, *, key: str, signer: str, deadline: Deadline) -> bytes:
        """Returns the request in DER, signed by the key itself after an audit entry was durable (P1).

        The key is new, or of a credential of this signer, which is to be renewed. Raises `PermissionDenied`,
        `InvalidArgument`, `HsmUnavailable`.
        """
        return self._transactions.decide(lambda: self._generate(principal, key, signer, deadline), deadline=deadline)

    def _generate(self, principal: Principal, key_name: str, signer_name: str, deadline: Deadline) -> bytes:
        def read(view: TrustedView) -> tuple[TrustedView, Key, bytes]:
            operator = require_operator(view, principal, "CredentialService.GenerateCertificateSigningRequest")
            key, signer = view.get(Key, key_name), view.get(Signer, signer_name)
            if key is None or key.state is not KeyState.ENABLED or key.purpose is not KeyPurpose.SIGNING:
                raise InvalidArgument("key", "there is no such enabled signing key")
            if signer is None:
                raise InvalidArgument("signer", "there is no such signer")
            require_organization(view, operator, signer.organization)
            # That nobody uses it yet is asserted again by the transaction.
            users = [] if view.has_none(Credential, key=key_name) else view.find(Credential, key=key_name)
            if any(used.signer != signer_name for used in users):
                raise InvalidArgument("signer", "the key is another signer's")
            organization = view.require(Organization, signer.organization)
            subject = subject_name(
                common_name=signer.display_name, organization=organization.display_name, title=signer.position
            )
            return view, key, subject

        view, key, subject = self._transactions.read(read)
        information = request_information(subject, key.public_key)

        def record(ledger: Ledger) -> None:
            ledger.assert_unchanged(view)
            digest = hashlib.sha256(information).hexdigest()
            details = {"actor": principal.name, "key": key_name, "signer": signer_name, "informationSha256": digest}
            ledger.record("signing_request_granted", details)

        self._transactions.run(record, timeout=deadline.remaining())
        algorithm = ALGORITHMS[key.key_type]
        function = algorithm.hash_function
        message = information if function is None else hashlib.new(function.hashlib_name, information).digest()
        reference = reference_of(key)
        try:
            self._hsm.prepare(reference)
        except KeyMismatch as mismatch:
            raise HsmUnavailable("The token does not hold the key.") from mismatch
        (signature,) = self._hsm.sign(reference, algorithm, [message], pss_salt_length=None)
        encoded = signing_request(information, key.key_type, signature)
        if not x509.load_der_x509_csr(encoded).is_signature_valid:
            raise HsmUnavailable("A signature did not verify and was thrown away.")
        return encoded
