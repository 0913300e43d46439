"""All benchmarks, one table: `make bench` (ten minutes), `make bench-quick` (under one).

What was measured is kept in var/bench.json; `--commit` keeps it in bench/results.json, with which later runs compare
their ratios.
"""

import argparse
from pathlib import Path

import delivery
import endpoint
import latency
import passthrough
from table import keep, moved, show

ROOT = Path(__file__).parent.parent
LATEST = ROOT / "var" / "bench.json"
COMMITTED = Path(__file__).parent / "results.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round: enough to see that it runs")
    parser.add_argument("--commit", action="store_true", help="keep it as what later runs are compared with")
    asked = parser.parse_args()
    rounds, seconds, events = (1, 1, 20_000) if asked.quick else (5, 4, 300_000)
    found = []
    for part in (
        lambda: endpoint.measure(rounds=rounds, seconds=seconds),
        lambda: passthrough.measure(rounds=rounds, seconds=seconds),
        lambda: delivery.measure(rounds=rounds, events=events),
        lambda: latency.measure(seconds=2 if asked.quick else 20),
    ):
        rows = part()
        show(rows)
        print()
        found += rows
    keep(found, LATEST)
    for one in moved(found, COMMITTED):
        print("moved by more than 15 %:", one)
    if asked.commit:
        keep(found, COMMITTED)


if __name__ == "__main__":
    main()
