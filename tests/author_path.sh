#!/usr/bin/env bash
# What README.md tells the author of a plugin, word by word: every ```sh block of its section "Write a plugin", in
# order, in an empty folder. Where the section says `<!-- author-path: check -->` the rows and the dead letters have
# to be there. Uses the `wasmill` on the PATH, else the one in target/debug.
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)
command -v wasmill > /dev/null || PATH="$repository/target/debug:$PATH"
command -v wasmill > /dev/null || { echo "author path: no wasmill on the PATH or in target/debug" >&2; exit 1; }
command -v psql > /dev/null || PATH="$PATH:$(find /usr/lib/postgresql -maxdepth 2 -name bin 2> /dev/null | sort -V | tail -1)"
command -v psql > /dev/null || { echo "author path: no psql; install postgresql" >&2; exit 1; }
# A newcomer has none of these.
unset CARGO_TARGET_DIR WASMILL_LOG

folder=$(mktemp -d)
finish() {
  status=$?
  # shellcheck disable=SC2046 # one process id a word
  kill $(jobs -p) 2> /dev/null || true
  wait
  rm -rf "$folder"
  exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

cat > "$folder/path.sh" << 'END'
set -euo pipefail
trap 'status=$?; kill $(jobs -p) 2> /dev/null || true; wait; [ $status = 0 ] || tail -n 20 *.log >&2; exit $status' EXIT
trap 'exit 1' INT TERM
mkdir empty && cd empty

# Fails unless a query answers as it should.
expect() {
  local found
  found=$(psql "$DATABASE" -Atc "$2")
  [ "$found" = "$1" ] || { echo "author path: expected $1, found $found: $2" >&2; exit 1; }
}
check() {
  expect 'attic=66.2 cellar=51.8 garden=23.9' \
    "SELECT string_agg(sensor || '=' || fahrenheit, ' ' ORDER BY sensor) FROM latest_readings"
  expect 'field-type too-cold' "SELECT string_agg(code, ' ' ORDER BY code) FROM wasmill.dead_letter"
  expect 53 "SELECT octet_length(value) FROM wasmill.dead_letter WHERE code = 'too-cold'"
  size=$(wc -c < sensors.wasm)
  [ "$size" -le 60000 ] || { echo "author path: sensors.wasm has $size bytes, more than 60,000" >&2; exit 1; }
  checked=yes
}
END
awk '
  /^## / { inside = ($0 == "## Write a plugin") }
  inside && /^<!-- author-path: check -->$/ { print "check" }
  /^```/ { if (block) block = 0; else { block = inside && $0 == "```sh"; if (block) blocks++; next } }
  inside && block { print }
  END { if (blocks < 3) exit 1 }
' "$repository/README.md" >> "$folder/path.sh" || { echo "author path: README.md has no such blocks" >&2; exit 1; }
cat >> "$folder/path.sh" << 'END'
[ "$checked" = yes ]
for left in "$LOCAL" "$RUN"; do ! kill -0 "$left" 2> /dev/null; done
END

cd "$folder"
timeout --kill-after=10 600 bash path.sh
echo "author path: ok"
