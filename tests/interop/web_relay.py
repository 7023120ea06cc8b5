"""A relay for the scripts that test its WebSocket side with other programs."""

import queue
import re
import subprocess
import sys
import threading
from contextlib import ExitStack

WAIT = 30


class Relay(ExitStack):
    """`chatloop serve` with a listener for each of these dialects, on free ports of this machine.

    What is entered with it ends before it does.
    """

    def __init__(self, program, dialects, *flags):
        super().__init__()
        command = [program, "serve", *flags]
        for dialect in dialects:
            command += ["--listen", f"{dialect}://127.0.0.1:0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.callback(self.end)
        # All of its log is read, so that the relay never waits for that.
        self.log = queue.SimpleQueue()
        threading.Thread(target=self.read_log, daemon=True).start()
        line = self.await_line("listens on")
        self.ports = {
            dialect: int(port)
            for dialect, port in re.findall(r"([a-z0-9-]+)://127\.0\.0\.1:(\d+)", line)
        }

    def end(self):
        self.process.kill()
        self.process.wait()

    def read_log(self):
        for line in self.process.stderr:
            self.log.put(line)

    def await_line(self, text):
        """Waits for a line of the log that holds this."""
        lines = []
        while not lines or text not in lines[-1]:
            try:
                lines.append(self.log.get(timeout=WAIT))
            except queue.Empty:
                sys.exit(f"no line with {text!r} in the log:\n{''.join(lines)}")
        return lines[-1]

    def url(self, dialect, scheme="ws"):
        return f"{scheme}://127.0.0.1:{self.ports[dialect]}/"
