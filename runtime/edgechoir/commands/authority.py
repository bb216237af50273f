"""`edgechoir ca`: the fleet's certificate authority, kept apart from every running tier."""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from edgechoir.commands import online, passphrase

TIERS = ["device", "node", "edge-cloud", "cloud", "monitor", "bridge"]


def add(commands: Any) -> None:
    """Add the parser and those of its actions."""
    command = commands.add_parser(
        "ca",
        help="the fleet's certificate authority: make it, sign, serve, list, revoke",
        description="The fleet's certificate authority. Keep its directory off line.",
    )
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)

    init = actions.add_parser("init", help="make the CA", description="Make the fleet's CA.")
    init.add_argument("directory", type=Path, metavar="DIR", help="the CA's directory")
    init.add_argument("--federation", required=True, help="the federation's name")
    init.add_argument("--days", type=int, default=3650, help="how long it is valid (3650)")
    passphrase.add(init)
    init.set_defaults(run=run_init)

    sign = actions.add_parser(
        "sign", help="sign a member's request", description="Take a member into the fleet."
    )
    sign.add_argument("directory", type=Path, metavar="DIR", help="the CA's directory")
    sign.add_argument(
        "request", type=Path, metavar="REQUEST", help="the request that `edgechoir enrol` wrote"
    )
    sign.add_argument("--tier", required=True, choices=TIERS, help="what it may be")
    sign.add_argument("--days", type=int, default=365, help="how long it is valid (365)")
    sign.add_argument("--output", type=Path, help="where to write (beside the request)")
    sign.add_argument("--renew", action="store_true", help="the id may move to another key")
    passphrase.add(sign)
    sign.set_defaults(run=run_sign)

    online.add(actions, TIERS)

    broker = actions.add_parser(
        "broker",
        help="make a broker's folder",
        description="Make the folder with a broker's key, certificate and access list.",
    )
    broker.add_argument("directory", type=Path, metavar="DIR", help="the CA's directory")
    broker.add_argument(
        "--host", action="append", required=True, help="a name or address it answers at; repeat"
    )
    broker.add_argument("--days", type=int, default=365, help="how long it is valid (365)")
    broker.add_argument("--renew", action="store_true", help="replace an earlier one")
    passphrase.add(broker)
    broker.set_defaults(run=run_broker)

    policy = actions.add_parser(
        "policy",
        help="sign the federation's policy",
        description=(
            "Sign the least protection that members accept, whatever an aggregator asks for. "
            "Members enrolled from then on pin it; copy DIRECTORY/policy to the others."
        ),
    )
    policy.add_argument("directory", type=Path, metavar="DIR", help="the CA's directory")
    policy.add_argument("--min-members", type=int, default=2, help="in a sum (2)")
    policy.add_argument("--min-devices", type=int, default=3, help="beneath them in all (3)")
    policy.add_argument(
        "--colluders-one-in",
        type=int,
        default=4,
        metavar="N",
        help="one in N members may collude with the aggregator (4); 0: none",
    )
    policy.add_argument("--max-clip", type=float, default=100.0, help="largest clip (100)")
    policy.add_argument(
        "--cohorts-apart",
        action="store_true",
        help="the root may see the sum of each node beneath it, for rules that leave out bad ones",
    )
    passphrase.add(policy)
    policy.set_defaults(run=run_policy)

    listing = actions.add_parser("list", help="who is in the fleet", description="List members.")
    listing.add_argument("directory", type=Path, metavar="DIR", help="the CA's directory")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=run_list)

    revoke = actions.add_parser(
        "revoke", help="put a member out", description="Put a member out of the fleet."
    )
    revoke.add_argument("directory", type=Path, metavar="DIR", help="the CA's directory")
    revoke.add_argument("member", metavar="MEMBER", help="the member's id")
    passphrase.add(revoke)
    revoke.set_defaults(run=run_revoke)


def run_init(args: argparse.Namespace) -> int:
    """Make the CA."""
    from edgechoir.fleet.authority_dir import init_authority

    secret = passphrase.read(args, new=True)
    init_authority(args.directory, args.federation, time.time(), args.days, os.urandom, secret)
    print(f"CA of {args.federation} made in {args.directory}; keep {args.directory}/ca.key safe")
    return 0


def run_sign(args: argparse.Namespace) -> int:
    """Sign a request and write the certificate."""
    from edgechoir.fleet.authority_dir import sign_request
    from edgechoir.fleet.files import PUBLIC, read_file, write_atomic

    request = read_file(args.request, "make it with `edgechoir enrol`")
    issued = sign_request(
        args.directory,
        request,
        args.tier,
        time.time(),
        args.days,
        os.urandom,
        passphrase.read(args),
        renew=args.renew,
    )
    output = args.output or args.request.with_suffix(".crt")
    write_atomic(output, issued.pem, PUBLIC)
    print(f"{issued}: {output}")
    return 0


def run_broker(args: argparse.Namespace) -> int:
    """Make a broker's folder."""
    from edgechoir.fleet.authority_dir import issue_broker_files

    files = issue_broker_files(
        args.directory,
        args.host,
        time.time(),
        args.days,
        os.urandom,
        passphrase.read(args),
        renew=args.renew,
    )
    print(f"broker's folder: {files}; start it with `edgechoir broker {files}`")
    return 0


def run_policy(args: argparse.Namespace) -> int:
    """Sign the policy."""
    from edgechoir.fleet.policy_file import write_policy
    from edgechoir.identity.policy import Policy

    policy = Policy(
        args.min_members,
        args.min_devices,
        args.colluders_one_in,
        args.max_clip,
        args.cohorts_apart,
    )
    path = write_policy(args.directory, policy, passphrase.read(args))
    print(f"{path} signed: {policy}")
    return 0


def run_list(args: argparse.Namespace) -> int:
    """Print the registry."""
    from edgechoir.fleet.authority_dir import list_members
    from edgechoir.fleet.tokens import open_tokens

    members = list_members(args.directory)
    if args.json:
        print(json.dumps([member.model_dump() for member in members], indent=2))
        return 0
    for member in members:
        print(member)
    for token in open_tokens(args.directory, time.time()):
        print(f"{token.tier}/{token.member} has a token that is open for {_left(token.expires)}")
    print(f"{len(members)} members")
    return 0


def _left(until: float) -> str:
    return f"{max(until - time.time(), 0.0) / 3600:.1f} more hours"


def run_revoke(args: argparse.Namespace) -> int:
    """Put a member out."""
    from edgechoir.fleet.authority_dir import revoke

    record = revoke(args.directory, args.member, time.time(), passphrase.read(args))
    print(f"{record.tier}/{record.member} is revoked; brokers that read this folder refuse it now")
    return 0
