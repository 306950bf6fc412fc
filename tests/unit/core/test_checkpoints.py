"""Signed checkpoints and the log's keys, against the examples of the specifications."""

import base64
import dataclasses

import pytest
from tests.support.log_keys import ORIGIN, LogKeyPair

from trien_server.core.algorithms import KeyType
from trien_server.core.checkpoints import (
    Checkpoint,
    LogKey,
    Note,
    NoteNotValid,
    follow_keys,
    format_log_keys,
    open_checkpoint,
    parse_checkpoint,
    parse_note,
    parse_vkey,
    succession_body,
)

pytestmark = pytest.mark.promise("P10")

# The example of Go's golang.org/x/mod/sumdb/note, where signed notes come from.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETERS_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    "\n\u2014 PeterNeumann"
    " x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The example of C2SP tlog-checkpoint.
EXAMPLE = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n\u2014 example.com/behind-the-sofa"
    " Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)
ROOT = bytes(range(32))
KEY_TYPES = (KeyType.EC_ED25519, KeyType.EC_P256)


def test_the_published_note_opens_with_the_published_key() -> None:
    key = parse_vkey(PETER)
    assert key.vkey == PETER
    assert parse_note(PETERS_NOTE).verify([key]) == key


def test_the_published_checkpoint_is_read() -> None:
    note = parse_note(EXAMPLE)
    assert parse_checkpoint(note.body) == Checkpoint(
        "example.com/behind-the-sofa", 20852163, base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
    )
    assert [one.name for one in note.signatures] == ["example.com/behind-the-sofa"]


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_a_checkpoint_opens_as_it_was_signed_and_with_no_byte_changed(key_type: KeyType) -> None:
    pair = LogKeyPair.generate(key_type)
    note = pair.checkpoint(42, ROOT)
    assert open_checkpoint(note, [parse_vkey(pair.key.vkey)]) == Checkpoint(ORIGIN, 42, ROOT)
    refused = 0
    for at, character in enumerate(note):
        for other in {chr(ord(character) ^ 1), "\n", "A"} - {character}:
            with pytest.raises(NoteNotValid):
                open_checkpoint(note[:at] + other + note[at + 1 :], [pair.key])
            refused += 1
        with pytest.raises(NoteNotValid):
            open_checkpoint(note[:at] + note[at + 1 :], [pair.key])
    assert refused > 2 * len(note)


def test_the_key_id_of_p256_is_that_of_the_signed_note_specification() -> None:
    """It is the hash of the DER-encoded key alone, for signature type 0x02."""
    key = LogKeyPair.generate(KeyType.EC_P256).key
    assert dataclasses.replace(key, origin="another.example").key_id == key.key_id
    assert parse_vkey(key.vkey) == key


def test_a_checkpoint_of_another_key_or_for_another_log_is_refused() -> None:
    pair, stranger = LogKeyPair.generate(), LogKeyPair.generate()
    other_log = dataclasses.replace(pair, origin="elsewhere.example/trien/1")
    for note, keys in (
        (stranger.checkpoint(1, ROOT), [pair.key]),
        (pair.checkpoint(1, ROOT), []),
        (other_log.checkpoint(1, ROOT), [pair.key]),
        # A known key signed, but for a log of another name.
        (other_log.sign(Checkpoint(ORIGIN, 1, ROOT).body), [pair.key, other_log.key]),
    ):
        with pytest.raises(NoteNotValid, match="none of the log's keys signed it"):
            open_checkpoint(note, keys)


def test_signatures_of_unknown_keys_are_passed_over_and_a_wrong_one_of_a_known_key_is_not() -> None:
    pair, witness = LogKeyPair.generate(), LogKeyPair.generate(origin="witness.example")
    body = Checkpoint(ORIGIN, 3, ROOT).body
    both = pair.sign(body) + witness.sign(body).removeprefix(body + "\n")
    assert open_checkpoint(both, [pair.key]).size == 3
    wrong = pair.sign(body) + witness.sign("other\n").removeprefix("other\n\n")
    assert open_checkpoint(wrong, [pair.key]).size == 3
    with pytest.raises(NoteNotValid, match=r"witness\.example does not verify"):
        parse_note(wrong).verify([pair.key, witness.key])


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        "text\n",
        "text\n\n",
        "text\n\n\u2014 name\n",
        "text\n\n\u2014 name AAAAAA==\n",
        "text\n\n\u2014 name AAAAAAAB=\n",
        "text\n\n- name AAAAAAAA\n",
        "text\n\n\u2014 na+me AAAAAAAA\n",
        "te\txt\n\n\u2014 name AAAAAAAA\n",
        "te\ud800xt\n\n\u2014 name AAAAAAAA\n",
        "text\n\n\u2014 name AAAAAAAA",
        "text\n\n" + "\u2014 name AAAAAAAA\n" * 33,
        "x" * 200_000,
    ],
)
def test_what_is_not_a_note_is_refused(note: str) -> None:
    with pytest.raises(NoteNotValid):
        parse_note(note)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "o\n1\n",
        "o\n01\nAAAA\n",
        "o\n-1\n",
        "\n1\n",
        f"o\n1\n{base64.b64encode(ROOT[:31]).decode()}\n",
        "o\n1\nA\n\n",
    ],
)
def test_what_is_not_a_checkpoint_is_refused(body: str) -> None:
    with pytest.raises(NoteNotValid):
        parse_checkpoint(body)


def test_extension_lines_of_a_checkpoint_are_passed_over() -> None:
    checkpoint = Checkpoint(ORIGIN, 7, ROOT)
    assert parse_checkpoint(checkpoint.body + "an extension\n") == checkpoint


def test_whoever_has_the_first_key_follows_to_the_present_one() -> None:
    first, second = LogKeyPair.generate(), LogKeyPair.generate(KeyType.EC_P256)
    restored = LogKeyPair.generate(origin=f"{ORIGIN}/2")
    text = format_log_keys(first.key, [first.succeed(second.key), second.succeed(restored.key)])
    assert follow_keys(text) == [first.key, second.key, restored.key]
    assert follow_keys(first.key.vkey) == [first.key]
    assert open_checkpoint(first.checkpoint(5, ROOT), follow_keys(text)).size == 5


def test_a_succession_that_the_key_before_did_not_sign_is_refused() -> None:
    first, second, stranger = (LogKeyPair.generate() for _ in range(3))
    other_origin = LogKeyPair.generate(origin="elsewhere.example")
    good = first.succeed(second.key)
    for successions, why in (
        ([stranger.succeed(second.key)], "none of the log's keys signed it"),
        ([good, first.succeed(stranger.key)], "none of the log's keys signed it"),
        ([other_origin.succeed(second.key)], "key 2 of the log does not follow key 1"),
        ([good.replace(second.key.vkey, stranger.key.vkey)], "does not verify"),
        ([first.sign(succession_body("elsewhere.example", second.key))], "does not follow"),
        ([first.sign(succession_body(ORIGIN, second.key) + "more\n")], "does not follow"),
        ([first.checkpoint(1, ROOT)], "should be base64"),
    ):
        with pytest.raises(NoteNotValid, match=why):
            follow_keys(format_log_keys(first.key, successions))


@pytest.mark.parametrize(
    "vkey", ["", "name", "name+c74f20a3", PETER[:-1], PETER.replace("c7", "c8"), "a b+00000000+AQ=="]
)
def test_what_is_not_a_log_key_is_refused(vkey: str) -> None:
    with pytest.raises(NoteNotValid):
        parse_vkey(vkey)


def test_a_log_key_is_of_its_type() -> None:
    pair = LogKeyPair.generate()
    for key_type, public_key, origin in (
        (KeyType.EC_P256, pair.key.public_key, ORIGIN),
        (KeyType.RSA_2048, pair.key.public_key, ORIGIN),
        (KeyType.EC_ED25519, b"no key", ORIGIN),
        (KeyType.EC_ED25519, pair.key.public_key + b"\0", ORIGIN),
        (KeyType.EC_ED25519, pair.key.public_key, "with space"),
    ):
        with pytest.raises(NoteNotValid):
            LogKey(origin, key_type, public_key)
    assert isinstance(parse_note(pair.checkpoint(1, ROOT)), Note)
