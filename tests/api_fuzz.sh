#!/bin/sh
# Drives the HTTP API of a real host with schemathesis, from the document that the host itself gives, for a given
# time: no 500, no undocumented status, no answer against its schema, no panic.
#
#   tests/api_fuzz.sh WASMILL MINUTES [PLUGIN.wasm]
#
# WASMILL is the binary, or anything that takes `run -c FILE` and serves the API. With PLUGIN.wasm that component is
# uploaded first, so that deployments meet a version that exists. FUZZ_CONFIG may name a file with more config
# (brokers, databases, pipelines), FUZZ_PIPELINE a pipeline that every second run is about. Needs python3 and schemathesis (pip install schemathesis), or SCHEMATHESIS.
set -eu

wasmill=$1
minutes=$2
plugin=${3:-}
schemathesis=${SCHEMATHESIS:-schemathesis}
folder=$(mktemp -d)
host=
finish() {
    code=$?
    if [ -n "$host" ]; then kill "$host" 2>/dev/null || true; fi
    if [ "$code" -ne 0 ]; then tail -n 50 "$folder/host.log" >&2 || true; fi
    rm -rf "$folder"
    exit "$code"
}
trap finish EXIT INT TERM

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
token=$(python3 -c 'import secrets; print("wasmill_" + secrets.token_urlsafe(32))')
hash=$(python3 -c 'import hashlib, sys; print(hashlib.sha256(sys.argv[1].encode()).hexdigest())' "$token")
# Limits are raised: a fuzzer that is told to wait finds nothing.
cat > "$folder/wasmill.toml" <<CONFIG
[host]
id = "fuzzed"
cache = "$folder/cache"

[http]
listen = "127.0.0.1:$port"
tokens = [{ name = "fuzzer", role = "deploy", hash = "sha256:$hash" }]
limits = { requests_per_second = 1000000, upload = "32MiB", stall = "5s" }
CONFIG
if [ -n "${FUZZ_CONFIG:-}" ]; then cat "$FUZZ_CONFIG" >> "$folder/wasmill.toml"; fi
# A deployment that fits the schema may still be refused (422): what it names does not exist. A removed pipeline is
# still shown: its history stays.
cat > "$folder/schemathesis.toml" <<CONFIG
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429", "503"]
use_after_free.enabled = false
CONFIG

cp "$folder/schemathesis.toml" "$folder/named.toml"
if [ -n "${FUZZ_PIPELINE:-}" ]; then
    printf '\n[parameters]\n"path.name" = "%s"\n' "$FUZZ_PIPELINE" >> "$folder/named.toml"
fi

"$wasmill" run -c "$folder/wasmill.toml" > "$folder/host.log" 2>&1 &
host=$!
url=http://127.0.0.1:$port
python3 - "$url" "$token" "$plugin" <<'PYTHON'
import sys, time, urllib.request
url, token, plugin = sys.argv[1:]
for attempt in range(200):
    try:
        urllib.request.urlopen(url + "/live", timeout=5).read()
        break
    except OSError:
        time.sleep(0.1)
else:
    sys.exit("the host does not answer")
if plugin:
    body = open(plugin, "rb").read()
    headers = {"authorization": "Bearer " + token, "content-type": "application/wasm"}
    request = urllib.request.Request(url + "/v1/plugins", data=body, headers=headers, method="PUT")
    print(urllib.request.urlopen(request, timeout=120).read().decode())
PYTHON

end=$(($(date +%s) + minutes * 60))
seed=1
while [ "$(date +%s)" -lt "$end" ]; do
    left=$((end - $(date +%s)))
    echo "seed $seed, $left s left"
    checks=$folder/schemathesis.toml
    if [ $((seed % 2)) -eq 0 ]; then checks=$folder/named.toml; fi
    # 124: the time is over, nothing was found until then.
    set +e
    timeout -s INT "$((left + 5))" "$schemathesis" --config-file "$checks" run "$url/openapi.json" \
        --header "Authorization: Bearer $token" --seed "$seed" --max-examples "${FUZZ_EXAMPLES:-200}" \
        --continue-on-failure --request-timeout 30 --no-color > "$folder/report" 2>&1
    code=$?
    set -e
    if [ "$code" -ne 0 ] && [ "$code" -ne 124 ]; then
        cat "$folder/report"
        exit 1
    fi
    if grep -q "FAILURES\|Server error" "$folder/report"; then
        cat "$folder/report"
        exit 1
    fi
    kill -0 "$host" || { echo "the host is gone" >&2; exit 1; }
    if grep -q "panicked" "$folder/host.log"; then
        echo "the host panicked" >&2
        exit 1
    fi
    tail -n 5 "$folder/report"
    seed=$((seed + 1))
done
echo "nothing found in $minutes minutes"
