"""sampan network ls, create, connect, disconnect, rm, prune."""

from __future__ import annotations

import ipaddress
import sys
from typing import TYPE_CHECKING

from sampan.cli.main import Exit, describe
from sampan.cli.table import filters, labels, raw, show
from sampan.client.errors import ApiError

if TYPE_CHECKING:
    from sampan.cli.main import Invocation
    from sampan.cli.options import Options
    from sampan.wire.networks import IpamPool

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
    if o.format == "raw":
        raw(rows, (("network_id", "ID"), ("name", "Name"), ("driver", "Driver"), ("scope", "Scope")))
    else:
        show(rows, COLUMNS, o.format, "*network.networkContext")
    return 0


def pairs(given: list[str], name: str) -> dict[str, str]:
    """key=value options; a key alone has an empty value.  Raises Exit."""
    made = {}
    for one in given:
        key, _, value = one.partition("=")
        if not key:
            raise Exit(125, f'invalid argument "{one}" for "{name}" flag: invalid format')
        made[key] = value
    return made


def create(call: Invocation) -> int:
    from sampan.wire import networks as n

    o = call.options
    ipam = n.Ipam(driver=o.ipam_driver, options=pairs(o.ipam_opt, "--ipam-opt"), config=_pools(o))
    body = n.NetworkCreate(
        name=call.arguments[0], driver=o.driver, scope=o.scope, ipam=ipam, internal=o.internal, attachable=o.attachable,
        ingress=o.ingress, config_only=o.config_only, config_from=n.ConfigFrom(network=o.config_from) if o.config_from else None,
        options=pairs(o.opt, "--opt"), labels=pairs(o.label, "--label"),
        **{key: o[key[7:]] for key in ("enable_ipv4", "enable_ipv6") if key[7:] in o.given},
    )  # fmt: skip
    made = call.client.networks.create(body)
    if made.warning:
        print(f"WARNING: {made.warning}", file=sys.stderr)
    print(made.id)
    return 0


def _pools(o: Options) -> list[IpamPool]:
    """Ranges, gateways and auxiliary addresses go to the subnet that they are in.  Raises Exit in docker's words."""
    from msgspec import structs

    from sampan.wire.networks import IpamPool

    made = {text: IpamPool(subnet=text) for text in o.subnet}
    if len(o.ip_range) > len(made) or len(o.gateway) > len(made):
        raise Exit(1, "every ip-range or gateway must have a corresponding subnet")

    def place(text: str, what: str) -> str:
        try:
            first = ipaddress.ip_address(text.split("/")[0])
            found = [one for one in made if first in ipaddress.ip_network(one, strict=False)]
        except ValueError as error:
            raise Exit(1, f"invalid {what}: {error}") from None
        if not found:
            raise Exit(1, f"no matching subnet for {what} {text}")
        return str(found[0])

    for text in o.ip_range:
        at = place(text, "range")
        made[at] = structs.replace(made[at], ip_range=text)
    for text in o.gateway:
        at = place(text, "gateway")
        made[at] = structs.replace(made[at], gateway=text)
    for name, text in pairs(o.aux_address, "--aux-address").items():
        at = place(text, "aux-address")
        made[at] = structs.replace(made[at], auxiliary_addresses={**(made[at].auxiliary_addresses or {}), name: text})
    return list(made.values())


def connect(call: Invocation) -> int:
    from sampan.wire import containers as c
    from sampan.wire import networks as n

    o = call.options
    ipam = c.EndpointIpam(i_pv4_address=o.ip, i_pv6_address=o.ip6, link_local_ips=o.link_local_ip or None)
    settings = c.EndpointSettings(
        ipam_config=ipam if ipam != c.EndpointIpam() else None, aliases=o.alias or None, links=o.link or None,
        driver_opts=pairs(o.driver_opt, "--driver-opt") or None, gw_priority=o.gw_priority or 0,
    )  # fmt: skip
    call.client.networks.connect(call.arguments[0], n.NetworkConnect(container=call.arguments[1], endpoint_config=settings))
    return 0


def disconnect(call: Invocation) -> int:
    call.client.networks.disconnect(call.arguments[0], call.arguments[1], force=call.options.force)
    return 0


def remove(call: Invocation) -> int:
    failed = 0
    for name in call.arguments:
        try:
            call.client.networks.remove(name)
        except ApiError as error:
            if call.options.force and error.status == 404:
                continue
            print(describe(error), file=sys.stderr)
            failed = 1
        else:
            print(name)
    return failed


def prune(call: Invocation) -> int:
    from sampan.cli.verbs import confirmed

    if not call.options.force and not confirmed(
        "WARNING! This will remove all custom networks not used by at least one container."
    ):
        return 0
    done = call.client.networks.prune(filters(call.options.filter))
    if done.networks_deleted:
        print("Deleted Networks:\n" + "\n".join(done.networks_deleted) + "\n")
    return 0


REACH = [("Container", "CONTAINER"), ("Network", "NETWORK"), ("Address", "ADDRESS"), ("Port", "PORT"), ("From", "REACHED FROM")]


def audit(call: Invocation) -> int:
    rows = (
        {"Container": one.container, "Network": one.network, "Address": one.address, "Port": one.port,
         "From": ", ".join(one.reached_from)}
        for one in call.client.networks.audit()
    )  # fmt: skip
    show(rows, REACH, call.options.format, "*sampan.Reach")
    return 0


def repair(call: Invocation) -> int:
    found = call.client.networks.repair()
    for text in found.done:
        print(f"made again: {text}")
    for text in found.problems:
        print(text, file=sys.stderr)
    return 1 if found.problems else 0
