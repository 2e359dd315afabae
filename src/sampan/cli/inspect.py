"""sampan inspect: objects as JSON, or through a template."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sampan.cli.main import Exit, describe
from sampan.cli.template_lex import TemplateError
from sampan.cli.template_run import Template, typed
from sampan.client.errors import ApiError

if TYPE_CHECKING:
    from sampan.cli.main import Invocation

Finder = Callable[[str], Any]


def render(form: str, value: Any) -> str:
    """One object through --format.  Raises Exit in docker's words."""
    try:
        return Template("{{json .}}" if form == "json" else form).execute(typed(value))
    except TemplateError as error:
        raise Exit(64 if error.parsing else 1, f"template parsing error: {error}") from None


def _show(names: list[str], form: str, find: Finder) -> int:
    found: list[Any] = []
    errors: list[str] = []
    if form:
        render_check(form)
    for name in names:
        try:
            found.append(find(name))
        except ApiError as error:
            errors.append(describe(error))
        except LookupError as error:
            errors.append(str(error.args[0]))
    if form:
        _rendered(form, found)
    else:
        print(json.dumps(found, indent=4, ensure_ascii=False))
    sys.stdout.flush()
    for text in errors:
        print(text, file=sys.stderr)
    return 1 if errors else 0


def _rendered(form: str, found: list[Any]) -> None:
    """Print each through the template; an empty line when there is nothing, as docker does.  Raises Exit."""
    lines: list[str] = []
    try:
        lines.extend(render(form, one) for one in found)
    finally:
        print("\n".join(lines))


def render_check(form: str) -> None:
    """Refuse a template that cannot be read before anything is asked.  Raises Exit."""
    try:
        Template("" if form == "json" else form)
    except TemplateError as error:
        raise Exit(64, f"template parsing error: {error}") from None


def container(call: Invocation) -> int:
    o = call.options
    return _show(call.arguments, o.format, lambda ref: call.client.containers.inspect_json(ref, size=o.size))


def image(call: Invocation) -> int:
    o = call.options
    return _show(call.arguments, o.format, lambda ref: call.client.images.inspect_json(ref, platform=o.platform))


def network(call: Invocation) -> int:
    o = call.options
    return _show(call.arguments, o.format, lambda ref: call.client.networks.inspect_json(ref, verbose=o.verbose))


def volume(call: Invocation) -> int:
    return _show(call.arguments, call.options.format, call.client.volumes.inspect_json)


def anything(call: Invocation) -> int:
    """Containers, then images, networks and volumes, as docker looks for them."""
    o = call.options
    kinds: dict[str, Finder] = {
        "container": lambda ref: call.client.containers.inspect_json(ref, size=o.size),
        "image": call.client.images.inspect_json,
        "network": call.client.networks.inspect_json,
        "volume": call.client.volumes.inspect_json,
    }
    if o.type:
        if o.type not in kinds:
            raise Exit(1, f'"{o.type}" is not a valid value for --type')
        return _show(call.arguments, o.format, kinds[o.type])

    def find(ref: str) -> Any:
        for one in kinds.values():
            try:
                return one(ref)
            except ApiError as error:
                if error.status != 404:
                    raise
        raise LookupError(f"Error: No such object: {ref}")

    return _show(call.arguments, o.format, find)
