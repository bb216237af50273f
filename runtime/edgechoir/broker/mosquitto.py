"""A mosquitto.conf for a fleet: mutual TLS, the CN as user name, rules from the registry, bounds.

Valid from mosquitto 2.0.11 on. mosquitto rereads the ACL, the CRL and its own certificate on
SIGHUP; a revoked client that is connected at that moment stays connected, but with its section of
the ACL gone it may neither write nor read. Bridges are not read again: a change needs a restart.

Two things mosquitto cannot be told. It hands a session to whoever comes with its client id, even
under another user name: a member that knew another's client id could disconnect it again and
again, so clients must use ids that nobody can guess. (`use_username_as_clientid` would prevent it,
but allows each member one connection only.) And its websockets listener takes no notice of
`tls_version` and of the address, and must have no `crlfile`: with one, SIGHUP frees the TLS context
that libwebsockets goes on using, and the next client ends the broker (2.0.11, seen with valgrind).
So it has an ACL of its own with monitors alone, from which revoked ones are gone, and the oldest
TLS version comes from a file for OpenSSL.
"""

from typing import Final

from edgechoir.broker.access import render_acl
from edgechoir.broker.bridges import render_bridge, session_secret
from edgechoir.broker.federation import Federation
from edgechoir.broker.settings import BrokerSettings
from edgechoir.errors import OperatorError

CONF: Final = "mosquitto.conf"
ACL: Final = "acl"
ACL_OF_MONITORS: Final = "acl.monitors"
OPENSSL: Final = "openssl.cnf"

_HEAD: Final = """\
# mosquitto.conf of an edgechoir broker, written by edgechoir. Changes made here are lost.
# Tested with mosquitto 2.0.11.
"""

_LISTENER: Final = """\
# --- Listener: mutual TLS, nothing else -----------------------------------------------------
listener {port} {address}
cafile {ca}
certfile {certificate}
keyfile {key}
# Certificates that were revoked. Read again on SIGHUP, as are the server's certificate and the ACL.
crlfile {crl}
# The oldest TLS version allowed.
tls_version tlsv{tls}
# Only holders of a certificate of the fleet's CA get as far as MQTT.
require_certificate true
# The certificate's CN (the member id) is the user name: a client cannot claim another.
use_identity_as_username true
max_connections {max_connections}

# --- Access: what has no rule is denied ----------------------------------------------------
allow_anonymous false
acl_file {acl}
"""

_WEBSOCKETS: Final = """\

# --- Websockets: for monitors alone, with certificates too -----------------------------------
# mosquitto 2.0.11 takes no notice here of tls_version and of an address: start it with
# OPENSSL_CONF={openssl} in its environment, as `edgechoir broker
# run` does, and let a firewall bound who reaches the port. A crlfile here would make it crash after
# a SIGHUP; revoked monitors get in and find no rule for them.
listener {port}
protocol websockets
cafile {ca}
certfile {certificate}
keyfile {key}
tls_version tlsv{tls}
require_certificate true
use_identity_as_username true
max_connections {max_connections}
allow_anonymous false
acl_file {acl}
"""

_BOUNDS: Final = """\

# --- Bounds: one slow or hostile client must not use up the machine ------------------------
# What each costs and gains was measured: broker_config/README.md.
# Bulk data travels in chunks of at most 128 KB; nothing larger has a reason to be here.
max_packet_size {max_packet}
# Messages on their way to one client before it acknowledges; more than mosquitto's 20 gains little.
max_inflight_messages {max_inflight}
# What waits for one client beyond that. Whatever does not fit is dropped; the runtime notices by
# its own end-to-end acknowledgement and sends again.
max_queued_messages {max_queued}
max_queued_bytes {max_queued_bytes}
# All of it together: whoever asks for more is disconnected, the others go on.
memory_limit {memory}
# Sessions of clients that never come back.
persistent_client_expiration 1d

# --- Latency: a message leaves at once ------------------------------------------------------
set_tcp_nodelay true

# --- State and log ---------------------------------------------------------------------------
{persistence}
# The broker's own statistics have no reader here.
sys_interval 0
log_dest stderr
log_timestamp false
log_type error
log_type warning
log_type notice
"""

_OPENSSL: Final = """\
# For OPENSSL_CONF of mosquitto: no connection below this version, on any listener.
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
MinProtocol = TLSv{tls}
"""


def mosquitto_files(
    settings: BrokerSettings, federation: Federation, *, place: str, user: str | None
) -> dict[str, str]:
    """File name -> content of all that mosquitto is started with. `place`: where they will lie.

    Raises OperatorError as `render_conf` does, and for a bridge that the folder does not know.
    """
    bridge = ""
    if (upper := settings.upper) is not None:
        known = federation.bridges.get(upper.bridge)
        if known is None:
            raise OperatorError(
                f"the bridge {upper.bridge} is not in {settings.files.directory}/bridges.toml: "
                "name its children there"
            )
        secret = session_secret(upper.identity)
        bridge = render_bridge(known, federation.name, upper, settings.max_packet, secret)
    files = {
        CONF: render_conf(settings, place=place, user=user) + bridge,
        **rules_files(settings, federation),
    }
    if settings.websockets_port is not None:
        files[OPENSSL] = _OPENSSL.format(tls=settings.minimum_tls)
    return files


def rules_files(settings: BrokerSettings, federation: Federation) -> dict[str, str]:
    """File name -> content of the access rules: what changes with the registry."""
    files = {ACL: render_acl(federation.access)}
    if settings.websockets_port is not None:
        files[ACL_OF_MONITORS] = render_acl(federation.monitors)
    return files


def render_conf(settings: BrokerSettings, *, place: str, user: str | None) -> str:
    """The text of mosquitto.conf without bridges. `user`: whom to run as.

    mosquitto started by root becomes the user `mosquitto`, which cannot read the private files of
    a broker's folder again on SIGHUP; name another there. Raises OperatorError for a path that
    cannot stand in the file.
    """
    files = settings.files
    values = {
        "address": settings.address,
        "ca": str(files.ca),
        "certificate": str(files.certificate),
        "key": str(files.key),
        "crl": str(files.crl),
        "place": place,
        "state": str(settings.state),
    }
    for name, value in values.items():
        if not value or not value.isprintable() or value != value.strip():
            raise OperatorError(f"{name} {value!r} cannot stand in mosquitto.conf")
    shared = {
        **values,
        "tls": settings.minimum_tls,
        "max_connections": settings.max_connections,
    }
    listeners = _LISTENER.format(**shared, port=settings.port, acl=f"{place}/{ACL}")
    if settings.websockets_port is not None:
        listeners = "per_listener_settings true\n\n" + listeners
        listeners += _WEBSOCKETS.format(
            **shared,
            port=settings.websockets_port,
            acl=f"{place}/{ACL_OF_MONITORS}",
            openssl=f"{place}/{OPENSSL}",
        )
    bounds = _BOUNDS.format(
        max_packet=settings.max_packet,
        max_inflight=settings.max_inflight,
        max_queued=settings.max_queued,
        max_queued_bytes=settings.max_queued_bytes,
        memory=settings.memory,
        persistence=_persistence(settings, user),
    )
    return f"{_HEAD}\n{listeners}{bounds}"


def _persistence(settings: BrokerSettings, user: str | None) -> str:
    if settings.persistent:
        text = "# Retained messages and queues outlive a restart.\npersistence true\n"
        text += f"persistence_location {settings.state}/\nautosave_interval 60"
    else:
        text = "# Retained messages live in memory; their owners publish them again.\n"
        text += "persistence false"
    return text if user is None else f"user {user}\n{text}"
