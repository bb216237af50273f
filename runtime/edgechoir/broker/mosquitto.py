"""A mosquitto.conf for a fleet: mutual TLS, the CN as user name, rules from the registry, bounds.

Valid from mosquitto 2.0.11 on. mosquitto rereads the ACL, the CRL and its own certificate on
SIGHUP; a revoked client that is connected at that moment stays connected, but with its section of
the ACL gone it may neither write nor read.

One thing mosquitto cannot be told: it hands a session to whoever comes with its client id, even
under another user name. A member that knew another's client id could disconnect it again and
again; so clients must use ids that nobody can guess. (`use_username_as_clientid` would prevent it,
but allows each member one connection only.)
"""

from edgechoir.broker.settings import BrokerSettings
from edgechoir.errors import OperatorError

_TEMPLATE = """\
# mosquitto.conf of an edgechoir broker, written by edgechoir. Changes made here are lost.

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

# --- Bounds: one slow or hostile client must not use up the machine ------------------------
# Bulk data travels in chunks of at most 128 KB; nothing larger has a reason to be here.
max_packet_size {max_packet}
# Messages on their way to one client before it acknowledges; more than mosquitto's 20 gains little.
max_inflight_messages {max_inflight}
# What waits for one client beyond that. Whatever does not fit is dropped; the runtime notices by
# its own end-to-end acknowledgement and sends again.
max_queued_messages {max_queued}
max_queued_bytes {max_queued_bytes}
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


def render_conf(settings: BrokerSettings, *, acl: str, user: str | None) -> str:
    """The text of mosquitto.conf. `acl`: path of the ACL file. `user`: whom to run as.

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
        "acl": acl,
        "state": str(settings.state),
    }
    for name, value in values.items():
        if not value or not value.isprintable() or value != value.strip():
            raise OperatorError(f"{name} {value!r} cannot stand in mosquitto.conf")
    persistence = "# Retained messages live in memory; their owners publish them again.\n"
    persistence += "persistence false"
    if settings.persistent:
        persistence = "# Retained messages and queues outlive a restart.\npersistence true\n"
        persistence += f"persistence_location {settings.state}/\nautosave_interval 60"
    if user is not None:
        persistence = f"user {user}\n{persistence}"
    return _TEMPLATE.format(
        **values,
        port=settings.port,
        tls=settings.minimum_tls,
        max_connections=settings.max_connections,
        max_packet=settings.max_packet,
        max_inflight=settings.max_inflight,
        max_queued=settings.max_queued,
        max_queued_bytes=settings.max_queued_bytes,
        persistence=persistence,
    )
