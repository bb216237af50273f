"""HiveMQ: config.xml with mutual TLS, and the credentials file of its file role-based access
control extension, one role a member.

The extension takes the user name of the CONNECT packet, not the certificate's. Where it is used
alone, any member can claim another's name: an extension that takes the CN is needed beside it (the
enterprise security extension does), so this is for reading and for that.
"""

from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from edgechoir.broker.federation import Federation
from edgechoir.broker.settings import BrokerSettings

_HEAD: Final = """\
<?xml version="1.0" encoding="UTF-8"?>
<!-- Written by edgechoir for its federation {name}. Changes made here are lost.
     Not tested: written for HiveMQ 4 from its documentation. -->
"""

_CONF: Final = """\
<hivemq>
    <listeners>
        <tls-tcp-listener>
            <port>{port}</port>
            <bind-address>{address}</bind-address>
            <tls>
                <protocols>{protocols}</protocols>
                <!-- Made from server.key, server.crt and ca.crt with openssl and keytool. -->
                <keystore>
                    <path>{place}/server.p12</path>
                    <password>CHANGE_ME</password>
                    <private-key-password>CHANGE_ME</private-key-password>
                </keystore>
                <truststore>
                    <path>{place}/fleet-ca.p12</path>
                    <password>CHANGE_ME</password>
                </truststore>
                <client-authentication-mode>REQUIRED</client-authentication-mode>
            </tls>
        </tls-tcp-listener>
    </listeners>
    <mqtt>
        <packets><max-packet-size>{max_packet}</max-packet-size></packets>
        <receive-maximum><server-receive-maximum>{max_inflight}</server-receive-maximum></receive-maximum>
        <quality-of-service><max-qos>1</max-qos></quality-of-service>
        <queued-messages>
            <max-queue-size>{max_queued}</max-queue-size>
            <strategy>discard</strategy>
        </queued-messages>
        <session-expiry><max-interval>86400</max-interval></session-expiry>
    </mqtt>
    <restrictions>
        <max-connections>{max_connections}</max-connections>
    </restrictions>
</hivemq>
"""


def hivemq_files(settings: BrokerSettings, federation: Federation, place: Path) -> dict[str, str]:
    """File name -> content."""
    head = _HEAD.format(name=federation.name)
    allowed = ("1.3",) if settings.minimum_tls == "1.3" else ("1.3", "1.2")
    conf = _CONF.format(
        address=escape(settings.address),
        port=settings.port,
        protocols="".join(f"<protocol>TLSv{version}</protocol>" for version in allowed),
        place=escape(str(place)),
        max_packet=settings.max_packet,
        max_inflight=settings.max_inflight,
        max_queued=settings.max_queued,
        max_connections=settings.max_connections,
    )
    users, roles = [], []
    for user, grant in sorted(federation.access.grants.items()):
        users.append(f"        <user><name>{user}</name><roles><id>{user}</id></roles></user>")
        permissions = [
            f"<permission><topic>{topic}</topic><activity>{activity}</activity></permission>"
            for activity, topics in (("PUBLISH", grant.write), ("SUBSCRIBE", grant.read))
            for topic in topics
        ]
        listed = "\n                ".join(permissions)
        roles.append(
            f"        <role>\n            <id>{user}</id>\n            <permissions>\n"
            f"                {listed}\n            </permissions>\n        </role>"
        )
    rules = [
        "<file-rbac>",
        "    <users>",
        *users,
        "    </users>",
        "    <roles>",
        *roles,
        "    </roles>",
        "</file-rbac>",
    ]
    return {"config.xml": head + conf, "credentials.xml": head + "\n".join(rules) + "\n"}
