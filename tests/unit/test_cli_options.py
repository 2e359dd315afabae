"""Command lines read as docker reads them; sizes, durations and times in its words."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.cli import commands, units
from sampan.cli.main import main
from sampan.cli.options import HelpWanted, UsageError, count, parse


def run(*words: str) -> tuple[Any, list[str]]:
    command = commands.find("run")
    assert command is not None
    return parse(command.flags, words, stop=command.stop)


def test_combined_short_flags_and_values_in_every_form() -> None:
    for words in (["-it", "--name=web", "-m", "5m"], ["-i", "-t", "--name", "web", "-m5m"], ["-ti", "-m=5m", "--name=web"]):
        options, arguments = run(*words, "busybox", "sh", "-c", "x")
        assert (options.interactive, options.tty, options.name, options.memory) == (True, True, "web", 5 << 20)
        assert arguments == ["busybox", "sh", "-c", "x"]


def test_flags_end_at_the_image() -> None:
    options, arguments = run("--rm", "busybox", "--rm", "-it", "--", "x")

    assert (options.rm, options.tty) == (True, False)
    assert arguments == ["busybox", "--rm", "-it", "--", "x"]


def test_two_dashes_end_the_flags() -> None:
    assert run("--rm", "--", "-strange")[1] == ["-strange"]


def test_lists_accumulate_and_bools_take_values() -> None:
    options, _ = run("-e", "A=1", "-eB=2", "--env=C=3", "--sig-proxy=false", "--rm=0", "img")

    assert options.env == ["A=1", "B=2", "C=3"]
    assert (options.sig_proxy, options.rm) == (False, False)


def test_defaults_are_not_shared_between_calls() -> None:
    run("-e", "A=1", "img")
    assert run("img")[0].env == []


WRONG = [
    (["--nope"], "unknown flag: --nope"),
    (["-Z"], "unknown shorthand flag: 'Z' in -Z"),
    (["--name"], "flag needs an argument: --name"),
    (["-e"], "flag needs an argument: 'e' in -e"),
    (["--rm=maybe", "x"], 'invalid argument "maybe" for "--rm" flag: strconv.ParseBool: parsing "maybe": invalid syntax'),
    (["-m", "5q", "x"], "invalid argument \"5q\" for \"-m, --memory\" flag: invalid size: '5q'"),
    (["--pids-limit", "²", "x"], 'invalid argument "²" for "--pids-limit" flag: strconv.ParseInt: parsing "²": invalid syntax'),
]  # fmt: skip


@pytest.mark.parametrize(("words", "text"), WRONG)
def test_a_wrong_flag_is_told_in_dockers_words_and_is_125(words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(*words)
    assert (str(caught.value), caught.value.code) == (text, 125)


def test_help_is_asked_for_with_a_word_or_a_letter() -> None:
    with pytest.raises(HelpWanted):
        run("--help")
    command = commands.find("ps")
    assert command is not None
    with pytest.raises(HelpWanted):
        parse(command.flags, ["-h"])


def test_the_number_of_arguments_is_told_in_dockers_words() -> None:
    for limits, given, text in (
        ((0, 0), 1, "'docker x' accepts no arguments"),
        ((1, None), 0, "'docker x' requires at least 1 argument"),
        ((2, 2), 1, "'docker x' requires 2 arguments"),
        ((0, 1), 2, "'docker x' requires at most 1 argument"),
        ((1, 2), 3, "'docker x' requires at least 1 and at most 2 arguments"),
    ):
        with pytest.raises(UsageError) as caught:
            count("docker x", limits, given)
        assert (str(caught.value), caught.value.code) == (text, 1)


def test_unknown_flags_name_the_commands_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--bogus", "img"]) == 125
    assert capsys.readouterr().err == (
        "unknown flag: --bogus\n\nUsage:  sampan run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\n"
        "Run 'sampan run --help' for more information\n"
    )
    assert main(["bogus"]) == 1
    assert "unknown command: sampan bogus" in capsys.readouterr().err


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*commands.names(), *commands.ALIASES):
        assert main([*name.split(), "--help"]) == 0
        shown = capsys.readouterr().out
        assert f"Usage:  sampan {name} " in shown
        assert "Examples:\n  " in shown
    for words in ([], ["--help"], ["container"], ["image", "--help"]):
        assert main(words) == 0
        assert "Usage:" in capsys.readouterr().out


def test_every_command_can_be_loaded() -> None:
    from importlib import import_module

    for name in commands.names():
        command = commands.find(name)
        assert command is not None
        module, _, function = command.run.partition(":")
        assert callable(getattr(import_module(f"sampan.cli.{module}"), function))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("1024", 1024), ("1k", 1024), ("512m", 512 << 20), ("1.5g", 3 << 29), ("1GiB", 1 << 30), ("10MB", 10 << 20), ("-1", -1)],
)
def test_sizes_are_read_in_powers_of_two(text: str, wanted: int) -> None:
    assert units.parse_bytes(text) == wanted


@pytest.mark.parametrize("text", ["", "m", "1x", "1..5k", "٣m", "9999999999999999999t", "--1", "1 2"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_bytes(text)


@pytest.mark.parametrize(("text", "wanted"), [("1h2m3.5s", 3723_500_000_000), ("10ms", 10**7), ("-1s", -(10**9)), ("0", 0)])
def test_durations_are_gos(text: str, wanted: int) -> None:
    assert units.parse_duration(text) == wanted


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "1.2.3s", "٣s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [(0.4, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (61, "About a minute"),
     (120, "2 minutes"), (3600, "About an hour"),
     (7300, "2 hours"), (86400 * 3, "3 days"), (86400 * 15, "2 weeks"), (86400 * 70, "2 months"), (86400 * 800, "2 years")],
)  # fmt: skip
def test_ages_are_told_as_docker_tells_them(seconds: float, wanted: str) -> None:
    assert units.ago(seconds) == wanted


@pytest.mark.parametrize(("number", "wanted"), [(0, "0B"), (999, "999B"), (1980000, "1.98MB"), (4_260_000, "4.26MB"), (1e9, "1GB")])
def test_sizes_are_told_in_powers_of_ten(number: float, wanted: str) -> None:
    assert units.size(number) == wanted


def test_times_are_read_and_become_seconds() -> None:
    assert units.parse_time("1970-01-01T00:01:00.5Z") == 60_500_000_000
    assert units.parse_time("1970-01-01T01:00:00+01:00") == 0
    assert units.parse_when("10m", 1000) == "400.000000000"
    assert units.parse_when("1700000000.5", 0) == "1700000000.5"
    with pytest.raises(ValueError):
        units.parse_when("yesterday", 0)
