"""`python -m edgechoir` is `edgechoir`."""

import sys

from edgechoir.cli import main

sys.exit(main())
