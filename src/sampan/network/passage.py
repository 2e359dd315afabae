"""A way through iptables' own FORWARD chain where its policy is DROP.

dockerd, ufw and administrators set that policy.  An accept in Sampan's tables cannot override it, and with br_netfilter
it stops even what stays on one bridge.  So, like every other user of that shared, built-in chain (dockerd, netavark,
libvirt), Sampan appends rules of its own to it: two for each bridge, with the comment `sampan`.  They are its last, and
are moved there again when somebody appends one after them (`ufw reload` takes its own away and appends them anew): whatever
others drop by a rule stays dropped; only the policy no longer decides.  What may pass is still decided by Sampan's own
tables.  Nobody's rules and no policy are changed, and chains of other tables are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from sampan.kernel import nftables as nft

TABLE, CHAIN, COMMENT = "filter", "FORWARD", "sampan"
FIREWALLD, ZONES = "firewalld", "filter_FORWARD_ZONES"


def blocked(tables: nft.Nftables) -> list[int]:
    """Return the families (IPV4, IPV6) whose FORWARD chain has the policy DROP."""
    return [chain.family for chain in tables.chains() if chain.hook == nft.FORWARD and chain.policy == nft.DROP and _theirs(chain)]


def _theirs(chain: nft.Chain) -> bool:
    return chain.family in (nft.IPV4, nft.IPV6) and (chain.table, chain.name) == (TABLE, CHAIN)


def others(tables: nft.Nftables) -> list[nft.Chain]:
    """Return the other chains that drop what is forwarded by their policy."""
    return [
        c
        for c in tables.chains()
        if c.hook == nft.FORWARD and c.policy == nft.DROP and c.family in (nft.INET, nft.IPV4, nft.IPV6) and not _theirs(c)
    ]


def unzoned(tables: nft.Nftables, bridges: Iterable[str]) -> list[str]:
    """Return the bridges that firewalld, where it runs, has in no zone: it rejects what their containers send anywhere."""
    if (FIREWALLD, ZONES) not in {(chain.table, chain.name) for chain in tables.chains()}:
        return []
    known = {rule.compared for rule in tables.rules(nft.INET, FIREWALLD, ZONES)}
    return [bridge for bridge in dict.fromkeys(bridges) if bridge not in known]


def ensure(tables: nft.Nftables, bridges: Iterable[str]) -> None:
    """See that each bridge has its two rules, after everybody else's, wherever the policy is DROP.  Raises OSError."""
    wanted = dict.fromkeys(bridges)
    for family in blocked(tables):
        rules = tables.rules(family, TABLE, CHAIN)
        ours = [rule for rule in rules if rule.comment == COMMENT]
        last = max((place for place, rule in enumerate(rules) if rule.comment != COMMENT), default=0)
        early = {rule.compared for rule in rules[:last] if rule.comment == COMMENT and rule.compared in wanted}
        has = {rule.compared for rule in ours} - early
        batch = nft.Batch(TABLE, family)
        for rule in ours:
            if rule.compared in early:
                batch.delete_rule(CHAIN, rule.handle)
        for bridge in wanted:
            for direction in ("iifname", "oifname") if bridge not in has else ():
                compared = nft.expression("cmp", sreg=nft.REG, op=nft.EQ, data=bridge.encode() + b"\0")
                counted = nft.expression("counter", bytes=0, packets=0)
                batch.rule(CHAIN, [nft.load_meta(direction), compared, counted, nft.verdict(nft.ACCEPT)], COMMENT)
        tables.commit(batch)


def withdraw(tables: nft.Nftables, bridges: Iterable[str]) -> None:
    """Take the rules of these bridges away; a chain that is gone is passed over.  Raises OSError."""
    gone = set(bridges)
    for family in {chain.family for chain in tables.chains() if _theirs(chain)}:
        batch = nft.Batch(TABLE, family)
        for rule in tables.rules(family, TABLE, CHAIN):
            if rule.comment == COMMENT and rule.compared in gone:
                batch.delete_rule(CHAIN, rule.handle)
        tables.commit(batch)
