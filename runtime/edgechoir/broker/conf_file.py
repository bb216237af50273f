"""mosquitto.conf read into what belongs together: general options, listeners, bridges.

mosquitto reads top to bottom: after `listener` (or `port`) come that listener's options, after
`connection` those of a bridge. Some options stand for all listeners unless `per_listener_settings`
is true; which ones is in `PER_LISTENER` (mosquitto.conf(5)).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgechoir.errors import OperatorError

PER_LISTENER: Final = frozenset(
    {"acl_file", "allow_anonymous", "password_file", "psk_file", "plugin", "auth_plugin"}
)
_OF_A_LISTENER: Final = frozenset(
    [
        "bind_interface",
        "cafile",
        "capath",
        "certfile",
        "ciphers",
        "ciphers_tls1.3",
        "crlfile",
        "dhparamfile",
        "http_dir",
        "keyfile",
        "max_connections",
        "max_qos",
        "max_topic_alias",
        "mount_point",
        "protocol",
        "psk_hint",
        "require_certificate",
        "socket_domain",
        "tls_engine",
        "tls_version",
        "use_identity_as_username",
        "use_subject_as_username",
        "use_username_as_clientid",
        "websockets_headers_size",
    ]
)
_GENERAL: Final = frozenset(
    [
        "autosave_interval",
        "autosave_on_changes",
        "check_retain_source",
        "connection_messages",
        "include_dir",
        "log_dest",
        "log_facility",
        "log_timestamp",
        "log_type",
        "max_inflight_bytes",
        "max_inflight_messages",
        "max_keepalive",
        "max_packet_size",
        "max_queued_bytes",
        "max_queued_messages",
        "memory_limit",
        "message_size_limit",
        "per_listener_settings",
        "persistence",
        "persistence_file",
        "persistence_location",
        "persistent_client_expiration",
        "pid_file",
        "queue_qos0_messages",
        "retain_available",
        "set_tcp_nodelay",
        "sys_interval",
        "user",
    ]
)
_DEEPEST: Final = 4


@dataclass(frozen=True, slots=True)
class Option:
    """One line: what is said, and where."""

    key: str
    value: str
    where: str

    @property
    def said(self) -> str:
        """The line, or that there is none."""
        return f"{self.key} {self.value}" if self.value else f"no {self.key}"

    @property
    def number(self) -> int | None:
        """The value as a whole number; None where it is none."""
        try:
            return int(self.value)
        except ValueError:
            return None


@dataclass(slots=True)
class Section:
    """A listener, a bridge, or the general part. The last of two equal keys counts."""

    head: Option
    options: list[Option] = field(default_factory=list)

    def find(self, key: str) -> Option | None:
        return next((o for o in reversed(self.options) if o.key == key), None)

    def found(self, key: str) -> Option:
        """The option, or its absence at the section's own line."""
        return self.find(key) or Option(key, "", self.head.where or self.head.value)

    def get(self, key: str, default: str = "") -> str:
        found = self.find(key)
        return default if found is None else found.value

    def all(self, key: str) -> list[Option]:
        return [option for option in self.options if option.key == key]


@dataclass(slots=True)
class Conf:
    """The whole configuration."""

    general: Section
    listeners: list[Section] = field(default_factory=list)
    bridges: list[Section] = field(default_factory=list)

    def of_listener(self, listener: Section, key: str) -> Option | None:
        """An option that a listener has by itself or shares with the others."""
        if key not in PER_LISTENER:
            return listener.find(key)
        if self.general.get("per_listener_settings") == "true":
            return listener.find(key)
        shared = [o for s in (self.general, *self.listeners) for o in s.options if o.key == key]
        return shared[-1] if shared else None


def read_conf(path: Path) -> Conf:
    """Raises OperatorError: a file that cannot be read."""
    conf = Conf(Section(Option("", "", str(path))))
    _take(conf, [conf.general], _lines(path, 0))
    return conf


def _lines(path: Path, depth: int) -> Iterable[Option]:
    """The options of a file and of those that it includes, in mosquitto's order."""
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror or error}") from None
    if depth > _DEEPEST:
        raise OperatorError(f"{path}: files include each other more than {_DEEPEST} deep")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, _, value = line.strip().partition(" ")
        if key != "include_dir":
            yield Option(key, value.strip(), f"{path}:{number}")
            continue
        for included in sorted(Path(value.strip()).glob("*.conf")):
            yield from _lines(included, depth + 1)


def _take(conf: Conf, at: list[Section], options: Iterable[Option]) -> None:
    for option in options:
        if option.key in ("listener", "port"):
            at[0] = Section(option)
            conf.listeners.append(at[0])
        elif option.key == "connection":
            at[0] = Section(option)
            conf.bridges.append(at[0])
        else:
            _place(conf, at[0], option)


def _place(conf: Conf, section: Section, option: Option) -> None:
    """mosquitto takes a general option wherever it stands."""
    ours = section.head.key != "connection" and (
        option.key in _OF_A_LISTENER or option.key in PER_LISTENER
    )
    if option.key in _GENERAL or (section.head.key != "connection" and not ours):
        conf.general.options.append(option)
    else:
        section.options.append(option)
