"""AWS IoT Core: a policy for members, one for monitors, and the limits that topics must keep.

A certificate of the fleet's CA is registered with AWS, and a thing of the member's id attached to
it, with the attribute `tier`. The policy's variables then say who asks:
`${iot:Connection.Thing.ThingName}` is the member's id. A client id must start with it and a dot.

Limits ("AWS IoT Core endpoints and quotas", message broker): a topic of at most 256 bytes and 7
slashes, 128 KB a message, QoS 0 and 1, 8 topics a SUBSCRIBE. The transport keeps to all of them.
"""

import json
from pathlib import Path
from typing import Final

from edgechoir.broker.bridges import HANDED_OUT, ROOT
from edgechoir.broker.federation import Federation
from edgechoir.broker.settings import BrokerSettings
from edgechoir.identity.naming import SPEAKERS

TOPIC_BYTES: Final = 256
SLASHES: Final = 7
PAYLOAD: Final = 131_072
POLICY_BYTES: Final = 2048
"""Of a policy document, without white space."""

_THING: Final = "${iot:Connection.Thing.ThingName}"
_TIER: Final = "${iot:Connection.Thing.Attributes[tier]}"
_ARN: Final = "arn:aws:iot:*:*"

README: Final = """\
# AWS IoT Core for the federation {name}, written by edgechoir.
# Not tested: no account. Its limits are kept to in tests, with a broker that refuses more.

The tiers, each with the same policy: {tiers}. Replace the region and the account in
`arn:aws:iot:*:*` by yours. For each member:

    aws iot create-thing --thing-name MEMBER --thing-type-name edgechoir \\
        --attribute-payload 'attributes={{tier=TIER}}'
    aws iot register-certificate --certificate-pem file://MEMBER.crt \\
        --ca-certificate-pem file://ca.crt --status ACTIVE
    aws iot attach-thing-principal --thing-name MEMBER --principal CERTIFICATE_ARN
    aws iot attach-policy --policy-name edgechoir-member --target CERTIFICATE_ARN

and `edgechoir-monitor` in place of `edgechoir-member` for monitors. Register the fleet's CA first
(`aws iot register-ca-certificate`). To revoke a member, set its certificate to REVOKED.

Members:
{members}
"""


def aws_files(settings: BrokerSettings, federation: Federation, place: Path) -> dict[str, str]:
    """File name -> content."""
    members = sorted(str(member) for member in federation.members if member.tier in SPEAKERS)
    return {
        "edgechoir-member.json": compact(member_policy(federation.name)),
        "edgechoir-monitor.json": compact(monitor_policy(federation.name)),
        "README": README.format(
            name=federation.name,
            tiers=", ".join(SPEAKERS),
            members="\n".join(f"    {member}" for member in members),
        ),
    }


def compact(policy: dict[str, object]) -> str:
    return json.dumps(policy, separators=(",", ":")) + "\n"


def member_policy(federation: str) -> dict[str, object]:
    """One policy for all: the variables make it each member's own. `*` also matches slashes."""
    prefix = f"{ROOT}/{federation}"
    read = [f"*/{channel}/*" for channel in HANDED_OUT]
    read += ["*/status", f"*/up/{_THING}", f"*/down/{_THING}"]
    return _policy(
        _allow("iot:Connect", f"{_ARN}:client/{_THING}.*"),
        _allow(
            ["iot:Publish", "iot:RetainPublish"],
            f"{_ARN}:topic/{prefix}/{_TIER}/{_THING}/*",
        ),
        _allow("iot:Receive", *(f"{_ARN}:topic/{prefix}/{each}" for each in read)),
        _allow("iot:Subscribe", *(f"{_ARN}:topicfilter/{prefix}/{each}" for each in read)),
    )


def monitor_policy(federation: str) -> dict[str, object]:
    prefix = f"{ROOT}/{federation}"
    read = [f"*/{channel}" for channel in ("status", "metrics", "predictions")]
    return _policy(
        _allow("iot:Connect", f"{_ARN}:client/{_THING}.*"),
        _allow("iot:Receive", *(f"{_ARN}:topic/{prefix}/{each}" for each in read)),
        _allow("iot:Subscribe", *(f"{_ARN}:topicfilter/{prefix}/{each}" for each in read)),
    )


def _policy(*statements: dict[str, object]) -> dict[str, object]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(action: str | list[str], *resources: str) -> dict[str, object]:
    attached = {"Bool": {"iot:Connection.Thing.IsAttached": "true"}}
    return {
        "Effect": "Allow",
        "Action": action,
        "Resource": list(resources),
        "Condition": attached,
    }


def beyond_limits(topic: str, payload: int) -> str:
    """What of a message AWS would refuse, or ""."""
    if len(topic.encode()) > TOPIC_BYTES:
        return f"a topic of {len(topic.encode())} bytes, at most {TOPIC_BYTES} are taken"
    if topic.count("/") > SLASHES:
        return f"a topic with {topic.count('/')} slashes, at most {SLASHES} are taken"
    if payload > PAYLOAD:
        return f"a payload of {payload} bytes, at most {PAYLOAD} are taken"
    return ""
