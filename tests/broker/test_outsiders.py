"""The tools that come with mosquitto, as a person would use them: the fleet's port is no secret.

Each sentence of what access is held to, with an outsider who has nothing of ours but the address.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from edgechoir.fleet.authority_dir import init_authority, open_authority, sign_request
from edgechoir.fleet.enrolment import MemberPaths, make_request

if TYPE_CHECKING:
    from tests.broker.conftest import Connect, Fleet

    from edgechoir.broker.settings import Kind

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        shutil.which("mosquitto_sub") is None, reason="mosquitto's clients are not installed"
    ),
]
STATUS = "edgechoir/v1/alps/device/dev-1/status"
EVERY_STATUS = "edgechoir/v1/+/+/+/status"


def tool(fleet: Fleet, name: str, member: str | None, *arguments: str) -> tuple[int, str]:
    """Exit status and output of mosquitto_pub or mosquitto_sub."""
    command = [name, "-V", "311", "-h", "localhost", "-p", str(fleet.settings.port), "-q", "1"]
    command += ["--cafile", str(fleet.settings.files.ca), *arguments]
    if member is not None:
        paths = MemberPaths(fleet.root / member)
        command += ["--cert", str(paths.certificate), "--key", str(paths.key)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("kind", ["mosquitto", "python"])
def test_mosquitto_sub_is_a_monitor_and_only_with_a_certificate(fleet: Fleet, kind: Kind) -> None:
    if kind == "python":
        pytest.importorskip("amqtt")

    def body(_connect: Connect) -> None:
        publish = ("-r", "-t", STATUS, "-m", "online")
        assert tool(fleet, "mosquitto_pub", None, *publish)[0] != 0
        assert tool(fleet, "mosquitto_pub", "dev-1", *publish) == (0, "")
        assert tool(fleet, "mosquitto_sub", None, "-t", EVERY_STATUS, "-C", "1")[0] != 0
        got = tool(fleet, "mosquitto_sub", "eye-1", "-t", EVERY_STATUS, "-C", "1")
        assert got == (0, "online\n")

    fleet.serve(kind, body)


def foreign(fleet: Fleet) -> str:
    """The directory of a dev-1 of another CA with the same names."""
    now, other, home = time.time(), fleet.root / "other", fleet.root / "foreign"
    init_authority(other, "alps", now, 30, os.urandom, None)
    request = make_request(home, "alps", "dev-1", "device", os.urandom).read_bytes()
    pem = sign_request(other, request, "device", now, 30, os.urandom, None).pem
    MemberPaths(home).certificate.write_bytes(pem)
    return home.name


def expired(fleet: Fleet) -> str:
    """The directory of a dev-1 whose certificate is as it was, but ended an hour ago."""
    home = fleet.root / "expired"
    shutil.copytree(fleet.root / "dev-1", home)
    path = MemberPaths(home).certificate
    good = x509.load_pem_x509_certificate(path.read_bytes())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(good.subject)
        .issuer_name(good.issuer)
        .public_key(good.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now - timedelta(hours=1))
    )
    for extension in good.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    signed = builder.sign(open_authority(fleet.ca, None).key, hashes.SHA256())
    path.write_bytes(signed.public_bytes(Encoding.PEM))
    return home.name


def certificate_of(fleet: Fleet, home: str) -> tuple[str, ...]:
    paths = MemberPaths(fleet.root / home)
    return ("--cert", str(paths.certificate), "--key", str(paths.key))


@pytest.fixture(params=["mosquitto", "python"])
def kind(request: pytest.FixtureRequest) -> Kind:
    if request.param == "python":
        pytest.importorskip("amqtt")
    chosen: Kind = request.param
    return chosen


def test_anonymous_foreign_expired_and_revoked_clients_get_nowhere(
    fleet: Fleet, kind: Kind
) -> None:
    bad = (foreign(fleet), expired(fleet), "dev-2")
    fleet.revoke("dev-2")

    def body(_connect: Connect) -> None:
        publish = ("-r", "-t", STATUS, "-m", "forged")
        for options in (
            (),
            *(certificate_of(fleet, home) for home in bad),
            ("-u", "dev-1", "-P", "guess"),
        ):
            assert tool(fleet, "mosquitto_pub", None, *publish, *options)[0] != 0, options
            listen = ("-t", "#", "-C", "1", "-W", "5")
            status, heard = tool(fleet, "mosquitto_sub", None, *listen, *options)
            assert (status != 0, heard) == (True, ""), options
        assert tool(fleet, "mosquitto_pub", "dev-1", "-r", "-t", STATUS, "-m", "true")[0] == 0
        got = tool(fleet, "mosquitto_sub", "eye-1", "-t", EVERY_STATUS, "-C", "1")
        assert got == (0, "true\n")

    fleet.serve(kind, body)


def test_a_broker_of_another_ca_is_refused_by_the_client(fleet: Fleet, kind: Kind) -> None:
    other = fleet.root / "other"
    init_authority(other, "alps", time.time(), 30, os.urandom, None)

    def body(_connect: Connect) -> None:
        public = fleet.settings.files.ca
        ours = public.read_bytes()
        stranger = fleet.root / "stranger"
        stranger.mkdir()
        (stranger / "ca.crt").write_bytes((other / "ca.crt").read_bytes())
        files = replace(fleet.settings.files, directory=stranger)
        elsewhere = replace(fleet, settings=replace(fleet.settings, files=files))
        assert tool(elsewhere, "mosquitto_pub", "dev-1", "-t", STATUS, "-m", "x")[0] != 0
        assert public.read_bytes() == ours

    fleet.serve(kind, body)


@pytest.mark.parametrize("writer", ["dev-2", "eye-1"])
def test_a_forged_publish_reaches_no_subscriber(fleet: Fleet, kind: Kind, writer: str) -> None:
    """Not retained and not live: the subscriber hears the true one, which came after, alone."""
    up = "edgechoir/v1/alps/device/dev-1/up/node-1"

    def body(connect: Connect) -> None:
        node = connect("node-1")
        node.connect()
        for pattern in ("edgechoir/v1/alps/+/+/up/node-1", EVERY_STATUS):
            assert node.subscribe(pattern.replace("v1/+", "v1/alps")) == "subscribed"
        for topic in (STATUS, up, "edgechoir/v1/alps/monitor/eye-1/status"):
            for retain in ((), ("-r",)):
                tool(fleet, "mosquitto_pub", writer, "-t", topic, "-m", "forged", *retain)
        assert tool(fleet, "mosquitto_pub", "dev-1", "-t", up, "-m", "true")[0] == 0
        assert node.receive().payload == b"true"
        assert node.messages.empty()
        late = tool(fleet, "mosquitto_sub", "eye-1", "-t", EVERY_STATUS, "-C", "1", "-W", "1")
        assert late[1] == ""

    fleet.serve(kind, body)


def test_a_device_reads_nothing_of_another_and_a_monitor_reads_json_alone(
    fleet: Fleet, kind: Kind
) -> None:
    node = "edgechoir/v1/alps/node/node-1"

    def body(_connect: Connect) -> None:
        for channel in ("down/dev-1", "plan/0", "roster/0", "model/0", "metrics", "predictions"):
            published = ("-r", "-t", f"{node}/{channel}", "-m", channel)
            assert tool(fleet, "mosquitto_pub", "node-1", *published)[0] == 0

        def hears(member: str, channel: str) -> str:
            topic = f"{node}/{channel}"
            return tool(fleet, "mosquitto_sub", member, "-t", topic, "-C", "1", "-W", "1")[1]

        for channel in ("down/dev-1", "metrics", "predictions"):
            assert hears("dev-2", channel) == ""
        assert hears("dev-1", "down/dev-1") == "down/dev-1\n"
        for channel in ("down/dev-1", "plan/0", "roster/0", "model/0"):
            assert hears("eye-1", channel) == ""
        for channel in ("metrics", "predictions"):
            assert hears("eye-1", channel) == f"{channel}\n"

    fleet.serve(kind, body)
