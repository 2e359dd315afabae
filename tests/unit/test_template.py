"""Go templates: what docker's --format prints, and what it says of what it cannot read."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from sampan.cli.template_lex import TemplateError
from sampan.cli.template_run import Row, Template, typed

OBJECT = typed({
    "Id": "abc",
    "Name": "/web",
    "State": {"Running": True, "Pid": 5, "ExitCode": 0},
    "Config": {"Hostname": "abc", "Env": ["A=1", "B=2"], "Labels": {"a.b": "c", "z": "<&>"}, "Volumes": None},
    "HostConfig": {"Binds": None, "Memory": 1024, "PidsLimit": None},
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": None}},
})  # fmt: skip

GOLDEN = [
    ("plain", "plain"),
    ("{{.Id}}", "abc"),
    ("{{ .State.Pid }}", "5"),
    ("{{.State.Running}}", "true"),
    ("{{json .State}}", '{"Running":true,"Pid":5,"ExitCode":0}'),
    ("{{json .Config.Labels}}", '{"a.b":"c","z":"<&>"}'),
    ("{{json .HostConfig.Binds}}", "null"),
    ("{{.HostConfig.Binds}}", "[]"),
    ("{{.Config.Volumes}}", "map[]"),
    ("{{.HostConfig.PidsLimit}}", "<nil>"),
    ("{{.Config.Env}}", "[A=1 B=2]"),
    ("{{.Config.Labels}}", "map[a.b:c z:<&>]"),
    ('{{index .Config.Labels "a.b"}}', "c"),
    ('{{index .Config.Labels "none"}}', ""),
    ("{{.Config.Labels.none}}", "<no value>"),
    ("{{index .Config.Env 1}}", "B=2"),
    ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
    ("{{range $i, $e := .Config.Env}}{{$i}}:{{$e}} {{end}}", "0:A=1 1:B=2 "),
    ("{{range .HostConfig.Binds}}x{{else}}none{{end}}", "none"),
    ("{{range $p, $c := .NetworkSettings.Ports}}{{if $c}}{{$p}}->{{(index $c 0).HostPort}}{{end}}{{end}}", "80/tcp->8080"),
    ("{{range .Config.Env}}{{if eq . \"B=2\"}}{{break}}{{end}}{{.}}{{end}}", "A=1"),
    ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
    ("{{if .State.ExitCode}}bad{{else if .State.Pid}}pid{{else}}none{{end}}", "pid"),
    ("{{with .State}}{{.Pid}}{{end}}{{with .HostConfig.Binds}}x{{else}}y{{end}}", "5y"),
    ("{{$x := .State.Pid}}{{$x}}{{$x = 6}}{{$x}}{{$.Id}}", "56abc"),
    ('{{join .Config.Env ","}}', "A=1,B=2"),
    ('{{.Name | printf "%q"}}', '"/web"'),
    ('{{split "a/b/c" "/"}}', "[a b c]"),
    ('{{"web app" | title}} {{upper "x"}} {{lower "Y"}}', "Web App X y"),
    ('{{truncate "abcdef" 3}}{{pad "x" 1 2}}|', "abc x  |"),
    ('{{printf "%-5s|%5d|%05d|%x|%t|%v|%.2f|%%" "a" 3 42 255 true .Config.Env 1.5}}', "a    |    3|00042|ff|true|[A=1 B=2]|1.50|%"),
    ("{{len .Config.Env}}{{len .Name}}", "24"),
    ("{{eq .State.Pid 4 5}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 2 1}}", "true true true true false true"),
    ("{{and .Id .State.ExitCode}} {{or .State.ExitCode .Id}} {{not .Id}}", "0 abc false"),
    ("{{if and .HostConfig.Binds (index .HostConfig.Binds 0)}}x{{else}}safe{{end}}", "safe"),
    ("a {{- 1 -}} b{{/* said nothing */}}", "a1b"),
    ('{{"\\t\\u00e9"}}{{`raw\\n`}}{{\'a\'}}', "\té" + "raw\\n97"),
    ("{{print 1 2 \"x\" 3}}", "1 2x3"),
    ("{{slice .Name 1}}", "web"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), GOLDEN)
def test_a_template_prints_what_go_prints(text: str, wanted: str) -> None:
    assert Template(text).execute(OBJECT) == wanted


UNREADABLE = [
    ("{{.Id", "template: :1: unclosed action"),
    ("{{if}}x{{end}}", "template: :1: missing value for if"),
    ("{{if .Id}}x", "template: :1: unexpected EOF"),
    ("{{end}}", "template: :1: unexpected {{end}}"),
    ("{{nofunction .}}", 'template: :1: function "nofunction" not defined'),
    ("{{$none}}", 'template: :1: undefined variable "$none"'),
    ("{{(.Id}}", "template: :1: unclosed left paren"),
    ('{{"abc}}', "template: :1: unterminated quoted string"),
    ("{{}}", "template: :1: missing value for command"),
    ("{{.Id | }}", "template: :1: missing value for command"),
    ("{{break}}", "template: :1: {{break}} outside {{range}}"),
]


@pytest.mark.parametrize(("text", "wanted"), UNREADABLE)
def test_an_unreadable_template_is_told_in_gos_words(text: str, wanted: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(text)
    assert str(caught.value) == wanted
    assert caught.value.parsing


FAILING = [
    ("{{.Nope}}", 'template: :1:2: executing "" at <.Nope>: map has no entry for key "Nope"'),
    ("{{.Id.Nope}}", 'template: :1:5: executing "" at <.Id.Nope>: can\'t evaluate field Nope in type string'),
    ("{{index .Config.Env 9}}", 'template: :1:2: executing "" at <index>: error calling index: index out of range: 9'),
    ("{{lt 1 \"a\"}}", 'template: :1:2: executing "" at <lt>: error calling lt: incompatible types for comparison'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), FAILING)
def test_a_failing_template_names_its_place(text: str, wanted: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(text).execute(OBJECT)
    assert str(caught.value) == wanted
    assert not caught.value.parsing


def test_a_row_has_fields_methods_and_json_in_order() -> None:
    row = Row("*formatter.ContainerContext", {"Names": "web", "ID": "abc", "Label": lambda name: f"<{name}>"})

    assert Template('{{.ID}} {{.Label "x"}}').execute(row) == "abc <x>"
    assert Template("{{json .}}").execute(row) == '{"ID":"abc","Names":"web"}'
    with pytest.raises(TemplateError, match=r"can't evaluate field Nope in type \*formatter.ContainerContext"):
        Template("{{.Nope}}").execute(row)


@pytest.mark.parametrize("text", ["{{  .Id}}" * 20000, "{{/* x */}}" * 20000, "{{`a" * 20000, '{{"a"}}' * 20000, "{" * 100000])
def test_a_long_template_costs_no_more_than_its_length(text: str) -> None:
    began = time.process_time()
    try:
        Template(text).execute(OBJECT)
    except TemplateError:
        pass
    assert time.process_time() - began < 3


@pytest.mark.parametrize("text", ["{{if 1}}" * 5000, "{{" + "(" * 5000, "{{if 0}}{{else if 0}}" + "{{else if 0}}" * 5000])
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        Template(text)


def test_every_json_document_survives_json() -> None:
    value: Any = {"a": [1, 2.5, None, True, {"b": "ü\u2028"}]}
    assert json.loads(Template("{{json .}}").execute(value)) == value
