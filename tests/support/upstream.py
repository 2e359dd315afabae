"""A DNS server of the test's own, by UDP and TCP, that notes what it is asked."""

from __future__ import annotations

import contextlib
import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rrset


class Upstream:
    """Answers `*.example` with 192.0.2.1, `long.example` cut by UDP, `slow.example` never, `broken.example` with SERVFAIL."""

    def __init__(self, address: str) -> None:
        self.asked: list[str] = []
        self.ports: list[int] = []
        self.ids: list[int] = []
        self.by_tcp = 0
        self.edns: list[int] = []
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._tcp = socket.socket()
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for one in (self._udp, self._tcp):
            one.bind((address, 53))
        self._tcp.listen(8)
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._datagrams, self._streams)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        for one in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5)

    def _answer(self, raw: bytes, *, tcp: bool) -> bytes:
        query = dns.message.from_wire(raw)
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        self.asked.append(name)
        self.ids.append(query.id)
        self.edns.append(query.payload if query.edns >= 0 else 0)
        self.by_tcp += tcp
        if name == "slow.example":
            return b""
        reply = dns.message.make_response(query)
        if name == "broken.example":
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif name == "long.example" and not tcp:
            reply.flags |= dns.flags.TC
        elif name.endswith(".example"):
            count = 200 if name == "long.example" else 1
            texts = [f"192.0.2.{number + 1}" for number in range(count)]
            reply.answer = [dns.rrset.from_text(query.question[0].name, 60, "IN", "A", *texts)]
        else:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire()

    def _datagrams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, peer = self._udp.recvfrom(4096)
                if not raw:
                    return
                self.ports.append(peer[1])
                answer = self._answer(raw, tcp=False)
                if answer:
                    self._udp.sendto(answer, peer)

    def _streams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._tcp.accept()
                with connection:
                    raw = connection.recv(4096)
                    answer = self._answer(raw[2:], tcp=True)
                    connection.sendall(len(answer).to_bytes(2, "big") + answer)
