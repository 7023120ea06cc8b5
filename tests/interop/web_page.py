"""The tests of the page, with a relay of their own. They need what page.test.mjs names.

    python3 tests/interop/web_page.py target/debug/chatloop MODULES
"""

import os
import subprocess
import sys

from web_relay import Relay


def main():
    program, modules = sys.argv[1:]
    tests = os.path.join(os.path.dirname(__file__), "page.test.mjs")
    with Relay(program, ["ws", "chat10"]) as relay:
        environment = {
            **os.environ,
            "CHATLOOP_PAGE_MODULES": os.path.abspath(modules),
            "CHATLOOP_PAGE_URL": relay.url("ws", "http"),
            "CHATLOOP_PAGE_PROGRAM": os.path.abspath(program),
            "CHATLOOP_PAGE_CHAT10": f"127.0.0.1:{relay.ports['chat10']}",
        }
        tested = subprocess.run(["node", "--test", tests], env=environment, check=False)
        if relay.process.poll() is not None:
            sys.exit("the relay ended")
    sys.exit(tested.returncode)


main()
