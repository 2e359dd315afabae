"""The TLS end of a syslog connection: a program of its own, for what carries a container must not load ssl.

The logger (launch/logger.py) starts it with one end of a socket pair as descriptor 3 and the settings as its argument; it says "+"
once the server's certificate has been accepted, then carries bytes until either side ends.
"""

from __future__ import annotations

import socket
import ssl
import sys

import msgspec

FD = 3
PATIENCE = 8.0  # seconds for the connection and the handshake; the logger waits ten


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Paths are PEM files."""

    host: str
    port: int
    ca: str = ""
    cert: str = ""
    key: str = ""
    skip_verify: bool = False


def context(settings: Settings) -> ssl.SSLContext:
    """Return the context.  Raises OSError or ssl.SSLError for files that cannot be used."""
    made = ssl.create_default_context(cafile=settings.ca or None)
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT  # on since Python 3.13: it refuses authorities that name no key usage
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.skip_verify:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if settings.cert:
        made.load_cert_chain(settings.cert, settings.key or None)
    return made


def main() -> int:
    """Connect, say so, carry."""
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    with socket.socket(fileno=FD) as near:
        try:
            plain = socket.create_connection((settings.host, settings.port), PATIENCE)
            far = context(settings).wrap_socket(plain, server_hostname=settings.host)
        except (OSError, ValueError):
            return 1
        with far:
            far.settimeout(PATIENCE)
            near.sendall(b"+")
            while data := near.recv(65536):
                far.sendall(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
