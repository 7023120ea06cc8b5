"""Checks each bug hunt: its patch applies, and of all tests of the crate `room` exactly the named one fails.

usage: check.py [NUMBER...]
Other tests may fail as well: unit tests beside the code, and the simulation, which is made to notice everything. The name
of the test is in README.md, in the answer. The tree is copied, so that nothing in it changes; what is compiled stands in
its own folder `target`, unless CARGO_TARGET_DIR says otherwise.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

EXERCISES = Path(__file__).resolve().parent
ROOT = EXERCISES.parent
TESTS = ["cargo", "test", "--locked", "--no-default-features", "--test", "room"]


def failed_tests(tree):
    """The names of the tests that fail. It ends the program if they cannot be run."""
    environment = {"CARGO_TARGET_DIR": str(ROOT / "target"), **os.environ}
    run = subprocess.run(TESTS, cwd=tree, env=environment, capture_output=True, text=True)
    if "test result: " not in run.stdout:
        sys.exit(f"the tests do not run:\n{run.stdout}{run.stderr}")
    return re.findall(r"^test (\S+).* \.\.\. FAILED$", run.stdout, re.MULTILINE)


def expected_test(hunt):
    """The test that the answer of a hunt names."""
    section = (EXERCISES / "README.md").read_text().split(f"({hunt.name})")[1].split("\n## ")[0]
    return re.search(r"`cargo test --test room -- (\S+)`", section)[1]


def main():
    hunts = sorted(EXERCISES.glob("*.patch"))
    if sys.argv[1:]:
        hunts = [hunt for hunt in hunts if hunt.name.split("-")[0] in sys.argv[1:]]
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in filter(None, files.stdout.split("\0")):
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
        wrong = []
        for hunt in hunts:
            apply = ["git", "apply", "--whitespace=error", str(hunt)]
            subprocess.run(apply, cwd=folder, check=True)
            failed, expected = failed_tests(folder), expected_test(hunt)
            if failed != [expected]:
                wrong.append(f"{hunt.name}: {failed} fail, and not {expected}")
            print(f"{hunt.name}: {failed}", flush=True)
            subprocess.run([*apply, "--reverse"], cwd=folder, check=True)
    sys.exit("\n".join(wrong) or 0)


main()
