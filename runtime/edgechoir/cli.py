"""The command line: one parser, one command a file in `commands/`.

A command's module gives `add(commands)`, which adds its parser and sets `run`, a function of the
parsed arguments that returns the exit status. Heavy imports happen inside `run`.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from edgechoir import __version__
from edgechoir.commands import (
    audit,
    authority,
    broker,
    bundle,
    consent,
    demo,
    doctor,
    enrol,
    healthy,
    init,
    model,
    monitor,
    pipeline,
    query,
    report,
    tiers,
)
from edgechoir.errors import ConfigError, EdgechoirError


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; the CLI reference is generated from it."""
    top = argparse.ArgumentParser(
        prog="edgechoir",
        description="Devices that infer in real time and learn together, each voice unheard.",
        epilog="Start with `edgechoir demo`, or see docs/operations.md for a fleet of your own.",
    )
    top.add_argument("--version", action="version", version=f"edgechoir {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    tools = (bundle, model, monitor, report, audit, doctor, healthy, query, consent)
    for command in (demo, init, authority, enrol, broker, tiers, pipeline, *tools):
        command.add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status: 0 good, 1 failed, 2 wrong usage or configuration."""
    given = sys.argv[1:] if arguments is None else arguments
    args = parser().parse_args(broker.with_action(given))
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
