"""The command `trien`."""
