"""Host commands: `trien-server`."""
