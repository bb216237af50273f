"""`edgechoir enrol`: give a member its identity; its key never leaves its directory."""

import argparse
import os
import time
from pathlib import Path
from typing import Any

from edgechoir.commands import passphrase
from edgechoir.commands.authority import TIERS


def add(commands: Any) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "enrol",
        help="give a member its key and certificate",
        description=(
            "Give a member its identity. With --token it enrols itself over the network. Without, "
            "make its key and a request for the CA; with --ca, where the CA is on this machine, "
            "sign and install in one go; with --certificate install what the CA signed. With "
            "--renew get the next certificate in time."
        ),
    )
    command.add_argument(
        "directory", type=Path, metavar="DIR", help="the member's identity directory"
    )
    command.add_argument("--federation", help="the federation's name")
    command.add_argument("--tier", choices=TIERS, help="what the member is")
    command.add_argument("--member", help="the member's id")
    command.add_argument("--ca", type=Path, metavar="DIR", help="the CA's directory, if it is here")
    command.add_argument("--days", type=int, default=365, help="with --ca: how long it is valid")
    command.add_argument("--certificate", type=Path, metavar="FILE", help="what the CA signed")
    command.add_argument("--ca-certificate", type=Path, metavar="FILE", help="the CA's ca.crt")
    command.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="the policy that the CA signed, to be pinned",
    )
    command.add_argument(
        "--token", metavar="TOKEN", help="what `edgechoir ca token` printed; @FILE reads it"
    )
    command.add_argument(
        "--renew", action="store_true", help="ask the enrolment endpoint for the next certificate"
    )
    command.add_argument(
        "--new-key",
        action="store_true",
        help="with --renew: for another key; stop the member first",
    )
    command.add_argument("--url", help="the enrolment endpoint (the one in the token)")
    passphrase.add(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Request, or install, or both."""
    from edgechoir.errors import OperatorError
    from edgechoir.fleet.enrolment import install_certificate, make_request
    from edgechoir.fleet.files import read_file

    now = time.time()
    if args.new_key and not args.renew:
        raise OperatorError("--new-key goes with --renew")
    if args.token is not None and args.renew:
        raise OperatorError("give --token to enrol or --renew to renew, not both")
    if args.token is not None:
        return _by_token(args)
    if args.renew:
        return _renew(args)
    if args.certificate is not None:
        if args.ca_certificate is None:
            raise OperatorError("to install a certificate, name the CA's with --ca-certificate")
        installed = install_certificate(
            args.directory,
            read_file(args.certificate, "get it from the CA"),
            read_file(args.ca_certificate, "get it from the CA"),
            now,
        )
        _pin(args.directory, args.policy)
        print(f"{installed.address} is enrolled in {args.directory}")
        return 0
    names = {"--federation": args.federation, "--tier": args.tier, "--member": args.member}
    missing = [option for option, value in names.items() if value is None]
    if missing:
        raise OperatorError(f"to make a request, give {', '.join(missing)}")
    request = make_request(args.directory, args.federation, args.member, args.tier, os.urandom)
    if args.ca is None:
        print(
            f"{request} written. On the CA's machine: edgechoir ca sign DIR {request.name} "
            f"--tier {args.tier}; then here: edgechoir enrol {args.directory} "
            "--certificate FILE --ca-certificate FILE"
        )
        return 0
    from edgechoir.fleet.authority_dir import sign_request
    from edgechoir.fleet.policy_file import NAME

    issued = sign_request(
        args.ca,
        read_file(request, ""),
        args.tier,
        now,
        args.days,
        os.urandom,
        passphrase.read(args),
    )
    install_certificate(args.directory, issued.pem, read_file(args.ca / "ca.crt", ""), now)
    beside = args.ca / NAME
    _pin(args.directory, args.policy or (beside if beside.exists() else None))
    print(f"{issued}: enrolled in {args.directory}")
    return 0


def _by_token(args: argparse.Namespace) -> int:
    """Make the key here, and have the enrolment endpoint sign for it."""
    import asyncio

    from edgechoir.errors import OperatorError
    from edgechoir.fleet import enrolment_client as client
    from edgechoir.fleet.enrolment import MemberPaths, make_request
    from edgechoir.fleet.files import PUBLIC, read_file, write_atomic
    from edgechoir.fleet.tokens import read_token

    text = args.token
    if text.startswith("@"):
        text = read_file(Path(text[1:]), "write the token to it").decode(errors="replace")
    token = read_token(text)
    url = args.url or token.url
    for option, asked, given in (
        ("--federation", args.federation, token.federation),
        ("--tier", args.tier, token.tier),
        ("--member", args.member, token.member),
    ):
        if asked not in (None, given):
            raise OperatorError(f"{option} {asked}: the token is for {given}")
    names = (token.federation, token.member, token.tier)

    async def ask() -> client.Answer:
        root = await client.fetch_root(token, url)
        request = make_request(args.directory, *names, os.urandom)
        return await client.enrol(token, url, root, read_file(request, ""), time.time())

    certificate = client.take(args.directory, asyncio.run(ask()), time.time())
    write_atomic(MemberPaths(args.directory).url, url.encode() + b"\n", PUBLIC)
    print(f"{certificate.address} is enrolled in {args.directory}")
    above = f" --parent {token.parent}" if token.parent else ""
    print(
        f"next: edgechoir init {token.tier} {token.member} --federation {token.federation}{above}"
    )
    return 0


def _renew(args: argparse.Namespace) -> int:
    """Get the next certificate."""
    import asyncio

    from edgechoir.errors import OperatorError
    from edgechoir.fleet import enrolment_client as client
    from edgechoir.fleet.enrolment import endpoint_of, load_member, make_renewal

    now = time.time()
    member = load_member(args.directory, now)
    url = endpoint_of(args.directory, args.url)
    if url is None:
        raise OperatorError("nobody has said where to renew: give --url https://HOST:8884")
    request = make_renewal(args.directory, os.urandom, new_key_too=args.new_key)
    answer = asyncio.run(client.renew(member, url, request, now))
    certificate = client.take(args.directory, answer, now)
    until = time.strftime("%Y-%m-%d", time.gmtime(certificate.not_after))
    if certificate == member.certificate:
        print(f"{certificate.address} has its newest certificate already, valid until {until}")
    else:
        print(f"{certificate.address} has a new certificate, valid until {until}")
    return 0


def _pin(directory: Path, policy: Path | None) -> None:
    """Pin the policy, if there is one; the built-in one holds otherwise."""
    from edgechoir.fleet.enrolment import load_member
    from edgechoir.fleet.files import read_file
    from edgechoir.fleet.policy_file import pin_policy

    if policy is not None:
        root = load_member(directory, time.time()).root
        pin_policy(directory, read_file(policy, "get it from the CA"), root)
