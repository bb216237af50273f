"""Looks at a broker's configuration as it stands on the disk, and says what is unsafe or wrong.

    check(folder_or_mosquitto_conf, now)   # complaints, the worst first

A folder is one that `edgechoir broker generate` or `edgechoir ca broker` has made, or any with a
mosquitto.conf. Where registry.json stands beside it or beside the CRL, the rules are compared with
it. Files that the configuration names are looked at too: missing, readable by others, expired.
"""

import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from edgechoir.broker.acl_file import read_acl
from edgechoir.broker.check_acl import check_acl
from edgechoir.broker.check_conf import check_conf
from edgechoir.broker.complaint import Complaint
from edgechoir.broker.conf_file import Conf, Option, read_conf
from edgechoir.errors import OperatorError
from edgechoir.fleet.registry import read_registry
from edgechoir.identity.naming import BRIDGE, MONITOR, SERVERS

CONF = "mosquitto.conf"
ACL = "acl"
ACL_OF_MONITORS = "acl.monitors"
MONTH_S = 30 * 86_400


def check(path: Path, now: float) -> list[Complaint]:
    """Raises OperatorError: nothing to look at, or a file that cannot be read."""
    if path.is_dir():
        conf_path = next((p for p in (path / CONF, path / "state" / CONF) if p.exists()), None)
        acl_path = path / ACL
        if conf_path is None and not acl_path.exists():
            raise OperatorError(
                f"{path} holds neither {CONF} nor {ACL}: "
                "write them with `edgechoir broker generate`, or name a file"
            )
    else:
        is_rules = path.name.startswith("acl") or path.suffix == ".acl"
        conf_path, acl_path = (None, path) if is_rules else (path, path)
    found = list(_all_of(conf_path, acl_path, now))
    return sorted(found, key=lambda complaint: complaint.weight != "wrong")


def _all_of(conf_path: Path | None, acl_path: Path, now: float) -> Iterator[Complaint]:
    if conf_path is None:
        yield from _rules(acl_path, ())
        return
    conf = read_conf(conf_path)
    yield from check_conf(conf)
    yield from _files(conf, now)
    for option in _acl_files(conf):
        path = Path(option.value)
        beside = conf_path.parent / path.name
        if not path.exists() and beside.exists():
            path = beside  # generated here for another machine
        if path.exists():
            lists = [Path(o.value).parent for s in conf.listeners for o in s.all("crlfile")]
            yield from _rules(path, lists)
        else:
            yield _missing(option)


def _acl_files(conf: Conf) -> list[Option]:
    options = [o for s in (conf.general, *conf.listeners) for o in s.all("acl_file")]
    return list({option.value: option for option in options}.values())


def _rules(path: Path, elsewhere: Iterable[Path]) -> Iterator[Complaint]:
    places = (path.parent, path.parent.parent, *elsewhere)
    registry = next((p for d in places if (p := d / "registry.json").exists()), None)
    bridges: list[str] = []
    members = None
    if registry is not None:
        active = read_registry(registry).active()
        bridges = [record.member for record in active if record.tier == BRIDGE]
        only = (MONITOR,) if path.name == ACL_OF_MONITORS else None
        members = [
            record.member
            for record in active
            if record.tier not in SERVERS and (only is None or record.tier in only)
        ]
    yield from check_acl(read_acl(path), str(path), bridges=bridges, members=members)


def _missing(option: Option) -> Complaint:
    return Complaint(
        "wrong",
        option.where,
        f"{option.key} {option.value}, which is not there",
        "a file",
        "copy it there, or name another",
    )


def _files(conf: Conf, now: float) -> Iterator[Complaint]:
    """Keys that others can read, certificates and lists that have run out."""
    for section in (*conf.listeners, *conf.bridges):
        for key in ("cafile", "certfile", "keyfile", "crlfile"):
            for option in (section.find(key), section.find(f"bridge_{key}")):
                if option is None:
                    continue
                try:
                    yield from _file(option, key, now)
                except OSError:
                    yield _missing(option)


def _file(option: Option, key: str, now: float) -> Iterator[Complaint]:
    path = Path(option.value)
    if key == "keyfile":
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield Complaint(
                "wrong",
                option.where,
                f"{path} with mode {mode:04o}",
                "0600: nobody but mosquitto's user reads it",
                f"chmod 600 {path}",
            )
        return
    data = path.read_bytes()
    try:
        end = (
            x509.load_pem_x509_crl(data).next_update_utc
            if key == "crlfile"
            else x509.load_pem_x509_certificate(data).not_valid_after_utc
        )
    except ValueError:
        yield Complaint(
            "wrong",
            option.where,
            f"{path}, which is not PEM of the right kind",
            "a certificate" if key != "crlfile" else "a list of revoked certificates",
            "copy the broker's folder from the CA again",
        )
        return
    if end is None or end.timestamp() > now + MONTH_S:
        return
    over = end.timestamp() <= now
    yield Complaint(
        "wrong" if over else "note",
        option.where,
        f"{path} {'ended' if over else 'ends'} {end:%Y-%m-%d}",
        f"one that is good beyond {datetime.fromtimestamp(now + MONTH_S, UTC):%Y-%m-%d}",
        "renew it (`edgechoir ca broker --renew`) and copy the folder",
    )
