"""Three relays and an engine, while the engine, the network and the relays fail: what each member receives is checked.

    python3 tests/interop/bus_faults.py target/debug/chatloop [--for 60] [--every 4] [--members 45] [--sentinel]

It needs `redis-server` (Debian: apt install redis-server). Every member must receive each message of every sender
whose relay lives once, whole and in order. Only where the stream was trimmed past a relay there may be gaps, and
then its members lack exactly as many messages as it counts.
"""

import argparse
import asyncio
import base64
import collections
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

DIALECTS = ["chat10", "chat64", "ack64", "ws", "ws-chat10"]
WIDTHS = {"chat10": 10, "ws-chat10": 10, "chat64": 64, "ack64": 64}
WAIT = 60


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def redis(port, *words):
    """The reply of an engine to one command, as bytes."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
        return connection.recv(65536)


class Process:
    """A program that is stopped, killed and started again."""

    def __init__(self, stack, command, log):
        self.command, self.log, self.process = command, log, None
        stack.append(self)

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def kill(self):
        self.process.kill()
        self.process.wait()


class Proxy:
    """A proxy between a relay and the engine, which cuts, delays, and forgets connections."""

    def __init__(self, target):
        self.target, self.port = target, free_port()
        self.is_cut, self.delay, self.pairs = False, 0, []

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)

    async def serve(self, reader, writer):
        if self.is_cut:
            writer.close()
            return
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        pair = {"writers": (writer, other_writer), "is_forgotten": False}
        self.pairs.append(pair)
        try:
            await asyncio.gather(self.copy(reader, other_writer, pair), self.copy(other_reader, writer, pair))
        except asyncio.CancelledError:
            # The run is over.
            pass
        self.pairs.remove(pair)

    async def copy(self, reader, writer, pair):
        try:
            while data := await reader.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if not pair["is_forgotten"]:
                    writer.write(data)
                    await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass
        if not pair["is_forgotten"]:
            writer.close()

    def cut(self):
        self.is_cut = True
        for pair in self.pairs:
            for writer in pair["writers"]:
                writer.transport.abort()

    def forget(self):
        """From now on nothing passes on the connections that there are, and they do not end."""
        for pair in self.pairs:
            pair["is_forgotten"] = True


class Member(asyncio.Protocol):
    """A member of one dialect, which checks what it receives."""

    def __init__(self, soak, relay, dialect, number):
        self.soak, self.relay, self.dialect = soak, relay, dialect
        self.name = f"{relay.index}-{relay.boot}-{number}"
        self.is_web, self.is_open, self.is_ready = dialect.startswith("ws"), False, False
        self.raw, self.bytes, self.is_payload = bytearray(), bytearray(), False
        self.next, self.late_for, self.gaps, self.sent = {}, set(), 0, 0

    def connection_made(self, transport):
        self.transport = transport
        if self.is_web:
            key = base64.b64encode(os.urandom(16)).decode()
            protocol = "Sec-WebSocket-Protocol: chat10\r\n" if self.dialect == "ws-chat10" else ""
            transport.write(
                f"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{protocol}"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
        else:
            self.open()

    def open(self):
        self.is_open = True
        if self.dialect not in ("chat64", "ack64"):
            self.write(self.name.encode())

    def write(self, payload):
        if width := WIDTHS.get(self.dialect):
            payload = str(len(payload)).ljust(width).encode() + payload
        if self.is_web:
            mask = os.urandom(4)
            size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
            masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
            payload = (b"\x81" if self.dialect == "ws" else b"\x82") + size + mask + masked
        self.transport.write(payload)

    def say(self):
        self.write(text_of(self.name, self.sent))
        self.sent += 1

    def data_received(self, data):
        self.raw += data
        if self.is_web and not self.is_open:
            end = self.raw.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self.raw.startswith(b"HTTP/1.1 101"):
                self.soak.fail(f"{self.name}: {bytes(self.raw[:end])}")
            del self.raw[: end + 4]
            self.open()
        if self.dialect == "chat64":
            self.take_lines()
        elif self.dialect == "chat10":
            self.take_frames(self.raw)
        elif self.is_web:
            self.take_web_frames()

    def take_web_frames(self):
        while len(self.raw) >= 2:
            size, start = self.raw[1], 2
            if size == 126:
                size, start = int.from_bytes(self.raw[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(self.raw[2:10], "big"), 10
            if len(self.raw) < start + size or len(self.raw) < start:
                return
            opcode, payload = self.raw[0] & 15, bytes(self.raw[start : start + size])
            del self.raw[: start + size]
            if opcode == 1:
                message = json.loads(payload)
                if "message" in message:
                    self.hear(message["message"].encode())
            elif opcode == 2:
                self.bytes += payload
                self.take_frames(self.bytes)

    def take_frames(self, buffer):
        width = WIDTHS[self.dialect]
        while len(buffer) >= width:
            size = int(buffer[:width])
            if len(buffer) < width + size:
                return
            payload = bytes(buffer[width : width + size])
            del buffer[: width + size]
            # Names and messages come in turn.
            if self.is_payload:
                self.hear(payload)
            self.is_payload = not self.is_payload

    def take_lines(self):
        """A chat64 member receives messages and acknowledgements without a header."""
        acknowledgement = b"Message was Sent!"
        while self.raw:
            if self.raw.startswith(acknowledgement):
                del self.raw[: len(acknowledgement)]
            elif (end := self.raw.find(b"\n")) >= 0:
                self.hear(bytes(self.raw[: end + 1]))
                del self.raw[: end + 1]
            else:
                return

    def hear(self, text):
        name, number = text.decode().split(" ")[:2]
        number = int(number)
        self.is_ready = True
        if name == "warm":
            return
        self.soak.deliveries += 1
        if text != text_of(name, number) or name == self.name:
            self.soak.fail(f"{self.name} received {text[:60]}")
        expected = self.next.get(name, number if name in self.late_for else 0)
        if number < expected:
            self.soak.fail(f"{self.name} ({self.dialect}): {name} {number} after {expected - 1}: duplicate or disorder")
        self.gaps += number - expected
        self.next[name] = number + 1

    def connection_lost(self, _error):
        if self in self.relay.members:
            self.soak.fail(f"{self.name} ({self.dialect}) was closed")


def text_of(name, number):
    return f"{name} {number} ".encode() + b"x" * (number * 37 % 300) + b"\n"


class Relay(Process):
    """A relay with members, which is at the same ports after each start."""

    def __init__(self, soak, index, bus):
        self.soak, self.index, self.boot, self.members = soak, index, 0, []
        self.ports = {dialect: free_port() for dialect in [*DIALECTS, "metrics"]}
        command = [soak.program, "serve", "--bus", bus, "--bus-node", f"relay{index}", "--history", "0"]
        for dialect, port in self.ports.items():
            command += ["--listen", f"{dialect}://127.0.0.1:{port}"]
        super().__init__(soak.processes, command, f"{soak.folder}/relay{index}.log")

    async def begin(self):
        self.is_ending = False
        self.start()
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + WAIT
        self.members = []
        senders = set(self.soak.names)
        for number in range(self.soak.count // 3):
            dialect = DIALECTS[number % len(DIALECTS)]
            member = Member(self.soak, self, dialect, number)
            # Of these it need not receive what was said before it joined.
            member.late_for = senders
            while True:
                try:
                    await loop.create_connection(lambda: member, "127.0.0.1", self.ports[dialect])
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    await asyncio.sleep(0.05)
            self.members.append(member)
        # Two members let all others of this relay know that they have joined: each is heard by the other, too.
        warmers = [member for member in self.members if member.dialect == "chat10"][:2]
        while not all(member.is_ready for member in self.members if member.dialect != "ack64"):
            for member in warmers:
                member.write(b"warm 0\n")
            await asyncio.sleep(0.1)
        # Each dialect has one sender; the others are silent.
        self.senders = self.members[: len(DIALECTS)]
        self.soak.names.update(sender.name for sender in self.senders)

    def end(self):
        self.is_ending = True
        self.soak.gone_messages += sum(sender.sent for sender in self.senders)
        self.senders, self.members = [], []
        self.kill()
        self.boot += 1

    def counted(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}/metrics", timeout=WAIT) as response:
            text = response.read().decode()
        return sum(int(float(value)) for value in re.findall(r"^chatloop_bus_missing_total{.*} (\S+)$", text, re.M))


class Engine:
    """One Redis, which keeps on disk what it has acknowledged, and a proxy before it for each relay."""

    faults = ["stop", "clients", "engine", "cut", "delay", "relay", "forget", "trim"]

    def __init__(self, soak):
        self.soak, self.port = soak, free_port()
        folder = f"{soak.folder}/engine"
        os.mkdir(folder)
        command = ["redis-server", "--port", str(self.port), "--dir", folder, "--save", "", "--appendonly", "yes"]
        self.process = Process(soak.processes, [*command, "--appendfsync", "always"], f"{folder}/log")
        self.proxies = [Proxy(self.port) for _ in range(3)]

    async def start(self):
        self.process.start()
        for proxy in self.proxies:
            await proxy.start()

    async def end(self):
        for proxy in self.proxies:
            proxy.server.close()
            proxy.cut()
        await asyncio.sleep(0.5)

    def bus(self, index):
        return f"redis://127.0.0.1:{self.proxies[index].port}"

    async def stop(self):
        self.process.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self.soak.pause)
        self.process.process.send_signal(signal.SIGCONT)

    async def clients(self):
        redis(self.port, "CLIENT", "KILL", "TYPE", "normal")

    async def engine(self):
        self.process.kill()
        await asyncio.sleep(1)
        self.process.start()

    async def cut(self):
        proxy = random.choice(self.proxies)
        proxy.cut()
        await asyncio.sleep(2)
        proxy.is_cut = False

    async def delay(self):
        proxy = random.choice(self.proxies)
        proxy.delay = 0.3
        await asyncio.sleep(3)
        proxy.delay = 0

    async def relay(self):
        relay = random.choice(self.soak.relays)
        relay.end()
        await relay.begin()

    async def forget(self):
        random.choice(self.proxies).forget()

    async def trim(self):
        """A relay is cut off, and what the others say meanwhile is trimmed."""
        proxy = random.choice(self.proxies)
        proxy.cut()
        await asyncio.sleep(1)
        redis(self.port, "XTRIM", "chatloop:{room}", "MAXLEN", "0")
        proxy.is_cut = False


class Sentinel:
    """A Redis with two replicas, and a Sentinel that lets one take over when the master is gone."""

    faults = ["failover", "master", "relay"]

    def __init__(self, soak):
        self.soak, self.port, self.engines = soak, free_port(), {}
        first = None
        for index in range(3):
            port, folder = free_port(), f"{soak.folder}/engine{index}"
            os.mkdir(folder)
            command = ["redis-server", "--port", str(port), "--dir", folder, "--save", "", "--repl-diskless-sync-delay", "0"]
            if first:
                command += ["--replicaof", f"127.0.0.1 {first}"]
            first = first or port
            self.engines[port] = Process(soak.processes, command, f"{folder}/log")
        config = f"{soak.folder}/sentinel.conf"
        with open(config, "w", encoding="utf-8") as file:
            file.write(
                f"port {self.port}\nsentinel monitor main 127.0.0.1 {first} 1\n"
                "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n"
            )
        self.process = Process(soak.processes, ["redis-server", config, "--sentinel"], f"{soak.folder}/sentinel.log")

    async def start(self):
        for engine in self.engines.values():
            engine.start()
        await asyncio.sleep(2)
        self.process.start()
        await asyncio.sleep(2)

    async def end(self):
        pass

    def bus(self, _index):
        return f"redis-sentinel://127.0.0.1:{self.port}/main"

    def find_master(self):
        return int(redis(self.port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main").split(b"\r\n")[-2])

    async def await_replicas(self):
        """Until another one can take over."""
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            try:
                if redis(self.find_master(), "INFO", "replication").count(b"state=online") == 2:
                    return
            except (OSError, ValueError, IndexError):
                pass
            await asyncio.sleep(0.5)
        self.soak.fail("the replicas are not there")

    async def failover(self):
        await self.await_replicas()
        redis(self.port, "SENTINEL", "FAILOVER", "main")

    async def master(self):
        await self.await_replicas()
        port = self.find_master()
        self.engines[port].kill()
        deadline = time.monotonic() + WAIT
        while self.find_master() == port and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        # It comes back as a replica, when the Sentinel finds it.
        self.engines[port].start()

    relay = Engine.relay


class Soak:
    def __init__(self, options, folder):
        self.program, self.count, self.folder = options.program, options.members, folder
        self.pause = 10 if options.time > 120 else 3
        self.deliveries, self.gone_messages, self.names = 0, 0, set()
        self.failures, self.processes, self.done = [], [], collections.Counter()
        self.bus = Sentinel(self) if options.sentinel else Engine(self)
        self.relays = [Relay(self, index, self.bus.bus(index)) for index in range(3)]

    def fail(self, text):
        self.failures.append(text)

    def senders(self):
        return [sender for relay in self.relays if not relay.is_ending for sender in relay.senders]

    async def speak(self):
        while True:
            for sender in self.senders():
                sender.say()
            await asyncio.sleep(0.25)

    async def run(self, seconds, every):
        await self.bus.start()
        for relay in self.relays:
            relay.is_ending, relay.senders = False, []
        for relay in self.relays:
            await relay.begin()
        speaking = asyncio.create_task(self.speak())
        end = time.monotonic() + seconds
        # Each fault once before any comes again.
        faults = []
        while time.monotonic() < end and not self.failures:
            faults = faults or random.sample(self.bus.faults, len(self.bus.faults))
            fault = faults.pop()
            print(f"{fault}", flush=True)
            await getattr(self.bus, fault)()
            self.done[fault] += 1
            await asyncio.sleep(every)
        if "forget" in self.done:
            # A connection that is forgotten is noticed after 25 seconds at the latest.
            await asyncio.sleep(25)
        speaking.cancel()
        for sender in self.senders():
            sender.say()
        await self.settle()
        self.report()
        await self.bus.end()

    async def settle(self):
        """Waits until each member has the last message of each sender."""
        deadline = time.monotonic() + WAIT
        while lacking := list(self.lacking()):
            if time.monotonic() > deadline or self.failures:
                self.failures += lacking[:10]
                return
            await asyncio.sleep(0.2)
        for relay in self.relays:
            counted = relay.counted()
            for member in relay.members:
                if member.dialect != "ack64" and member.gaps != counted:
                    self.fail(f"{member.name} ({member.dialect}) lacks {member.gaps}, its relay counts {counted}")

    def lacking(self):
        for relay in self.relays:
            for member in relay.members:
                for sender in self.senders():
                    has = member.next.get(sender.name, 0)
                    if member is not sender and member.dialect != "ack64" and has != sender.sent:
                        yield f"{member.name} ({member.dialect}) has {has} of {sender.sent} of {sender.name}"

    def report(self):
        said = self.gone_messages + sum(sender.sent for sender in self.senders())
        gaps = [relay.counted() for relay in self.relays] if not self.failures else "?"
        faults = " ".join(f"{fault}:{count}" for fault, count in sorted(self.done.items()))
        print(f"{said} messages, {self.deliveries} deliveries; faults: {faults}; counted gaps by relay: {gaps}")
        for failure in self.failures[:20]:
            print(f"wrong: {failure}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--for", dest="time", type=float, default=60)
    parser.add_argument("--every", type=float, default=4)
    parser.add_argument("--members", type=int, default=45)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sentinel", action="store_true")
    options = parser.parse_args()
    if not shutil.which("redis-server"):
        print("skipped: the faults of the bus, since there is no redis-server")
        return
    random.seed(options.seed)
    folder = tempfile.mkdtemp()
    soak = Soak(options, folder)
    try:
        asyncio.run(soak.run(options.time, options.every))
    finally:
        for process in soak.processes:
            if process.process:
                process.kill()
        if not soak.failures:
            shutil.rmtree(folder, ignore_errors=True)
    if soak.failures:
        sys.exit(f"the logs are in {folder}")


main()
