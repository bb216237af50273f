"""Transfers of one member over its link: blobs that are acknowledged by the member they are for.

MQTT's acknowledgement ends at the broker, and a broker may drop from a full queue what it has
acknowledged, or lose it with its process. Here the receiver's process acknowledges, to the sender's
(`control`). This part is thin: it publishes what `sender` and `receiver` say, keeps their clock,
and tells who waits how a transfer ended.

    delivered    the receiver has handed the blob over, once, with the hash that was sent
    refused      it is too large for the receiver, or the receiver wants no more of it
    cancelled    given up here
    unsent       the broker does not let us publish it
    expired      not acknowledged in time; the receiver may have it all the same

Nothing here is on a disk. A sender that is started anew may start the same blob and goes on from
what the receiver has of it; a receiver that is started anew begins again. What was delivered is in
the hands of the receiver's process: if that dies, so does what it had not written down.

Blobs to one topic arrive in the order of their start: the next is sent when the one before has
ended. Chunks and offers go with QoS 1, in order; answers with QoS 0, and not at all while there is
no connection, since the sender asks again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from edgechoir.errors import LinkError, LocalError
from edgechoir.transport.control import Ack, Refuse, decode, is_control
from edgechoir.transport.link import Link, Priority
from edgechoir.transport.outgoing import CrowdedOutError
from edgechoir.transport.receiver import Delivered, Receiver, Reply
from edgechoir.transport.sender import Ended, Name, Outcome, Parcel, Progress, Sender

log: Final = logging.getLogger(__name__)

PUBLISHING: Final = 16
"""Parcels that the broker has not yet taken over: what is in memory beside the blobs."""
REPLYING: Final = 256
REPLY_S: Final = 5.0
TICK_S: Final = 1.0
"""How often a receiver with blobs under way looks at the clock."""
PAUSE_S: Final = 0.05
"""The least time between two looks at the clock."""


class Transfers:
    """Both ends of a member's transfers. `run` must be running for anything to move.

    `answering` gives, for a topic on which blobs come to us, the topic of our answers, and the
    other way. `clock` in seconds; only differences count.
    """

    def __init__(
        self,
        link: Link,
        sender: Sender,
        receiver: Receiver,
        answering: Callable[[str], str],
        clock: Callable[[], float],
    ) -> None:
        self._link = link
        self._sender, self._receiver = sender, receiver
        self._answering, self._clock = answering, clock
        self._group: asyncio.TaskGroup | None = None
        self._over = False
        self._results: dict[Name, asyncio.Future[Outcome]] = {}
        self._publishing = self._replying = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Send, ask and answer until cancelled; what is open then counts as cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                while True:
                    self._wake.clear()
                    now = self._clock()
                    self._settle(self._sender.tick(now))
                    self._answer(self._receiver.tick(now))
                    self._pump()
                    await self._until_woken()
        finally:
            self._group, self._over = None, True
            for name in tuple(self._results):
                self._settle(self._sender.end(name, Outcome.CANCELLED))

    async def _until_woken(self) -> None:
        due = self._sender.wake
        pause = None if due is None else max(due - self._clock(), PAUSE_S)
        if len(self._receiver):
            pause = min(TICK_S, pause if pause is not None else TICK_S)
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            pass

    def progress(self, least: float) -> list[Progress]:
        """Blobs of several chunks that have been under way for so many seconds, both ways, the
        longest first."""
        before = self._clock() - least
        under_way = [*self._sender.progress(), *self._receiver.progress()]
        return sorted((one for one in under_way if one.since <= before), key=lambda one: one.since)

    # ---- out

    async def room(self, to: str, timeout: float) -> None:
        """Wait, but no longer than `timeout`, until one more blob to this topic may be started;
        after that the oldest makes room."""
        try:
            async with asyncio.timeout(timeout):
                while self._sender.is_full(to):
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            self.cancel(self._sender.names(to)[0])

    def start(self, to: str, data: bytes, seconds: float) -> asyncio.Future[Outcome]:
        """Begin to send a blob that is of no use after so many seconds; how it ended comes with
        the future. Raises LocalError when too many are open: await `room` first."""
        if self._over:
            raise LocalError("transfers are over; they are started before or while they run")
        now = self._clock()
        name = self._sender.start(to, data, now, now + seconds)
        if (result := self._results.get(name)) is None:
            result = self._results[name] = asyncio.get_running_loop().create_future()
        self._pump()
        self._wake.set()
        return result

    def cancel_all(self, to: str) -> None:
        """Give up what is on its way to this topic; the receiver is told, once."""
        for name in self._sender.names(to):
            self.cancel(name)

    def cancel(self, name: Name) -> None:
        """Give one blob up."""
        ended, parcel = self._sender.cancel(name)
        if ended:
            self._settle(ended)
            self._say(parcel.name.key, parcel.payload, Priority.BULK)  # behind its chunks

    def _pump(self) -> None:
        while self._group is not None and self._publishing < PUBLISHING:
            parcel = self._sender.next(self._clock())
            if parcel is None:
                return
            self._publishing += 1
            self._group.create_task(self._publish(parcel), name="transfer")

    async def _publish(self, parcel: Parcel) -> None:
        # A little longer than the transfer lives, so that what fails while it does is a refusal.
        timeout = self._sender.seconds_left(parcel.name, self._clock()) + TICK_S
        try:
            await self._link.publish(
                parcel.name.key,
                parcel.payload,
                qos=1,
                priority=Priority.BULK if parcel.bulk else Priority.CONTROL,
                timeout=timeout,
            )
        except CrowdedOutError:
            self._sender.sent(parcel, self._clock())  # it counts as lost on the way, and goes again
        except LinkError as error:
            log.warning("%s", error)
            self._settle(self._sender.end(parcel.name, Outcome.UNSENT))
        else:
            self._sender.sent(parcel, self._clock())
        finally:
            self._publishing -= 1
        self._pump()

    def _settle(self, ended: Sequence[Ended]) -> None:
        for one in ended:
            result = self._results.pop(one.name)
            if not result.done():
                result.set_result(one.outcome)
        if ended:
            self._room.set()

    # ---- in

    def take(self, topic: str, payload: bytes) -> list[bytes]:
        """Take a message of a topic on which blobs come, or answers to ours. Gives blobs that are
        now whole; they count as delivered with the return of this call. Raises Malformed."""
        now = self._clock()
        if not len(self._receiver):
            self._wake.set()
        if not is_control(payload):
            effects = self._receiver.take_chunk(topic, payload, now)
            self._answer([effect for effect in effects if isinstance(effect, Reply)])
            return [effect.blob for effect in effects if isinstance(effect, Delivered)]
        control = decode(payload)
        if isinstance(control, Ack | Refuse):
            self._settle(self._sender.receive(self._answering(topic), control, now))
            self._pump()
        else:
            self._answer(self._receiver.take_control(topic, control, now))
        return []

    def forget(self, topic: str) -> None:
        """Take no more of the blobs that have begun to come on this topic."""
        self._answer(self._receiver.forget(topic, self._clock()))

    def _answer(self, replies: Sequence[Reply]) -> None:
        for reply in replies:
            self._say(self._answering(reply.key), reply.payload)

    def _say(self, to: str, payload: bytes, priority: Priority = Priority.CONTROL) -> None:
        """A hint, whose loss does no harm."""
        if self._group is None or not self._link.state.connected or self._replying >= REPLYING:
            return
        self._replying += 1
        self._group.create_task(self._hint(to, payload, priority), name="answer")

    async def _hint(self, to: str, payload: bytes, priority: Priority) -> None:
        try:
            await self._link.publish(to, payload, qos=0, priority=priority, timeout=REPLY_S)
        except LinkError as error:
            log.debug("%s", error)
        finally:
            self._replying -= 1
