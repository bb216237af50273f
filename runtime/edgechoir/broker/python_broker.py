"""A broker in pure Python, amqtt behind our own door, for machines without mosquitto.

Needs the extra `broker`. Meant for demonstrations and small fleets; what it lacks beside mosquitto:

- MQTT 3.1.1 only (a client of MQTT 5 is told so and falls back), and clean sessions only.
- A subscription must lie wholly within what the member may read, or it is refused; mosquitto
  accepts any and passes on what is allowed.
- A message goes out with the QoS of the subscription, whatever it was published with; and once
  for each filter of a client that matches it.
- QoS 1 is not sent again within a connection: amqtt forgets a message that is not acknowledged
  within 5 s. The runtime's own acknowledgement from end to end covers that.
- What waits for a slow client is bounded for QoS 1 by `max_queued`, and by `max_queued_bytes` in
  the socket's buffer; what waits between reader and sender within amqtt has no bound.
- Retained messages live in memory, and their number has no bound; `persistent` and
  `max_inflight` have no effect. A new server certificate needs a restart.
- One process on one core: well below mosquitto's rate.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final, cast

from amqtt.adapters import StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import Action as TopicAction
from amqtt.contexts import BaseContext
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session

from edgechoir.broker.door import Connection, Door, PacketReader
from edgechoir.broker.roster import Roster
from edgechoir.broker.settings import BrokerSettings

log = logging.getLogger(__name__)

_LISTENER: Final = "default"
_ACTIONS: Final = {TopicAction.PUBLISH: "write", TopicAction.RECEIVE: "read"}


class FleetPlugin(BaseAuthPlugin, BaseTopicPlugin):  # type: ignore[misc]  # amqtt has no types
    """Asks the door who a session is, and the roster's rules what it may do."""

    @dataclass
    class Config:
        """amqtt fills it from its configuration: the door, and the bounds in its settings."""

        door: Any = None
        settings: Any = None

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        config = cast(FleetPlugin.Config, context.config)
        self._door: Door = config.door
        self._settings: BrokerSettings = config.settings

    async def authenticate(self, *, session: Session) -> bool:
        connection = self._connection(session)
        if connection is None:
            return False
        # amqtt publishes a last will without asking for leave, so leave is asked for here.
        will = session.will_topic if session.will_flag else None
        if will is not None and not self._allows(connection, "write", will):
            log.warning("refused %s: it may not leave a will on %s", connection.user, will)
            return False
        return True

    async def topic_filtering(
        self,
        *,
        session: Session | None = None,
        topic: str | None = None,
        action: TopicAction | None = None,
    ) -> bool:
        connection = self._connection(session) if session else None
        if session is None or connection is None or topic is None or action is None:
            return False
        if action is TopicAction.RECEIVE and self._is_full(session, connection):
            log.warning("dropped a message of %s: %s is too slow", topic, connection.user)
            return False
        return self._allows(connection, _ACTIONS.get(action, "subscribe"), topic)

    def _connection(self, session: Session) -> Connection | None:
        return self._door.connection(session.client_id or "")

    def _allows(self, connection: Connection, action: str, topic: str) -> bool:
        return self._door.roster.access.allows(connection.user, cast(Any, action), topic)

    def _is_full(self, session: Session, connection: Connection) -> bool:
        waiting = connection.writer.transport.get_write_buffer_size()
        return (
            session.inflight_out_count >= self._settings.max_queued
            or waiting >= self._settings.max_queued_bytes
        )


class _Broker(Broker):  # type: ignore[misc]  # amqtt has no types
    """amqtt gives a client that connects what is retained for the subscriptions of all others, and
    asks nobody whether it may read it (0.11). This one gives it to who has subscribed, and may.
    """

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        topic_filter, qos = subscription
        handler = self._get_handler(session)
        subscribed = any(
            each.client_id == session.client_id
            for each, _ in self._subscriptions.get(topic_filter, ())
        )
        if handler is None or not subscribed:
            return
        for topic, kept in tuple(self._retained_messages.items()):
            if not self._matches(topic, topic_filter):
                continue
            if await self._topic_filtering(session, topic=topic, action=TopicAction.RECEIVE):
                level = min(qos, kept.qos or qos)
                await handler.mqtt_publish(kept.topic, kept.data, level, retain=True)


class PythonBroker:
    """`start`, then `update` on each new roster, then `stop`."""

    def __init__(self, settings: BrokerSettings, roster: Roster) -> None:
        # amqtt writes whole payloads into its debug lines; at INFO, a line for every step.
        logging.getLogger("amqtt").setLevel(logging.ERROR)
        self._door = Door(settings, roster, self._serve)
        self._started = False
        config = {"door": self._door, "settings": settings}
        self._broker = _Broker(
            {
                "listeners": {_LISTENER: {"type": "external"}},
                "plugins": {f"{__name__}.{FleetPlugin.__name__}": config},
            }
        )

    async def start(self) -> None:
        """Listen. Raises OperatorError."""
        await self._broker.start()
        self._started = True
        await self._door.start()

    def update(self, roster: Roster) -> None:
        self._door.update(roster)

    async def ended(self) -> None:
        """It does not end by itself."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        await self._door.close()
        if self._started:
            await self._broker.shutdown()

    async def _serve(self, reader: PacketReader, connection: Connection) -> None:
        await self._broker.external_connected(
            reader, StreamWriterAdapter(connection.writer), _LISTENER
        )
