"""L1 against its peers in one run: time per operation, bytes per entry, stalls while growing.

python bench/bench_l1.py [--entries 1e4,1e6] [--operations hit,insert] [--peers lru-dict,cachebox] [--full]
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from l1.cli import main

    sys.exit(main())
