"""Volumes as Docker promises them; their files are storage/volumes.py's."""
