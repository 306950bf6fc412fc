"""The token, behind `core.ports.Hsm`.

`Pkcs11Hsm` is the adapter; `provision` makes the installation's keys, `create_softhsm_token` a token
for development. Importing loads no module of a token.
"""

from trien_server.hsm.custody import FIRST_KEYS, bring_keys, export_new_keys
from trien_server.hsm.failures import NotProvisioned, PinRejected, TokenFailed
from trien_server.hsm.inventory import TokenInventory, take_inventory, try_token
from trien_server.hsm.provisioning import add_wrapping_key, provision
from trien_server.hsm.softhsm import create_softhsm_token, find_softhsm_module
from trien_server.hsm.token import Pkcs11Hsm

__all__ = [
    "FIRST_KEYS",
    "NotProvisioned",
    "PinRejected",
    "Pkcs11Hsm",
    "TokenFailed",
    "TokenInventory",
    "add_wrapping_key",
    "bring_keys",
    "create_softhsm_token",
    "export_new_keys",
    "find_softhsm_module",
    "provision",
    "take_inventory",
    "try_token",
]
