"""Traffic control by rtnetlink: a token bucket on a link's way out, and a redirect of what comes in (tc(8), tc-tbf(8)).

Numbers from include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls}.h and tc_act/tc_mirred.h.  Only encoders; `rtnl.Route` sends.
"""

from __future__ import annotations

import socket
import struct

from sampan.kernel.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, Request, attribute, nest, text, u32
from sampan.kernel.rtnl import IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, RTM_NEWLINK, check_name

RTM_NEWQDISC, RTM_DELQDISC, RTM_NEWTFILTER = 36, 37, 44
TC_H_ROOT, TC_H_INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
TCA_U32_SEL, TCA_U32_ACT = 5, 7
TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 1, 2, 2
NLM_F_REPLACE = 0x100
_ETHERNET = 1  # TC_LINKLAYER_ETHERNET: the kernel computes by rate, no table is sent
_TERMINAL, _STOLEN, _EGRESS_REDIR, _ALL = 1, 4, 1, 3  # TC_U32_TERMINAL, TC_ACT_STOLEN, TCA_EGRESS_REDIR, ETH_P_ALL
_TCMSG = struct.Struct("=BBHiIII")
_INGRESS = 0xFFFF0000
_ROOT = 0x10000  # the handle 1:


def _message(index: int, handle: int, parent: int, info: int = 0) -> bytes:
    return _TCMSG.pack(0, 0, 0, index, handle, parent, info)


def token_bucket(index: int, rate: int, burst: int, queue: int) -> Request:
    """Let no more than `rate` bytes a second out of a link; `burst` at once, `queue` bytes waiting (more is dropped)."""
    spec = struct.pack("=BBHhHI", 0, _ETHERNET, 0, 0, 0, min(rate, 0xFFFFFFFF))
    options = [attribute(TCA_TBF_PARMS, spec + bytes(12) + struct.pack("=III", queue, 0, 0)), u32(TCA_TBF_BURST, burst)]
    if rate > 0xFFFFFFFF:
        options.append(attribute(TCA_TBF_RATE64, struct.pack("=Q", rate)))
    payload = _message(index, _ROOT, TC_H_ROOT) + text(TCA_KIND, "tbf") + nest(TCA_OPTIONS, *options)
    return Request(RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, payload, f"token bucket of link {index}")


def no_bucket(index: int) -> Request:
    """Take a link's token bucket away; ENOENT or EINVAL when there is none."""
    return Request(RTM_DELQDISC, NLM_F_ACK, _message(index, _ROOT, TC_H_ROOT), f"token bucket of link {index}")


def ingress(index: int) -> Request:
    """Give a link the place where what comes in can be redirected.  EEXIST when it has it."""
    payload = _message(index, _INGRESS, TC_H_INGRESS) + text(TCA_KIND, "ingress")
    return Request(RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, payload, f"ingress of link {index}")


def no_ingress(index: int) -> Request:
    """Take it away, and the redirect with it; ENOENT or EINVAL when there is none."""
    return Request(RTM_DELQDISC, NLM_F_ACK, _message(index, _INGRESS, TC_H_INGRESS), f"ingress of link {index}")


def redirect(index: int, to: int) -> Request:
    """Send everything that comes in by a link through the link `to` (an ifb), from which it comes back."""
    everything = struct.pack("=BBBxHHhhI", _TERMINAL, 0, 1, 0, 0, 0, 0, 0) + struct.pack("=IIii", 0, 0, 0, 0)
    mirred = struct.pack("=IIiiiiI", 0, 0, _STOLEN, 0, 0, _EGRESS_REDIR, to)
    action = nest(1, text(TCA_ACT_KIND, "mirred"), nest(TCA_ACT_OPTIONS, attribute(TCA_MIRRED_PARMS, mirred)))
    options = nest(TCA_OPTIONS, attribute(TCA_U32_SEL, everything), nest(TCA_U32_ACT, action))
    info = 1 << 16 | socket.htons(_ALL)  # priority 1
    payload = _message(index, 0, _INGRESS, info) + text(TCA_KIND, "u32") + options
    return Request(RTM_NEWTFILTER, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, payload, f"redirect of link {index}")


def new_ifb(name: str) -> Request:
    """An intermediate functional block, down.  EEXIST when the name is taken, EOPNOTSUPP without CONFIG_IFB."""
    payload = bytes(16) + text(IFLA_IFNAME, check_name(name)) + nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "ifb"))
    return Request(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, payload, name)
