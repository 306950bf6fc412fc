"""The server's audit log, verified offline: nothing but the log's public key is believed.

    keys = read_log_keys(Path("log-keys"))
    receipt = parse_receipt(Path("decision.receipt").read_text())
    receipt.verify(keys)
    receipt.require_digest(digest_file("decision.pdf", HashFunction.SHA256).value)

A receipt proves that an entry, and one digest of its call, are in the log that the signed checkpoint tells of.
`verify_log` recomputes a whole log from its published files, and opens exported entries with their salts. All of it
raises `ProofNotValid` or, with the place of the first wrong entry, `LogNotValid`. The formats are RFC 6962's tree and
C2SP's signed notes, checkpoints and tiles; `docs/auditor.md` verifies them with OpenSSL alone.
"""

from trien_client._errors import LogNotValid, ProofNotValid
from trien_client._log_folder import VerifiedLog, verify_log
from trien_client._log_notes import Checkpoint, LogKey, follow_keys, open_checkpoint, read_log_keys
from trien_client._log_receipts import Receipt, ReceiptItem, parse_receipt
from trien_client._log_tree import hash_leaf, verify_consistency, verify_inclusion

__all__ = [
    "Checkpoint",
    "LogKey",
    "LogNotValid",
    "ProofNotValid",
    "Receipt",
    "ReceiptItem",
    "VerifiedLog",
    "follow_keys",
    "hash_leaf",
    "open_checkpoint",
    "parse_receipt",
    "read_log_keys",
    "verify_consistency",
    "verify_inclusion",
    "verify_log",
]
