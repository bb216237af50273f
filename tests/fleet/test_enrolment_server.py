"""The enrolment endpoint as a machine meets it, over real TLS on the loopback."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from edgechoir.errors import BadCertificate, LinkError, OperatorError
from edgechoir.fleet import enrolment_client as client
from edgechoir.fleet.audit_check import records, verify_log
from edgechoir.fleet.authority_dir import (
    init_authority,
    issue_broker_files,
    list_members,
    make_token,
    open_authority,
    revoke,
)
from edgechoir.fleet.enrolment import Member, load_member, make_renewal, make_request
from edgechoir.fleet.enrolment_server import EnrolmentSettings, enrolment_server
from edgechoir.fleet.files import locked
from edgechoir.fleet.policy_file import write_policy
from edgechoir.fleet.registry import read_registry
from edgechoir.fleet.tokens import Token, Wanted, open_tokens, read_token, use_token
from edgechoir.identity.authority import Authority
from edgechoir.identity.chain import Line
from edgechoir.identity.policy import Policy
from edgechoir.identity.request import read_request, request_from_pem

T = TypeVar("T")
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Place:
    """A CA in a directory, and where its endpoint answers."""

    ca: Path
    authority: Authority
    root: Path
    url: str = f"https://{HOST}:1"

    def token(self, member: str = "dev-1", tier: str = "device", **other: Any) -> Token:
        wanted = {"parent": "node-1", "hours": 1.0, "days": 30, "replace": False, **other}
        now = wanted.pop("now", time.time())
        return make_token(self.ca, Wanted(tier, member, **wanted), self.url, now, os.urandom)

    def home(self, name: str) -> Path:
        return self.root / name

    def request(self, token: Token, home: Path) -> bytes:
        return make_request(
            home, token.federation, token.member, token.tier, os.urandom
        ).read_bytes()

    async def enrol(self, token: Token, home: Path) -> Member:
        """As `edgechoir enrol --token` does."""
        request = self.request(token, home)
        root = await client.fetch_root(token, token.url)
        answer = await client.enrol(token, token.url, root, request, time.time())
        client.take(home, answer, time.time())
        return load_member(home, time.time())

    async def renew(self, member: Member, *, new_key: bool = False) -> Member:
        home = member.paths.directory
        request = make_renewal(home, os.urandom, new_key_too=new_key)
        answer = await client.renew(member, self.url, request, time.time())
        client.take(home, answer, time.time())
        return load_member(home, time.time())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    ca = tmp_path / "ca"
    init_authority(ca, "alps", time.time(), 365, os.urandom, None)
    return Place(ca, open_authority(ca, None), tmp_path)


def serving(place: Place, trial: Callable[[Place], Awaitable[T]]) -> T:
    """Run a trial against an endpoint that answers."""

    async def run() -> T:
        settings = EnrolmentSettings(place.ca, (HOST,), HOST, 0)
        async with enrolment_server(settings, place.authority) as port:
            return await trial(replace(place, url=f"https://{HOST}:{port}"))

    return asyncio.run(run())


def age(place: Place, member: str, by: float) -> None:
    """Make the registry believe that a certificate was issued earlier."""
    path = place.ca / "registry.json"
    registry = json.loads(path.read_text())
    for record in registry["members"]:
        if record["member"] == member:
            record["issued"] -= by
            record["not_after"] -= by
    path.write_text(json.dumps(registry))


def test_a_machine_enrols_itself_with_a_token_alone(place: Place) -> None:
    write_policy(place.ca, Policy(min_devices=4), None)

    async def trial(place: Place) -> Member:
        text = place.token().text()
        return await place.enrol(read_token(text), place.home("dev-1"))

    member = serving(place, trial)
    assert str(member.address) == "device/dev-1"
    assert member.policy == Policy(min_devices=4)
    assert member.paths.key.stat().st_mode & 0o777 == 0o600
    assert member.paths.crl.exists()
    (record,) = list_members(place.ca)
    assert int(record.serial, 16) == member.certificate.serial
    assert round((record.not_after - record.issued) / 86400) == 30
    assert open_tokens(place.ca, time.time()) == ()
    tokens = place.ca / "tokens.json"
    assert tokens.stat().st_mode & 0o777 == 0o600
    audit = place.ca / "audit"
    assert verify_log(audit, member.root).wrong == []
    said = [line for _, _, line in records(audit) if isinstance(line, Line)]
    (enrolled,) = [dict(line.fields) for line in said if line.kind == "enrolled"]
    assert (enrolled["member"], enrolled["peer"]) == ("device/dev-1", HOST)


def test_neither_the_secret_nor_the_key_is_anywhere_at_the_ca(place: Place) -> None:
    async def trial(place: Place) -> tuple[Token, Path]:
        token, home = place.token(), place.home("dev-1")
        await place.enrol(token, home)
        return token, home

    token, home = serving(place, trial)
    key = (home / "member.key").read_text().splitlines()[1]
    for path in place.ca.rglob("*"):
        if path.is_file():
            text = path.read_text(errors="replace")
            assert token.secret not in text
            assert key not in text


def test_a_token_is_good_for_one_key_and_gives_that_one_the_same_again(place: Place) -> None:
    async def trial(place: Place) -> tuple[Member, Member]:
        token = place.token()
        first = await place.enrol(token, place.home("first"))
        again = await place.enrol(token, place.home("first"))
        with pytest.raises(OperatorError, match="used already, with another key"):
            await place.enrol(token, place.home("second"))
        return first, again

    first, again = serving(place, trial)
    assert first.certificate == again.certificate
    assert read_registry(place.ca / "registry.json").updates == 2


@pytest.mark.parametrize(
    "change",
    [
        {"secret": "00" * 32},
        {"id": "00" * 8},
        {"secret": "11" * 32, "id": "11" * 8},
    ],
)
def test_whatever_is_wrong_with_a_token_is_said_in_the_same_words(
    place: Place, change: dict[str, str]
) -> None:
    async def trial(place: Place) -> None:
        token = place.token().model_copy(update=change)
        with pytest.raises(OperatorError, match="not one of ours, was withdrawn, or has expired"):
            await place.enrol(token, place.home("dev-1"))

    serving(place, trial)
    assert list_members(place.ca) == ()


def test_a_token_past_its_time_is_refused(place: Place) -> None:
    async def trial(place: Place) -> None:
        token = place.token(now=time.time() - 3601)
        with pytest.raises(OperatorError, match="has expired"):
            await place.enrol(token, place.home("dev-1"))

    serving(place, trial)


def test_a_token_makes_nobody_but_whom_it_names(place: Place) -> None:
    async def trial(place: Place) -> None:
        token = place.token()
        for other in ({"member": "dev-2"}, {"tier": "cloud"}):
            claimed = token.model_copy(update=other)
            with pytest.raises(OperatorError, match="the token is for device/dev-1"):
                await place.enrol(claimed, place.home(str(other)))

    serving(place, trial)
    assert list_members(place.ca) == ()


def test_a_machine_sends_nothing_to_an_endpoint_of_another_ca(place: Place) -> None:
    async def trial(place: Place) -> None:
        token = place.token().model_copy(update={"ca": "ab" * 32})
        with pytest.raises(OperatorError, match="belongs to another CA"):
            await place.enrol(token, place.home("dev-1"))

    serving(place, trial)


def test_a_broker_of_the_fleet_cannot_stand_in_for_the_endpoint(place: Place) -> None:
    files = issue_broker_files(place.ca, [HOST], time.time(), 30, os.urandom, None)
    token = place.token()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    async def trial() -> None:
        server = await asyncio.start_server(listen, HOST, 0, ssl=context)
        async with server:
            url = f"https://{HOST}:{server.sockets[0].getsockname()[1]}"
            root = place.authority.root
            with pytest.raises(LinkError, match="broker/broker, which is no enrolment endpoint"):
                await client.enrol(token, url, root, b"request", time.time())

    asyncio.run(trial())
    assert heard in ([], [b""])


def test_a_killed_endpoint_has_used_a_token_up_before_it_signs(place: Place) -> None:
    token, home = place.token(), place.home("dev-1")
    request = place.request(token, home)
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from edgechoir.fleet import online\n"
        "from edgechoir.fleet.authority_dir import open_authority\n"
        "online.sign_with = lambda *a, **k: os.kill(os.getpid(), 9)\n"
        "ca, id, secret, request = sys.argv[1:]\n"
        "online.enrol_by_token(open_authority(Path(ca), None), Path(ca), id,\n"
        "    bytes.fromhex(secret), Path(request).read_bytes(), time.time(), os.urandom)\n"
    )
    path = home / "request.csr"
    words = [sys.executable, "-c", program, str(place.ca), token.id, token.secret, str(path)]
    assert subprocess.run(words, timeout=60, check=False).returncode == -9
    assert list_members(place.ca) == ()

    async def trial(place: Place) -> Member:
        here = token.model_copy(update={"url": place.url})
        with pytest.raises(OperatorError, match="used already, with another key"):
            await place.enrol(here, place.home("thief"))
        return await place.enrol(here, home)

    assert make_request(home, "alps", "dev-1", "device", os.urandom).read_bytes() == request
    assert str(serving(place, trial).address) == "device/dev-1"


def test_revoking_a_member_withdraws_its_token(place: Place) -> None:
    async def trial(place: Place) -> None:
        await place.enrol(place.token(), place.home("first"))
        token = place.token(replace=True)
        revoke(place.ca, "dev-1", time.time(), None)
        with pytest.raises(OperatorError, match="was withdrawn"):
            await place.enrol(token, place.home("second"))

    serving(place, trial)


def test_a_token_for_an_enrolled_id_is_made_on_demand_alone(place: Place) -> None:
    async def trial(place: Place) -> tuple[Member, Member]:
        first = await place.enrol(place.token(), place.home("first"))
        with pytest.raises(OperatorError, match="is enrolled: with --replace"):
            place.token()
        second = await place.enrol(place.token(replace=True), place.home("second"))
        with pytest.raises(OperatorError, match="was revoked: enrol it anew"):
            await place.renew(first)
        return first, second

    first, second = serving(place, trial)
    (gone,) = read_registry(place.ca / "registry.json").revocations
    assert int(gone.serial, 16) == first.certificate.serial
    assert second.certificate.public_key != first.certificate.public_key


# ---- renewal


def test_a_member_renews_with_the_certificate_it_has(place: Place) -> None:
    async def trial(place: Place) -> tuple[Member, Member, Member]:
        first = await place.enrol(place.token(), place.home("dev-1"))
        early = await place.renew(first)
        age(place, "dev-1", 20 * 86400)
        second = await place.renew(first)
        return first, early, second

    first, early, second = serving(place, trial)
    assert early.certificate == first.certificate
    assert second.certificate.serial != first.certificate.serial
    assert second.certificate.public_key == first.certificate.public_key
    revoked = revoke(place.ca, "dev-1", time.time(), None)
    assert revoked.serial == f"{second.certificate.serial:x}"
    gone = {int(one.serial, 16) for one in read_registry(place.ca / "registry.json").revocations}
    assert second.certificate.serial in gone


def test_all_of_a_members_certificates_are_revoked_with_it(place: Place) -> None:
    async def trial(place: Place) -> tuple[Member, Member]:
        first = await place.enrol(place.token(), place.home("dev-1"))
        age(place, "dev-1", 20 * 86400)
        second = await place.renew(first)
        revoke(place.ca, "dev-1", time.time(), None)
        for member in (first, second):
            with pytest.raises(OperatorError, match="was revoked"):
                await place.renew(member)
        return first, second

    first, second = serving(place, trial)
    gone = {int(one.serial, 16) for one in read_registry(place.ca / "registry.json").revocations}
    assert gone == {first.certificate.serial, second.certificate.serial}


def test_another_key_puts_the_old_one_out_of_force_and_survives_a_lost_answer(
    place: Place,
) -> None:
    async def trial(place: Place) -> tuple[Member, Member]:
        first = await place.enrol(place.token(), place.home("dev-1"))
        home = first.paths.directory
        request = make_renewal(home, os.urandom, new_key_too=True)
        await client.renew(first, place.url, request, time.time())  # its answer is lost
        assert load_member(home, time.time()).certificate == first.certificate
        second = await place.renew(first, new_key=True)
        return first, second

    first, second = serving(place, trial)
    assert second.certificate.public_key != first.certificate.public_key
    assert not second.paths.next_key.exists()
    (gone,) = read_registry(place.ca / "registry.json").revocations
    assert int(gone.serial, 16) == first.certificate.serial


def test_nobody_renews_for_another(place: Place) -> None:
    async def trial(place: Place) -> None:
        first = await place.enrol(place.token(), place.home("dev-1"))
        other = await place.enrol(place.token("dev-2"), place.home("dev-2"))
        request = make_renewal(other.paths.directory, os.urandom, new_key_too=False)
        with pytest.raises(OperatorError, match="device/dev-1 asked for a certificate of"):
            await client.renew(first, place.url, request, time.time())
        nobody = json.dumps({"request": request.decode()}).encode()
        with pytest.raises(OperatorError, match="show the present one"):
            await client._ask(
                place.url,
                client._context(first.root),
                first.root,
                time.time(),
                "POST",
                "/v1/renew",
                json.loads(nobody),
            )

    serving(place, trial)


def test_a_certificate_of_another_ca_renews_nothing(place: Place, tmp_path: Path) -> None:
    init_authority(tmp_path / "other", "alps", time.time(), 365, os.urandom, None)
    other = Place(tmp_path / "other", open_authority(tmp_path / "other", None), tmp_path / "x")
    foreign = serving(other, lambda p: p.enrol(p.token(), p.home("dev-1")))

    async def trial(place: Place) -> None:
        request = make_renewal(foreign.paths.directory, os.urandom, new_key_too=False)
        mixed = replace(foreign, root=place.authority.root)
        with pytest.raises(LinkError):
            await client.renew(mixed, place.url, request, time.time())

    serving(place, trial)


def test_a_weaker_policy_does_not_come_with_a_renewal(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async def trial(place: Place) -> list[Policy]:
        write_policy(place.ca, Policy(min_devices=5), None)
        member = await place.enrol(place.token(), place.home("dev-1"))
        held = [member.policy]
        for devices in (3, 9):
            write_policy(place.ca, Policy(min_devices=devices), None)
            held.append((await place.renew(member)).policy)
        return held

    held = serving(place, trial)
    assert [policy.min_devices for policy in held] == [5, 5, 9]
    assert "protects less than the pinned one (min_devices)" in caplog.text


# ---- what outsiders try


async def say(place: Place, data: bytes, *, end: bool = True) -> bytes:
    """The answer to some bytes over TLS."""
    context = ssl.create_default_context(cafile=place.ca / "ca.crt")
    port = int(place.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection(HOST, port, ssl=context)
    try:
        writer.write(data)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /v1/ca.key HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /v1/../ca.key HTTP/1.1\r\n\r\n", b"404"),
        (b"\x16\x03\x01garbage\r\n\r\n", b"400"),
        (b"POST /v1/enrol HTTP/1.1\r\nContent-Length: 999999\r\n\r\n", b"400"),
        (b"POST /v1/enrol HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /v1/enrol HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"POST /v1/enrol HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]", b"400"),
        (b'POST /v1/enrol HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"a": {}}', b"400"),
        (b"X" * 40_000, b"400"),
    ],
)
def test_what_is_no_request_is_answered_and_changes_nothing(
    place: Place, data: bytes, status: bytes
) -> None:
    async def trial(place: Place) -> None:
        said = await say(place, data)
        assert said.split(b" ")[1] == status
        assert await say(place, b"GET /v1/ca.crt HTTP/1.1\r\n\r\n")

    serving(place, trial)


def test_an_address_that_asks_too_often_gets_no_handshake(place: Place) -> None:
    async def trial(place: Place) -> int:
        answered = 0
        for _ in range(40):
            try:
                answered += bool(await say(place, b"GET /v1/ca.crl HTTP/1.1\r\n\r\n"))
            except OSError:
                break
        return answered

    assert 30 <= serving(place, trial) <= 32


def test_a_command_at_work_on_the_ca_is_waited_for(place: Place) -> None:
    async def trial(place: Place) -> Member:
        token = place.token()
        with locked(place.ca):
            enrolling = asyncio.create_task(place.enrol(token, place.home("dev-1")))
            await asyncio.wait([enrolling], timeout=0.5)
            assert not enrolling.done()
        return await enrolling

    assert str(serving(place, trial).address) == "device/dev-1"


@pytest.mark.parametrize("text", ["", "ect1.", "ect1.!!!", "ect1.e30", "x" * 5000, "ect1.AAAA"])
def test_a_damaged_token_is_said_to_be_one(text: str) -> None:
    with pytest.raises(OperatorError, match="token"):
        read_token(text)


def test_a_token_read_back_is_the_token(place: Place) -> None:
    token = place.token()
    assert read_token(f" {token.text()}\n") == token
    assert token.secret not in repr(token)
    with pytest.raises(OperatorError, match="give up to"):
        place.token("dev-2", hours=0)
    with pytest.raises(OperatorError, match="url"):
        replace(place, url="http://plain").token("dev-2")


def test_the_hash_of_nothing_opens_nothing(place: Place) -> None:

    token = place.token()
    request = read_request(request_from_pem(place.request(token, place.home("dev-1"))))
    for secret in (b"", b"\0" * 32):
        with pytest.raises(BadCertificate):
            use_token(place.ca, token.id, secret, request, "ab", time.time())


@pytest.mark.parametrize(
    "url", ["https://..:1", "https://x" + "y" * 80 + ":1", "https://h:99999", "https://[:1"]
)
def test_an_address_that_nobody_can_have_is_an_error_of_ours(place: Place, url: str) -> None:
    with pytest.raises((LinkError, OperatorError), match="https://"):
        asyncio.run(client.fetch_revocations(place.authority.root, url, time.time()))
