"""Detection on public recordings, through `fieldlab replay`, and ns a value beside peers. Prints JSON.

    python -m benchmarks.analytics [--data DIR] [--only skab|tep|cnc|speed|engine]

DIR holds `skab/<group>/*.csv` (github.com/waico/SKAB) and `tep/d00.dat`, `d00_te.dat`, … (github.com/camaramm/
tennessee-eastman-profBraatz); without it only the speed is measured. Settings are the defaults of the charts;
each chart learns from the first rows alone. The form of CVA (three lags, a statistic with memory) was chosen while its
results on these Tennessee Eastman faults were seen: judge it by other faults.
"""

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the recordings")
    parser.add_argument("--only", choices=["skab", "tep", "cnc", "speed", "engine"])
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for name, folder in (("skab", "skab"), ("tep", "tep"), ("cnc", "cnc_mill_umich")):
        if arguments.only in (None, name):
            there = arguments.data is not None and (arguments.data / folder).is_dir()
            measure = import_module(f"benchmarks.analytics.{name}").measure
            found[name] = measure(arguments.data / folder) if there else f"skipped: give --data with {folder}/"
    if arguments.only in (None, "speed"):
        found["speed"] = import_module("benchmarks.analytics.speed").measure()
    if arguments.only in (None, "engine"):
        found["engine"] = import_module("benchmarks.analytics.engine").measure()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
