"""A daemon that cannot start says why, and leaves the host as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.daemon import Daemon


def test_a_daemon_that_cannot_listen_leaves_no_bridge_behind() -> None:
    daemon = Daemon("-H", "tcp://192.0.2.1:2375")  # TEST-NET-1 (RFC 5737): no address of this host
    try:
        with pytest.raises(RuntimeError):
            daemon.start()

        assert "192.0.2.1" in daemon.log
        assert not Path(f"/sys/class/net/{daemon.bridge}").exists()
    finally:
        daemon.close()
