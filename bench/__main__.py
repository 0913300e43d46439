"""All benchmarks, one table: `make bench` (a quarter of an hour), `make bench-quick` (under a minute).

What was measured is kept in var/bench.json; `--commit` keeps it in bench/results.json, with which later runs compare
their ratios. Parts may be named, and only they are measured anew: `.venv/bin/python bench endpoint growth`.
"""

import argparse
import threading
import time
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import consume
import delivery
import endpoint
import enrichment
import footprint
import growth
import latency
import newcomers
import passthrough
import steps
import two
from shared import QUICK, WHOLE, Shared
from table import keep, kept, moved, show

ROOT = Path(__file__).parent.parent
LATEST = ROOT / "var" / "bench.json"
COMMITTED = Path(__file__).parent / "results.json"
PARTS = {
    part.__name__: part.measure
    for part in (
        *(steps, enrichment, endpoint, newcomers, two, passthrough),
        *(delivery, latency, footprint, growth, consume),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="one short round: enough to see that it runs")
    parser.add_argument("--commit", action="store_true", help="keep it as what later runs are compared with")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}")
    found = {}
    with ExitStack() as stack:
        shared = Shared(stack, QUICK if asked.quick else WHOLE)
        if asked.quick and not asked.parts:
            # Its figures tell nothing: Kafka may start beside the first parts.
            threading.Thread(target=lambda: shared.kafka).start()
        for name in asked.parts or PARTS:
            began = time.monotonic()
            found[name] = PARTS[name](shared)
            print(f"\n{name} ({time.monotonic() - began:.0f} s)")
            show(found[name])
    if asked.quick:  # one round of a second is not worth comparing
        keep(found, LATEST.with_name("bench-quick.json"))
        return
    keep(found, LATEST)
    if asked.commit:
        keep(found, COMMITTED)
    elif COMMITTED.exists():
        for one in moved(chain(*found.values()), chain(*kept(COMMITTED).values())):
            print("moved by more than 15 %:", one)


if __name__ == "__main__":
    main()
