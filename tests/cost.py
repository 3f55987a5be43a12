"""CPU a record of the whole host on real Kafka, startup included: into nothing, and into one Postgres table.

    cost.py WASMILL PLUGIN.wasm SAMPLE.ndjson [RECORDS]

WASMILL is the binary to measure (a release build), PLUGIN the built `flights`, SAMPLE its records. Starts its own
servers through `wasmill local --real`, sends RECORDS flights (default 1,000,000) with ids of their own, runs a
host on them once a workload, and prints a Markdown table. Fails when a count is not what was sent.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time

WORKLOADS = {
    "into nothing": 'bind.route.flights = "discard"\nbind.route.flight_log = "discard"\nbind.route.by_airport = "discard"',
    "into a Postgres upsert table": 'bind.route.flight_log = "discard"\nbind.route.by_airport = "discard"',
    "into a Postgres append table": 'bind.route.flights = "discard"\nbind.route.by_airport = "discard"',
}


def wait_for(path, process):
    for _ in range(1200):
        if os.path.exists(path):
            return
        if process.poll() is not None:
            sys.exit("wasmill local ended: see above")
        time.sleep(0.1)
    sys.exit("no servers within two minutes")


def cpu_of(pid):
    """Seconds of user and system time so far."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(wasmill, config, records):
    """Runs a host until it is idle; CPU seconds, wall seconds and its counts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    host = subprocess.Popen([wasmill, "run", "-c", config, "--json", "--log", "warn"], stdout=subprocess.PIPE)
    busy_until, last = start, 0.0
    while time.monotonic() - start < 300:
        time.sleep(0.25)
        now = cpu_of(host.pid)
        if now - last > 0.05:
            busy_until = time.monotonic()
        elif time.monotonic() - busy_until > 2 and now > 0.5:
            break
        last = now
    host.send_signal(signal.SIGTERM)
    totals = json.loads(host.communicate()[0])["pipelines"]
    (totals,) = totals.values()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert totals["received"] == records, f"{totals} of {records} records"
    assert totals["received"] == totals["emitted"] + totals["filtered"] + totals["dead"], totals
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, busy_until - start, after.ru_maxrss


def main():
    wasmill, plugin, sample = map(os.path.abspath, sys.argv[1:4])
    records = int(sys.argv[4]) if len(sys.argv) > 4 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with open(sample) as lines:
            flights = [json.loads(line) for line in lines]
        with open("flights.ndjson", "w") as out:
            for number in range(records):
                flight = {"id": f"F{number:09}", **flights[number % len(flights)]}
                out.write(json.dumps(flight, separators=(",", ":")) + "\n")
        servers = subprocess.Popen([wasmill, "local", "--real", "-o", "local.toml", "--json"], stdout=subprocess.DEVNULL)
        try:
            wait_for("local.toml", servers)
            feed = [wasmill, "feed", "flights", "flights.ndjson", "--key", "/id", "-c", "local.toml"]
            subprocess.run(feed, check=True, stdout=subprocess.DEVNULL)
            with open("local.toml") as file:
                connections = file.read()
            print(f"{records} flights of about 110 bytes, real Kafka, load average {os.getloadavg()[0]:.1f}\n")
            print("| workload | CPU µs a record | records/s |\n|---|---|---|")
            for number, (name, routes) in enumerate(WORKLOADS.items()):
                with open("host.toml", "w") as file:
                    file.write(f'{connections}\n[pipeline.cost-{number}]\nfile = "{plugin}"\n{routes}\n')
                spent, wall, memory = run(wasmill, "host.toml", records)
                print(f"| {name} | {spent / records * 1e6:.2f} | {records / wall:,.0f} |", flush=True)
            print(f"\ngreatest resident memory {memory / 1024:.0f} MB")
        finally:
            servers.send_signal(signal.SIGTERM)
            servers.wait(60)


main()
