"""Authenticates messages with an installation's sealing key: hexadecimal lines in, hexadecimal lines out."""

import os
import sys
from pathlib import Path

from trien_server import config as configuration
from trien_server.host.files import read_secret
from trien_server.hsm import Pkcs11Hsm


def main(path: Path) -> None:
    token = configuration.load(path, environment={}).config.token
    if token.softhsm_configuration_file is not None:
        os.environ["SOFTHSM2_CONF"] = str(token.softhsm_configuration_file)
    hsm = Pkcs11Hsm(
        module_path=str(token.module),
        pin=read_secret(token.pin_file),
        token_label=token.label,
        token_serial=token.serial,
        sessions=1,
        self_test=False,
    )
    try:
        for line in sys.stdin:
            print(hsm.authenticate(bytes.fromhex(line)).hex(), flush=True)  # noqa: T201 - it is the answer
    finally:
        hsm.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
