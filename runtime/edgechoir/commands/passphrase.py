"""The passphrase of the CA's key: from a file, from the terminal, or openly none."""

import argparse
import getpass
import sys
from pathlib import Path
from typing import Any


def add(command: Any) -> None:
    """Add the options that say where the passphrase comes from."""
    group = command.add_mutually_exclusive_group()
    group.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="first line is the passphrase"
    )
    group.add_argument(
        "--no-passphrase", action="store_true", help="the key is not encrypted (demo, tests)"
    )


def read(args: argparse.Namespace, *, new: bool = False) -> bytes | None:
    """The passphrase; None for a key that is not encrypted. Raises OperatorError."""
    from edgechoir.errors import OperatorError

    if args.no_passphrase:
        return None
    if args.passphrase_file is not None:
        try:
            lines = args.passphrase_file.read_text().splitlines()
        except OSError as error:
            raise OperatorError(f"{args.passphrase_file}: {error.strerror}") from None
        if not lines or not lines[0]:
            raise OperatorError(f"{args.passphrase_file} holds no passphrase in its first line")
        return str(lines[0]).encode()
    if not sys.stdin.isatty():
        raise OperatorError(
            "the CA's key has a passphrase and there is no terminal to ask at: give "
            "--passphrase-file FILE, or --no-passphrase"
        )
    given = getpass.getpass("Passphrase of the CA's key: ")
    if new and getpass.getpass("Again: ") != given:
        raise OperatorError("the two passphrases differ")
    if not given:
        raise OperatorError("an empty passphrase: use --no-passphrase if that is meant")
    return given.encode()
