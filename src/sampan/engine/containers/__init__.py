"""Containers: a verb is a file; container.py has the one object that they all work on."""
