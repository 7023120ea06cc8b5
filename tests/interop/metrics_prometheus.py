"""The metrics as Prometheus and its tools read them, and the dashboard and the alerts that come with the relay.

    pip install prometheus-client==0.26.0
    python3 tests/interop/metrics_prometheus.py target/debug/chatloop

It needs `prometheus` and `promtool` (Debian: apt install prometheus).
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

from web_relay import WAIT, Relay

try:
    from prometheus_client.parser import text_string_to_metric_families
except ImportError:
    print("skipped: the metrics, since prometheus-client is not installed")
    sys.exit()
for tool in ("prometheus", "promtool"):
    if not shutil.which(tool):
        print(f"skipped: the metrics, since there is no {tool}")
        sys.exit()

PACKAGING = os.path.join(os.path.dirname(__file__), "..", "..", "packaging")
TYPES = {"counter", "gauge", "histogram"}


def get(url):
    with urllib.request.urlopen(url, timeout=WAIT) as response:
        return response.read()


def samples_of(text):
    """The samples of a text by a parser of our own: name with labels, and value."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def check(condition, what):
    if not condition:
        sys.exit(what)


def check_text(text):
    """What promtool and Prometheus' own library make of the text."""
    linted = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    check(linted.returncode == 0 and not linted.stdout and not linted.stderr, f"promtool: {linted}")
    ours = samples_of(text)
    theirs = {}
    for family in text_string_to_metric_families(text):
        check(family.type in TYPES, f"{family.name} is of the type {family.type}")
        check(family.documentation, f"{family.name} has no help")
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sample.labels.items())
            theirs[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    check(ours == theirs, f"read differently: {set(ours.items()) ^ set(theirs.items())}")


def check_dashboard(dashboard):
    """The expressions of all panels. Grafana refuses a dashboard whose ids are not unique."""
    check(len(dashboard["uid"]) <= 40, "the uid is too long")
    ids = [panel["id"] for panel in dashboard["panels"]]
    check(len(set(ids)) == len(ids), "an id is there twice")
    cells = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        check(place["x"] + place["w"] <= 24, f"{panel['title']} is beyond the grid")
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                check((x, y) not in cells, f"{panel['title']} is over another panel")
                cells.add((x, y))
        for target in panel["targets"]:
            check(target["datasource"]["uid"] == "${datasource}", "the data source is no variable")
            yield panel["title"], target["expr"]


class Prometheus:
    """A Prometheus that scrapes a relay every second, with the alerts that come with the relay."""

    def __init__(self, stack, target):
        folder = tempfile.mkdtemp()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        config = os.path.join(folder, "prometheus.yml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(
                "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
                f"rule_files: [{os.path.abspath(os.path.join(PACKAGING, 'prometheus', 'alerts.yml'))}]\n"
                "scrape_configs:\n"
                f"  - {{job_name: chatloop, static_configs: [{{targets: ['{target}']}}]}}\n"
            )
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--log.level=error",
        ]
        process = subprocess.Popen(command)
        stack.callback(process.wait)
        stack.callback(process.kill)

    def query(self, expression):
        """The samples of an instant query."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            answer = json.loads(get(f"{self.url}/api/v1/query?{query}"))
        except OSError:
            # It does not answer yet.
            return []
        check(answer["status"] == "success", f"{expression}: {answer}")
        return answer["data"]["result"]


def until(condition, what):
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.1)
    sys.exit(f"waited in vain for {what}")


def main():
    with open(os.path.join(PACKAGING, "grafana.json"), encoding="utf-8") as file:
        panels = list(check_dashboard(json.load(file)))
    rules = os.path.join(PACKAGING, "prometheus")
    subprocess.run(["promtool", "check", "rules", "alerts.yml"], cwd=rules, check=True)
    subprocess.run(["promtool", "test", "rules", "alerts_test.yml"], cwd=rules, check=True)
    with Relay(sys.argv[1], ["chat10", "metrics"]) as relay:
        url = relay.url("metrics", "http") + "metrics"
        check_text(get(url).decode())
        prometheus = Prometheus(relay, f"127.0.0.1:{relay.ports['metrics']}")
        load = subprocess.Popen(
            [sys.argv[1], "load", "chat", "--members", "20", "--for", "10s"]
            + ["--target", f"127.0.0.1:{relay.ports['chat10']}"],
            stdout=subprocess.DEVNULL,
        )
        relay.callback(load.wait)
        relay.callback(load.kill)
        # The first two scrapes in the load make a rate.
        for title, expression in panels:
            expression = expression.replace("$__rate_interval", "15s").replace("$instance", ".*")

            def has_data():
                samples = prometheus.query(expression)
                return any(value != "NaN" for _, value in (sample["value"] for sample in samples))

            until(has_data, f"data of the panel {title!r}: {expression}")
        check(load.wait(WAIT) == 0, "the load failed")
        text = get(url).decode()
        check_text(text)
        # Nothing happens any more: Prometheus has the same values, but for those that a scrape changes.
        changing = re.compile(r"chatloop_(turn|wakeup)|process_")
        for name, value in samples_of(text).items():
            if not changing.match(name):
                until(
                    lambda: any(float(one["value"][1]) == value for one in prometheus.query(name)),
                    f"{name} to be {value}",
                )
    print(f"metrics: {len(samples_of(text))} samples, {len(panels)} queries of the dashboard, and the alerts passed")


main()
