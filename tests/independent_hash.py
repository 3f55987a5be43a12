"""What the flights plugin's tables should hold after an input file, computed without any code of the project.

    independent_hash.py INPUT TOPIC

INPUT has lines `partition TAB key TAB value`; the n-th line of a partition is its record of offset n. Prints a line
a table: name, number of rows, and the sum modulo 2^64 of the first 8 bytes of the SHA-256 of every row's line.
"""

import datetime
import hashlib
import json
import re
import sys
from collections import Counter

EPOCH = datetime.date(1970, 1, 1)
DATE = re.compile(r"([0-9]{4})/([0-9]{2})/([0-9]{2}) ([0-9]{2}):([0-9]{2})")
AIRPORT = re.compile(r"[A-Z0-9]{3}")


class Table:
    """Rows and sum of hashes."""

    def __init__(self):
        self.rows = 0
        self.sum = 0

    def add(self, *cells):
        line = "|".join(str(cell) for cell in cells)
        self.rows += 1
        self.sum += int.from_bytes(hashlib.sha256(line.encode()).digest()[:8], "big")

    def show(self, name):
        print(name, self.rows, self.sum % 2**64)


def departure(text):
    """Days since 1970 and microseconds since 1970, or None."""
    match = DATE.fullmatch(text)
    if not match:
        return None
    year, month, day, hour, minute = map(int, match.groups())
    try:
        date = datetime.date(year, month, day)
        datetime.time(hour, minute)
    except ValueError:
        return None
    days = (date - EPOCH).days
    return days, ((days * 24 + hour) * 60 + minute) * 60 * 1_000_000


def main(path, topic):
    offsets = Counter()
    flights, by_airport = {}, {}
    log, dead = Table(), Table()
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            partition, key, value = line.rstrip("\n").split("\t", 2)
            offset = offsets[partition]
            offsets[partition] += 1
            flight = json.loads(value)
            when = departure(flight["date"])
            if when is None:
                dead.add(topic, partition, offset, "bad-date")
                continue
            origin, destination = flight["origin"], flight["destination"]
            if not (AIRPORT.fullmatch(origin) and AIRPORT.fullmatch(destination)):
                dead.add(topic, partition, offset, "bad-airport")
                continue
            days, micros = when
            delay, distance = flight["delay"], flight["distance"]
            # A key lives in one partition, so the order of the file is the order of its records.
            flights[key] = (key, micros, days, origin, destination, delay, distance)
            by_airport[(origin, days, micros, key)] = (destination, delay, distance)
            log.add(topic, partition, offset, "1.0.0", key, micros, delay)
    folded, departures = Table(), Table()
    for row in flights.values():
        folded.add(*row)
    for key, rest in by_airport.items():
        departures.add(*key, *rest)
    departures.show("by_airport")
    dead.show("dead_letter")
    log.show("flight_log")
    folded.show("flights")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
