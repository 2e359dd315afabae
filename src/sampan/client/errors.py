"""What can go wrong between a client and a daemon."""

from __future__ import annotations


class ClientError(Exception):
    """The root of what the client raises."""


class ApiError(ClientError):
    """The daemon refused: `status` is HTTP's, `message` the daemon's words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class NoDaemon(ClientError):
    """Nothing answers at `host`."""

    def __init__(self, host: str, reason: str, *, running: bool = False) -> None:
        what = f"{reason}" if running else "Is the sampan daemon running?"
        super().__init__(f"Cannot connect to the Sampan daemon at {host}. {what}")
        self.host = host
        self.reason = reason


class BadHost(ClientError):
    """The address itself cannot be understood."""


class ProtocolError(ClientError):
    """The other side does not speak as the API says."""


class BadContext(ClientError):
    """A build context cannot be read."""
