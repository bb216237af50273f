"""Keeps a running member's certificate in its time, and its list of revoked ones up to date.

A certificate is renewed at the enrolment endpoint when two thirds of its life are over, for the
same key: rosters and seals that name the key stay good. One that the operator has put into the
directory is taken up too. From then on it signs and shows the new one; the link is opened again
between two rounds. The list of revoked certificates comes from the parent, and besides from the
endpoint and from the directory, so that no broker can hold it back for long.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from edgechoir.errors import EdgechoirError, RemoteError
from edgechoir.fleet import enrolment_client as client
from edgechoir.fleet.enrolment import Member, load_member, make_renewal
from edgechoir.fleet.renewal import renewal_due, retry_after
from edgechoir.identity.envelope import Signer
from edgechoir.rounds.participant import Phase
from edgechoir.tiers.host import Host
from edgechoir.tiers.revoked import CrlFile

log: Final = logging.getLogger(__name__)

REST: Final = (Phase.IDLE, Phase.OUT, Phase.READY)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: between two looks at the directory, and two questions for the list of revoked
    certificates (the cloud asks oftener, for all); how long a round may hold up the link."""

    look: float = 5.0
    ask: float = 3600.0
    ask_cloud: float = 60.0
    hold: float = 600.0


class Upkeep:
    """One member's; `url` is the enrolment endpoint, where there is one."""

    def __init__(
        self,
        host: Host,
        member: Member,
        url: str | None,
        pace: Pace = Pace(),
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._host = host
        self._member = member
        self._url = url
        self._pace = pace
        self._draw = draw
        self._crl_file = CrlFile(member.paths.directory)
        self._stamp = self._certificate_stamp()
        self._place = draw()
        """Of this member among those whose certificates fall due together."""
        self._try_at = 0.0
        self._ask_at = 0.0
        self._failures = 0
        self._failed = ""
        self._told = False
        self._reopen_by: float | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._look()
                await self._ask()
                await self._renew()
                await self._reopen()
            except Exception:  # the edge of this task: the member goes on with what it has
                log.exception("looking after the certificate failed")
            await asyncio.sleep(self._pace.look)

    @property
    def _due(self) -> float:
        return renewal_due(self._member.certificate, self._place)

    def figures(self) -> dict[str, Any]:
        """For the status."""
        held = self._host.revocations.held
        return {
            "not_after": self._member.certificate.not_after,
            "renewal": self._failed or (f"due {_day(self._due)}" if self._url else None),
            "revoked": self._revoked,
            "revocations": None if held is None else held.number,
        }

    # ---- the directory

    async def _look(self) -> None:
        data = await asyncio.to_thread(self._crl_file.changed)
        if data is not None:
            self._take(data, "ca.crl")
        stamp = self._certificate_stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            await self._take_up()
        if self._revoked and not self._told:
            self._told = True
            log.error("the certificate of this member was revoked: enrol it anew")

    @property
    def _revoked(self) -> bool:
        held = self._host.revocations.held
        return held is not None and self._member.certificate.serial in held.serials

    def _certificate_stamp(self) -> tuple[int, int] | None:
        try:
            stat = os.stat(self._member.paths.certificate)
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns

    async def _take_up(self) -> None:
        """Go on under the certificate that is in the directory now, if it is for our key."""
        directory = self._member.paths.directory
        try:
            member = await asyncio.to_thread(load_member, directory, time.time())
        except EdgechoirError as error:
            log.error("the new certificate is not taken up: %s", error)
            return
        certificate = member.certificate
        if certificate == self._member.certificate:
            return
        if certificate.public_key != self._member.certificate.public_key:
            log.error("the new certificate is for another key: start this process again")
            return
        self._member = member
        self._failures, self._failed = 0, ""
        host = self._host
        host.endpoint.renew(Signer(member.key, certificate, host.place.instance))
        host.account.audit.record(
            "renewed", serial=f"{certificate.serial:x}", until=certificate.not_after
        )
        host.account.audit.change_signer(member.key, certificate)
        self._reopen_by = time.monotonic() + self._pace.hold
        log.info("the certificate was renewed, it is valid until %s", _day(certificate.not_after))
        host.changed()

    # ---- the endpoint

    async def _ask(self) -> None:
        """Get the list of revoked certificates past any broker."""
        if self._url is None or time.monotonic() < self._ask_at:
            return
        cloud = self._host.place.parent is None
        pause = self._pace.ask_cloud if cloud else self._pace.ask
        self._ask_at = time.monotonic() + pause * (0.5 + self._draw())
        try:
            data = await client.fetch_revocations(self._member.root, self._url, time.time())
        except EdgechoirError as error:
            log.info("no list of revoked certificates: %s", error)
            return
        self._take(data, self._url)

    def _take(self, data: bytes, source: str) -> None:
        try:
            self._host.take_revocations(data, source)
        except RemoteError as error:
            self._host.refuse(error, source)

    async def _renew(self) -> None:
        now = time.time()
        certificate = self._member.certificate
        if self._url is None or now < self._due or time.monotonic() < self._try_at:
            return
        if now > certificate.not_after:
            self._fail(f"the certificate expired {_day(certificate.not_after)}: enrol it anew")
            return
        directory = self._member.paths.directory
        try:
            request = await asyncio.to_thread(
                make_renewal, directory, os.urandom, new_key_too=False
            )
            answer = await client.renew(self._member, self._url, request, now)
            given = await asyncio.to_thread(client.take, directory, answer, now)
        except EdgechoirError as error:
            self._fail(str(error))
            return
        if given == certificate:
            self._fail("the endpoint takes it to be new enough still")
            return
        self._stamp = self._certificate_stamp()
        await self._take_up()

    def _fail(self, why: str) -> None:
        self._failures += 1
        pause = retry_after(self._failures, self._draw())
        self._try_at = time.monotonic() + pause
        self._failed = f"failed, tried again {_day(time.time() + pause)}: {why}"
        log.warning(
            "the certificate (valid until %s) was not renewed, tried again in %.0f min: %s",
            _day(self._member.certificate.not_after),
            pause / 60,
            why,
        )
        self._host.account.audit.record_limited("renewal failed", "failed", why=why)
        self._host.changed()

    async def _reopen(self) -> None:
        """Show the broker the new certificate, when no round would feel it, or at last."""
        if self._reopen_by is None:
            return
        joint = self._host.endpoint.joint
        resting = (joint.up is None or joint.up.phase in REST) and (
            joint.down is None or joint.down.turn is None
        )
        if resting or time.monotonic() > self._reopen_by:
            self._reopen_by = None
            await self._host.link.reopen()


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
