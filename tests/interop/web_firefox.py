"""The browser page in Firefox, with a relay of its own that is killed and started again.

    python3 tests/interop/web_firefox.py target/debug/chatloop

Firefox is driven by Marionette, its own remote protocol: a length, a colon, and a command in JSON.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from web_relay import WAIT, Relay

ENTER = "\ue007"
SHIFT = "\ue008"

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
if not FIREFOX:
    print("skipped: the page in Firefox, since there is no firefox-esr and no firefox")
    sys.exit()


def frame(payload):
    return b"%-10d%s" % (len(payload), payload)


class Firefox:
    """A browser without a window."""

    def __init__(self, stack):
        profile = tempfile.mkdtemp()
        stack.callback(shutil.rmtree, profile, ignore_errors=True)
        with open(os.path.join(profile, "user.js"), "w", encoding="ascii") as preferences:
            preferences.write('user_pref("marionette.port", 0);')
        command = [FIREFOX, "--headless", "--marionette", "--no-remote", "--profile", profile]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        # It writes down the port that it chose, as soon as it listens.
        port_file = os.path.join(profile, "MarionetteActivePort")
        port = until(lambda: read_number(port_file), "Firefox to listen")
        self.socket = stack.enter_context(socket.create_connection(("127.0.0.1", port), WAIT))
        self.stream = self.socket.makefile("rb")
        self.commands = 0
        self.receive()
        self.command("NewSession", capabilities={})

    def receive(self):
        length = b""
        while not length.endswith(b":"):
            length += self.stream.read(1)
        return json.loads(self.stream.read(int(length[:-1])))

    def command(self, name, **parameters):
        self.commands += 1
        message = json.dumps([0, self.commands, f"WebDriver:{name}", parameters]).encode()
        self.socket.sendall(b"%d:%s" % (len(message), message))
        _, _, error, result = self.receive()
        if error:
            sys.exit(f"{name}: {error['message']}")
        return result

    def run(self, script):
        """Returns what a script in the page returns."""
        return self.command("ExecuteScript", script=script, args=[])["value"]

    def keys(self, element, text):
        """Types into the element with this id."""
        found = self.command("FindElement", using="css selector", value=f"#{element}")
        (reference,) = found["value"].values()
        self.command("ElementSendKeys", id=reference, text=text)

    def rows(self):
        """The text of each row and, for the page's own messages, its mark."""
        return self.run("return [...log.children].map(row => row.textContent)")

    def until_row(self, *parts):
        rows = []

        def is_there():
            rows[:] = self.rows()
            return any(all(part in row for part in parts) for row in rows)

        until(is_there, lambda: f"a row with {parts}, there are {rows}")

    def until_state(self, text):
        until(lambda: text in self.run("return state.textContent"), f"the state {text!r}")


def read_number(path):
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read() or 0)
    except FileNotFoundError:
        return 0


def until(condition, what):
    """Waits until the condition holds, and returns what it returned."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.05)
    sys.exit(f"waited in vain for {what() if callable(what) else what}")


def chat10_member(stack, port, name):
    """A member with a plain socket."""
    member = stack.enter_context(socket.create_connection(("127.0.0.1", port), WAIT))
    member.sendall(frame(name))
    return member


def expect(member, expected):
    received = b""
    while len(received) < len(expected):
        part = member.recv(len(expected) - len(received))
        if not part:
            break
        received += part
    if received != expected:
        sys.exit(f"received {received}, expected {expected}")


def main():
    with Relay(sys.argv[1], ["ws", "chat10"]) as relay:
        page, port = relay.url("ws", "http"), relay.ports["chat10"]
        bob = chat10_member(relay, port, b"bob")
        firefox = Firefox(relay)
        firefox.command("Navigate", url=page)
        firefox.keys("who", f"Zo\u00eb{ENTER}")
        firefox.until_state("Connected")
        firefox.keys("field", f"one{SHIFT}{ENTER}")
        firefox.keys("field", f"two \U0001f600{ENTER}")
        firefox.until_row("two \U0001f600", "\u2713")
        expect(bob, frame("Zo\u00eb".encode()) + frame("one\ntwo \U0001f600".encode()))
        bob.sendall(frame("<b>hello</b> \u05e9\u05dc\u05d5\u05dd".encode()))
        firefox.until_row("bob: <b>hello</b> \u05e9\u05dc\u05d5\u05dd")

        relay.process.send_signal(signal.SIGSTOP)
        firefox.keys("field", f"in flight{ENTER}")
        firefox.until_row("in flight", "sending")
        relay.end()
        firefox.until_row("in flight", "may not have arrived")
        firefox.keys("field", f"typed offline{ENTER}")
        firefox.until_row("typed offline", "not sent yet")
        firefox.keys("field", "a draft")
        # The same ports again.
        restarted = Relay(sys.argv[1], [], *listeners(relay.ports))
        relay.push(restarted)
        firefox.until_row("typed offline", "\u2713")
        if firefox.run("return field.value") != "a draft":
            sys.exit("what was typed is lost")
        carol = chat10_member(relay, port, b"carol")
        firefox.keys("field", ENTER)
        firefox.until_row("a draft", "\u2713")
        expect(carol, frame("Zo\u00eb".encode()) + frame(b"a draft"))
        rows = "\n".join(firefox.rows())
        for text in ("in flight", "typed offline", "a draft"):
            if rows.count(text) != 1:
                sys.exit(f"{text!r} is not there once:\n{rows}")
    print("the page in Firefox: passed")


def listeners(ports):
    for dialect, port in ports.items():
        yield from ("--listen", f"{dialect}://127.0.0.1:{port}")


main()
