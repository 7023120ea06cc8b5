#!/usr/bin/env python3
"""Measures what a delivery through a WebSocket costs the relay, beside chat10, and prints a table in Markdown.

usage: benches/websocket.py [--rounds N] [--quick]

Both relays, one after the other in alternating order, have 500 members that receive, and one that sends one
message at a time: the next one when all have received the last. Frames are of equal length, since messages of
chat10 are two bytes longer. What is compared is the CPU time of the relay a delivery.

On loopback a receiver's kernel acknowledges data either when the program reads it, on the receiver's CPU time,
or later, on whose CPU time there is: the sender's, too. Linux decides by what the receiver did before: one that
has had request and answer, as the WebSocket handshake is, acknowledges later (tcp(7), TCP_QUICKACK). So
each is measured as the kernel has it, and with both modes set for both. Runs on Linux, with two cores; the
relay has the first one. It takes four minutes and ends what it started.
"""

import argparse
import contextlib
import os
import pathlib
import re
import select
import shutil
import socket
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
CHATLOOP = TARGET / "release/chatloop"

ACKS = {"as the kernel decides": None, "at the read": 1, "later": 0}
# The length of a frame of chat10 with a name of eight bytes, without the message.
OVERHEAD = 10 + 8 + 10
MESSAGE = 66
DEADLINE = 30.0


@contextlib.contextmanager
def relay(dialect):
    """The port and the pid of a relay that has one listener of this dialect."""
    words = [CHATLOOP, "serve", "--listen", f"{dialect}://127.0.0.1:0"]
    if shutil.which("taskset"):
        words = ["taskset", "-c", "0", *words]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stderr:
                if found := re.search(rf"{dialect}://127\.0\.0\.1:(\d+)", line):
                    yield int(found[1]), process.pid
                    return
            sys.exit("the relay did not start")
        finally:
            process.terminate()


def cpu_time(pid):
    """The CPU time of a process of one thread, in nanoseconds."""
    return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def frame(is_web, text):
    """A frame of chat10, alone or in a WebSocket frame whose mask is zero."""
    inner = b"%-10d%b" % (len(text), text)
    return bytes([0x82, 0x80 | len(inner), 0, 0, 0, 0]) + inner if is_web else inner


def member(port, is_web, name):
    """The socket of a member of that name."""
    stream = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if is_web:
        stream.sendall(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Protocol: chat10\r\n\r\n" % port
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += stream.recv(1) or sys.exit("the relay refused the handshake")
    stream.sendall(frame(is_web, name))
    return stream


def measure(is_web, ack, members, messages):
    """The CPU time of a relay a delivery, in nanoseconds."""
    with contextlib.ExitStack() as stack:
        port, pid = stack.enter_context(relay("ws" if is_web else "chat10"))
        poll = stack.enter_context(select.epoll())
        streams = {}
        for index in range(members):
            stream = stack.enter_context(member(port, is_web, b"member%02d" % (index % 100)))
            if ack is not None:
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, ack)
            stream.setblocking(False)
            streams[stream.fileno()] = stream
            poll.register(stream, select.EPOLLIN | select.EPOLLET)
        sender = stack.enter_context(member(port, is_web, b"sender00"))
        sent = frame(is_web, b"x" * (MESSAGE if is_web else MESSAGE + 2))
        length = OVERHEAD + MESSAGE + 2
        before = 0
        for turn in range(-messages // 10, messages):
            if turn == 0:
                before = cpu_time(pid)
            sender.sendall(sent)
            due = members * length
            while due > 0:
                events = poll.poll(DEADLINE)
                if not events:
                    sys.exit(f"{due} bytes did not come")
                due -= sum(len(streams[number].recv(65536)) for number, _ in events)
            if due:
                sys.exit(f"{-due} bytes too many came")
        return (cpu_time(pid) - before) / (messages * members)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="only to see that it runs")
    options = parser.parse_args()
    rounds, members, messages = (1, 50, 50) if options.quick else (options.rounds, 500, 1000)
    if shutil.which("taskset"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    results = {label: ([], []) for label in ACKS}
    for turn in range(rounds):
        order = [(label, is_web) for label in ACKS for is_web in (False, True)]
        for label, is_web in order if turn % 2 == 0 else reversed(order):
            results[label][is_web].append(measure(is_web, ACKS[label], members, messages))
    print("| receivers acknowledge | chat10 | in WebSockets | ratio |")
    print("|:----------------------|-------:|--------------:|------:|")
    for label, (plain, web) in results.items():
        ratio = statistics.median(after / before for before, after in zip(plain, web))
        medians = [f"{statistics.median(times) / 1000:.2f} µs" for times in (plain, web)]
        print(f"| {label} | {' | '.join(medians)} | {ratio:.3f} |")


main()
