"""Python SDK of Trien, the remote signing server."""
