"""sampan network ls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.cli.table import filters, labels, show

if TYPE_CHECKING:
    from sampan.cli.main import Invocation

COLUMNS = [("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE")]


def listing(call: Invocation) -> int:
    o = call.options
    found = sorted(call.client.networks.list(filters(o.filter)), key=lambda one: one.name)
    if o.quiet and not o.format:
        for one in found:
            print(one.id if o.no_trunc else one.id[:12])
        return 0
    rows = (
        {
            "ID": one.id if o.no_trunc else one.id[:12], "Name": one.name, "Driver": one.driver, "Scope": one.scope,
            "IPv4": str(one.enable_ipv4).lower(), "IPv6": str(one.enable_ipv6).lower(), "Internal": str(one.internal).lower(),
            "Labels": labels(one.labels), "Label": lambda name, one=one: one.labels.get(name, ""), "CreatedAt": one.created,
        }
        for one in found
    )  # fmt: skip
    show(rows, COLUMNS, o.format, "*network.networkContext")
    return 0
