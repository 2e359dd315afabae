"""The `sampan` command: docker-shaped commands and tables.  Knows the daemon only by HTTP."""
