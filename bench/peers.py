"""Our cluster against other systems, side by side on this machine: prints the table of goals.

    python bench/peers.py                        # everything, some twenty minutes
    python bench/peers.py --goals 1,2,4 --rounds 3 --seconds 2

Programs that are not installed are fetched into .bench/ of the checkout. Everything listens on 127.0.0.1 and is stopped
at the end. A system that cannot be had is a gap with a reason, not a pass. Exit code 0: all goals met.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(root / "src"), str(root)]
    from bench.table import main

    sys.exit(main(sys.argv[1:]))
