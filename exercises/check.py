"""Checks each bug hunt: its patch applies, and of all tests of the crate `room` exactly the named one fails.

usage: check.py [NUMBER...]
Other tests may fail as well: unit tests beside the code, and the simulation, which is made to notice everything. The name
of the test is in README.md, in the answer. The tree is copied, so that nothing in it changes; the copy and what is compiled stand
in its folder `target`, unless CARGO_TARGET_DIR says otherwise.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

EXERCISES = Path(__file__).resolve().parent
ROOT = EXERCISES.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
# Always the same one, so that what Cargo compiles in it is used again.
TREE = TARGET / "bug-hunts"
TESTS = ["cargo", "test", "--locked", "--no-default-features", "--test", "room"]


def failed_tests():
    """The names of the tests that fail. It ends the program if they cannot be run."""
    # To compile takes longer than the tests do, so nothing is optimised.
    settings = {"CARGO_TARGET_DIR": str(TARGET), "CARGO_PROFILE_DEV_OPT_LEVEL": "0"}
    environment = {**os.environ, **settings}
    run = subprocess.run(TESTS, cwd=TREE, env=environment, capture_output=True, text=True)
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
    shutil.rmtree(TREE, ignore_errors=True)
    for name in filter(None, files.stdout.split("\0")):
        target = TREE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    # Git would take the folder for a part of the checkout around it.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(TARGET)}
    wrong = []
    for hunt in hunts:
        apply = ["git", "apply", "--whitespace=error", str(hunt)]
        subprocess.run(apply, cwd=TREE, env=environment, check=True)
        failed, expected = failed_tests(), expected_test(hunt)
        if failed != [expected]:
            wrong.append(f"{hunt.name}: {failed} fail, and not {expected}")
        print(f"{hunt.name}: {failed}", flush=True)
        subprocess.run([*apply, "--reverse"], cwd=TREE, env=environment, check=True)
    shutil.rmtree(TREE)
    sys.exit("\n".join(wrong) or 0)


main()
