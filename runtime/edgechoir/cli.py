"""The command line: one parser, one command a file in `commands/`.

A command's module gives `add(commands)`, which adds its parser and sets `run`, a function of the
parsed arguments that returns the exit status. Heavy imports happen inside `run`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from edgechoir import __version__
from edgechoir.errors import ConfigError, EdgechoirError

COMMANDS: Final = {
    "demo": "demo",
    "bundle": "bundle",
    "ca": "authority",
    "enrol": "enrol",
    "init": "init",
    "doctor": "doctor",
    "broker": "broker",
    "device": "tiers",
    "node": "tiers",
    "edge-cloud": "tiers",
    "cloud": "tiers",
    "monitor": "monitor",
    "report": "report",
    "model": "model",
    "query": "query",
    "tune": "tune",
    "consent": "consent",
    "pipeline": "pipeline",
    "audit": "audit",
    "healthy": "healthy",
}
"""Each command's module in `commands/`, in the order in which a fleet needs them."""


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of the whole command line; the CLI reference is generated from it.

    Where `command` is one of `COMMANDS`, it knows that one alone: a process that runs for months
    need not hold the others.
    """
    top = argparse.ArgumentParser(
        prog="edgechoir",
        description="Devices that infer in real time and learn together, each voice unheard.",
        epilog="Start with `edgechoir demo`, or see docs/operations.md for a fleet of your own.",
    )
    top.add_argument("--version", action="version", version=f"edgechoir {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    modules = [COMMANDS[command]] if command in COMMANDS else COMMANDS.values()
    for name in dict.fromkeys(modules):
        import_module(f"edgechoir.commands.{name}").add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status: 0 good, 1 failed, 2 wrong usage or configuration."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["broker"]:
        from edgechoir.commands.broker import with_action

        given = with_action(given)
    args = parser(given[0] if given else None).parse_args(given)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except ConfigError as error:
        print(f"edgechoir: {error}", file=sys.stderr)
        return 2
    except EdgechoirError as error:
        print(f"edgechoir: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        # What is still buffered goes nowhere, or the interpreter would complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
