"""Rows as docker's tables, as JSON lines, or through a template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

GAP = 3
NARROWEST = 10  # columns of docker's tables, gap included


def show(rows: Iterable[dict[str, Any]], columns: Sequence[tuple[str, str]], form: str = "", kind: str = "row") -> None:
    """Print `rows`.  columns: (field, heading) of the default table; form: --format; kind: Go's name of the row's type."""
    if form in ("", "table"):
        table([[str(row[field]) for field, _ in columns] for row in rows], [heading for _, heading in columns])
    elif form == "json":
        _templated(rows, "{{json .}}", kind, None)
    else:
        from sampan.cli.headings import HEADINGS

        headings = {**HEADINGS, **dict(columns)}
        if form.startswith("table"):
            _templated(rows, form.removeprefix("table").strip(), kind, headings)
        else:
            _templated(rows, form, kind, None)


def raw(rows: Iterable[dict[str, Any]], names: Sequence[tuple[str, str]]) -> None:
    """Print docker's old `--format raw`: a line for each field, and a blank one.  names: (what is printed, field)."""
    for row in rows:
        print("".join(f"{name}: {row[field]}".rstrip() + "\n" for name, field in names))


def table(rows: Sequence[Sequence[str]], headings: Sequence[str]) -> None:
    """Print columns three spaces apart."""
    print(align([headings, *rows]), end="")


def align(rows: Sequence[Sequence[str]]) -> str:
    """Pad every column but a row's last to its widest cell and the gap."""
    widths: dict[int, int] = {}
    for row in rows:
        for number, cell in enumerate(row[:-1]):
            widths[number] = max(widths.get(number, NARROWEST), len(cell) + GAP)
    lines = []
    for row in rows:
        padded = [f"{cell:<{widths[number]}}" for number, cell in enumerate(row[:-1])]
        lines.append("".join([*padded, row[-1]]).rstrip("\n") + "\n")
    return "".join(lines)


def _templated(rows: Iterable[dict[str, Any]], form: str, kind: str, headings: dict[str, str] | None) -> None:
    from sampan.cli.main import Exit
    from sampan.cli.template_lex import TemplateError
    from sampan.cli.template_run import Row, Template

    form = form.replace("\\t", "\t").replace("\\n", "\n")
    try:
        read = Template(form)
        lines = [read.execute(Row(kind, row)) for row in rows]
        if headings is not None:
            lines.insert(0, _heading(form, kind, headings))
    except TemplateError as error:
        what = "failed to parse template" if error.parsing else "failed to execute template"
        raise Exit(1, f"{what}: {error}") from None
    if headings is None:
        print("".join(line + "\n" for line in lines), end="")
    else:
        print(align([line.split("\t") for line in lines]), end="")


def _heading(form: str, kind: str, headings: dict[str, str]) -> str:
    """A table's first line: the template over the headings, with its functions doing nothing to them."""
    from sampan.cli.template_run import Row, Template

    def label(name: str = "") -> str:
        return name.rsplit(".", 1)[-1].replace("-", " ").replace("_", " ")

    same = dict.fromkeys(("json", "split", "join", "title", "lower", "upper", "pad", "truncate"), lambda value, *rest: value)
    return Template(form, same).execute(Row(kind, {**headings, "Label": label}))


def whole_as_json(form: str) -> bool:
    """Return whether a --format prints the object itself as JSON."""
    import re

    return form == "json" or re.search(r"json\s+\.\s*[|}]", form) is not None


def short(text: str, limit: int) -> str:
    """Cut to `limit` characters, the last of which is then an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def filters(given: list[str]) -> dict[str, list[str]]:
    """--filter key=value, several.  Raises Exit."""
    from sampan.cli.main import Exit

    made: dict[str, list[str]] = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals:
            raise Exit(1, f'invalid argument "{one}" for "-f, --filter" flag: invalid filter \'{one}\'')
        made.setdefault(key.strip().lower(), []).append(value.strip())
    return made


def labels(found: dict[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((found or {}).items()))
