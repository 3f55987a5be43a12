"""What exactly-once costs a row against at-least-once: the same rows, the same statements, the same batches, one run.

    delivery_cost.py WASMILL TESTS

WASMILL is the binary, for its `local`; TESTS the unit tests' binary of the library (a release build), whose ignored test
`postgres::cost::cost` does the work. Per row and way: instructions of the host's side (callgrind), system calls of
both sides (strace), CPU of the database's process (least of interleaved rounds). Instructions and system calls are
the difference of a long and a short run, so that start and end are not in them. Fails when one of these two is more than
10 % above at-least-once; the CPU is told.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile

WAYS = ["exactly-once", "at-least-once"]
# Rows a flight: a full batch (1024 records, a row each), and one of which a fifth becomes rows.
SIZES = [1024, 205]
# Flights of the two runs whose difference counts. Sessions that open make some hundred system calls, now more, now less,
# so that takes more flights.
INSTRUCTIONS = (10, 70)
CALLS = (50, 550)
MOST = 1.10
# What depends on what else the machine does is told and fails nothing.
TIMED = ["CPU ns a row, database"]


def environment(url, table, rows, way, flights=0):
    asked = {"URL": url, "TABLE": table, "ROWS": rows, "WAY": way, "FLIGHTS": flights}
    return {**os.environ, **{f"WASMILL_COST_{name}": str(value) for name, value in asked.items()}}


def run(command, env):
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode != 0 or "1 passed" not in done.stdout:
        sys.exit(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def test(tests):
    return [tests, "--ignored", "--exact", "postgres::cost::cost", "--nocapture", "--test-threads=1"]


def instructions(tests, env, folder):
    out = os.path.join(folder, "callgrind.out")
    callgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
    run(callgrind + test(tests), env)
    with open(out) as file:
        return int(re.search(r"^(?:summary|totals): (\d+)", file.read(), re.MULTILINE)[1])


def calls(path):
    """The sum of a strace table."""
    with open(path) as file:
        return int(re.search(r"^100\.00 +\S+ +\S+ +(\d+) .*total$", file.read(), re.MULTILINE)[1])


def system_calls(tests, env, folder, postmaster):
    ours, theirs = os.path.join(folder, "ours"), os.path.join(folder, "theirs")
    attach = ["strace", "-c", "-f", "-o", theirs, "-p", str(postmaster)]
    server = subprocess.Popen(attach, stderr=subprocess.PIPE, text=True)
    if "attached" not in (said := server.stderr.readline()):
        sys.exit(f"{attach}: {said}")
    run(["strace", "-c", "-f", "-o", ours] + test(tests), env)
    server.send_signal(signal.SIGINT)
    server.wait(30)
    return calls(ours) + calls(theirs)


def a_row(measure, env_of, rows, flights):
    """What a row costs of what `measure` counts."""
    short, long = (measure(env_of(number)) for number in flights)
    return (long - short) / ((flights[1] - flights[0]) * rows)


def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def postmaster_of(url, root):
    """The server of that port under the process `root`: others may use the port too, on a socket elsewhere."""
    port = re.search(r"port=(\d+)|:(\d+)/", url)
    port = next(found for found in port.groups() if found)
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                words = file.read().split("\0")
        except OSError:
            continue
        if os.path.basename(words[0]) == "postgres" and any(port == word or word == f"port={port}" for word in words):
            above = pid
            while above not in (0, root):
                above = parent_of(above)
            if above == root:
                return pid
    sys.exit(f"no postmaster on port {port} under process {root}")


def main():
    wasmill, tests = map(os.path.abspath, sys.argv[1:3])
    above = []
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "local.toml")
        servers = subprocess.Popen([wasmill, "local", "-o", config, "--json"], stdout=subprocess.PIPE, text=True)
        try:
            decoder, text = json.JSONDecoder(), ""
            while True:
                text += servers.stdout.readline()
                try:
                    url = decoder.decode(text)["postgres"]
                    break
                except json.JSONDecodeError:
                    if servers.poll() is not None:
                        sys.exit("wasmill local ended: see above")
            postmaster = postmaster_of(url, servers.pid)
            print("| table, rows a flight | counted | exactly once | at least once | ratio |\n|---|---|---|---|---|")
            for table in ("upsert", "append"):
                for rows in SIZES:
                    ways = {way: lambda flights, way=way: environment(url, table, rows, way, flights) for way in WAYS}
                    measured = {
                        "instructions a row, host": [
                            a_row(lambda env: instructions(tests, env, folder), ways[way], rows, INSTRUCTIONS)
                            for way in WAYS
                        ],
                        "system calls a row, host and database": [
                            a_row(lambda env: system_calls(tests, env, folder, postmaster), ways[way], rows, CALLS)
                            for way in WAYS
                        ],
                    }
                    said = run(test(tests), environment(url, table, rows, "rounds")).stdout
                    measured[TIMED[0]] = [float(n) for n in re.search(r"backend-ns (\d+) (\d+)", said).groups()]
                    for what, (exact, least) in measured.items():
                        ratio = exact / least
                        print(f"| {table}, {rows} | {what} | {exact:.4g} | {least:.4g} | {ratio:.3f} |", flush=True)
                        if ratio > MOST and what not in TIMED:
                            above.append(f"{table}, {rows}: {what} {ratio:.3f}")
        finally:
            servers.send_signal(signal.SIGTERM)
            servers.wait(60)
    if above:
        sys.exit("more than 10 % above at-least-once: " + "; ".join(above))
    print("\nexactly once costs at most 10 % more instructions and system calls than at least once, in each of them")


main()
