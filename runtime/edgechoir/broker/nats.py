"""NATS: nats-server with its MQTT listener, which speaks 3.1.1.

A topic's slashes become a subject's dots, `+` becomes `*` and a final `#` becomes `>`. With
`verify_and_map` the certificate's subject is the user, written as RFC 2253 has it. The retained
messages of MQTT lie in JetStream, which must be on.
"""

from pathlib import Path
from typing import Final

from edgechoir.broker.federation import Federation
from edgechoir.broker.settings import BrokerSettings

_CONF: Final = """\
# nats.conf of an edgechoir broker, written by edgechoir. Changes made here are lost.
# Not tested: written for nats-server 2.10 from its documentation.

server_name: {name}
# NATS's own protocol is not for members: on this machine alone.
host: 127.0.0.1
port: 4222
max_payload: {max_payload}
max_connections: {max_connections}
jetstream {{ store_dir: "{state}/jetstream", max_memory_store: {memory} }}

mqtt {{
  host: "{address}"
  port: {port}
  max_ack_pending: {max_inflight}
  tls {{
    ca_file: "{ca}"
    cert_file: "{certificate}"
    key_file: "{key}"
    # The certificate says who a client is: the users below.
    verify_and_map: true
    min_version: "{tls}"
    timeout: 10
  }}
}}

authorization {{
  users: [
{users}
  ]
}}
"""

_OWN: Final = ("$MQTT.sub.>", "$MQTT.deliver.>")
"""Subjects of the server's own that a client needs for QoS 1 and retained messages."""


def nats_files(settings: BrokerSettings, federation: Federation, place: Path) -> dict[str, str]:
    """File name -> content."""
    files, tiers = settings.files, {each.member: each.tier for each in federation.members}
    users = [
        f'    {{ user: "CN={user},OU={tiers[user]},O={federation.name}", permissions: {{\n'
        f"      publish: {{ allow: {_subjects(grant.write)} }},\n"
        f"      subscribe: {{ allow: {_subjects((*grant.read, *_OWN))} }} }} }}"
        for user, grant in sorted(federation.access.grants.items())
    ]
    conf = _CONF.format(
        name=federation.name,
        max_payload=settings.max_packet,
        max_connections=settings.max_connections,
        state=settings.state,
        memory=settings.memory,
        address=settings.address,
        port=settings.port,
        max_inflight=settings.max_inflight,
        ca=files.ca,
        certificate=files.certificate,
        key=files.key,
        tls=settings.minimum_tls,
        users=",\n".join(users),
    )
    return {"nats.conf": conf}


def subject(topic_filter: str) -> str:
    """
    >>> subject("edgechoir/v1/alps/+/+/plan/#")
    'edgechoir.v1.alps.*.*.plan.>'
    """
    levels = {"+": "*", "#": ">"}
    return ".".join(levels.get(level, level) for level in topic_filter.split("/"))


def _subjects(filters: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{subject(f) if "$" not in f else f}"' for f in filters) + "]"
