"""The tests of the viewer of the loop, with a relay of their own. They need what loop.test.mjs names.

    python3 tests/interop/web_loop.py target/debug/chatloop MODULES
"""

import os
import subprocess
import sys

from web_relay import Relay


def main():
    program, modules = sys.argv[1:]
    tests = os.path.join(os.path.dirname(__file__), "loop.test.mjs")
    with Relay(program, ["ws", "chat10"], "--watch") as relay:
        environment = {
            **os.environ,
            "CHATLOOP_PAGE_MODULES": os.path.abspath(modules),
            "CHATLOOP_LOOP_URL": relay.url("ws", "http"),
            "CHATLOOP_LOOP_CHAT10": f"127.0.0.1:{relay.ports['chat10']}",
        }
        tested = subprocess.run(["node", "--test", tests], env=environment, check=False)
        if relay.process.poll() is not None:
            sys.exit("the relay ended")
    sys.exit(tested.returncode)


main()
