"""Container output on disk: Docker's json-file format, written by the keeper, read by the engine.

Logs live in a folder only root can enter, and are opened with O_NOFOLLOW (SECURITY.md row 39).
"""
