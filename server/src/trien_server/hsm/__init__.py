"""The token, behind `core.ports.Hsm`."""
