"""Receipts, checkpoints, proofs and keys of the log as messages, and the methods' use cases."""

from dataclasses import dataclass

from trien.v1 import audit_service_pb2

from trien_server.core.receipts import format_receipt
from trien_server.services.log_proofs import GetCheckpoint, GetConsistencyProof, GetLogKeys, ProvenConsistency
from trien_server.services.receipts import GetReceipt, ReceiptOfEntry
from trien_server.services.signed_log import LogKeys, SignedLog


@dataclass(frozen=True, kw_only=True)
class ProofUseCases:
    """The use cases that prove what is in the log."""

    get_receipt: GetReceipt
    get_checkpoint: GetCheckpoint
    get_consistency_proof: GetConsistencyProof
    get_log_keys: GetLogKeys


def receipt_out(made: ReceiptOfEntry) -> audit_service_pb2.Receipt:
    return audit_service_pb2.Receipt(text=format_receipt(made.receipt), position=made.receipt.position, size=made.size)


def checkpoint_out(log: SignedLog) -> audit_service_pb2.Checkpoint:
    checkpoint = log.checkpoint
    return audit_service_pb2.Checkpoint(
        note=log.note, origin=checkpoint.origin, size=checkpoint.size, root=checkpoint.root
    )


def consistency_out(proven: ProvenConsistency) -> audit_service_pb2.ConsistencyProof:
    return audit_service_pb2.ConsistencyProof(
        first_size=proven.first_size,
        second_size=proven.second_size,
        hashes=proven.hashes,
        checkpoint=checkpoint_out(proven.log),
    )


def log_keys_out(keys: LogKeys) -> audit_service_pb2.LogKeys:
    return audit_service_pb2.LogKeys(text=keys.text, present=keys.present.vkey)
