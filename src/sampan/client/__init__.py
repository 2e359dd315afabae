"""The Python API over the REST API, sync and async."""
