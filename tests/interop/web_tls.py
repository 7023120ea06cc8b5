"""The page over https and wss in Chromium, with a relay and an authority of its own.

    python3 tests/interop/web_tls.py target/debug/chatloop MODULES

It needs certutil, which Debian has in libnss3-tools, and what page.test.mjs names. A browser of a home directory trusts
the authorities in its database of certificates.
"""

import os
import shutil
import subprocess
import sys
import tempfile

from web_relay import Relay

if not shutil.which("certutil"):
    print("skipped: the page over https, since there is no certutil")
    sys.exit()


def make_home(folder, name, authority=None):
    """Returns a new home directory, whose browser trusts this authority as well."""
    home = os.path.join(folder, name)
    database = os.path.join(home, ".pki", "nssdb")
    os.makedirs(database)
    certutil = ["certutil", "-d", f"sql:{database}"]
    subprocess.run([*certutil, "-N", "--empty-password"], check=True)
    if authority:
        add = ["-A", "-n", "chatloop", "-t", "C,,", "-i", authority]
        subprocess.run([*certutil, *add], check=True)
    return home


def main():
    program, modules = sys.argv[1:]
    tests = os.path.join(os.path.dirname(__file__), "page_tls.test.mjs")
    with tempfile.TemporaryDirectory() as folder:
        made = [program, "cert", "--out", folder, "--host", "localhost"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
        file = lambda name: os.path.join(folder, name)
        flags = ["--cert", file("chatloop.crt"), "--key", file("chatloop.key")]
        with Relay(program, ["wss", "chat10"], *flags) as relay:
            environment = {
                **os.environ,
                "CHATLOOP_PAGE_MODULES": os.path.abspath(modules),
                "CHATLOOP_PAGE_URL": f"https://localhost:{relay.ports['wss']}/",
                "CHATLOOP_PAGE_CHAT10": f"127.0.0.1:{relay.ports['chat10']}",
                "CHATLOOP_PAGE_TRUSTING": make_home(folder, "trusting", file("chatloop-ca.crt")),
                "CHATLOOP_PAGE_OTHER": make_home(folder, "other"),
            }
            tested = subprocess.run(["node", "--test", tests], env=environment, check=False)
            relay.await_line("TLS handshake: the peer ended it: ")
            if relay.process.poll() is not None:
                sys.exit("the relay ended")
    sys.exit(tested.returncode)


main()
