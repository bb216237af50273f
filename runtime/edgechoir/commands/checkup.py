"""Everything that a member needs before it runs: looked at, never changed.

In this order: machine, configuration, identity, state, model, sensor, broker. What cannot be looked
at because of something before it is left out. Every wait has a deadline.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgechoir.commands.finding import Finding, Level, good, note, wrong
from edgechoir.commands.machine import (
    INFERENCE_MB,
    TRAINING_MB,
    broken,
    broker_program,
    disk,
    inference,
    machine,
    memory,
    probe,
    torch_here,
    training,
)
from edgechoir.errors import ConfigError, EdgechoirError, OperatorError

if TYPE_CHECKING:
    from edgechoir.bundle.load import Bundle
    from edgechoir.config.sensor import ReplaySensor
    from edgechoir.config.tiers import Config, DeviceConfig
    from edgechoir.fleet.enrolment import Member

RENEW_DAYS: Final = 30
USER_CODE_S: Final = 60.0
VERSIONS_ON_DISK: Final = 10
"""Vectors as large as the model that stores keep: six versions and four uploads."""
_WITH_OUR_PATH: Final = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
TRY: Final = (
    f"{_WITH_OUR_PATH}from edgechoir.inference.of_bundle import tried; "
    "print(tried(*json.loads(sys.argv[1])))"
)
FIND: Final = (
    f"{_WITH_OUR_PATH}from edgechoir.pipeline.source import find_function; "
    "find_function(sys.argv[1]); print(sys.argv[1], 'can be imported')"
)
BUILD: Final = (
    f"{_WITH_OUR_PATH}from edgechoir.config.tiers import DeviceConfig; "
    "from edgechoir.tiers.stream import look_at; "
    "print(', '.join(look_at(DeviceConfig.model_validate_json(sys.argv[1]))))"
)


async def check_up(path: Path | None) -> AsyncIterator[Finding]:
    """Findings as they are made: of the machine, and of the member whose configuration is given."""
    now = time.time()
    found = []
    async for finding in machine(now):
        found.append(finding)
        yield finding
    if path is None:
        for finding in (memory(TRAINING_MB), disk(Path(), 0), training(), broker_program()):
            yield finding
        return
    # Reading a configuration needs numpy, and everything about certificates cryptography.
    if missing := broken(found, "numpy", "cryptography"):
        yield note("member", f"not looked at: {', '.join(missing)} must work first")
        return
    from edgechoir.config.reading import load

    try:
        config = load(path)
    except ConfigError as error:
        for line in str(error).splitlines():
            yield wrong("configuration", line)
        return
    yield good("configuration", f"{path} is one of {config.tier}/{config.member}")
    async for finding in _member(config, now):
        yield finding


async def _member(config: "Config", now: float) -> AsyncIterator[Finding]:
    from edgechoir.commands.checkup_broker import broker, sensor_broker
    from edgechoir.config.sensor import MqttSensor, PythonSensor, ReplaySensor
    from edgechoir.config.tiers import CloudConfig, DeviceConfig, MonitorConfig

    findings, member = identity(config, now)
    for finding in findings:
        yield finding
    trains = isinstance(config, DeviceConfig) and config.training.enabled
    trains = trains and torch_here() is not None
    yield memory(TRAINING_MB if trains else INFERENCE_MB)
    bundle = None
    if isinstance(config, DeviceConfig | CloudConfig):
        finding, bundle = model(config.model.bundle)
        yield finding
    if not isinstance(config, MonitorConfig):
        yield state(config.state)
        for finding in audit_log(config.state, member):
            yield finding
        yield disk(config.state, _needed(config, bundle))
    if isinstance(config, DeviceConfig):
        for finding in device(config):
            yield finding
        if bundle is not None and inference(needed=True).level is Level.GOOD:
            asked = [str(config.model.bundle), config.inference.providers]
            yield await user_code("inference", TRY, json.dumps(asked))
        yield kept_samples(config, bundle)
        if config.pipeline or config.sources or config.sinks:
            yield await user_code("pipeline", BUILD, config.model_dump_json())
        match config.sensor:
            case ReplaySensor():
                yield recording(config, config.sensor, bundle)
            case PythonSensor():
                yield await user_code("sensor", FIND, config.sensor.call)
            case MqttSensor():
                yield await sensor_broker(config.sensor)
    if member is not None:
        async for finding in broker(config, member):
            yield finding


def identity(config: "Config", now: float) -> tuple[list[Finding], "Member | None"]:
    """Key, certificate and CA of the member; None where they cannot be used."""
    from edgechoir.fleet.enrolment import MemberPaths, load_member
    from edgechoir.tiers.process import check_identity, check_policy

    paths = MemberPaths(config.identity)
    early = _begins_after(paths.certificate, now)
    if early is not None:
        return [early], None
    try:
        member = load_member(config.identity, now)
        check_identity(config, member)
        check_policy(config, member)
    except OperatorError as error:
        return [wrong("identity", str(error)), *_modes(paths.key)], None
    certificate = member.certificate
    who = f"{certificate.address} of {certificate.federation}, key and certificate fit"
    found = [good("identity", who), *_modes(paths.key)]
    return [*found, validity(config, member, now), *_revoked(member), policy(member)], member


def validity(config: "Config", member: "Member", now: float) -> Finding:
    """How long the certificate is good, and who sees to the next one."""
    from edgechoir.config.tiers import MonitorConfig
    from edgechoir.fleet.enrolment import endpoint_of
    from edgechoir.fleet.renewal import renewal_due

    certificate = member.certificate
    until = min(certificate.not_after, member.root.not_after)
    days = round((until - now) / 86_400)
    seen = f"valid until {datetime.fromtimestamp(until, UTC):%Y-%m-%d}, {days} days"
    given = None if isinstance(config, MonitorConfig) else config.enrolment_url
    url = endpoint_of(config.identity, given)
    late = renewal_due(certificate, 1.0)
    if url is None:
        advice = "let the CA sign request.csr again, then install it with `edgechoir enrol`"
        soon = days < RENEW_DAYS and now > renewal_due(certificate, 0.0)
        return note("certificate", seen, advice) if soon else good("certificate", seen)
    if isinstance(config, MonitorConfig):
        advice = f"run `edgechoir enrol {config.identity} --renew`"
        return note("certificate", seen, advice) if now > late else good("certificate", seen)
    if now > late:
        advice = f"it should have renewed itself at {url}: see the log, or try `edgechoir enrol "
        return note("certificate", seen, f"{advice}{config.identity} --renew`")
    first = datetime.fromtimestamp(renewal_due(certificate, 0.0), UTC)
    return good("certificate", f"{seen}; renews itself from {first:%Y-%m-%d} at {url}")


def _revoked(member: "Member") -> Iterator[Finding]:
    """The list of revoked certificates in the directory, where somebody has put one."""
    from edgechoir.errors import RemoteError
    from edgechoir.identity.revocation import read_revocations

    path = member.paths.crl
    try:
        held = read_revocations(path.read_bytes(), member.root)
    except FileNotFoundError:
        return
    except OSError as error:
        yield wrong("revocations", f"{path}: {error.strerror}")
        return
    except RemoteError as error:
        yield wrong("revocations", f"{path}: {error}", "get it from the CA's directory again")
        return
    if member.certificate.serial in held.serials:
        yield wrong("revocations", "this member's certificate was revoked", "enrol it anew")
    else:
        yield good("revocations", f"list {held.number}, {len(held.serials)} certificates")


def policy(member: "Member") -> Finding:
    """What this member insists on, whoever asks for less."""
    from edgechoir.fleet.policy_file import NAME

    held = member.policy
    seen = (
        f"a sum has at least {held.min_members} members and {held.min_devices} devices, "
        f"{_share(held.colluders_one_in)} may collude, the clip is at most {held.max_clip:g}, "
        f"the root {'may see' if held.cohorts_apart else 'never sees'} the sum of a single node"
    )
    if not (member.paths.directory / NAME).exists():
        return note("policy", f"none is pinned, so {seen}")
    return good("policy", f"signed by the CA: {seen}")


def _share(one_in: int) -> str:
    return f"one in {one_in}" if one_in else "nobody"


def _begins_after(certificate: Path, now: float) -> Finding | None:
    """A certificate of the future says more about the clock than about itself."""
    from cryptography import x509

    try:
        pem = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError):
        return None  # `load_member` says it better
    begin = pem.not_valid_before_utc
    if begin.timestamp() <= now:
        return None
    seen = (
        f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M UTC} is before the certificate begins, "
        f"{begin:%Y-%m-%d %H:%M UTC}"
    )
    return wrong("clock", seen, "set the clock")


def _modes(key: Path) -> Iterator[Finding]:
    if key.exists() and (mode := key.stat().st_mode & 0o777) & 0o077:
        yield wrong("key file", f"{key} has mode {mode:04o}: others can read it", "chmod 600 it")


def state(directory: Path) -> Finding:
    """The state directory: there, ours and not in use."""
    if not directory.exists():
        above = next(parent for parent in directory.absolute().parents if parent.exists())
        if not os.access(above, os.W_OK | os.X_OK):
            return wrong("state", f"{directory} cannot be made: {above} is not writable")
        return good("state", f"{directory} will be made at the first start")
    if not directory.is_dir() or not os.access(directory, os.W_OK | os.X_OK):
        return wrong("state", f"{directory} is not a directory that this user can write to")
    try:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return good("state", f"{directory} is writable and not in use")
    except OSError as error:
        return wrong("state", f"{directory / 'lock'}: {error.strerror}", "whose file is it?")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return note("state", f"{directory} is in use: this member runs, a second will not start")
    finally:
        os.close(lock)
    return good("state", f"{directory} is writable and not in use")


def audit_log(directory: Path, member: "Member | None") -> Iterator[Finding]:
    """The member's audit log, where it has one: every line, which takes a second or so."""
    from edgechoir.fleet.audit_check import verify_log
    from edgechoir.fleet.audit_files import DIRECTORY, log_files

    if not log_files(directory / DIRECTORY):
        return
    try:
        verdict = verify_log(directory / DIRECTORY, None if member is None else member.root)
    except OperatorError as error:
        yield wrong("audit log", str(error))
        return
    if verdict.wrong:
        advice = "see `edgechoir audit verify`: somebody, or the disk, has changed it"
        yield note("audit log", verdict.wrong[0], advice)
    else:
        yield good("audit log", f"{verdict.records} records, the chain holds")


def model(directory: Path) -> "tuple[Finding, Bundle | None]":
    """The bundle, with every check that loading it makes."""
    from edgechoir.bundle.load import load_bundle

    try:
        bundle = load_bundle(directory)
    except EdgechoirError as error:
        return wrong("model", str(error)), None
    manifest = bundle.manifest
    seen = f"{manifest.name}, {manifest.size} parameters, takes {list(manifest.input_shape)}"
    return good("model", f"{seen}; every hash is right"), bundle


def device(config: "DeviceConfig") -> Iterator[Finding]:
    """What only a device has, but for its stream."""
    if (seen := inference(needed=True)).level is not Level.GOOD:
        yield seen
    yield training() if config.training.enabled else good("training", "off: this device infers")
    if config.trace is not None:
        where = config.trace.directory
        yield note("trace", f"unmasked updates are written to {where}", "for demonstrations only")


def kept_samples(config: "DeviceConfig", bundle: "Bundle | None") -> Finding:
    """Which samples are kept, and whether their key is there."""
    from edgechoir.store.cipher import KEY_FILE, load_key

    store = config.sensor.store
    if store.balanced and bundle is not None and bundle.manifest.task != "classification":
        return wrong("samples", "a regression has no classes to balance", "leave `balanced`")
    seen = f"{store.keep}, at most {store.rows} and {store.bytes // 10**6} MB"
    if store.hours is not None:
        seen += f", no older than {store.hours:g} hours"
    if not store.encrypt:
        return good("samples", seen)
    key = config.identity / KEY_FILE
    if not (config.state / "samples.db").exists() and not key.exists():
        return good("samples", f"{seen}; encrypted, the key will be made at the first start")
    try:
        load_key(key, make=False)
    except OperatorError as error:
        return wrong("samples", str(error))
    if config.state.exists() and key.stat().st_dev == config.state.stat().st_dev:
        return note(
            "samples",
            f"{seen}; encrypted, with the key on the same disk",
            "who has the disk has both; put the identity on another",
        )
    return good("samples", f"{seen}; encrypted")


def recording(config: "DeviceConfig", sensor: "ReplaySensor", bundle: "Bundle | None") -> Finding:
    """The file of a replay: readable, of the model's shape, with labels the model can learn."""
    from edgechoir.pipeline.sources.recording import Columns, read_recording

    try:
        columns = Columns(sensor.x, sensor.y, sensor.time, sensor.keys)
        recording = read_recording(sensor.path, columns)
    except EdgechoirError as error:
        return wrong("sensor", str(error))
    rows, labels = recording.x, recording.y
    seen = f"{sensor.path}: {len(rows)} samples of {list(rows.shape[1:])}"
    if bundle is None:
        return good("sensor", seen)
    manifest = bundle.manifest
    if not config.pipeline and rows.shape[1:] != manifest.input_shape:
        return wrong("sensor", seen, f"the model takes {list(manifest.input_shape)}")
    if labels is None:
        return note("sensor", f"{seen} without labels", "without `y` there is nothing to train on")
    if manifest.task == "classification":
        odd = [y for y in labels if y not in range(len(manifest.outputs))]
        if odd:
            classes = f"the model's classes are 0 to {len(manifest.outputs) - 1}"
            return wrong("sensor", f"{seen}, labelled {odd[0]}", classes)
    if config.training.enabled and len(rows) < config.training.min_samples:
        least = config.training.min_samples
        return note("sensor", seen, f"with fewer than {least} this device sits rounds out")
    return good("sensor", seen)


async def user_code(what: str, code: str, argument: str) -> Finding:
    """Run functions or the model of the user as the device will, in a process of their own."""
    return await probe(what, code, (argument, json.dumps(sys.path)), USER_CODE_S)


def _needed(config: "Config", bundle: "Bundle | None") -> int:
    """Bytes that the stores may come to."""
    samples = getattr(getattr(getattr(config, "sensor", None), "store", None), "bytes", 0)
    vectors = 0 if bundle is None else VERSIONS_ON_DISK * bundle.params.nbytes
    return int(samples) + vectors
