"""What a container's log options mean: judged at create, made concrete at every start (attributes, tag, addresses)."""

from __future__ import annotations

import re
import socket

import msgspec

from sampan import messages as m
from sampan.engine.pattern_syntax import BadPattern
from sampan.engine.patterns import Pattern
from sampan.engine.records import ContainerRecord
from sampan.engine.syslog_tls import Settings, context
from sampan.errors import Broken, InvalidRequest, Unsupported
from sampan.logs import syslog
from sampan.logs.options import boolean, parse
from sampan.logs.reader import LOCAL
from sampan.wire import containers as c

_FIELD = re.compile(r"\{\{\s*\.([A-Za-z]{1,32})\s*\}\}", re.ASCII)
_FIELDS = ("ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "DaemonName", "Command")


def merged(wanted: c.LogConfig | None, default: c.LogConfig) -> c.LogConfig:
    """Return a container's log configuration: the daemon's driver when none is named, and with that driver its options too."""
    kind = (wanted.type if wanted else "") or default.type or "json-file"
    own = (wanted.config if wanted else None) or {}
    return c.LogConfig(type=kind, config={**(default.config or {}), **own} if kind == default.type else dict(own))


def validate(log: c.LogConfig) -> None:
    """Raises InvalidRequest, Unsupported by name for what cannot be."""
    options = log.config or {}
    if any("\0" in word for pair in options.items() for word in pair):
        raise InvalidRequest("a log option holds a NUL")
    parse(options, log.type)
    _tag(options.get("tag", ""), None)
    for name in ("labels-regex", "env-regex"):
        if name in options:
            _pattern(name, options[name])
    if log.type == "syslog":
        where = syslog.address(options.get("syslog-address", ""))
        syslog.facility(options.get("syslog-facility", "daemon"))
        if options.get("syslog-format", "") not in syslog.FORMATS:
            raise InvalidRequest(f"Invalid syslog format {options['syslog-format'][:32]!r}")
        boolean(options.get("cache-disabled", "false"), "cache-disabled")
        named = sorted(name for name in options if name.startswith("syslog-tls-"))
        if where.network == "tcp+tls":
            _check_tls(_tls(where, options))
        elif named:
            raise InvalidRequest(f"{named[0]} makes sense with a tcp+tls syslog-address only")


def _tls(where: syslog.Address, options: dict[str, str]) -> Settings:
    return Settings(
        host=where.host, port=where.port, ca=options.get("syslog-tls-ca-cert", ""), cert=options.get("syslog-tls-cert", ""),
        key=options.get("syslog-tls-key", ""),
        skip_verify=boolean(options.get("syslog-tls-skip-verify", "false"), "syslog-tls-skip-verify"),
    )  # fmt: skip


def _check_tls(settings: Settings) -> None:
    try:
        context(settings)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"syslog over TLS: certificate files cannot be used: {error}") from None


def _pattern(name: str, text: str) -> Pattern:
    try:
        return Pattern(text)
    except BadPattern as error:
        raise InvalidRequest(f"log option {name}: {error}") from None


def target(record: ContainerRecord, fd: int) -> m.LogTarget:
    """Return the log of a start; resolves a syslog server's name, so it may block.  Raises Broken, InvalidRequest."""
    log = record.host.log_config or c.LogConfig(type="json-file")
    driver, options = log.type or "json-file", dict(log.config or {})
    attributes = _attributes(record, options)
    tag = _tag(options.get("tag", ""), record)
    if "tag" in options and driver == "json-file":
        attributes["tag"] = tag
    tls = ""
    if driver == "syslog":
        where = syslog.address(options.get("syslog-address", ""))
        if where.network == "tcp+tls":
            tls = msgspec.json.encode(_tls(where, options)).decode()
        else:
            options["syslog-address"] = _resolved(options.get("syslog-address", ""))
    name = f"{record.id}-json.log" if driver == "json-file" else f"{record.id}{LOCAL}"
    return m.LogTarget(
        driver=driver, fd=fd, name=name, options=options, attributes=attributes, tag=tag or record.id[:12], tls=tls
    )  # fmt: skip


def _attributes(record: ContainerRecord, options: dict[str, str]) -> dict[str, str]:
    made: dict[str, str] = {}
    environment = dict(entry.partition("=")[::2] for entry in record.config.env or ())
    for kind, values in (("labels", record.labels), ("env", environment)):
        for name in options.get(kind, "").split(","):
            if name.strip() in values:
                made[name.strip()] = values[name.strip()]
        if expression := options.get(f"{kind}-regex"):
            pattern = _pattern(f"{kind}-regex", expression)
            made.update((key, value) for key, value in values.items() if pattern.search(key))
    return made


def _tag(text: str, record: ContainerRecord | None) -> str:
    """Fill in a tag's fields; without a record only see whether they are known.  Raises InvalidRequest, Unsupported."""

    def field(found: re.Match[str]) -> str:
        if found[1] not in _FIELDS:
            raise InvalidRequest(f"log option tag: {{{{.{found[1]}}}}} is not one of {', '.join(_FIELDS)}")
        if record is None:
            return ""
        image = record.image.removeprefix("sha256:")
        return {
            "ID": record.id[:12], "FullID": record.id, "Name": record.name, "ImageID": image[:12], "ImageFullID": record.image,
            "ImageName": record.image_ref, "DaemonName": "sampan", "Command": " ".join((record.path, *record.args)),
        }[found[1]]  # fmt: skip

    made = _FIELD.sub(field, text)
    if record is None and "{{" in made:
        raise Unsupported(f"log option tag: only fields such as {{{{.Name}}}} are supported, not {text[:64]!r}")
    return made


def _resolved(text: str) -> str:
    where = syslog.address(text)
    if where.path or not where.host:
        return text
    try:
        found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Broken(f"failed to initialize logging driver: syslog-address {text}: {error.strerror}") from None
    host = str(found[0][4][0])
    return f"{where.network}://{f'[{host}]' if ':' in host else host}:{where.port}"
