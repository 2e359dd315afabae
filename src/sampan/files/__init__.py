"""Paths that stay inside a root, atomic writes, tar apply and diff, whiteouts."""
