"""Makes the tables of all records.

Written out, not derived from the record classes: those change, and what a revision makes does not.
SQLite's tables are STRICT, so that a text cannot stand where an integer belongs. PostgreSQL orders
names by their bytes (collation "C"), as SQLite does.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=nullable)


def integer(name: str, *, nullable: bool = False) -> sa.Column[int]:
    """A 64-bit integer; times are microseconds since 1970-01-01 UTC."""
    return sa.Column(name, sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=nullable)


def boolean(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean().with_variant(sa.Integer(), "sqlite"), nullable=False)


def blob(name: str, *, nullable: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=nullable)


def sealed_table(table: str, *columns: sa.Column[str] | sa.Column[int] | sa.Column[bool] | sa.Column[bytes]) -> None:
    op.create_table(
        table,
        text("name"),
        integer("version"),
        *columns,
        text("seal_key"),
        blob("seal"),
        sa.PrimaryKeyConstraint("name", name=f"{table}_key"),
        sqlite_strict=True,
    )


def index(table: str, *columns: str, unique: bool = False) -> None:
    op.create_index(f"{table}_by_{columns[0]}", table, list(columns), unique=unique)


def upgrade() -> None:
    slow_records()
    hot_records()
    op.create_table(
        "outcomes",
        text("request"),
        text("signatures"),
        integer("create_time"),
        sa.PrimaryKeyConstraint("request", name="outcomes_key"),
        sqlite_strict=True,
    )
    op.create_table(
        "unsealed_entries",
        text("entry"),
        sa.PrimaryKeyConstraint("entry", name="unsealed_entries_key"),
        sqlite_strict=True,
    )
    op.create_table(
        "log_positions",
        integer("position"),
        text("entry"),
        sa.PrimaryKeyConstraint("position", name="log_positions_key"),
        sqlite_strict=True,
    )
    index("log_positions", "entry", unique=True)
    index("clients", "token_hash", unique=True)
    index("clients", "certificate_fingerprint", "name")
    index("clients", "previous_token_hash", "name")
    index("clients", "previous_certificate_fingerprint", "name")
    index("operators", "certificate_fingerprint", "name")
    index("operators", "public_key_hash", "name")
    index("enrolments", "first_half_hash", "name")
    index("enrolments", "signer", "name")
    index("organizations", "parent", "name")
    index("signers", "organization", "name")
    index("keys", "state", "name")
    index("keys", "object_id", "name")
    index("credentials", "key", "name")
    index("credentials", "signer", "name")
    index("activators", "signer", "name")
    index("proposals", "state", "name")
    index("issued_certificates", "key", "name")
    index("issued_certificates", "state", "name")
    index("authenticators", "signer", "name")
    index("activators", "credential", "name")
    index("credential_clients", "credential", "client", "name")
    index("authorizations", "credential", "name")
    index("authorizations", "client", "name")
    index("signature_uses", "signer", "name")
    index("audit_entries", "subject", "subject_version")
    index("audit_entries", "time")


def slow_records() -> None:
    sealed_table("installations", integer("create_time"))
    sealed_table(
        "organizations",
        text("display_name"),
        text("parent", nullable=True),
        integer("start_time", nullable=True),
        integer("end_time", nullable=True),
        text("successor", nullable=True),
        integer("create_time"),
    )
    sealed_table(
        "signers",
        text("display_name"),
        text("kind"),
        text("organization"),
        text("position"),
        text("email"),
        text("phone"),
        boolean("signature_notices"),
        text("state"),
        integer("create_time"),
    )
    sealed_table(
        "authenticators",
        text("signer"),
        text("kind"),
        integer("digits"),
        text("hash_function"),
        integer("period"),
        blob("encrypted_secret"),
        text("address"),
        text("state"),
        integer("create_time"),
    )
    sealed_table(
        "enrolments",
        text("signer"),
        text("kind"),
        integer("digits"),
        text("hash_function"),
        text("replaces", nullable=True),
        text("address"),
        text("proposer"),
        text("approver"),
        blob("first_half_hash", nullable=True),
        blob("second_half_hash", nullable=True),
        blob("encrypted_secret"),
        blob("confirmation_hash", nullable=True),
        integer("failures"),
        text("state"),
        integer("start_time"),
        integer("expire_time"),
        integer("create_time"),
    )
    sealed_table(
        "installation_keys",
        text("purpose"),
        integer("generation"),
        text("state"),
        integer("state_time"),
        integer("create_time"),
        text("key_type", nullable=True),
        blob("object_id", nullable=True),
        blob("public_key", nullable=True),
        text("origin", nullable=True),
        text("succession", nullable=True),
    )
    sealed_table("request_purges", integer("purged_before"), integer("time"))
    sealed_table(
        "audit_erasures",
        text("audit_entries"),
        text("resource"),
        text("justification"),
        integer("erased"),
        text("state"),
        integer("create_time"),
    )
    sealed_table(
        "keys",
        text("key_type"),
        text("purpose"),
        text("protection_level"),
        blob("object_id"),
        blob("public_key"),
        blob("wrapped_key", nullable=True),
        integer("wrapping_generation"),
        integer("destroy_time", nullable=True),
        text("state"),
        integer("create_time"),
    )
    sealed_table(
        "credentials",
        text("key"),
        text("signer"),
        text("display_name"),
        text("certificate_chain"),
        integer("max_items"),
        boolean("client_collected_otp"),
        text("authenticator_kinds"),
        text("hours"),
        text("revocation_policy"),
        text("state"),
        integer("create_time"),
    )
    sealed_table(
        "activators",
        text("credential"),
        text("signer"),
        integer("start_time", nullable=True),
        integer("end_time", nullable=True),
        text("state"),
    )
    sealed_table("credential_clients", text("credential"), text("client"), text("state"))
    sealed_table(
        "clients",
        text("display_name"),
        blob("token_hash", nullable=True),
        blob("certificate_fingerprint", nullable=True),
        blob("previous_token_hash", nullable=True),
        blob("previous_certificate_fingerprint", nullable=True),
        integer("previous_expire_time", nullable=True),
        text("organizations"),
        text("methods"),
        integer("calls_per_minute"),
        integer("concurrent_items"),
        text("state"),
        integer("create_time"),
    )
    sealed_table(
        "operators",
        text("display_name"),
        blob("certificate"),
        blob("certificate_fingerprint"),
        blob("public_key_hash"),
        text("roles"),
        text("organizations"),
        text("state"),
        integer("create_time"),
    )
    sealed_table(
        "proposals",
        text("method"),
        text("content"),
        text("statement"),
        blob("digest"),
        text("proposer"),
        blob("proposer_key_hash"),
        text("resources"),
        text("state"),
        text("decider", nullable=True),
        integer("decide_time", nullable=True),
        blob("approval_signature", nullable=True),
        blob("approval_certificate", nullable=True),
        integer("create_time"),
        integer("expire_time"),
    )
    sealed_table(
        "certificate_authorities",
        text("key"),
        text("certificate_chain"),
        integer("next_crl_number"),
        text("state"),
        integer("create_time"),
    )
    sealed_table(
        "issued_certificates",
        text("authority"),
        text("key"),
        text("signer"),
        blob("to_be_signed"),
        blob("certificate"),
        text("state"),
        integer("expire_time"),
        integer("revoke_time", nullable=True),
        text("revoke_reason", nullable=True),
        integer("create_time"),
    )


def hot_records() -> None:
    sealed_table(
        "authenticator_states",
        integer("next_value"),
        integer("resynchronization", nullable=True),
        boolean("out_of_step"),
    )
    sealed_table(
        "signer_attempts", integer("failures"), integer("lock_failures"), integer("locked_until", nullable=True)
    )
    sealed_table("client_attempts", integer("failures"), integer("blocks"), integer("blocked_until", nullable=True))
    sealed_table(
        "authorizations",
        text("credential"),
        text("key"),
        text("client"),
        text("approver", nullable=True),
        text("algorithm"),
        integer("pss_salt_length", nullable=True),
        text("item_kind"),
        text("digests"),
        blob("used"),
        text("signed_digests"),
        text("title"),
        text("state"),
        text("approval", nullable=True),
        integer("create_time"),
        integer("expire_time"),
    )
    sealed_table(
        "challenges",
        text("signer"),
        text("client"),
        text("authenticator"),
        text("authorizations"),
        blob("nonce"),
        blob("code_mac", nullable=True),
        boolean("answered"),
        integer("create_time"),
        integer("expire_time"),
    )
    sealed_table("delivery_counts", text("day"), integer("sent"), integer("last_time"))
    sealed_table(
        "approvals",
        text("signer"),
        text("client"),
        text("authenticator"),
        integer("accepted_value"),
        text("assurance"),
        text("authorizations"),
        integer("create_time"),
    )
    sealed_table(
        "signature_uses",
        text("signer"),
        text("credential"),
        text("client"),
        text("approver"),
        text("audit_entry"),
        integer("items"),
        text("fingerprint"),
        integer("time"),
    )
    sealed_table(
        "granted_requests",
        text("client"),
        text("method"),
        blob("content_hash"),
        text("subject"),
        text("audit_entry"),
        text("positions"),
        text("lease_holder"),
        integer("lease_expire_time"),
        boolean("completed"),
        integer("create_time"),
    )
    sealed_table("leases", text("holder"), integer("expire_time"))
    sealed_table(
        "certificate_statuses",
        text("credential"),
        blob("chain_hash"),
        text("revocation"),
        integer("revoke_time", nullable=True),
        text("source"),
        integer("check_time"),
        integer("valid_until"),
    )
    sealed_table("notices", integer("create_time"))
    sealed_table(
        "audit_entries",
        integer("time"),
        text("kind"),
        text("subject", nullable=True),
        integer("subject_version", nullable=True),
        blob("leaf"),
        blob("head_salt"),
        blob("salt"),
        text("details"),
        blob("items_root"),
    )
    sealed_table("log_heads", text("origin"), integer("size"), blob("root"), text("frontier"), integer("time"))
    sealed_table("log_tiles", blob("hashes"), integer("time"))
    sealed_table("log_checkpoints", text("origin"), integer("size"), blob("root"), text("note"), integer("time"))
    sealed_table("audit_exports", integer("position"), integer("time"))
