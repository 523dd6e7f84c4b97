"""`make bench`: measure everything here, in one run, and print a table, or JSON with `--json`.

Each bench is a file with `measure(place)`, which returns figures; it is added by one line in BENCHES. Exit code 1 when a goal is
missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time

import cold_starts
import elsewhere
import folders
import images
import links
import machines
import round_trips
import start_ups
from figures import Figure, table
from place import place

BENCHES = {
    "round_trips": round_trips.measure,
    "cold_starts": cold_starts.measure,
    "start_ups": start_ups.measure,
    "links": links.measure,
    "folders": folders.measure,
    "machines": machines.measure,
    "elsewhere": elsewhere.measure,
    "images": images.measure,
}


def main() -> int:
    """Measure what the command line names, by default everything."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure Remora on this machine.")
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=f"of {', '.join(BENCHES)}; by default all of them")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.benches if name not in BENCHES]
    if unknown:
        parser.error(f"there is no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    began = time.monotonic()
    figures: list[Figure] = []
    for name in chosen.benches or BENCHES:
        with place() as here:
            figures += BENCHES[name](here)
    _print(figures, time.monotonic() - began, as_json=chosen.json)
    return 0 if all(figure.kept for figure in figures) else 1


def _print(figures: list[Figure], seconds: float, *, as_json: bool) -> None:
    cores = len(os.sched_getaffinity(0))
    if as_json:
        print(json.dumps({"cores": cores, "seconds": seconds, "figures": [figure.to_dict() for figure in figures]}, indent=2))
        return
    print(table(figures))
    print(f"\n{cores} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}, measured in {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
