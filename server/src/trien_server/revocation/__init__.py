"""The revocation status of other CAs' certificates: what their OCSP responders and revocation lists say."""

from trien_server.revocation.network import Network
from trien_server.revocation.sources import NetworkRevocationSource

__all__ = ["Network", "NetworkRevocationSource"]
