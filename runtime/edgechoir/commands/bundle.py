"""`edgechoir bundle`: build a model bundle from a torch module, or check one."""

import argparse
import json
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the parser and those of its actions."""
    command = commands.add_parser(
        "bundle",
        help="build and check model bundles",
        description="A bundle is a model as data: manifest, training graph, ONNX and parameters.",
    )
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)
    build = actions.add_parser(
        "build",
        help="make one of a torch module in a Python file",
        description="Build a bundle from a torch module.",
    )
    build.add_argument(
        "model", type=Path, metavar="MODEL.py", help="the Python file that defines the model"
    )
    build.add_argument("output", type=Path, metavar="OUT", help="the directory to write")
    build.add_argument("--seed", type=int, default=0, help="of the first parameters (0)")
    build.add_argument(
        "--int8",
        action="store_true",
        help="answer with dense layers in 8 bits, less exactly; training stays float32",
    )
    build.set_defaults(run=run_build)
    trees = actions.add_parser(
        "trees",
        help="make one of trees, for the rule trees",
        description="Build a bundle of trees that say nothing yet; the rule trees grows them.",
    )
    trees.add_argument("output", type=Path, metavar="OUT", help="the directory to write")
    trees.add_argument("--name", default="trees", help="of the model (trees)")
    trees.add_argument("--columns", type=int, required=True, metavar="N", help="of a sample")
    trees.add_argument(
        "--outputs", required=True, metavar="A,B", help="names of the classes, or of the quantities"
    )
    trees.add_argument(
        "--regression", action="store_true", help="the outputs are quantities, no classes"
    )
    trees.add_argument("--trees", type=int, default=100, metavar="N", help="how many (100)")
    trees.add_argument("--depth", type=int, default=4, metavar="N", help="of each (4)")
    trees.set_defaults(run=run_trees)
    verify = actions.add_parser(
        "verify", help="check a bundle", description="Check everything about a bundle."
    )
    verify.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's directory")
    verify.add_argument("--json", action="store_true", help="print its manifest as JSON")
    verify.set_defaults(run=run_verify)
    show = actions.add_parser(
        "show",
        help="say what a bundle is",
        description="Inputs, outputs, operators and every parameter of a bundle.",
    )
    show.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's directory")
    show.set_defaults(run=run_show)
    diff = actions.add_parser(
        "diff",
        help="say in what two bundles differ",
        description="In what two bundles differ, the first one's side first. The exit status is 1 "
        "where they do.",
    )
    diff.add_argument("one", type=Path, metavar="BUNDLE", help="a bundle's directory")
    diff.add_argument("other", type=Path, metavar="OTHER", help="another's")
    diff.set_defaults(run=run_diff)


def run_build(args: argparse.Namespace) -> int:
    """Build it."""
    from edgechoir.bundle.build import build_bundle

    bundle = build_bundle(args.model, args.output, args.seed, int8=args.int8)
    print(f"{args.output}: {bundle.manifest.name}, {bundle.manifest.size} parameters")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Check it and say what it is."""
    from edgechoir.bundle.load import load_bundle
    from edgechoir.bundle.view import shown

    for line in shown(load_bundle(args.bundle)):
        print(line)
    return 0


def run_diff(args: argparse.Namespace) -> int:
    """Check both and compare them."""
    from edgechoir.bundle.load import load_bundle
    from edgechoir.bundle.view import differences

    found = list(differences(load_bundle(args.one), load_bundle(args.other)))
    for line in found:
        print(line)
    if not found:
        print("the same model")
    return 1 if found else 0


def run_trees(args: argparse.Namespace) -> int:
    """Build a forest."""
    from edgechoir.bundle.trees import build_trees

    bundle = build_trees(
        args.output,
        args.name,
        "regression" if args.regression else "classification",
        args.columns,
        tuple(args.outputs.split(",")),
        args.trees,
        args.depth,
    )
    print(
        f"{args.output}: {args.trees} trees of depth {args.depth}, {bundle.manifest.size} numbers"
    )
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Load it, which checks it."""
    from edgechoir.bundle.load import load_bundle

    bundle = load_bundle(args.bundle)
    if args.json:
        print(json.dumps(json.loads(bundle.manifest.to_json()), indent=2))
    else:
        manifest = bundle.manifest
        print(
            f"{args.bundle}: sound. {manifest.name}, {manifest.task}, {manifest.size} parameters, "
            f"inputs {list(manifest.input_shape)}, {len(manifest.outputs)} outputs"
            + (f", {manifest.size - manifest.shared} of them personal" if manifest.personal else "")
        )
    return 0
