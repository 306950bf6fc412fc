"""Where the audit log goes outside the database: published files, and sinks of other systems."""
