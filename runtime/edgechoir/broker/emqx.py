"""EMQX 5: emqx.conf with mutual TLS and the CN as user name, and its file of rules (acl.conf)."""

from pathlib import Path
from typing import Final

from edgechoir.broker.federation import Federation
from edgechoir.broker.settings import BrokerSettings

_CONF: Final = """\
# emqx.conf of an edgechoir broker, written by edgechoir. Changes made here are lost.
# Not tested: written for EMQX 5 from its documentation.

listeners.tcp.default.enable = false
listeners.ws.default.enable = false
listeners.wss.default.enable = false
listeners.ssl.default {{
  bind = "{address}:{port}"
  max_connections = {max_connections}
  ssl_options {{
    cacertfile = "{ca}"
    certfile = "{certificate}"
    keyfile = "{key}"
    verify = verify_peer
    fail_if_no_peer_cert = true
    versions = [{versions}]
  }}
}}
mqtt {{
  # The certificate's CN (the member id) is the user name: a client cannot claim another.
  peer_cert_as_username = cn
  max_packet_size = {max_packet}B
  max_inflight = {max_inflight}
  max_mqueue_len = {max_queued}
  max_topic_levels = 8
  max_qos_allowed = 1
  session_expiry_interval = 1d
  retain_available = true
}}
retainer.enable = true
# No password: the TLS handshake has said who it is. The list of revoked certificates is not here:
# their rules are gone from acl.conf; a client without rules may do nothing.
authentication = []
authorization {{
  no_match = deny
  deny_action = disconnect
  cache.enable = false
  sources = [{{ type = file, enable = true, path = "{place}/acl.conf" }}]
}}
"""


def emqx_files(settings: BrokerSettings, federation: Federation, place: Path) -> dict[str, str]:
    """File name -> content. `place`: where acl.conf will lie."""
    files = settings.files
    versions = ["tlsv1.3"] if settings.minimum_tls == "1.3" else ["tlsv1.3", "tlsv1.2"]
    conf = _CONF.format(
        address=settings.address,
        port=settings.port,
        max_connections=settings.max_connections,
        ca=files.ca,
        certificate=files.certificate,
        key=files.key,
        versions=", ".join(f'"{version}"' for version in versions),
        max_packet=settings.max_packet,
        max_inflight=settings.max_inflight,
        max_queued=settings.max_queued,
        place=place,
    )
    rules = [
        "%% Rules of an edgechoir federation, written by edgechoir. Changes made here are lost.",
        "%% Not tested: written for EMQX 5 from its documentation.",
    ]
    for user, grant in sorted(federation.access.grants.items()):
        for action, topics in (("publish", grant.write), ("subscribe", grant.read)):
            if topics:
                listed = ", ".join(f'"{topic}"' for topic in topics)
                rules.append(f'{{allow, {{username, "{user}"}}, {action}, [{listed}]}}.')
    rules.append("{deny, all}.")
    return {"emqx.conf": conf, "acl.conf": "\n".join(rules) + "\n"}
