"""Give each device of a site its share of handwritten digits, to try the federation out.

    python docker/digits.py [SITE]

Needs the extra `demo`. A device's samples are in `samples.npz` beside its configuration, where the
replay sensor that `edgechoir init` writes looks for them.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from edgechoir.demo.split import digits, shared_out

SITE = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "site"


def main() -> int:
    homes = sorted((SITE / "members").glob("dev-*"))
    if not homes:
        print(f"no devices in {SITE}/members: make them with docker/site.sh", file=sys.stderr)
        return 1
    parts, _ = shared_out(digits(), len(homes), seed=0)
    for home, part in zip(homes, parts, strict=True):
        np.savez(home / "samples.npz", x=part.x, y=part.y)
        owner = home.stat()
        shutil.chown(home / "samples.npz", owner.st_uid, owner.st_gid)
        (home / "samples.npz").chmod(0o600)
        print(f"{home.name}: {len(part.y)} digits")
    return 0


if __name__ == "__main__":
    sys.exit(main())
