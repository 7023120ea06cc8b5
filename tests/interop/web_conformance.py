"""The Autobahn test suite's cases for WebSocket servers, run by kosoku against the relay's `ws-echo` listener.

    pip install kosoku==0.1.0
    python3 tests/interop/web_conformance.py target/debug/chatloop

Left out are the cases 12 and 13: they are about compression, which the relay does not offer.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter

from web_relay import Relay

GROUPS = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
CASES = 301
# Text that is not UTF-8 is refused when the message is complete. These want it refused earlier.
NON_STRICT = {"6.4.1", "6.4.2", "6.4.3", "6.4.4"}


def main():
    beside = os.path.join(os.path.dirname(sys.executable), "kosoku")
    kosoku = beside if os.path.exists(beside) else shutil.which("kosoku")
    if kosoku is None:
        print("skipped: kosoku is not installed")
        return
    limits = ["--max-message", "17MiB", "--queue-limit", "64MiB"]
    with Relay(sys.argv[1], ["ws-echo"], *limits) as relay, tempfile.TemporaryDirectory() as reports:
        command = [kosoku, "-p", "4", "-o", reports]
        for group in GROUPS:
            command += ["-i", group]
        # It fails for a case that is not strict, too: the report decides.
        subprocess.run([*command, relay.url("ws-echo")], stdout=subprocess.DEVNULL, timeout=600)
        with open(os.path.join(reports, "index.json"), encoding="utf-8") as index:
            (results,) = json.load(index).values()
        alive = relay.process.poll() is None

    errors = [] if alive else ["the relay ended"]
    if len(results) != CASES:
        errors.append(f"{len(results)} cases were run, not {CASES}")
    for case, result in results.items():
        behavior, close = result["behavior"], result["behaviorClose"]
        allowed = {"OK", "INFORMATIONAL"} | ({"NON-STRICT"} if case in NON_STRICT else set())
        if behavior not in allowed or close not in {"OK", "INFORMATIONAL"}:
            errors.append(f"case {case}: {behavior}, close {close}")
    for behavior, count in sorted(Counter(one["behavior"] for one in results.values()).items()):
        print(f"{count} {behavior}")
    if errors:
        sys.exit("\n".join(errors))


main()
