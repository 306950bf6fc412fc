"""What every adapter of the port `Hsm` does: the fake in memory and SoftHSM's token."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from threading import Barrier
from typing import Any, cast

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import load_der_public_key
from tests.fakes.hsm import MemoryHsm, PrivateKey, _generate
from tests.support.softhsm import WRAPPED_TYPES, add_wrapping_key, open_token, wrapped_key

from trien_server.core.algorithms import HashFunction, KeyType, SignatureAlgorithm, largest_pss_salt
from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import (
    DecryptionFailed,
    Hsm,
    KeyMismatch,
    KeyReference,
    SecurityOfficerNeeded,
    WrappingNotSupported,
)
from trien_server.core.records import InstallationKeyPurpose
from trien_server.core.secret import Secret

HASHES = {HashFunction.SHA256: SHA256(), HashFunction.SHA384: SHA384(), HashFunction.SHA512: SHA512()}
FITTING = [
    (algorithm, key_type) for algorithm in SignatureAlgorithm for key_type in KeyType if algorithm.fits(key_type)
]
FITTING_WRAPPED = [(algorithm, key_type) for algorithm, key_type in FITTING if key_type in WRAPPED_TYPES]
P256 = SignatureAlgorithm.ECDSA_P256_SHA256


@dataclass(frozen=True)
class Subject:
    """An adapter with one key of each type on its token, and wrapped ones beside it."""

    hsm: Hsm
    keys: Mapping[KeyType, KeyReference]
    wrapped: Mapping[KeyType, KeyReference]

    make_wrapping_key: Callable[[], object]
    """Makes the wrapping key of generation 2 as the token's security officer does."""

    @property
    def unwrappings(self) -> int:
        return int(cast(Any, self.hsm).unwrappings)


@cache
def memory_key(key_type: KeyType) -> PrivateKey:
    return _generate(key_type)


def memory_subject() -> Subject:
    hsm = MemoryHsm()
    keys = {}
    for key_type in KeyType:
        object_id = os.urandom(16)
        public_key = hsm.add_key(object_id, memory_key(key_type))
        keys[key_type] = KeyReference(object_id=object_id, key_type=key_type, public_key=public_key)
    wrapped = {}
    for key_type in WRAPPED_TYPES:
        pair = hsm.wrap(memory_key(key_type))
        wrapped[key_type] = KeyReference(
            object_id=os.urandom(16), key_type=key_type, public_key=pair.public_key, wrapped_key=pair.wrapped_key
        )

    def make_wrapping_key() -> None:
        hsm.officer_needed = False
        hsm.make_installation_key(InstallationKeyPurpose.WRAPPING, 2)

    return Subject(hsm, keys, wrapped, make_wrapping_key)


@pytest.fixture(params=["memory", "softhsm"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    if request.param == "memory":
        made = memory_subject()
        yield made
        made.hsm.close()
    else:
        with open_token(tmp_path / "token") as (hsm, token):
            yield Subject(hsm, token.keys, token.wrapped, partial(add_wrapping_key, token))


def message_for(algorithm: SignatureAlgorithm, number: int = 0) -> bytes:
    function = algorithm.hash_function
    data = f"the harvest of commune {number}".encode()
    return data if function is None else hashlib.new(function.hashlib_name, data).digest()


def verify(
    key: KeyReference, algorithm: SignatureAlgorithm, message: bytes, signature: bytes, salt: int | None = None
) -> None:
    """Verifies with `cryptography`; raises `InvalidSignature`."""
    public = load_der_public_key(key.public_key)
    function = algorithm.hash_function
    if function is None:
        cast(ed25519.Ed25519PublicKey, public).verify(signature, message)
        return
    hashed = Prehashed(HASHES[function])
    if algorithm.is_ecdsa:
        cast(ec.EllipticCurvePublicKey, public).verify(signature, message, ec.ECDSA(hashed))
    elif algorithm.is_pkcs1:
        cast(rsa.RSAPublicKey, public).verify(signature, message, padding.PKCS1v15(), hashed)
    else:
        length = function.size if salt is None else salt
        pss = padding.PSS(padding.MGF1(HASHES[function]), length)
        cast(rsa.RSAPublicKey, public).verify(signature, message, pss, hashed)


@pytest.mark.parametrize(("algorithm", "key_type"), FITTING, ids=lambda value: str(value))
def test_every_fitting_algorithm_gives_signatures_that_verify_in_the_order_of_the_messages(
    subject: Subject, algorithm: SignatureAlgorithm, key_type: KeyType
) -> None:
    key = subject.keys[key_type]
    messages = [message_for(algorithm, number) for number in range(3)]
    subject.hsm.prepare(key)
    signatures = subject.hsm.sign(key, algorithm, messages, pss_salt_length=None)
    for message, signature in zip(messages, signatures, strict=True):
        verify(key, algorithm, message, signature)
    if key_type.is_rsa:
        assert {len(signature) for signature in signatures} == {key_type.bits // 8}
    assert len(signatures) == 3


@pytest.mark.parametrize("function", HashFunction)
@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.RSA_3072, KeyType.RSA_4096])
def test_the_salt_of_pss_has_the_length_that_was_asked_for(
    subject: Subject, key_type: KeyType, function: HashFunction
) -> None:
    key = subject.keys[key_type]
    algorithm = SignatureAlgorithm(f"RSA_PSS_{function}")
    lengths = [0, 20, function.size, largest_pss_salt(key_type, function)]
    for length in lengths:
        message = message_for(algorithm, length)
        (signature,) = subject.hsm.sign(key, algorithm, [message], pss_salt_length=length)
        verify(key, algorithm, message, signature, salt=length)
    for length in (-1, largest_pss_salt(key_type, function) + 1):
        with pytest.raises(ValueError, match="salt"):
            subject.hsm.sign(key, algorithm, [message_for(algorithm)], pss_salt_length=length)
    assert len(lengths) == 4


@pytest.mark.promise("P3")
@pytest.mark.parametrize(("algorithm", "key_type"), FITTING, ids=lambda value: str(value))
def test_a_digest_of_another_length_is_refused_and_so_is_the_whole_call(
    subject: Subject, algorithm: SignatureAlgorithm, key_type: KeyType
) -> None:
    key = subject.keys[key_type]
    function = algorithm.hash_function
    bad = (
        [bytes(64 * 1024 + 1)]
        if function is None
        else [bytes(size) for size in (0, 1, 20, function.size - 1, function.size + 1, 128) if size != function.size]
    )
    for message in bad:
        with pytest.raises(ValueError, match=r"bytes|length"):
            subject.hsm.sign(key, algorithm, [message_for(algorithm), message], pss_salt_length=None)
    assert len(bad) >= (1 if function is None else 6)


def test_ed25519_signs_data_of_every_length_up_to_64_kib(subject: Subject) -> None:
    key = subject.keys[KeyType.EC_ED25519]
    lengths = [0, 1, 32, 64, 1000, 64 * 1024]
    messages = [os.urandom(length) for length in lengths]
    signatures = subject.hsm.sign(key, SignatureAlgorithm.ED25519, messages, pss_salt_length=None)
    for message, signature in zip(messages, signatures, strict=True):
        verify(key, SignatureAlgorithm.ED25519, message, signature)
    assert [len(signature) for signature in signatures] == [64] * 6


@pytest.mark.promise("P3")
def test_no_algorithm_is_used_with_a_key_that_does_not_fit(subject: Subject) -> None:
    refused = 0
    for algorithm in SignatureAlgorithm:
        for key_type in KeyType:
            if not algorithm.fits(key_type):
                with pytest.raises(ValueError, match="makes no"):
                    subject.hsm.sign(subject.keys[key_type], algorithm, [message_for(algorithm)], pss_salt_length=None)
                refused += 1
    for algorithm in (P256, SignatureAlgorithm.RSA_PKCS1_SHA256):
        key = subject.keys[KeyType.EC_P256 if algorithm is P256 else KeyType.RSA_2048]
        with pytest.raises(ValueError, match="salt"):
            subject.hsm.sign(key, algorithm, [message_for(algorithm)], pss_salt_length=32)
    assert refused == len(SignatureAlgorithm) * len(KeyType) - len(FITTING) == 33


def test_no_messages_give_no_signatures(subject: Subject) -> None:
    assert subject.hsm.sign(subject.keys[KeyType.EC_P256], P256, [], pss_salt_length=None) == []


@pytest.mark.promise("P4")
@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.EC_P256, KeyType.EC_P384, KeyType.EC_ED25519])
def test_a_key_pair_lives_from_generate_to_destroy(subject: Subject, key_type: KeyType) -> None:
    hsm = subject.hsm
    object_id = os.urandom(16)
    assert hsm.public_key(object_id) is None
    public_key = hsm.generate_key_pair(object_id, key_type)
    assert hsm.public_key(object_id) == public_key
    key = KeyReference(object_id=object_id, key_type=key_type, public_key=public_key)
    algorithm = next(algorithm for algorithm, fitting in FITTING if fitting is key_type)
    message = message_for(algorithm)
    hsm.prepare(key)
    verify(key, algorithm, message, hsm.sign(key, algorithm, [message], pss_salt_length=None)[0])
    with pytest.raises(KeyMismatch):
        hsm.generate_key_pair(object_id, key_type)
    hsm.destroy_key_pair(object_id)
    assert hsm.public_key(object_id) is None
    with pytest.raises(KeyMismatch):
        hsm.sign(key, algorithm, [message], pss_salt_length=None)
    with pytest.raises(KeyMismatch):
        hsm.prepare(key)
    hsm.destroy_key_pair(object_id)
    assert hsm.ready()


def test_all_key_pairs_are_listed_with_their_public_keys(subject: Subject) -> None:
    before = subject.hsm.key_pairs()
    assert {key.object_id: key.public_key for key in subject.keys.values()}.items() <= before.items()
    object_id = os.urandom(16)
    public_key = subject.hsm.generate_key_pair(object_id, KeyType.EC_P256)
    assert subject.hsm.key_pairs() == {**before, object_id: public_key}
    subject.hsm.destroy_key_pair(object_id)
    assert subject.hsm.key_pairs() == before


@pytest.mark.parametrize(("algorithm", "key_type"), FITTING_WRAPPED, ids=lambda value: str(value))
def test_a_wrapped_key_makes_every_fitting_signature_in_the_order_of_the_messages(
    subject: Subject, algorithm: SignatureAlgorithm, key_type: KeyType
) -> None:
    key = subject.wrapped[key_type]
    messages = [message_for(algorithm, number) for number in range(3)]
    subject.hsm.prepare(key)
    for message, signature in zip(
        messages, subject.hsm.sign(key, algorithm, messages, pss_salt_length=None), strict=True
    ):
        verify(key, algorithm, message, signature)
    assert subject.hsm.sign(key, algorithm, [], pss_salt_length=None) == []
    with pytest.raises(ValueError, match=r"bytes|length"):
        subject.hsm.sign(key, algorithm, [*messages, bytes(7)], pss_salt_length=None)
    assert subject.unwrappings == 1


@pytest.mark.promise("P4")
@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.EC_P256, KeyType.EC_P384])
def test_a_wrapped_key_pair_is_generated_and_leaves_nothing_on_the_token(subject: Subject, key_type: KeyType) -> None:
    algorithm = next(algorithm for algorithm, fitting in FITTING if fitting is key_type)
    first, second = (wrapped_key(subject.hsm, key_type) for _ in range(2))
    assert first.public_key != second.public_key
    assert first.wrapped_key != second.wrapped_key
    for key in (first, second):
        assert subject.hsm.public_key(key.object_id) is None
        message = message_for(algorithm)
        verify(key, algorithm, message, subject.hsm.sign(key, algorithm, [message], pss_salt_length=None)[0])
        with pytest.raises(KeyMismatch):
            subject.hsm.prepare(replace(key, wrapped_key=None))
    assert subject.hsm.ready()


def test_a_type_of_key_that_the_token_does_not_wrap_is_refused_with_the_reason(subject: Subject) -> None:
    for _ in range(3):
        with pytest.raises(WrappingNotSupported, match="does not wrap EC_ED25519 keys"):
            subject.hsm.generate_wrapped_key_pair(KeyType.EC_ED25519)
    assert subject.hsm.ready()
    assert wrapped_key(subject.hsm, KeyType.EC_P256).wrapped_key


@pytest.mark.requirement("ASVS 5.0.0-11.3.3")
@pytest.mark.promise("P5")
def test_a_wrapped_key_that_was_changed_or_is_another_tokens_is_a_mismatch_and_the_token_stays_ready(
    subject: Subject,
) -> None:
    key = subject.wrapped[KeyType.EC_P256]
    right = key.wrapped_key or b""
    wrong = [right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :] for at in range(len(right))]
    wrong += [right[:-1], right[:-8], right + bytes(8), right[8:], b"", bytes(8), bytes(16), os.urandom(len(right))]
    wrong.append(memory_subject().wrapped[KeyType.EC_P256].wrapped_key or b"")
    for wrapped in wrong:
        with pytest.raises(KeyMismatch):
            subject.hsm.prepare(replace(key, wrapped_key=wrapped))
        with pytest.raises(KeyMismatch):
            subject.hsm.sign(replace(key, wrapped_key=wrapped), P256, [bytes(32)], pss_salt_length=None)
    assert len(wrong) == len(right) + 9 >= 89
    assert subject.hsm.ready()
    assert subject.unwrappings == 0
    verify(key, P256, bytes(32), subject.hsm.sign(key, P256, [bytes(32)], pss_salt_length=None)[0])


def test_a_wrapped_key_of_another_type_is_a_mismatch(subject: Subject) -> None:
    refused = 0
    for algorithm, key_type in FITTING_WRAPPED:
        for other in WRAPPED_TYPES:
            if other is not key_type:
                key = replace(subject.wrapped[key_type], wrapped_key=subject.wrapped[other].wrapped_key)
                with pytest.raises(KeyMismatch):
                    subject.hsm.sign(key, algorithm, [message_for(algorithm)], pss_salt_length=None)
                refused += 1
    assert refused == 3 * len(FITTING_WRAPPED) == 42
    assert subject.hsm.ready()


@pytest.mark.promise("P6")
def test_another_wrapped_key_of_the_same_type_is_found_out_by_the_first_signature(subject: Subject) -> None:
    key = replace(subject.wrapped[KeyType.EC_P256], wrapped_key=wrapped_key(subject.hsm, KeyType.EC_P256).wrapped_key)
    subject.hsm.prepare(key)
    (signature,) = subject.hsm.sign(key, P256, [bytes(32)], pss_salt_length=None)
    with pytest.raises(InvalidSignature):
        verify(key, P256, bytes(32), signature)


def test_a_wrapped_key_is_unwrapped_once_for_all_who_use_it_at_the_same_time(subject: Subject) -> None:
    keys = [wrapped_key(subject.hsm, KeyType.EC_P256) for _ in range(10)]
    begin = Barrier(8)

    def work(number: int) -> int:
        for key in keys:
            begin.wait(10)
            subject.hsm.prepare(key)
            (signature,) = subject.hsm.sign(key, P256, [message_for(P256, number)], pss_salt_length=None)
            verify(key, P256, message_for(P256, number), signature)
        return len(keys)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, range(8))) == 80
    assert subject.unwrappings == 10


def test_all_who_wait_for_a_key_that_does_not_unwrap_learn_it(subject: Subject) -> None:
    key = subject.wrapped[KeyType.EC_P256]
    begin = Barrier(8)

    def work(number: int) -> int:
        begin.wait(10)
        with pytest.raises(KeyMismatch):
            subject.hsm.prepare(replace(key, wrapped_key=bytes(80)))
        subject.hsm.prepare(key)
        return 1

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, range(8))) == 8
    assert subject.unwrappings == 1
    assert subject.hsm.ready()


def test_a_key_is_found_only_by_its_own_id_with_its_own_public_key(subject: Subject) -> None:
    p256, rsa_key = subject.keys[KeyType.EC_P256], subject.keys[KeyType.RSA_2048]
    wrong = [
        replace(p256, object_id=os.urandom(16)),
        replace(p256, object_id=p256.object_id[:-1]),
        replace(p256, object_id=rsa_key.object_id),
        replace(p256, public_key=rsa_key.public_key),
        replace(p256, public_key=p256.public_key[:-1] + bytes([p256.public_key[-1] ^ 1])),
    ]
    for key in wrong:
        with pytest.raises(KeyMismatch):
            subject.hsm.prepare(key)
        with pytest.raises(KeyMismatch):
            subject.hsm.sign(key, P256, [message_for(P256)], pss_salt_length=None)
    subject.hsm.prepare(p256)
    assert len(wrong) == 5
    assert subject.hsm.ready()


def test_an_empty_id_is_refused(subject: Subject) -> None:
    for call in (
        lambda: subject.hsm.generate_key_pair(b"", KeyType.EC_P256),
        lambda: subject.hsm.destroy_key_pair(b""),
        lambda: subject.hsm.public_key(b""),
    ):
        with pytest.raises(ValueError, match="id"):
            call()
    for key in subject.keys.values():
        assert subject.hsm.public_key(key.object_id) == key.public_key


def test_authenticate_depends_on_message_and_key_alone(subject: Subject) -> None:
    messages = [b"", b"a", b"b", os.urandom(32), os.urandom(10_000)]
    codes = [subject.hsm.authenticate(message) for message in messages]
    assert codes == [subject.hsm.authenticate(message) for message in messages]
    assert len(set(codes)) == 5
    assert {len(code) for code in codes} == {32}
    assert subject.hsm.authenticate(b"a") != memory_subject().hsm.authenticate(b"a")


@pytest.mark.promise("P5")
def test_each_generation_of_the_sealing_key_authenticates_otherwise_and_one_that_is_not_there_is_a_mismatch(
    subject: Subject,
) -> None:
    first = subject.hsm.authenticate(b"row")
    assert subject.hsm.has_installation_key(InstallationKeyPurpose.SEALING, 1)
    assert not subject.hsm.has_installation_key(InstallationKeyPurpose.SEALING, 2)
    with pytest.raises(KeyMismatch):
        subject.hsm.authenticate(b"row", generation=2)
    subject.hsm.make_installation_key(InstallationKeyPurpose.SEALING, 2)
    assert subject.hsm.has_installation_key(InstallationKeyPurpose.SEALING, 2)
    assert not subject.hsm.has_installation_key(InstallationKeyPurpose.WRAPPING, 2)
    second = subject.hsm.authenticate(b"row", generation=2)
    subject.hsm.make_installation_key(InstallationKeyPurpose.SEALING, 2)
    assert second == subject.hsm.authenticate(b"row", generation=2)
    assert first == subject.hsm.authenticate(b"row", generation=1) != second
    assert subject.hsm.ready()


@pytest.mark.promise("P4")
@pytest.mark.parametrize("key_type", WRAPPED_TYPES)
def test_a_key_that_is_wrapped_anew_signs_as_before_under_both_generations(subject: Subject, key_type: KeyType) -> None:
    subject.make_wrapping_key()
    before = subject.wrapped[key_type]
    pair = subject.hsm.rewrap(before, generation=2)
    after = replace(before, wrapped_key=pair.wrapped_key, wrapping_generation=pair.wrapping_generation)
    assert (pair.public_key, pair.wrapping_generation) == (before.public_key, 2)
    assert pair.wrapped_key != before.wrapped_key
    algorithm = next(algorithm for algorithm, fitting in FITTING_WRAPPED if fitting is key_type)
    message = message_for(algorithm)
    for key in (before, after):
        subject.hsm.prepare(key)
        (signature,) = subject.hsm.sign(key, algorithm, [message], pss_salt_length=None)
        verify(key, algorithm, message, signature)
    with pytest.raises(KeyMismatch):
        subject.hsm.prepare(replace(after, wrapping_generation=1))
    with pytest.raises(KeyMismatch):
        subject.hsm.prepare(replace(before, wrapping_generation=2))
    assert subject.hsm.ready()


@pytest.mark.promise("P5")
def test_what_is_not_the_records_key_is_not_wrapped_anew(subject: Subject) -> None:
    subject.make_wrapping_key()
    other = subject.hsm.generate_wrapped_key_pair(KeyType.EC_P256)
    key = subject.wrapped[KeyType.EC_P256]
    for wrapped in (other.wrapped_key, b"", b"x" * 16, bytes(len(other.wrapped_key))):
        with pytest.raises(KeyMismatch):
            subject.hsm.rewrap(replace(key, wrapped_key=wrapped), generation=2)
    assert subject.hsm.ready()


def test_new_keys_are_wrapped_by_the_generation_that_was_asked_for(subject: Subject) -> None:
    with pytest.raises(KeyMismatch):
        subject.hsm.generate_wrapped_key_pair(KeyType.EC_P256, generation=2)
    subject.make_wrapping_key()
    pair = subject.hsm.generate_wrapped_key_pair(KeyType.EC_P256, generation=2)
    assert pair.wrapping_generation == 2
    key = KeyReference(
        object_id=b"new", key_type=KeyType.EC_P256, public_key=pair.public_key, wrapped_key=pair.wrapped_key
    )
    with pytest.raises(KeyMismatch):
        subject.hsm.prepare(key)
    (signature,) = subject.hsm.sign(
        replace(key, wrapping_generation=2), P256, [message_for(P256)], pss_salt_length=None
    )
    verify(key, P256, message_for(P256), signature)


def test_a_wrapping_key_that_follows_a_trusted_one_is_made_by_the_security_officer_alone(subject: Subject) -> None:
    if isinstance(subject.hsm, MemoryHsm):
        subject.hsm.officer_needed = True
    with pytest.raises(SecurityOfficerNeeded):
        subject.hsm.make_installation_key(InstallationKeyPurpose.WRAPPING, 2)
    subject.make_wrapping_key()
    subject.hsm.make_installation_key(InstallationKeyPurpose.WRAPPING, 2)
    assert subject.hsm.generate_wrapped_key_pair(KeyType.EC_P256, generation=2).wrapping_generation == 2


@pytest.mark.requirement("ASVS 5.0.0-11.3.2")
def test_decrypt_opens_what_encrypt_made_and_each_encryption_differs(subject: Subject) -> None:
    opened = 0
    for size in (0, 1, 16, 20, 32, 64, 1000):
        for associated_data in (b"", b"signers/a/authenticators/b", os.urandom(300)):
            plaintext = Secret(os.urandom(size))
            first = subject.hsm.encrypt(plaintext, associated_data=associated_data)
            second = subject.hsm.encrypt(plaintext, associated_data=associated_data)
            assert first != second
            assert len(first) == 12 + size + 16
            assert subject.hsm.decrypt(first, associated_data=associated_data) == plaintext
            assert subject.hsm.decrypt(second, associated_data=associated_data) == plaintext
            opened += 2
    assert opened == 42


@pytest.mark.requirement("ASVS 5.0.0-11.2.5", "ASVS 5.0.0-11.3.3")
@pytest.mark.promise("P5")
def test_a_changed_ciphertext_fails_alone_and_leaves_the_token_ready(subject: Subject) -> None:
    ciphertext = subject.hsm.encrypt(Secret(b"12345678901234567890"), associated_data=b"signers/a")
    changed = [ciphertext[:at] + bytes([ciphertext[at] ^ 1]) + ciphertext[at + 1 :] for at in range(len(ciphertext))]
    changed += [ciphertext[:-1], ciphertext + b"x", ciphertext[:28], ciphertext[:27], ciphertext[:12], b""]
    for wrong in changed:
        with pytest.raises(DecryptionFailed):
            subject.hsm.decrypt(wrong, associated_data=b"signers/a")
    for associated_data in (b"", b"signers/b", b"signers/a "):
        with pytest.raises(DecryptionFailed):
            subject.hsm.decrypt(ciphertext, associated_data=associated_data)
    assert len(changed) == len(ciphertext) + 6 == 54
    assert subject.hsm.ready()
    assert subject.hsm.decrypt(ciphertext, associated_data=b"signers/a") == Secret(b"12345678901234567890")


def test_all_methods_serve_several_threads_at_once(subject: Subject) -> None:
    hsm = subject.hsm
    ciphertext = hsm.encrypt(Secret(b"secret"), associated_data=b"a")
    code = hsm.authenticate(b"m")

    def work(number: int) -> int:
        done = 0
        for round_number in range(20):
            for algorithm, key_type in ((P256, KeyType.EC_P256), (SignatureAlgorithm.ED25519, KeyType.EC_ED25519)):
                message = message_for(algorithm, 100 * number + round_number)
                hsm.prepare(subject.keys[key_type])
                signatures = hsm.sign(subject.keys[key_type], algorithm, [message, message], pss_salt_length=None)
                for signature in signatures:
                    verify(subject.keys[key_type], algorithm, message, signature)
                    done += 1
            assert hsm.decrypt(ciphertext, associated_data=b"a") == Secret(b"secret")
            assert hsm.authenticate(b"m") == code
            if round_number % 10 == 0:
                object_id = os.urandom(16)
                assert hsm.generate_key_pair(object_id, KeyType.EC_P256) == hsm.public_key(object_id)
                hsm.destroy_key_pair(object_id)
        return done

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, range(8))) == 8 * 20 * 4


@pytest.mark.promise("P8")
def test_after_close_every_method_refuses(subject: Subject) -> None:
    hsm, key = subject.hsm, subject.keys[KeyType.EC_P256]
    hsm.probe()
    assert hsm.ready()
    hsm.close()
    hsm.close()
    assert not hsm.ready()
    calls = (
        lambda: hsm.prepare(key),
        lambda: hsm.sign(key, P256, [bytes(32)], pss_salt_length=None),
        lambda: hsm.authenticate(b""),
        lambda: hsm.encrypt(Secret(b""), associated_data=b""),
        lambda: hsm.decrypt(bytes(28), associated_data=b""),
        lambda: hsm.generate_key_pair(b"id", KeyType.EC_P256),
        lambda: hsm.prepare(subject.wrapped[KeyType.EC_P256]),
        lambda: hsm.sign(subject.wrapped[KeyType.EC_P256], P256, [bytes(32)], pss_salt_length=None),
        lambda: hsm.generate_wrapped_key_pair(KeyType.EC_P256),
        lambda: hsm.destroy_key_pair(b"id"),
        lambda: hsm.public_key(b"id"),
        hsm.key_pairs,
        lambda: hsm.rewrap(subject.wrapped[KeyType.EC_P256], generation=1),
        lambda: hsm.make_installation_key(InstallationKeyPurpose.SEALING, 2),
        lambda: hsm.has_installation_key(InstallationKeyPurpose.SEALING, 1),
        hsm.probe,
    )
    for call in calls:
        with pytest.raises(HsmUnavailable):
            call()
    assert len(calls) == 16


@pytest.mark.promise("P10")
def test_a_value_under_a_label_takes_the_place_of_the_one_before(subject: Subject) -> None:
    hsm, label = subject.hsm, f"a label {os.urandom(4).hex()}"
    pairs = hsm.key_pairs()
    assert hsm.read_data(label) == []
    for value in (b"one", os.urandom(600), b"two"):
        hsm.write_data(label, value)
        assert hsm.read_data(label) == [value]
    assert hsm.read_data(label + " else") == []
    assert hsm.key_pairs() == pairs
