from __future__ import annotations


def bootstrap(stores, reporter, recipe, tag): ...
