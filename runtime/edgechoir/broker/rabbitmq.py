"""RabbitMQ's MQTT plugin, from 3.10 on: rabbitmq.conf, the plugins, and the fleet as definitions.

The certificate's CN is the user. The plugin turns a topic into a routing key with dots, and asks
the topic permissions, regular expressions, when a client publishes and when it subscribes; there
the pattern itself must fit. A queue belongs to a client id, and a member may only make those that
start with its own id and a dot, so nobody can take another's session over.

What it cannot be told, or does not do (3.10, MQTT 3.1.1 only):

- A retained message goes to subscriptions of that very topic, not to those with a wildcard.
- There is no list of revoked certificates in this file: who is not a user cannot log in, so delete
  the user of a revoked member. An earlier certificate of a member that has got a new key stays
  good until it ends.
- No bound on a packet; `max_message_size` counts after the broker has read it.
"""

import json
import re
from pathlib import Path
from typing import Final

from edgechoir.broker.federation import Federation
from edgechoir.broker.settings import BrokerSettings

_LEVEL: Final = r"(\*|[a-z0-9-]+)"
_REST: Final = r"(\.(#|\*|[a-z0-9-]+))*"

_CONF: Final = """\
# rabbitmq.conf of an edgechoir broker, written by edgechoir. Changes made here are lost.
# Tested with RabbitMQ 3.10.8 (Debian 12).
# Put it into /etc/rabbitmq beside enabled_plugins and definitions.json.

# --- One way in: MQTT over TLS with a certificate of the fleet's CA -----------------------------
listeners.tcp = none
mqtt.listeners.tcp = none
mqtt.listeners.ssl.fleet = {address}:{port}
ssl_options.cacertfile = {ca}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
ssl_options.depth = 1
ssl_options.versions.1 = tlsv1.{tls}
mqtt.allow_anonymous = false
# The certificate's CN (the member id) is the user; there are no passwords.
ssl_cert_login_from = common_name
mqtt.ssl_cert_login = true

# --- Members and their rights: read at the start ------------------------------------------------
# While it runs: `rabbitmqctl import_definitions {place}/definitions.json`, and for a revoked
# member `rabbitmqctl delete_user MEMBER`.
load_definitions = {place}/definitions.json
mqtt.vhost = /
mqtt.exchange = amq.topic

# --- Bounds (per queue: the policy in definitions.json) -----------------------------------------
max_message_size = {max_packet}
mqtt.prefetch = {max_inflight}
# Milliseconds: sessions of clients that never come back.
mqtt.subscription_ttl = 86400000
mqtt.retained_message_store = rabbit_mqtt_retained_msg_store_dets
vm_memory_high_watermark.absolute = {memory}
mqtt.tcp_listen_options.nodelay = true
"""


def rabbitmq_files(settings: BrokerSettings, federation: Federation, place: Path) -> dict[str, str]:
    """File name -> content. `place`: where they will lie, /etc/rabbitmq by custom."""
    files = settings.files
    conf = _CONF.format(
        address=settings.address,
        port=settings.port,
        ca=files.ca,
        certificate=files.certificate,
        key=files.key,
        tls=settings.minimum_tls.removeprefix("1."),
        place=place,
        max_packet=settings.max_packet,
        max_inflight=settings.max_inflight,
        memory=settings.memory,
    )
    return {
        "rabbitmq.conf": conf,
        "enabled_plugins": "[rabbitmq_auth_mechanism_ssl,rabbitmq_mqtt].\n",
        "definitions.json": json.dumps(definitions(settings, federation), indent=1) + "\n",
    }


def definitions(settings: BrokerSettings, federation: Federation) -> dict[str, object]:
    """What `rabbitmqctl import_definitions` reads."""
    grants = sorted(federation.access.grants.items())
    queues = {user: f"mqtt-subscription-{re.escape(user)}\\..*" for user, _ in grants}
    return {
        "vhosts": [{"name": "/"}],
        "users": [
            {
                "name": user,
                "password_hash": "",
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "",
            }
            for user, _ in grants
        ],
        "permissions": [
            {
                "user": user,
                "vhost": "/",
                "configure": f"^{queues[user]}$",
                "write": rf"^(amq\.topic|{queues[user]})$",
                "read": rf"^(amq\.topic|{queues[user]})$",
            }
            for user, _ in grants
        ],
        "topic_permissions": [
            {
                "user": user,
                "vhost": "/",
                "exchange": "amq.topic",
                "write": any_of(federation.name, grant.write),
                "read": any_of(federation.name, grant.read),
            }
            for user, grant in grants
        ],
        "policies": [
            {
                "vhost": "/",
                "name": "bounds",
                "pattern": "^mqtt-subscription-",
                "apply-to": "queues",
                "priority": 0,
                "definition": {
                    "max-length": settings.max_queued,
                    "max-length-bytes": settings.max_queued_bytes,
                    "overflow": "drop-head",
                },
            }
        ],
    }


def any_of(federation: str, filters: tuple[str, ...]) -> str:
    """A regular expression for the routing keys, and binding keys, within some topic filters.

    A `*` in the levels of the root and federation asks for no more: nothing else is on the broker.
    """
    if not filters:
        return "^$"
    return f"^({'|'.join(_pattern(federation, each) for each in filters)})$"


def _pattern(federation: str, topic_filter: str) -> str:
    levels = topic_filter.split("/")
    parts: list[str] = []
    for position, level in enumerate(levels):
        if level == "#":
            return r"\.".join(parts) + _REST
        if level == "+":
            parts.append(_LEVEL)
        else:
            plain = re.escape(level)
            parts.append(rf"(\*|{plain})" if position < 3 and level == federation else plain)
    return r"\.".join(parts)
