#!/usr/bin/env python3
"""Measures what backpressure costs and keeps, with real sockets, and prints tables in Markdown.

usage: benches/backpressure.py [--program PATH] [--only SCENARIO] [--seconds N] [--quick]

Each scenario starts a relay of its own, with its default limits, on a free port of 127.0.0.1. Floods
send as fast as their sockets accept, in a process of their own. All sockets have the system's default
buffers. Four things are measured:

  - the delay of a chatter's lines beside one flood, and beside fifty floods of empty messages under
    long names, while one member reads slowly;
  - how long the others receive little or nothing after one member has stopped reading;
  - whether members that read 10, 20 and 200 kB/s keep their place beside a flood, and receive every
    byte in order;
  - whether a member that reads 1 kB/s keeps its place in a chat of less than that.

It takes about five minutes and runs on Linux: /proc shows when the relay has closed a connection.
--seconds is the length of a scenario, 60 by default; slow readers need some minutes to work through the
kernel's buffers, so a longer run is the stricter one. --quick is only to see that it runs. The exit
code is 1 if a wanted bound was missed or a reader lost its place.
"""

import argparse
import collections
import contextlib
import itertools
import os
import pathlib
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

HEADER_LEN = 10
LINE_LEN = 40
LINE_INTERVAL = 1.0
FLOOD_LEN = 64
# The body of a flood's last message. All others begin with their number.
LAST = b"last"
NUMBER_LEN = 11

# A table's entry for a member that is still connected.
KEPT = "kept"

# How often slow readers read, and how often /proc is asked which connections are still open.
TICK_INTERVAL = 0.05
PLACE_INTERVAL = 1.0
# Throughput is measured in buckets of this length.
BUCKET = 0.25
# The relay's own default.
SLOW_TIMEOUT = 40.0

# What is wanted.
MAX_STALL = SLOW_TIMEOUT / 2
# A stall begins and ends inside a bucket.
STALL_TOLERANCE = 2 * BUCKET
# A shorter stall may be the machine's.
MIN_STALL = 1.0

# How long lines may still arrive after a scenario, and how long a reader may catch up.
LATE_LINES = 15.0
CATCH_UP = 60.0


def frame(body):
    return b"%-10d" % len(body) + body


class Relay:
    """A relay under measurement: its port, and its log."""

    def __init__(self, port, log):
        self.port = port
        self.log = log

    def close_line(self, name):
        """The log's last line about that member, which has its close reason."""
        lines = [line for line in self.log.read_text().splitlines() if f'"{name}"' in line]
        return lines[-1].split("] ", 1)[-1] if lines else "the log has nothing about it"


@contextlib.contextmanager
def running(program):
    """A relay that listens, until the end of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder, "log")
        words = [str(program), "serve", "--log-level", "info", "--listen", f"127.0.0.1:{port}"]
        with log.open("w") as output, subprocess.Popen(words, stdout=output, stderr=output) as process:
            try:
                deadline = time.monotonic() + 10
                while not listens(port):
                    if process.poll() is not None or time.monotonic() > deadline:
                        sys.exit(f"the relay did not start: {' '.join(words)}\n{log.read_text()}")
                    time.sleep(0.05)
                yield Relay(port, log)
            finally:
                process.kill()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def open_ports(server_port):
    """The ports of those clients whose connections the server has not closed."""
    ports = set()
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state = line.split()[:4]
        if int(local.split(":")[1], 16) == server_port and state == "01":
            ports.add(int(remote.split(":")[1], 16))
    return ports


# Floods


def numbered_blocks():
    """Messages of 64 bytes that begin with their number, a thousand in a block."""
    bodies = [(b"########%03d" % i).ljust(FLOOD_LEN, b".") for i in range(1000)]
    block = b"".join(map(frame, bodies))
    for number in itertools.count():
        yield block.replace(b"########", b"%08d" % number)


def empty_blocks():
    return itertools.repeat(frame(b"") * 6000)


class Spout:
    """One flood's connection: sends blocks of messages, discards what it receives."""

    def __init__(self, port, name, blocks):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(frame(name))
        self.socket.setblocking(False)
        self.blocks = blocks
        self.pending = memoryview(b"")

    def send(self):
        """Sends until the socket is full or a block is through; False after the last block."""
        if not self.pending:
            block = next(self.blocks, None)
            if block is None:
                return False
            self.pending = memoryview(block)
        with contextlib.suppress(BlockingIOError):
            while self.pending:
                self.pending = self.pending[self.socket.send(self.pending) :]
        return True


def pour(port, names, blocks, seconds):
    """Floods for so long. After SIGTERM each connection ends with a last message."""
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))

    def until_stopped():
        for block in blocks():
            if stopping:
                break
            yield block
        yield frame(LAST)

    scratch = bytearray(256 * 1024)
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for name in names:
            spout = Spout(port, name, until_stopped())
            selector.register(spout.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, spout)
        while selector.get_map() and time.monotonic() < deadline:
            for key, events in selector.select(0.1):
                try:
                    if events & selectors.EVENT_WRITE and not key.data.send():
                        selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
                    if events & selectors.EVENT_READ and not key.fileobj.recv_into(scratch):
                        selector.unregister(key.fileobj)
                except OSError:
                    selector.unregister(key.fileobj)


@contextlib.contextmanager
def flooding(relay, names, blocks, seconds):
    """Floods from a process of its own, which ends by itself if this one should not end it."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            pour(relay.port, names, blocks, seconds)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        # Without a flood there is nothing to measure.
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            sys.exit("a flood failed, see above")


# Members


class Member:
    """A member that reads as fast as it can."""

    def __init__(self, relay, name):
        self.relay = relay
        self.name = name
        self.socket = socket.create_connection(("127.0.0.1", relay.port))
        self.port = self.socket.getsockname()[1]
        self.socket.sendall(frame(name.encode()))
        self.socket.setblocking(False)
        self.received = 0
        self.joined_at = time.monotonic()
        # When and how the connection ended, if it did.
        self.closed_after = None
        self.end = None

    def read(self, most=256 * 1024):
        """Reads once; False if there was nothing."""
        try:
            data = self.socket.recv(most)
        except BlockingIOError:
            return False
        except OSError as error:
            data, self.end = b"", error.strerror
        if not data:
            self.end = self.end or "closed by the relay"
            self.note_close()
            return False
        self.received += len(data)
        self.on_data(data)
        return True

    def on_data(self, data):
        """What a kind of member does with its bytes."""

    def note_close(self):
        if self.closed_after is None:
            self.closed_after = time.monotonic() - self.joined_at

    def place(self):
        """Whether it kept its place, for a table."""
        return KEPT if self.kept else f"lost after {self.closed_after:.0f} s"

    def place_and_reason(self):
        """The same with the relay's reason. The relay's log must still be there."""
        return self.place() if self.kept else f"{self.place()}: {self.relay.close_line(self.name)}"

    @property
    def kept(self):
        return self.closed_after is None


class Chatter(Member):
    """A member that sends numbered lines at a fixed interval, whatever becomes of them."""

    def __init__(self, relay, name="chatter"):
        super().__init__(relay, name)
        self.sending = True
        self.due = []
        self.pending = b""

    def tick(self, now):
        while self.sending and (not self.due or self.due[-1] + LINE_INTERVAL <= now):
            line = b"%d " % len(self.due)
            self.pending += frame(line.ljust(LINE_LEN, b"."))
            # Delays count from when a line was due, not from when this process got to it.
            self.due.append(self.due[-1] + LINE_INTERVAL if self.due else now)
        # Lines that the socket does not accept now are sent at a later tick.
        with contextlib.suppress(OSError):
            self.pending = self.pending[self.socket.send(self.pending) :]


class Listener(Member):
    """A fast member that notes when each of a chatter's lines arrives."""

    def __init__(self, relay, name="listener", speaker="chatter"):
        super().__init__(relay, name)
        self.before_line = frame(speaker.encode()) + b"%-10d" % LINE_LEN
        self.rest = b""
        self.arrived = {}

    def on_data(self, data):
        now = time.monotonic()
        data = self.rest + data
        size = len(self.before_line) + LINE_LEN
        done = 0
        at = data.find(self.before_line)
        while 0 <= at <= len(data) - size:
            done = at + size
            number = int(data[at + len(self.before_line) : done].split()[0])
            self.arrived.setdefault(number, now)
            at = data.find(self.before_line, done)
        self.rest = data[max(done, len(data) - size + 1) :]


class Meter(Member):
    """A fast member that notes how much it receives in each bucket of time."""

    def __init__(self, relay, name="meter"):
        super().__init__(relay, name)
        self.buckets = collections.Counter()
        self.longest_gap = 0.0
        self.last = self.joined_at

    def on_data(self, data):
        now = time.monotonic()
        self.buckets[int((now - self.joined_at) / BUCKET)] += len(data)
        self.longest_gap = max(self.longest_gap, now - self.last)
        self.last = now


class SlowReader(Member):
    """A member that reads at a fixed rate and checks that frames are whole and numbers complete."""

    def __init__(self, relay, name, rate):
        super().__init__(relay, name)
        self.rate = rate
        self.read_until = self.joined_at
        self.rest = b""
        self.speaker = None
        self.next_numbers = collections.Counter()
        self.messages = 0
        self.ended = False
        self.fault = None

    def tick(self, now):
        allowed = int((now - self.read_until) * self.rate)
        if allowed > 0 and self.end is None:
            self.read_until += allowed / self.rate
            self.read(allowed)

    def on_data(self, data):
        data = self.rest + data
        at = 0
        while self.fault is None and len(data) - at >= HEADER_LEN:
            header = data[at : at + HEADER_LEN]
            if not header.strip().isdigit() or header != b"%-10d" % int(header):
                self.fault = f"not a header: {header!r}"
                break
            start = at + HEADER_LEN
            at_end = start + int(header)
            if at_end > len(data):
                break
            self.on_frame(data[start:at_end])
            at = at_end
        self.rest = data[at:]

    def on_frame(self, body):
        if self.speaker is None:
            self.speaker = body
            return
        speaker, self.speaker = self.speaker, None
        self.messages += 1
        if body == LAST:
            self.ended = True
        elif body:
            wanted = self.next_numbers[speaker]
            number = body[:NUMBER_LEN].strip(b". ")
            if not number.isdigit() or int(number) != wanted:
                self.fault = f"message {number!r} of {speaker!r} in the place of {wanted}"
            self.next_numbers[speaker] += 1

    def rate_text(self):
        return f"{self.rate / 1000:g} kB/s"


class Loop:
    """One event loop over all members of the measuring process."""

    def __init__(self, members, watched=()):
        self.selector = selectors.DefaultSelector()
        self.ticks = [member.tick for member in members if hasattr(member, "tick")]
        self.watched = list(watched)
        for member in members:
            if not isinstance(member, SlowReader):
                self.read_fast(member)

    def read_fast(self, member):
        self.selector.register(member.socket, selectors.EVENT_READ, member)

    def stop_reading(self, member):
        with contextlib.suppress(KeyError):
            self.selector.unregister(member.socket)

    def run(self, seconds, until=lambda: False):
        """Runs for so long, or until that condition holds after a tick."""
        now = time.monotonic()
        end = now + seconds
        next_tick = next_look = now
        while now < end:
            for key, _ in self.selector.select(max(0, min(next_tick, end) - now)):
                if not key.data.read() and key.data.end is not None:
                    self.stop_reading(key.data)
            now = time.monotonic()
            if now >= next_tick:
                next_tick = now + TICK_INTERVAL
                for tick in self.ticks:
                    tick(now)
                if now >= next_look:
                    next_look = now + PLACE_INTERVAL
                    self.look_at_places()
                if until():
                    return

    def look_at_places(self):
        """A slow reader sees the end of its stream long after the relay has closed the connection."""
        for relay in {member.relay for member in self.watched}:
            members = [member for member in self.watched if member.relay is relay and member.kept]
            ports = open_ports(relay.port)
            if any(member.port not in ports for member in members):
                # The kernel may skip an entry of the list while others change it.
                ports |= open_ports(relay.port)
            for member in members:
                if member.port not in ports:
                    member.note_close()


# Scenarios


class Verdict:
    """Collects the bounds that were missed."""

    def __init__(self):
        self.missed = []

    def check(self, holds, what):
        if not holds:
            self.missed.append(what)


def table(title, head, rows):
    """Prints Markdown: the first column is text, the others are figures."""
    rows = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
        lines.append("| " + " | ".join(cells) + " |")
    rule = [":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])]
    lines.insert(1, "|" + "|".join(rule) + "|")
    print(f"{title}\n\n" + "\n".join(lines) + "\n", flush=True)


def seconds_text(seconds):
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def line_delays(program, title, names, blocks, rate, max_delay, seconds, verdict):
    """A chatter's delays beside floods and one slow reader; a row of a table."""
    with running(program) as relay:
        reader = SlowReader(relay, "slow reader", rate)
        listener, chatter = Listener(relay), Chatter(relay)
        loop = Loop([reader, listener, chatter], watched=[reader, listener, chatter])
        with flooding(relay, names, blocks, seconds + LATE_LINES + 10):
            loop.run(seconds)
            pace = listener.received / seconds
            chatter.sending = False
            sent = len(chatter.due)
            loop.run(LATE_LINES, until=lambda: len(listener.arrived) == sent)
            loop.look_at_places()
        now = time.monotonic()
        places = {one.name: one.place_and_reason() for one in (reader, listener, chatter)}
    delays = [listener.arrived.get(k, now) - due for k, due in enumerate(chatter.due)]
    missing = sum(k not in listener.arrived for k in range(sent))
    p99 = percentile(delays, 0.99)
    verdict.check(p99 <= max_delay, f"{title}: p99 of the line delay is {seconds_text(p99)}")
    verdict.check(not missing, f"{title}: {missing} of {sent} lines had not arrived {LATE_LINES:.0f} s later")
    for name, place in places.items():
        verdict.check(place == KEPT, f"{title}: the {name}'s place was {place}")
    verdict.check(reader.fault is None, f"{title}: the slow reader got {reader.fault}")
    return [
        title,
        f"{sent}" + (f" ({missing} missing)" if missing else ""),
        *map(seconds_text, (percentile(delays, 0.5), p99, max(delays))),
        f"≤ {max_delay:.0f} s",
        f"{pace / 1000:,.0f} kB/s",
        reader.place(),
    ]


def chatter_beside_floods(program, seconds, verdict):
    one = ["one flood, a reader of 20 kB/s", [b"flood"], numbered_blocks, 20_000, 1.0]
    names = [(b"flood %d " % i).ljust(256, b".") for i in range(50)]
    fifty = ["fifty floods of empty messages, a reader of 8 kB/s", names, empty_blocks, 8_000, 6.0]
    rows = [line_delays(program, *scenario, seconds, verdict) for scenario in (one, fifty)]
    head = ["beside", "lines", "p50", "p99", "max", "wanted p99", "the room's pace", "the reader's place"]
    table("Delay of a chatter's lines, one a second, until a fast member has them", head, rows)


def stalled_member(program, warmup, seconds, verdict):
    """How long a member that stops reading holds the others up."""
    with running(program) as relay:
        meter, stalled = Meter(relay), Member(relay, "stalled")
        loop = Loop([meter, stalled], watched=[meter, stalled])
        with flooding(relay, [b"flood"], numbered_blocks, warmup + seconds + 10):
            loop.run(warmup)
            loop.stop_reading(stalled)
            stopped_at = time.monotonic()
            meter.longest_gap = 0.0
            loop.run(seconds)
            ended_at = time.monotonic()
        fast_place = meter.place_and_reason()
    first = int((stopped_at - meter.joined_at) / BUCKET)
    last = int((ended_at - meter.joined_at) / BUCKET)
    # The first second is the flood's start.
    normal = percentile([meter.buckets[k] for k in range(int(1 / BUCKET), first)], 0.5)
    slow = [meter.buckets[k] < normal / 10 for k in range(first, last)]
    below = sum(slow) * BUCKET
    stalls = [len(list(run)) * BUCKET for is_slow, run in itertools.groupby(slow) if is_slow]
    stalls = [stall for stall in stalls if stall >= MIN_STALL]
    longest_gap = max(meter.longest_gap, ended_at - meter.last)
    title = "a stalled member"
    verdict.check(below <= MAX_STALL + STALL_TOLERANCE, f"{title}: {below:.1f} s below a tenth of normal")
    verdict.check(len(stalls) <= 1, f"{title}: it held the room up {len(stalls)} times, not once")
    verdict.check(fast_place == KEPT, f"{title}: the fast member's place was {fast_place}")
    row = [
        "one flood",
        f"{normal / BUCKET / 1e6:,.0f} MB/s",
        f"{below:.1f} s",
        f"≤ {MAX_STALL:.0f} s",
        f"{len(stalls)}",
        seconds_text(longest_gap),
        stalled.place(),
    ]
    head = ["beside", "normal", "below a tenth", "wanted", "stalls ≥ 1 s", "longest gap", "its place"]
    table(f"A member that stops reading for good, in the {seconds:.0f} s after that", head, [row])


def slow_readers(program, seconds, verdict):
    """Whether slow readers keep their place, each in a room of its own, all at the same time."""
    with contextlib.ExitStack() as stack:
        readers, floods = [], {}
        for rate in (10_000, 20_000, 200_000):
            relay = stack.enter_context(running(program))
            reader = SlowReader(relay, "slow reader", rate)
            readers.append((reader, "one flood"))
            # It joins before the flood, and receives it from its first message on.
            time.sleep(0.3)
            lasts = seconds + CATCH_UP + 10
            floods[reader] = stack.enter_context(flooding(relay, [b"flood"], numbered_blocks, lasts))
        relay = stack.enter_context(running(program))
        reader = SlowReader(relay, "slow reader", 1_000)
        readers.append((reader, "two chatters"))
        time.sleep(0.3)
        chatters = [Chatter(relay, name) for name in ("alice", "bob")]
        everybody = [reader for reader, _ in readers] + chatters
        loop = Loop(everybody, watched=everybody)

        def end_needless_floods(_):
            for reader, pid in floods.items():
                if not reader.kept:
                    os.kill(pid, signal.SIGKILL)

        loop.ticks.append(end_needless_floods)
        loop.run(seconds)
        loop.look_at_places()
        at_end = {reader: (reader.received, reader.messages) for reader, _ in readers}
        # A reader that still has its place receives all that the floods sent, to the last message.
        loop.ticks = [chatter.tick for chatter in chatters]
        for chatter in chatters:
            chatter.sending = False
        for reader, _ in readers:
            if reader in floods:
                os.kill(floods[reader], signal.SIGTERM)
            loop.read_fast(reader)
        waiting = [reader for reader in floods if reader.kept]
        loop.run(CATCH_UP, until=lambda: all(one.ended or one.end or one.fault for one in waiting))
        loop.run(0.5)
        rows = []
        for reader, beside in readers:
            received, messages = at_end[reader]
            if reader in floods:
                complete = reader.ended
            else:
                numbers = [reader.next_numbers[one.name.encode()] for one in chatters]
                complete = numbers == [len(one.due) for one in chatters]
            state = reader.fault or ("complete" if complete else reader.end or "not complete")
            what = f"a reader of {reader.rate_text()} beside {beside}"
            verdict.check(reader.kept, f"{what}: its place was {reader.place_and_reason()}")
            verdict.check(state == "complete", f"{what}: its stream was {state}")
            figures = [f"{received / 1e6:.2f} MB", f"{messages:,}", f"{reader.received / 1e6:.2f} MB"]
            rows.append([reader.rate_text(), beside, *figures, state, reader.place()])
    head = ["reads", "beside", "read", "messages", "read after catching up", "stream", "its place"]
    table(f"Readers with the system's default buffers, for {seconds:.0f} s", head, rows)


def main():
    summary, _, rest = __doc__.partition("\n\nusage: ")
    usage, _, details = rest.partition("\n\n")
    parser = argparse.ArgumentParser(
        usage=usage,
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--program", type=pathlib.Path, default=TARGET / "release/chatloop", help="the relay to measure"
    )
    parser.add_argument("--only", choices=["delays", "stall", "readers"], help="one of the scenarios")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a scenario takes")
    parser.add_argument("--quick", action="store_true", help="only to see that it runs")
    args = parser.parse_args()
    if not args.program.exists():
        sys.exit(f"{args.program} does not exist; build it first: cargo build --release")
    seconds, warmup = (6.0, 2.0) if args.quick else (args.seconds, 5.0)
    # A relay and floods must not outlive this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    verdict = Verdict()
    if args.only in (None, "delays"):
        chatter_beside_floods(args.program, seconds, verdict)
    if args.only in (None, "stall"):
        # Longer than the bound even with --quick.
        stalled_member(args.program, warmup, max(seconds, 1.5 * SLOW_TIMEOUT), verdict)
    if args.only in (None, "readers"):
        slow_readers(args.program, seconds, verdict)
    for missed in verdict.missed:
        print(f"! {missed}", file=sys.stderr)
    sys.exit(1 if verdict.missed else 0)


main()
