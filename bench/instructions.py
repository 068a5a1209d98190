# SPDX-License-Identifier: LGPL-2.1-or-later
"""How many instructions the daemon's hot paths take for an event, compared with those recorded.

    instructions.py [--record] PROGRAM RECORD BUILD [REASON]

PROGRAM is bench-instructions, which has the paths; each is run under valgrind's callgrind. RECORD is the JSON file with
the figures for each BUILD: compilers differ, so there is nothing to compare with for a build that was never recorded.
Prints TAP; a path that takes a tenth more fails. With REASON, without valgrind or without a record each path is
skipped, with the reason. --record writes the figures of this build into RECORD, and compares nothing.
"""

import json
import os
import re
import shutil
import subprocess
import sys

TOLERANCE = 0.10
TIMEOUT_SEC = 300
# What is asked for by getenv(3), and MALLOC_PERTURB_, which meson sets, count too.
ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def list_paths(program):
    """(name, events) of each."""
    lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
    return [(line.split()[0], int(line.split()[1])) for line in lines]


def count(program, name):
    """The instructions of one run."""
    run = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no",
                          "--toggle-collect=counted*", program, name],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_SEC, check=False,
                         env=ENVIRONMENT)
    collected = re.search(r"Collected\s*:\s*(\d+)", run.stdout)
    if run.returncode != 0 or not collected or int(collected[1]) == 0:
        raise RuntimeError(f"{name} ended with status {run.returncode}:\n{run.stdout}")
    return int(collected[1])


def read_record(path):
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def record_all(program, path, build):
    record = read_record(path)
    record[build] = {name: round(count(program, name) / events) for name, events in list_paths(program)}
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(record, file, indent=4, sort_keys=True)
        file.write("\n")
    os.replace(path + ".new", path)
    for name, figure in record[build].items():
        print(f"{name:12} {figure:8} instructions an event")


def compare(number, name, figure, recorded):
    """Prints one line of TAP. Whether it is well."""
    more = figure / recorded - 1
    well = more < TOLERANCE
    print(f"{'ok' if well else 'not ok'} {number} - {name}: {figure:.0f} instructions an event ({recorded} recorded; "
          f"{more:+.1%})")
    if more < -TOLERANCE:
        print(f"# {name} takes fewer than it did: ninja record-instructions keeps it so")
    return well


def compare_all(program, path, build, reason):
    recorded = read_record(path).get(build)
    paths = list_paths(program)
    failed = 0

    if not reason and not shutil.which("valgrind"):
        reason = "valgrind is not there"
    if not reason and recorded is None:
        reason = f"nothing is recorded for {build}: ninja record-instructions does that"
    print(f"1..{len(paths)}")
    for number, (name, events) in enumerate(paths, 1):
        if reason or name not in recorded:
            print(f"ok {number} - {name} # SKIP {reason or 'it is not recorded: ninja record-instructions does that'}")
            continue
        try:
            failed += not compare(number, name, count(program, name) / events, recorded[name])
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"not ok {number} - {name}")
            print("\n".join("# " + line for line in str(error).splitlines()))
            failed += 1
        sys.stdout.flush()
    return 1 if failed else 0


def main(arguments):
    record = arguments[:1] == ["--record"]
    program, path, build, *rest = arguments[record:]
    if not record:
        return compare_all(program, path, build, rest[0] if rest else "")
    if rest and rest[0]:
        print(rest[0], file=sys.stderr)
        return 1
    record_all(program, path, build)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
