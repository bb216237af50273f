"""Bridges: brokers in a chain, device site - node - cloud, each level seeing what it needs.

A broker below connects to one above as a client of its own (tier `bridge`) and carries, for the
members behind it,

    up     their `status`, `up/<parent>` to a parent above, and `predictions` where that is wanted
    down   of each parent above `status`, `plan`, `roster`, `model`, `revoked`, and `down/<child>`

and nothing else. Who is behind a bridge stands in bridges.toml, beside registry.json in the folders
of both brokers:

    [site-a]                                  # the bridge's member id
    children = { "node/node-1" = ["device/dev-1", "device/dev-2"] }
    shown = ["device/dev-9"]                  # further members whose status goes up
    predictions = true                        # their answers too

The broker above makes the bridge's rights from it, so a site can speak for its own members only.
The broker below asks for these topics; what comes down the bridge it takes on trust, as it takes
anything from itself: payloads are signed.
"""

import hashlib
import logging
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edgechoir.errors import OperatorError, first_wrong
from edgechoir.fleet.enrolment import MemberPaths
from edgechoir.fleet.files import read_file
from edgechoir.identity.naming import BRIDGE, SPEAKERS, address
from edgechoir.types import NAME, Address, MemberId

log = logging.getLogger(__name__)

ROOT: Final = "edgechoir/v1"
BRIDGES: Final = "bridges.toml"
HANDED_OUT: Final = ("plan", "roster", "model", "revoked")
"""Channels on which a parent speaks to all its children; each with chunks below."""
KEEPALIVE_S: Final = 20
RETRY_S: Final = (1, 30)


@dataclass(frozen=True, slots=True)
class Bridge:
    """Who is behind it: `children` by their parent above, and others whose status goes up."""

    member: MemberId
    children: Mapping[Address, tuple[Address, ...]]
    shown: tuple[Address, ...] = ()
    predictions: bool = False

    def up(self, federation: str) -> tuple[str, ...]:
        """The topics that the broker below carries up."""
        prefix = f"{ROOT}/{federation}"
        behind = [child for children in self.children.values() for child in children]
        everybody = sorted({*behind, *self.shown}, key=str)
        topics = [f"{prefix}/{member}/status" for member in everybody]
        if self.predictions:
            topics += [f"{prefix}/{m}/predictions" for m in everybody if m.tier == "device"]
        for parent, children in self.children.items():
            topics += [f"{prefix}/{child}/up/{parent.member}" for child in children]
        return tuple(topics)

    def down(self, federation: str) -> tuple[str, ...]:
        """The topics that it asks the broker above for."""
        prefix = f"{ROOT}/{federation}"
        topics = []
        for parent, children in self.children.items():
            topics.append(f"{prefix}/{parent}/status")
            topics += [f"{prefix}/{parent}/{channel}/#" for channel in HANDED_OUT]
            topics += [f"{prefix}/{parent}/down/{child.member}" for child in children]
        return tuple(topics)


@dataclass(frozen=True, slots=True)
class Upper:
    """The broker above, the bridge's id, and its identity there."""

    bridge: MemberId
    host: str
    port: int
    identity: MemberPaths


class _Bridge(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    children: dict[str, tuple[str, ...]] = {}
    shown: tuple[str, ...] = ()
    predictions: bool = False


_FILE: Final = TypeAdapter(
    dict[Annotated[str, Field(pattern=f"^{NAME.pattern}$")], _Bridge],
)


def read_bridges(directory: Path, members: Iterable[Address]) -> dict[MemberId, Bridge]:
    """bridges.toml of a broker's folder; none where there is no file.

    Raises OperatorError: not such a file.
    """
    path = directory / BRIDGES
    if not path.exists():
        return {}
    try:
        given = _FILE.validate_python(tomllib.loads(read_file(path, "").decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OperatorError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        where, what = first_wrong(error)
        raise OperatorError(f"{path}: {where}: {what}") from None
    known = set(members)
    return {
        MemberId(name): Bridge(
            MemberId(name),
            {
                parent: tuple(_named(path, known, name, children))
                for written, children in entry.children.items()
                for parent in _named(path, known, name, [written])
            },
            tuple(_named(path, known, name, entry.shown)),
            entry.predictions,
        )
        for name, entry in given.items()
        if _is_known(path, known, name, Address(BRIDGE, MemberId(name)))
    }


def _named(
    path: Path, known: set[Address], bridge: str, written: Iterable[str]
) -> Iterator[Address]:
    for text in written:
        tier, _, member = text.partition("/")
        if tier not in SPEAKERS:
            raise OperatorError(
                f"{path}: {bridge}: {text!r}, expected TIER/MEMBER with a tier of "
                f"{', '.join(SPEAKERS)}"
            )
        holder = address(tier, member)
        if _is_known(path, known, bridge, holder):
            yield holder


def _is_known(path: Path, known: set[Address], bridge: str, holder: Address) -> bool:
    """Whoever is not in the fleet is left out: a revocation must not wait for this file."""
    if holder not in known:
        log.warning("%s: %s: %s is not in registry.json, or is revoked", path, bridge, holder)
    return holder in known


_TEMPLATE: Final = """\

# --- Bridge: to the broker above --------------------------------------------------------------
connection {name}
address {host}:{port}
bridge_cafile {ca}
bridge_certfile {certificate}
bridge_keyfile {key}
bridge_tls_version tlsv1.3
bridge_insecure false
# mosquitto gives a session to whoever knows its client id. These are made from the private key.
remote_clientid {name}.{secret}
local_clientid bridge.{secret}
# What is said while the other side is away waits, within the bounds above, also over a restart.
cleansession false
local_cleansession false
# Nobody reads $SYS; members behind a bridge that is down are seen by the age of their status.
notifications false
# Tells a mosquitto above that this is a bridge, which keeps the mark of retained messages.
try_private true
keepalive_interval {keepalive}
restart_timeout {first} {last}
bridge_max_packet_size {max_packet}
# Up: what members here say to the levels above.
{up}
# Down: what their parents above say to them.
{down}
"""


def render_bridge(
    bridge: Bridge, federation: str, upper: Upper, max_packet: int, secret: str
) -> str:
    """The part of the lower broker's mosquitto.conf. Raises OperatorError for an empty bridge."""
    up, down = bridge.up(federation), bridge.down(federation)
    if not up:
        raise OperatorError(f"nobody is behind the bridge {bridge.member}: name its children")
    values = (upper.host, str(upper.identity.directory))
    if any(not v.isprintable() or v != v.strip() or not v for v in values):
        raise OperatorError(f"{values} cannot stand in mosquitto.conf")
    return _TEMPLATE.format(
        name=bridge.member,
        host=upper.host,
        port=upper.port,
        ca=upper.identity.ca,
        certificate=upper.identity.certificate,
        key=upper.identity.key,
        secret=secret,
        keepalive=KEEPALIVE_S,
        first=RETRY_S[0],
        last=RETRY_S[1],
        max_packet=max_packet,
        up="\n".join(f"topic {topic} out 1" for topic in up),
        down="\n".join(f"topic {topic} in 1" for topic in down),
    )


def session_secret(identity: MemberPaths) -> str:
    """Sixteen bytes in hex that only the holder of the bridge's key can know.

    Raises OperatorError without a key.
    """
    key = read_file(identity.key, "make it with `edgechoir enrol --tier bridge`")
    return hashlib.sha256(b"edgechoir bridge session" + key).hexdigest()[:32]
