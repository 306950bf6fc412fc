"""The whole path: clients that ask the service for signatures, each as soon as the one before is answered.

One process of several. Each client is a thread with a connection of its own, a person's HOTP authenticator, and that
person's credentials. HOTP, because a TOTP authenticator allows one request in 30 seconds.
"""

import base64
import os
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyotp
from cryptography import x509
from trien.v1 import authorization_service_pb2, signing_service_pb2, signing_service_pb2_grpc

from trien_client._algorithms import KeyType, SignatureAlgorithm
from trien_client._errors import Refusal, TrienError
from trien_client._items import Items, parse_items
from trien_client._resources import algorithm_message
from trien_client._secret import Secret
from trien_client._transport import Endpoint, Transport
from trien_client._verification import require_echo, verify_signature
from trien_client.bench.plan import Case
from trien_client.bench.process import Handler, Message, serve

_TIMEOUT = 30.0
_PAUSE_AFTER_ERROR = 0.05
"""Keeps a server that refuses everything from being asked as fast as it refuses (seconds)."""


@dataclass(frozen=True, kw_only=True)
class HeldCredential:
    """A person's credential and its certificate."""

    name: str
    certificate: x509.Certificate


@dataclass
class Tally:
    """What one client counted. Only requests that were answered in the measured time have a latency here."""

    latencies: list[float] = field(default_factory=list)
    signatures: int = 0
    signatures_in_all: int = 0
    verified: int = 0
    errors: Counter[str] = field(default_factory=Counter)


class SigningClient:
    """One client: a connection, and a person whose codes it knows. Used by one thread."""

    def __init__(self, setup: Message, person: Message) -> None:
        # No second try: it would hide an error, and its wait would pass for the server's.
        self._transport = Transport(
            Endpoint.of(
                setup["address"],
                ca_certificates=Path(setup["ca_file"]),
                token=Secret(person["token"]),
                certificate=None,
                key=None,
            )
        )
        self._stub = signing_service_pb2_grpc.SigningServiceStub(self._transport.channel)
        self._verified_every: int = setup["verified_every"]
        self._signer: str = person["signer"]
        self._codes = pyotp.HOTP(person["secret"], digits=person["digits"])
        self._counter = 1
        """The next one: that of 0 put the authenticator in force."""
        self._requests = 0
        self._credentials = {
            KeyType(key_type): HeldCredential(
                name=held["name"],
                certificate=x509.load_der_x509_certificate(base64.b64decode(held["certificate"])),
            )
            for key_type, held in person["credentials"].items()
        }

    def run(self, case: Case, *, measured_from: float, until: float, tally: Tally) -> None:
        """Asks again and again until the time is over, and counts."""
        while (begun := time.perf_counter()) < until:
            try:
                verified = self._sign(case)
            except TrienError as error:
                tally.errors[error.reason if isinstance(error, Refusal) else type(error).__name__] += 1
                time.sleep(_PAUSE_AFTER_ERROR)
                continue
            answered = time.perf_counter()
            tally.signatures_in_all += case.digests
            tally.verified += verified
            if measured_from <= answered < until:
                tally.latencies.append(answered - begun)
                tally.signatures += case.digests

    def _sign(self, case: Case) -> int:
        """Makes one request and checks its answer's shape; returns how many signatures it also verified.

        Raises `TrienError`.
        """
        credential = self._credentials[case.key_type]
        items = parse_items([os.urandom(_digest_size(case.algorithm)) for _ in range(case.digests)], case.algorithm)
        request = signing_service_pb2.SignDigestsRequest(
            credential=credential.name,
            algorithm=algorithm_message(case.algorithm),
            items=items.to_sign(),
            items_crc32c=items.crc32c(),
            request_id=str(uuid.uuid4()),
            one_time_password=authorization_service_pb2.OneTimePassword(
                code=self._codes.at(self._counter), signer=self._signer
            ),
        )
        self._counter += 1
        response = self._transport.call(self._stub.SignDigests, request, timeout=_TIMEOUT)
        require_echo(request, response, case.algorithm)
        self._requests += 1
        if self._requests % self._verified_every != 1 % self._verified_every:
            return 0
        return _verify(items, response, credential)

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()


class Generator:
    """The clients of this process."""

    def __init__(self, setup: Message) -> None:
        self._clients = [SigningClient(setup, person) for person in setup["persons"]]

    def measure(self, message: Message) -> Message:
        """Lets all clients work for a while; returns what they counted, as `ServiceStep` has it."""
        case = Case(
            key_type=KeyType(message["key_type"]),
            algorithm=SignatureAlgorithm(message["algorithm"]),
            digests=message["digests"],
        )
        measured_from = time.perf_counter() + message["warm_up_seconds"]
        until = measured_from + message["seconds"]
        tallies = [Tally() for _ in self._clients]
        cpu_before = time.process_time()
        threads = [
            threading.Thread(
                target=client.run,
                args=(case,),
                kwargs={"measured_from": measured_from, "until": until, "tally": tally},
            )
            for client, tally in zip(self._clients, tallies, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {
            "signatures": sum(tally.signatures for tally in tallies),
            "requests": sum(len(tally.latencies) for tally in tallies),
            "seconds": message["seconds"],
            "latencies": [latency for tally in tallies for latency in tally.latencies],
            "signatures_in_all": sum(tally.signatures_in_all for tally in tallies),
            "verified": sum(tally.verified for tally in tallies),
            "cpu_seconds": time.process_time() - cpu_before,
            "errors": dict(sum((tally.errors for tally in tallies), Counter())),
        }


def _digest_size(algorithm: SignatureAlgorithm) -> int:
    if algorithm.hash_function is None:
        raise ValueError(f"{algorithm} signs no digests")
    return algorithm.hash_function.size


def _verify(items: Items, response: signing_service_pb2.SignDigestsResponse, credential: HeldCredential) -> int:
    for signature, digest in zip(response.signatures, items.signed_bytes(), strict=True):
        verify_signature(credential.certificate, items.algorithm, signature.value, digest)
    return len(response.signatures)


def _set_up(setup: Message) -> Handler:
    return Generator(setup).measure


if __name__ == "__main__":
    serve(_set_up)
