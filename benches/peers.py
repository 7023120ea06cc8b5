#!/usr/bin/env python3
"""Measures chatloop beside other servers, in alternating rounds, and prints tables for the README.

usage: benches/peers.py [--quick] [--tls]

Each server is started for it, on a free port of 127.0.0.1: the select() server that the tests use,
and Redis, Mosquitto and NATS where they are installed, the last two through WebSockets and through TLS as
well. All are measured by `chatloop load`; every figure is the median of five rounds, between which two servers take
turns. With two cores or more, the servers have the first one and the load the second. It takes about ten
minutes, writes the charts into benches/charts, and ends what it started. --quick is only to see that it
runs, and writes no charts. --tls measures only what goes through TLS.
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
CHATLOOP = TARGET / "release/chatloop"
CHARTS = ROOT / "benches/charts"

QUICK = "--quick" in sys.argv
ONLY_TLS = "--tls" in sys.argv
TALK = ["--for", "1s", "--warmup", "500ms"]
SILENCE = 5.0
MEMBERS = 10_000
TLS_MEMBERS = 5_000
# select() cannot watch more than 1,024 descriptors.
SELECT_MEMBERS = 1_000
if QUICK:
    TALK = ["--for", "100ms", "--warmup", "0s", "--rounds", "1"]
    SILENCE = 0.2
    MEMBERS = SELECT_MEMBERS = TLS_MEMBERS = 300

# A scenario, and for which server beside ours there is to be a chart of it.
SCENARIOS = [
    (["fanout", "--members", "501", "--in-flight", "1"], None),
    (["fanout", "--members", "501", "--in-flight", "64"], "Redis"),
    (["chat", "--members", "100", "--in-flight", "10"], None),
    (["latency", "--members", "100", "--rate", "100"], "Python, select()"),
]

TLS_SCENARIOS = [
    (["fanout", "--members", "501", "--in-flight", "1"], None),
    (["fanout", "--members", "501", "--in-flight", "100"], None),
]

FAULTS = ("lost", "duplicated", "out_of_order", "corrupt", "cut", "refused")


class Server:
    """A server that can be started on a port, and its protocol."""

    def __init__(self, name, protocol, command, members=MEMBERS, authority=None):
        self.name = name
        self.protocol = protocol
        self.command = command
        self.members = members
        # With TLS, names are certified, and the load tool must trust who certifies them.
        self.host = "localhost" if authority else "127.0.0.1"
        self.trust = ["--ca", authority] if authority else []

    @contextlib.contextmanager
    def running(self):
        """Its address and its pid, from when it takes connections on."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        words = pinned(0) + [str(word) for word in self.command(port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(words, **quiet) as process:
            try:
                deadline = time.monotonic() + 10
                while not listens(port):
                    if process.poll() is not None or time.monotonic() > deadline:
                        sys.exit(f"{self.name} did not start: {' '.join(words)}")
                    time.sleep(0.05)
                yield f"{self.protocol}://{self.host}:{port}", process.pid
            finally:
                process.terminate()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def pinned(core):
    """What goes before a command so that it stays on that core, if there are several."""
    if (os.cpu_count() or 1) > 1 and shutil.which("taskset"):
        return ["taskset", "-c", str(core)]
    return []


def chatloop(dialect, *flags):
    """Our command, with a listener of this dialect."""

    def command(port):
        listener = f"{dialect}://127.0.0.1:{port}"
        return [CHATLOOP, "serve", "--log-level", "warn", "--listen", listener, *flags]

    return command


def configured(folder, program, config):
    """The command of a program that has its port from a file."""

    def command(port):
        path = pathlib.Path(folder, f"{port}.conf")
        path.write_text(config.replace("PORT", str(port)))
        return [program, "-c", path]

    return command


def servers(folder):
    """Ours, and those others that are installed; then the same of those that have WebSockets."""

    def python(port):
        return [sys.executable, ROOT / "tests/interop/chat10_server.py", port]

    def redis(port):
        return ["redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--maxclients", 20000]

    paths = os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"
    plain = [Server("Python, select()", "chat10", python, SELECT_MEMBERS)]
    web = [Server("chatloop, chat10", "chat10", chatloop("chat10")), Server("chatloop, JSON", "ws", chatloop("ws"))]
    if shutil.which("redis-server"):
        plain.append(Server("Redis", "redis", redis))
    if mosquitto := shutil.which("mosquitto", path=paths):
        config = "listener PORT 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
        plain.append(Server("Mosquitto", "mqtt", configured(folder, mosquitto, config)))
        # Some versions do not start with a listener for WebSockets alone.
        config = f"user root\nlistener 0 {folder}/PORT.sock\nlistener PORT\nprotocol websockets\nsocket_domain ipv4\n" \
            "allow_anonymous true\nset_tcp_nodelay true\n"
        web.append(Server("Mosquitto", "ws-mqtt", configured(folder, mosquitto, config)))
    if nats := shutil.which("nats-server", path=paths):
        plain.append(Server("NATS", "nats", configured(folder, nats, "listen: 127.0.0.1:PORT\n")))
        config = 'port: -1\nwebsocket { listen: "127.0.0.1:PORT", no_tls: true }\n'
        web.append(Server("NATS", "ws-nats", configured(folder, nats, config)))
    return (
        (Server("chatloop", "chat10", chatloop("chat10")), plain),
        (Server("chatloop, chat10 in WebSockets", "ws-chat10", chatloop("ws")), web),
    )


def servers_with_tls(folder):
    """Ours and others, through TLS 1.3 and with one certificate.

    NATS' own protocol begins without TLS, so it is measured through WebSockets, which begin with it.
    """
    subprocess.run([CHATLOOP, "cert", "--out", folder, "--host", "localhost"], stdout=subprocess.DEVNULL, check=True)
    cert, key = (f"{folder}/chatloop.{end}" for end in ("crt", "key"))

    def server(name, protocol, command):
        return Server(name, protocol, command, TLS_MEMBERS, f"{folder}/chatloop-ca.crt")

    paths = os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"
    others = []
    if mosquitto := shutil.which("mosquitto", path=paths):
        config = "user root\nlistener PORT 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n" \
            f"certfile {cert}\nkeyfile {key}\ntls_version tlsv1.3\n"
        others.append(server("Mosquitto", "tls+mqtt", configured(folder, mosquitto, config)))
    if nats := shutil.which("nats-server", path=paths):
        tls = f'cert_file: "{cert}", key_file: "{key}"'
        config = f'port: -1\nwebsocket {{ listen: "127.0.0.1:PORT", tls {{ {tls} }} }}\n'
        others.append(server("NATS, WebSockets", "tls+ws-nats", configured(folder, nats, config)))
    ours = chatloop("tls+chat10", "--cert", cert, "--key", key)
    return server("chatloop", "tls+chat10", ours), others


def load(*words):
    """Measures; the report, or None if nothing came of it."""
    words = [str(word) for word in words]
    print("+ chatloop load", *words, file=sys.stderr)
    # Pinned to one core it would take the machine to have no other, and sleep.
    command = [*pinned(1), str(CHATLOOP), "load", *words, "--wait", "spin", "--json", "-"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    return json.loads(done.stdout) if done.stdout else None


def chart(name):
    return [] if QUICK else ["--chart", CHARTS / f"{name}.svg"]


def scaled(value, units):
    """A value with three digits, in the first of these units that it is not too small for."""
    size, unit = next((one for one in units if value >= one[0]), units[-1])
    value /= size
    decimals = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:,.{decimals}f} {unit}"


def seconds(nanoseconds):
    return scaled(nanoseconds, [(1e6, "ms"), (1e3, "µs"), (1, "ns")])


def size(count):
    return scaled(count, [(2**20, "MiB"), (1, "B")])


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


def idle(ours, others):
    """What a silent member costs, each server by itself."""
    rows = []
    for server in [ours, *others]:
        with server.running() as (address, pid):
            report = load("idle", "-m", server.members, "--for", f"{SILENCE}s", "-t", address, "--pid", pid, *server.trust)
        if report is None:
            rows.append([server.name, f"{server.members:,}", *["it ended"] * 4])
            continue
        used = report["server"]
        rows.append(
            [
                server.name,
                f"{report['members']:,}",
                size(used["rss_at_start_bytes"]),
                size(used["bytes_per_member"]),
                f"{used['idle_wakeups'] / SILENCE:.0f}",
                seconds(used["cpu_ns_per_delivery"]),
            ]
        )
    head = ["server", "members", "at start", "a member", "wake-ups/s", "CPU a delivery"]
    table(f"`chatloop load idle -t {ours.protocol}://…`, each by itself", head, rows)


def run_scenario(ours, others, scenario, charted):
    """What a delivery takes: ours, and each of the others beside it."""
    rows = []
    for other in others:
        picture = chart(scenario[0]) if other.name == charted else []
        with ours.running() as (target, _), other.running() as (against, _):
            report = load(*scenario, *TALK, "-t", target, "--against", against, *ours.trust, *picture)
        if report is None:
            rows.append([other.name, *["it ended"] * 7])
            continue
        if not all("latency_us" in one and one["deliveries"] for one in (report, report["against"])):
            # A tenth of a second on a busy machine may be too short for a message.
            rows.append([other.name, *["too short"] * 7])
            continue
        faults = sum(report["against"][fault] for fault in FAULTS)
        row = [other.name + (f" ({faults} lost or cut)" if faults else "")]
        both = (report, report["against"])
        row += [seconds(one["server"]["cpu_ns_per_delivery"]) for one in both]
        row.append(f"{report['ratio']['server']['cpu_ns_per_delivery']:.3f}")
        for key in ("p50", "p99"):
            row += [seconds(one["latency_us"][key] * 1000) for one in both]
        rows.append(row)
    head = ["beside", "CPU a delivery", "its", "ratio", "p50", "its", "p99", "its"]
    table(f"`chatloop load {' '.join(scenario)} -t {ours.protocol}://… --against …`", head, rows)


def memory(ours, others):
    """The chart of memory, beside a broker."""
    for other in others:
        if other.name == "Redis":
            with ours.running() as (target, _), other.running() as (against, _):
                times = ["--for", "200ms", "--rounds", 1]
                load("idle", "-m", MEMBERS, *times, "-t", target, "--against", against, *chart("memory"))


def main():
    if not {"--quick", "--tls"}.issuperset(sys.argv[1:]):
        sys.exit(__doc__.split("\n\n")[1])
    if not CHATLOOP.exists():
        sys.exit("build it first: cargo build --release")
    CHARTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        plain, web = servers(folder)
        with_tls = servers_with_tls(folder)
        groups = [(plain, SCENARIOS), (web, SCENARIOS), (with_tls, TLS_SCENARIOS)]
        for (ours, others), scenarios in groups[2 if ONLY_TLS else 0 :]:
            idle(ours, others)
            for scenario, charted in scenarios:
                run_scenario(ours, others, scenario, charted)
        if not ONLY_TLS:
            memory(*plain)


main()
