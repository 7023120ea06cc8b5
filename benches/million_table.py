#!/usr/bin/env python3
"""Prints the results of benches/million.sh as a table in Markdown.

usage: benches/million_table.py DIR...

Each directory has the report, the samples and the kernel's object counts of one number of members.
The exit code is 1 if one of them is not complete, or has a failure.
"""

import json
import pathlib
import sys

FAILURES = ("lost", "duplicated", "out_of_order", "corrupt", "cut", "refused")

# A kind of object of which a connection has one at each end.
BOTH_ENDS = 1.9


class Result:
    """What was measured with one number of members."""

    def __init__(self, folder):
        self.report = json.loads((folder / "report.json").read_text())
        self.kernel, memory = (folder / "finished").read_text().split()
        self.machine_mib = int(memory)
        self.peak = 1024 * int((folder / "peak").read_text().split()[1])
        lines = (folder / "samples").read_text().splitlines()
        self.samples = [tuple(map(int, line.split())) for line in lines]
        self.members = self.report["members"]
        self.server = self.report["server"]
        self.objects = self.read_objects(folder)

    def read_objects(self, folder):
        """For each kind of kernel object: how many of them a member has, and the bytes of one."""
        before, after = (slabs(folder / f"slabs.{when}") for when in ("before", "after"))
        found = {}
        for name, (count, size) in after.items():
            each = (count - before.get(name, (0, size))[0]) / self.members
            if each > 0.01:
                found[name] = (each, size)
        return found

    def server_end(self):
        """The kernel objects of the server's end of a connection: names with bytes."""
        return {name: each / 2 * size for name, (each, size) in self.objects.items() if each > BOTH_ENDS}

    def both_ends(self):
        return sum(each * size for each, size in self.objects.values())

    def whole_machine(self):
        """All memory that a member took of the machine, with the load tool's own."""
        full = [free for members, _, _, free in self.samples if members >= self.members]
        return 1024 * (self.samples[0][3] - full[0]) / self.members

    def growth(self):
        """The relay's memory for a member at each tenth of the way: the least and the most."""
        start = self.server["rss_at_start_bytes"]
        steps = {}
        for members, resident, _, _ in self.samples:
            tenth = 10 * members // self.members
            if tenth >= 1:
                steps.setdefault(tenth, (1024 * resident - start) / members)
        return min(steps.values()), max(steps.values())

    def failures(self):
        return sum(self.report[failure] for failure in FAILURES)


def slabs(path):
    """The active objects, and the bytes of one, by the names of slabinfo(5)."""
    rows = [line.split() for line in path.read_text().splitlines()[2:]]
    return {row[0]: (int(row[1]), int(row[3])) for row in rows}


def mib(count):
    return f"{count / 2**20:,.1f} MiB"


def seconds(count):
    return f"{count:,.2f} s" if count < 10 else f"{count:,.0f} s"


def rows(results):
    def row(label, cell):
        return [label, *(cell(result) for result in results)]

    def deliveries_cpu(result):
        return result.server["cpu_ns_per_delivery"] * result.report["deliveries"] / 1e9

    yield row("members", lambda result: f"{result.members:,}")
    yield row("relay, memory at start", lambda result: mib(result.server["rss_at_start_bytes"]))
    yield row("relay, memory with all members", lambda result: mib(result.server["rss_bytes"]))
    yield row("relay, peak since its start", lambda result: mib(result.peak))
    yield row("relay, a member", lambda result: f"{result.server['bytes_per_member']:,.0f} B")
    yield row("… at each tenth of the way", lambda result: "{:,.0f}–{:,.0f} B".format(*result.growth()))
    yield row("kernel, server's end of a member", lambda result: f"{sum(result.server_end().values()):,.0f} B")
    yield row("kernel, both ends", lambda result: f"{result.both_ends():,.0f} B")
    yield row("whole machine with the load tool, a member", lambda result: f"{result.whole_machine():,.0f} B")
    yield row(
        "connected in",
        lambda result: seconds(result.members / result.report["connects_per_second"]),
    )
    yield row("relay, CPU to accept one", lambda result: f"{result.server['cpu_us_per_connect']:,.0f} µs")
    yield row("relay, wake-ups while silent", lambda result: f"{result.server['idle_wakeups']:,}")
    yield row("received one message", lambda result: f"{result.report['deliveries']:,}")
    yield row("… the last after", lambda result: seconds(result.report["latency_us"]["max"] / 1e6))
    yield row("… with CPU of the relay", lambda result: seconds(deliveries_cpu(result)))
    yield row("lost, duplicated, altered, cut, …", lambda result: f"{result.failures():,}")


def table(lines):
    head, *rest = lines
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in (head, None, *rest):
        if line is None:
            cells = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
        else:
            cells = [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]
        print("| " + " | ".join(cells) + " |")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__.split("\n\n")[1])
    results, incomplete = [], []
    for folder in map(pathlib.Path, sys.argv[1:]):
        try:
            results.append(Result(folder))
        except (OSError, KeyError, ValueError) as error:
            incomplete.append(f"{folder.name} members: no result: {error}")
    if results:
        table(list(rows(results)))
        last = results[-1]
        parts = ", ".join(f"{name} {size:,.0f}" for name, size in sorted(last.server_end().items()))
        print(f"\nServer's end in the kernel, in bytes: {parts}.")
        print(f"Linux {last.kernel} under User-mode Linux, one core, {last.report['started'][:10]}.")
    for line in incomplete:
        print(f"million_table.py: {line}", file=sys.stderr)
    if incomplete or any(result.failures() for result in results):
        sys.exit(1)


main()
