# SPDX-License-Identifier: LGPL-2.1-or-later
"""Adds up what `meson test` found in the given build folders.

Single cases are counted, a line of TAP each; a test that doesn't speak TAP is one case. A program
that did not get to its end (no plan, a signal, the time was up) is one more that failed, as is a
folder where no tests ran. Prints the skipped ones with their reasons, the failed ones with their
output, and at last "N passed, N failed[, N skipped]". Exits with 1 if any failed, or none ran.
"""

import json
import os
import re
import sys

RESULT = re.compile(r"(not )?ok\b\s*(\d*)\s*(?:-\s*)?([^#]*?)\s*(?:#\s*(\S+)\s*(.*))?$")
PLAN = re.compile(r"1\.\.(\d+)\s*(?:#\s*skip\S*\s*(.*))?$", re.IGNORECASE)
OUTPUT_LINES = 200  # of a failed program's stderr: the last
EXIT_SKIPPED = 77   # what meson takes for a skip of a program without TAP


class Summary:
    def __init__(self):
        self.passed = 0
        self.failed = []   # (name, lines of output)
        self.skipped = []  # (name, reason)

    def add_tap(self, name, run):
        count, plan, output = 0, None, None
        failed_before = len(self.failed)

        for line in run["stdout"].splitlines():
            result, planned = RESULT.match(line), PLAN.match(line)
            if result:
                failed, _, case, directive, reason = result.groups()
                case, output, count = f"{name}: {case}", None, count + 1
                if failed:
                    output = []
                    self.failed.append((case, output))
                elif (directive or "").lower().startswith("skip"):
                    self.skipped.append((case, reason))
                else:
                    self.passed += 1
            elif planned:
                plan = int(planned[1])
                if plan == 0:
                    self.skipped.append((name, planned[2] or "no reason given"))
            elif output is not None:
                output.append(line)
            elif line.startswith("Bail out!"):
                plan = -1

        # A program whose cases failed may say so in its exit status.
        found_failures = len(self.failed) > failed_before
        ended_well = run["returncode"] == 0 or (run["returncode"] == 1 and found_failures)
        if plan != count or run["result"] == "TIMEOUT" or not ended_well:
            reason = "the time was up" if run["result"] == "TIMEOUT" else \
                f"ended with status {run['returncode']} after {count} of {plan if plan and plan > 0 else '?'} cases"
            self.failed.append((name, [reason] + tail(run)))
        elif found_failures and run.get("stderr"):
            self.failed[-1][1].extend(["stderr of the program:"] + tail(run))

    def add_exit_status(self, name, run):
        if run["returncode"] == 0 and run["result"] != "TIMEOUT":
            self.passed += 1
        elif run["returncode"] == EXIT_SKIPPED:
            self.skipped.append((name, (run["stdout"].splitlines() or ["no reason given"])[-1]))
        else:
            reason = "the time was up" if run["result"] == "TIMEOUT" else f"ended with status {run['returncode']}"
            self.failed.append((name, [reason] + run["stdout"].splitlines() + tail(run)))

    def add_folder(self, folder):
        label = os.path.basename(folder)
        try:
            with open(os.path.join(folder, "meson-info", "intro-tests.json")) as f:
                protocols = {test["name"]: test["protocol"] for test in json.load(f)}
            with open(os.path.join(folder, "meson-logs", "testlog.json")) as f:
                runs = [json.loads(line) for line in f]
        except FileNotFoundError:
            self.failed.append((label, ["no tests ran"]))
            return

        for run in runs:
            # Where a test belongs to suites, meson writes "PROJECT:SUITE / NAME".
            test = run["name"].split(" / ")[-1]
            add = self.add_tap if protocols[test] == "tap" else self.add_exit_status
            add(f"{label}: {test}", run)
        for test in protocols.keys() - {run["name"].split(" / ")[-1] for run in runs}:
            self.failed.append((f"{label}: {test}", ["did not run"]))

    def print(self):
        for name, reason in self.skipped:
            print(f"skipped: {name}: {reason}")
        for name, output in self.failed:
            print(f"FAILED: {name}")
            for line in output:
                print(f"        {line}")
        line = f"{self.passed} passed, {len(self.failed)} failed"
        if self.skipped:
            line += f", {len(self.skipped)} skipped"
        print(line)


def tail(run):
    return run.get("stderr", "").splitlines()[-OUTPUT_LINES:]


def main():
    # A test may print any bytes.
    sys.stdout.reconfigure(errors="backslashreplace")
    summary = Summary()
    for folder in sys.argv[1:]:
        summary.add_folder(folder)
    summary.print()
    return 1 if summary.failed or not summary.passed else 0


if __name__ == "__main__":
    sys.exit(main())
