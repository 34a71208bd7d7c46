"""`make bench`: ratios against peers and against bare ssh, all in one run on one mini-cluster.

No figure here is a test: seconds depend on the machine, ratios of one run say something.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import converge, environments, keepalive, layers, run, stages  # noqa: E402
from benchmarks.measure import Bench  # noqa: E402

SUITES: dict[str, Callable[[Bench], Iterable[str]]] = {
    "converge": converge.rows,
    "environments": environments.rows,
    "keepalive": keepalive.rows,
    "layers": layers.rows,
    "run": run.rows,
    "stages": stages.rows,
}


def main() -> int:
    """Run the suites and print their tables."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--peers", choices=("yes", "no"), default="yes")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("suites", nargs="*", default=list(SUITES))
    options = parser.parse_args()
    with Bench(peers=options.peers == "yes", runs=options.runs) as bench:
        for name in options.suites:
            for line in SUITES[name](bench):
                print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
