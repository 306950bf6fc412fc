"""Builds everything, once, by keyword."""

from trien_server.wiring.adapters import (
    build_deliveries,
    build_revocation_source,
    certificates_of_the_host,
    own_ca_settings,
)
from trien_server.wiring.edges import build_grpc_server
from trien_server.wiring.instance import WANTED_DESCRIPTORS, Instance, Server
from trien_server.wiring.use_cases import UseCases

__all__ = [
    "WANTED_DESCRIPTORS",
    "Instance",
    "Server",
    "UseCases",
    "build_deliveries",
    "build_grpc_server",
    "build_revocation_source",
    "certificates_of_the_host",
    "own_ca_settings",
]
