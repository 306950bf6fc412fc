"""The database, behind `core.ports.Store`."""
