"""Compares a report of the conformance suite with the committed expectation.

Usage: compare.py INDEX EXPECTED check|check-quick|update

INDEX is the suite's index.json with a single agent; EXPECTED maps each case to
"behavior/behaviorClose". `check-quick` leaves out sections 9, 12 and 13. Exit 1 on any difference, and on any
result that is not OK or informational whatever is expected: `update` cannot make a fault pass.
Runs on Python 2.7 and 3.
"""

from __future__ import print_function

import collections
import io
import json
import sys

GOOD = ("OK", "INFORMATIONAL")
# The sections that take minutes.
LONG = ("9", "12", "13")


def natural(case):
    return [int(part) for part in case.split(".")]


def read_results(path):
    with io.open(path, encoding="utf-8") as file:
        agents = json.load(file)
    (cases,) = agents.values()
    return {
        case: "{}/{}".format(result["behavior"], result["behaviorClose"])
        for case, result in cases.items()
    }


def is_good(result):
    return all(part in GOOD for part in result.split("/"))


def write_expected(path, results):
    ordered = collections.OrderedDict((case, results[case]) for case in sorted(results, key=natural))
    text = json.dumps(ordered, indent=2, separators=(",", ": "))
    with io.open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(u"{}\n".format(text))


def read_expected(path, quick):
    with io.open(path, encoding="utf-8") as file:
        expected = json.load(file)
    return {
        case: result
        for case, result in expected.items()
        if not (quick and case.split(".")[0] in LONG)
    }


def main(index, expected_path, mode):
    results = read_results(index)
    if mode == "update":
        expected = results
    else:
        expected = read_expected(expected_path, mode == "check-quick")
    failed = 0
    for case in sorted(set(results) | set(expected), key=natural):
        result = results.get(case, "not run")
        wanted = expected.get(case, "not expected")
        if not is_good(result):
            failed += 1
            print("{}: {}, must be OK or informational".format(case, result))
        elif result != wanted:
            failed += 1
            print("{}: {}, expected {}".format(case, result, wanted))
    if mode == "update" and not failed:
        write_expected(expected_path, results)
        print("wrote {}".format(expected_path))
    print("{} passed, {} failed".format(len(set(results) | set(expected)) - failed, failed))
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
