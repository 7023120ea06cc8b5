"""WebSocket clients of others in a room with a `chat10` member: what each receives is compared byte by byte.

    pip install websockets==17.4 websocket-client==1.9.2
    python3 tests/interop/web_clients.py target/debug/chatloop [MODULES]

MODULES is a directory in which `npm install ws@8.23.0` was run; without it the client for node is left out.
"""

import base64
import json
import re
import shutil
import signal
import socket
import subprocess
import sys

from web_relay import WAIT, Relay

try:
    import websocket
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
except ImportError:
    print("skipped: websockets or websocket-client is not installed")
    sys.exit()

TIME = re.compile(rb'^\{"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"')
ACK = b'{"ack":1}'
# Each line of its input and output is a message in Base64; the last one that it prints is a close code.
NODE = """
const { WebSocket } = require('ws');
const socket = new WebSocket(process.argv[1]);
const print = (line) => process.stdout.write(`${line}\\n`);
socket.on('open', () => {
  require('readline').createInterface({ input: process.stdin })
    .on('line', (line) => socket.send(Buffer.from(line, 'base64').toString()))
    .on('close', () => socket.close(1000));
});
socket.on('message', (data) => print(data.toString('base64')));
socket.on('close', (code) => print(`closed ${code}`));
"""


def frame(payload):
    return b"%-10d%s" % (len(payload), payload)


def delivery(name, text):
    """A message as `chat10` members receive it."""
    return frame(name) + frame(text)


class Chat10:
    """A member with a plain socket."""

    def __init__(self, relay, name):
        self.name = name
        self.socket = socket.create_connection(("127.0.0.1", relay.ports["chat10"]), WAIT)
        self.socket.sendall(frame(name.encode()))

    def send(self, text):
        self.socket.sendall(frame(text))

    def expect(self, name, text):
        expected = delivery(name, text)
        received = bytearray()
        while len(received) < len(expected):
            more = self.socket.recv(len(expected) - len(received))
            assert more, "the relay closed the connection"
            received += more
        assert received == expected, f"{received[:80]} is not {expected[:80]}"

    def expect_ack(self):
        pass

    def expect_end(self, _code):
        assert self.socket.recv(1) == b""


class Browser:
    """A member that receives JSON: how it does that, the classes below know."""

    def enter(self, name):
        self.name = name
        self.send(name.encode())
        hello = self.receive()
        assert hello.startswith(b'{"hello":{"version":"'), hello

    def expect(self, name, text):
        fields = {"name": name.decode(), "message": text.decode()}
        # The relay escapes no more than it must.
        rest = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))[1:].encode()
        received = self.receive()
        time = TIME.match(received)
        assert time, received[:80]
        received = received[time.end() + 1 :]
        assert received == rest, f"{received[:80]} is not {rest[:80]}"

    def expect_ack(self):
        received = self.receive()
        assert received == ACK, received[:80]


class Websockets(Browser):
    def __init__(self, relay, name):
        self.socket = relay.enter_context(connect(relay.url("ws"), max_size=None))
        self.enter(name)

    def send(self, text):
        self.socket.send(text.decode())

    def receive(self):
        return self.socket.recv(timeout=WAIT).encode()

    def leave(self):
        self.socket.close(1000)
        self.expect_end(1000)

    def expect_end(self, code):
        try:
            self.socket.recv(timeout=WAIT)
        except ConnectionClosed as closed:
            assert closed.rcvd.code == code, closed
        else:
            raise AssertionError("the connection is still there")


class Fragments(Websockets):
    """The same, with a frame for every few bytes."""

    def send(self, text):
        text = text.decode()
        size = max(1, len(text) // 5)
        self.socket.send([text[at : at + size] for at in range(0, len(text), size)] or [""])


class Tunnel:
    """A `chat10` member through a WebSocket."""

    def __init__(self, relay, name):
        self.name = name
        connecting = connect(relay.url("ws"), subprotocols=["chat10"], max_size=None)
        self.socket = relay.enter_context(connecting)
        assert self.socket.subprotocol == "chat10"
        self.socket.send(frame(name.encode()))

    def send(self, text):
        self.socket.send(frame(text))

    def expect(self, name, text):
        received = self.socket.recv(timeout=WAIT)
        assert received == delivery(name, text), received[:80]

    def expect_ack(self):
        pass

    def expect_end(self, code):
        Websockets.expect_end(self, code)


class WebSocketClient(Browser):
    def __init__(self, relay, name):
        self.socket = websocket.create_connection(relay.url("ws"), timeout=WAIT)
        self.enter(name)

    def send(self, text):
        self.socket.send(text.decode())

    def receive(self):
        opcode, data = self.socket.recv_data()
        assert opcode == websocket.ABNF.OPCODE_TEXT, opcode
        return data

    def leave(self):
        self.socket.send_close(1000)
        self.expect_end(1000)

    def expect_end(self, code):
        opcode, data = self.socket.recv_data()
        assert opcode == websocket.ABNF.OPCODE_CLOSE, opcode
        assert int.from_bytes(data[:2], "big") == code, data


class Node(Browser):
    def __init__(self, relay, name, modules):
        self.process = subprocess.Popen(
            ["node", "-e", NODE, relay.url("ws")],
            cwd=modules,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.enter(name)

    def send(self, text):
        self.process.stdin.write(base64.b64encode(text) + b"\n")
        self.process.stdin.flush()

    def receive(self):
        line = self.process.stdout.readline()
        assert line and not line.startswith(b"closed"), line
        return base64.b64decode(line)

    def leave(self):
        self.process.stdin.close()
        self.expect_end(1000)

    def expect_end(self, code):
        line = self.process.stdout.readline()
        assert line == b"closed %d\n" % code, line
        self.process.stdin.close()
        assert self.process.wait(WAIT) == 0


TEXTS = [
    b"hello",
    b"",
    'Zo\u00eb: "quoted" \\ \u6f22 \U0001f600'.encode(),
    b"two\nlines\tand \x7f",
    b"x" * 125,
    b"x" * 126,
    b"x" * 65_536,
    b"y" * 1_000_000,
]


def converse(members):
    """Each member sends each text, and all others receive it."""
    for sender in members:
        for text in TEXTS:
            sender.send(text)
            sender.expect_ack()
            for member in members:
                if member is not sender:
                    member.expect(sender.name.encode(), text)


def main():
    modules = sys.argv[2] if len(sys.argv) > 2 else None
    with Relay(sys.argv[1], ["ws", "chat10"], "--history", "0") as relay:
        kinds = [Chat10, Websockets, Fragments, Tunnel, WebSocketClient]
        if modules is None or shutil.which("node") is None:
            print("skipped: the client for node")
        else:
            kinds.append(lambda relay, name: Node(relay, name, modules))
        members = []
        for number, kind in enumerate(kinds):
            members.append(kind(relay, f"member {number}"))
            relay.await_line(f'joined: "member {number}"')
        converse(members)
        leaving = [member for member in members if type(member) in (Fragments, WebSocketClient)]
        for member in leaving:
            member.leave()
        staying = [member for member in members if member not in leaving]
        converse(staying)
        relay.process.send_signal(signal.SIGTERM)
        for member in staying:
            member.expect_end(1001)
        assert relay.process.wait(WAIT) == 0
    print(f"{len(members)} clients: " + ", ".join(type(one).__name__ for one in members))


main()
