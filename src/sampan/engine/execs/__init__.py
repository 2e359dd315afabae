"""Execs: other processes in a running container."""
