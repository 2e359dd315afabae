"""Python's own traps where text comes in: code in data, patterns that backtrack, digits of other scripts (P14-P16)."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampan import registryd
from sampan.api import query
from sampan.build.parse import parse as dockerfile
from sampan.cli import build as build_command
from sampan.cli import ports, units
from sampan.cli.mounts import ulimit
from sampan.engine.containers import signals, validate
from sampan.errors import SampanError
from sampan.network import names
from sampan.oci import digest, reference
from sampan.wire import strict

SOURCE = Path(__file__).parents[2] / "src/sampan"
MIB = 1 << 20
REFUSALS = (SampanError, ValueError, build_command.Exit)


def test_p14_no_text_becomes_code() -> None:
    """eval, exec, compile and __import__ of builtins are called nowhere."""
    found = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("eval", "exec", "compile", "__import__")
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000, b"&a [*a,*a]", b"!!python/object/apply:os.system [id]",
        b'{"a":1,"a":2}', b"9" * 100_000, b'{"n":1e999999}', b"NaN", b"\x80\x04K\x01.", b'"\\ud800"', b'{"a":"\\u0000',
    ],
)  # fmt: skip
def test_p14_bodies_that_are_bombs_or_code_are_refused_at_once(text: bytes) -> None:
    began = time.process_time()
    with pytest.raises(REFUSALS):
        strict.decode(text, dict[str, Any])
    assert time.process_time() - began < 1


# What a pattern that backtracks would never be done with.
LONG = {
    "a/a/a": "a/" * (MIB // 2), "a:a:a": "a:" * (MIB // 2), "a.a.a": "a." * (MIB // 2), "a-a-a": "a-" * (MIB // 2),
    "aaa!": "a" * MIB + "!", "a@a@a": "a@" * (MIB // 2), "spaces": " " * MIB + "x", "digits": "1" * MIB, "1.1.1": "1." * (MIB // 2),
    "%%%": "%" * MIB, "quotes": '"' * 100_000,
}  # fmt: skip
READERS: dict[str, Callable[[str], object]] = {
    "reference": reference.parse, "digest": digest.parse, "name": validate.name, "port": validate.port_of,
    "ports": validate.port_range, "signal": signals.number_of, "hostname": names.check_hostname, "domain": names.check_domainname,
    "address": names.check_address, "extra host": names.extra_host, "search": names.check_search, "option": names.check_option,
    "integer": query.integer, "timestamp": query.timestamp, "query signal": query.signal_name, "query name": query.container_name,
    "detach keys": query.detach_keys, "bytes": units.parse_bytes, "duration": units.parse_duration, "publish": ports.publish,
    "expose": ports.expose, "ulimit": ulimit,
}  # fmt: skip


@pytest.mark.parametrize("text", LONG)
@pytest.mark.parametrize("reader", READERS)
def test_p15_a_mebibyte_of_anything_is_read_or_refused_in_fifty_milliseconds(reader: str, text: str) -> None:
    began = time.process_time()
    try:
        READERS[reader](LONG[text])
    except REFUSALS:
        pass
    assert time.process_time() - began < 0.05


@pytest.mark.parametrize(
    "content",
    [
        b"FROM a\nRUN a \\\n" * 40_000, b"FROM a\nRUN x " + b"\\\n" * 400_000 + b"y", b"FROM a\nENV " + b'"' * 100_000,
        b"FROM a\nENV " + b"a=b " * 25_000, b"# " * 400_000, b"FROM " + b"a/" * 400_000, b"FROM a\nRUN " + b"<<A " * 20_000,
        b"FROM a\nCOPY [" + b'"a",' * 50_000, b"#" + b" " * MIB + b"syntax", b"FROM a\nRUN " + b"--mount=" * 50_000,
    ],
)  # fmt: skip
def test_p15_a_large_dockerfile_takes_time_by_its_length_only(content: bytes) -> None:
    """Four times the length takes no more than some six times as long: nothing is quadratic."""

    def taken(part: bytes) -> float:
        best = 60.0
        for _ in range(2):
            began = time.process_time()
            try:
                dockerfile(part)
            except REFUSALS:
                pass
            best = min(best, time.process_time() - began)
        return best

    assert taken(content) < max(0.1, 8 * taken(content[: len(content) // 4]))


# Arabic-Indic 1, fullwidth 1, superscript 2, mathematical 1, circled 1: digits to str.isdigit(), some of them also to int().
DIGITS = ("\u0661", "\uff11", "\u00b2", "\U0001d7cf", "\u2460")
NUMBERS: dict[str, tuple[Callable[[str], object], str]] = {
    "port": (validate.port_of, "{}/tcp"), "ports": (validate.port_range, "{}"), "port of two": (validate.port_range, "1-{}"),
    "signal": (signals.number_of, "{}"), "realtime signal": (signals.number_of, "SIGRTMIN+{}"), "integer": (query.integer, "{}"),
    "timestamp": (query.timestamp, "{}"), "fraction": (query.timestamp, "1.{}"), "query signal": (query.signal_name, "{}"),
    "bytes": (units.parse_bytes, "{}m"), "bytes' fraction": (units.parse_bytes, "1.{}m"), "duration": (units.parse_duration, "{}s"),
    "publish": (ports.publish, "{}:80"), "publish inside": (ports.publish, "80:{}"), "expose": (ports.expose, "{}"),
    "ulimit": (ulimit, "nofile={}"), "address": (names.check_address, "10.0.0.{}"), "reference's port": (reference.parse, "h:{}/a"),
    "digest": (digest.parse, "sha256:" + "{}" * 64), "option": (names.check_option, "ndots:{}"),
    "name": (validate.name, "a{}"), "hostname": (names.check_hostname, "a{}"),
    "registry's port": (lambda text: registryd._socket(text, safe=True), "127.0.0.1:{}"),
}  # fmt: skip


@pytest.mark.parametrize("digit", DIGITS)
@pytest.mark.parametrize("place", NUMBERS)
def test_p16_digits_of_other_scripts_are_none(place: str, digit: str) -> None:
    reader, form = NUMBERS[place]
    with pytest.raises(REFUSALS) as refused:
        reader(form.replace("{}", digit))
    assert "invalid literal" not in str(refused.value), "int() said it, not the check"


@pytest.mark.parametrize(
    "text", ["a\0b", "\ud800", "\udc80", "\u202eb", "a\u0301", "\u212a", "\u017f", "\ufb01", "stra\u00dfe", "\u0130"]
)
@pytest.mark.parametrize("place", ["reference", "name", "hostname", "domain", "digest", "query name", "address"])
def test_p16_no_letter_that_folds_into_another_and_no_nul_is_part_of_a_name(place: str, text: str) -> None:
    with pytest.raises(REFUSALS):
        READERS[place](text)
