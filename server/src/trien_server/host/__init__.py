"""The machine: its clock, randomness, log, files, and the certificates made on it."""
