"""`python -m retinue` is the same as the `retinue` command."""

import sys

from retinue.cli import main

sys.exit(main())
