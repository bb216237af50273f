"""What is unsafe or wrong in a mosquitto.conf's listeners: who gets in, and by what.

Defaults are those of mosquitto 2.0 (mosquitto.conf(5)).
"""

from collections.abc import Iterator

from edgechoir.broker.complaint import Complaint
from edgechoir.broker.conf_file import Conf, Section


def check_listener(conf: Conf, listener: Section) -> Iterator[Complaint]:
    """Its door, its certificates and, with websockets, what mosquitto lacks there."""
    yield from _door(conf, listener)
    if listener.get("certfile") or listener.get("keyfile"):
        yield from _certificates(listener)
    else:
        yield _clear_text(listener)


def _door(conf: Conf, listener: Section) -> Iterator[Complaint]:
    anonymous = conf.of_listener(listener, "allow_anonymous")
    if anonymous is not None and anonymous.value == "true":
        yield Complaint(
            "wrong",
            anonymous.where,
            "allow_anonymous true",
            "false",
            "write `allow_anonymous false`",
        )
    rules = conf.of_listener(listener, "acl_file")
    plugin = conf.of_listener(listener, "plugin") or conf.of_listener(listener, "auth_plugin")
    if rules is None and plugin is None:
        yield Complaint(
            "wrong",
            listener.head.where,
            "no acl_file",
            "access rules; without them everyone in may read and write everything",
            "name the ACL that `edgechoir broker generate` writes",
        )
    if plugin is not None:
        yield Complaint(
            "note",
            plugin.where,
            f"{plugin.key} {plugin.value}",
            "rules that can be read here",
            "look at the plugin's own rules; this check cannot",
        )
    if listener.get("use_username_as_clientid") == "true":
        yield Complaint(
            "wrong",
            listener.found("use_username_as_clientid").where,
            "use_username_as_clientid true",
            "false: a member's process and its check-up connect side by side",
            "take the line out",
        )
    connections = listener.found("max_connections")
    if connections.value in ("", "-1", "0"):
        yield Complaint(
            "note",
            connections.where,
            connections.said,
            "a bound on the connections",
            "write `max_connections` for the number of members and some",
        )


def _clear_text(listener: Section) -> Complaint:
    local = listener.head.value.partition(" ")[2].strip() in ("127.0.0.1", "::1", "localhost")
    return Complaint(
        "note" if local else "wrong",
        listener.head.where,
        f"listener {listener.head.value} without TLS",
        "certfile, keyfile and cafile",
        "name the files of the folder that `edgechoir ca broker` made",
    )


def _certificates(listener: Section) -> Iterator[Complaint]:
    by_websockets = listener.get("protocol") == "websockets"
    for key, expected in (
        ("certfile", "the broker's certificate"),
        ("keyfile", "the certificate's key"),
        ("crlfile", "the list of revoked certificates; without it they stay good"),
        ("cafile", "the fleet's CA alone"),
    ):
        option = listener.found(key)
        if not option.value and not (key == "crlfile" and by_websockets):
            yield Complaint(
                "wrong", option.where, f"no {key}", expected, f"name it in a `{key}` line"
            )
    if (path := listener.find("capath")) is not None:
        yield Complaint(
            "wrong",
            path.where,
            f"capath {path.value}",
            "the fleet's CA alone: whoever has a certificate of another in there comes in",
            "use `cafile` with the fleet's ca.crt",
        )
    for key in ("require_certificate", "use_identity_as_username"):
        option = listener.found(key)
        if option.value != "true":
            yield Complaint(
                "wrong",
                option.where,
                option.said,
                {
                    "require_certificate": "true: only members get as far as MQTT",
                    "use_identity_as_username": "true: the certificate says who a client is",
                }[key],
                f"write `{key} true`",
            )
    version = listener.found("tls_version")
    if version.value != "tlsv1.3":
        yield Complaint(
            "note" if version.value in ("", "tlsv1.2") else "wrong",
            version.where,
            version.said,
            "tlsv1.3, which every edgechoir client speaks",
            "write `tls_version tlsv1.3`",
        )
    if by_websockets:
        yield from _websockets(listener)


def _websockets(listener: Section) -> Iterator[Complaint]:
    yield Complaint(
        "note",
        listener.found("protocol").where,
        "a websockets listener",
        "help from outside: mosquitto 2.0.11 takes no notice there of tls_version and address",
        "give it an ACL of monitors alone (per_listener_settings true), set OPENSSL_CONF to a file "
        "with MinProtocol = TLSv1.3, and bound the port with a firewall",
    )
    if (revoked := listener.find("crlfile")) is not None:
        yield Complaint(
            "wrong",
            revoked.where,
            "crlfile in a websockets listener",
            "none: after a SIGHUP mosquitto 2.0.11 crashes at the next client that comes by it",
            "take the line out; the ACL keeps revoked members from everything",
        )
