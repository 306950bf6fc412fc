"""The table of all checks, in the order in which they look. The operator's page has the same; a test compares them."""

from typing import Final

from trien_server.cli.doctor import carriers, certificates, database, files, installation, log, machine, token
from trien_server.cli.doctor.findings import Check

CONFIGURATION: Final = "configuration"
CONFIGURATION_SEES: Final = "unknown keys, values that are missing or do not fit"

_TOKEN_AND_DATABASE: Final = ("token-keys", "token-threads", "database")

CHECKS: Final = (
    Check(name="user", sees="whether root looks at what another user's server works with", look=files.user),
    Check(
        name="files",
        sees="files and folders that the configuration names: there, of the right kind, secrets for their owner alone",
        look=files.files,
    ),
    Check(
        name="permissions",
        sees="who else may write to what the server believes, or read database and token",
        look=files.permissions,
    ),
    Check(
        name="left-behind",
        sees="secrets of `init` that belong offline: the security officer's PIN, the private CA's key, operators' keys",
        look=files.left_behind,
    ),
    Check(
        name="tls-certificates",
        sees="the server's certificate and the client CAs: dates, chain, names, purpose, kind of key",
        look=certificates.tls_certificates,
    ),
    Check(
        name="disks",
        sees="room and inodes where database, token, the log's tiles and lists are, and in /var/log",
        look=machine.disks,
    ),
    Check(name="descriptors", sees="how many files a process may open", look=machine.descriptors),
    Check(
        name="clock-synchronization",
        sees="whether something keeps the clock in step, as the kernel knows (adjtimex)",
        look=machine.clock_synchronization,
    ),
    Check(
        name="database-place",
        sees="SQLite on a network, in memory, or on a disk that does not lock files",
        look=database.database_place,
    ),
    Check(
        name="database",
        sees="whether it can be reached, its schema, and the settings that make a commit durable",
        look=database.database,
        needs=("user",),
    ),
    Check(
        name="clock",
        sees="the clock against the database's and the newest audit entry",
        look=database.clock,
        needs=("database",),
    ),
    Check(
        name="token-module",
        sees="whether the file is a PKCS#11 module, and whether it is SoftHSM",
        look=token.module,
        needs=("user",),
    ),
    Check(
        name="token", sees="whether the token is there, and which others are", look=token.token, needs=("token-module",)
    ),
    Check(name="token-pin", sees="whether the token takes the PIN, tried once", look=token.pin, needs=("token",)),
    Check(
        name="token-keys",
        sees="the installation's keys: missing, twice, or with wrong attributes",
        look=token.keys,
        needs=("token-pin",),
    ),
    Check(
        name="token-mechanisms",
        sees="seals, one-time password secrets and each signature algorithm, tried on throw-away keys",
        look=token.mechanisms,
        needs=("token-pin",),
    ),
    Check(
        name="token-threads",
        sees="whether the module bears several threads at once",
        look=token.threads,
        needs=("token-keys",),
    ),
    Check(
        name="token-wrapping",
        sees="what `token check` tries: whether wrapped keys stay closed to who has the PIN",
        look=token.wrapping,
        needs=("token-keys",),
    ),
    Check(
        name="installation",
        sees="whether database and token belong together, and the clock can be trusted, as at a start",
        look=installation.installation,
        needs=_TOKEN_AND_DATABASE,
    ),
    Check(
        name="officers",
        sees="whether enough officers are left to agree on changes",
        look=installation.officers,
        needs=("installation",),
    ),
    Check(
        name="operator-certificates",
        sees="operators' certificates: dates, and whether the server lets them in",
        look=installation.operator_certificates,
        needs=("installation",),
    ),
    Check(
        name="credentials",
        sees="how many credentials' certificates expire within 30 days, and the installation's own CAs",
        look=installation.credentials,
        needs=("installation",),
    ),
    Check(
        name="log-key",
        sees="whether the token has the key that signs the audit log",
        look=log.log_key,
        needs=("installation",),
    ),
    Check(
        name="log",
        sees="the audit log: entries without a place, the newest checkpoint and 500 entries, and audit.tile_folder",
        look=log.log,
        needs=("installation",),
    ),
    Check(
        name="carriers",
        sees="whether mail server and SMS gateway can be reached and take the log-in; nothing is sent",
        look=carriers.carriers,
        network=True,
    ),
)
