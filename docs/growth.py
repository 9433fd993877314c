#!/usr/bin/env python3
"""The numbers of docs/growth.md: 100 million keys at 50 sites, by a simulation at a scale of 1:1,000 and by arithmetic.

Keys are asked for by Zipf; each site has instances with an L1 of their own (least recently used goes) before a shared L2.
Changes of keys come from anywhere. What is counted: where Checks end, and how many rows are read again for nothing,
because another key in the same of the 65,536 slots was changed.
"""

import argparse
import bisect
import collections
import itertools
import random

SLOTS = 65_536


class Lru:
    """A tier of so many keys."""

    def __init__(self, size):
        self.size, self.held = size, collections.OrderedDict()

    def get(self, key):
        if key not in self.held:
            return None
        self.held.move_to_end(key)
        return self.held[key]

    def put(self, key, stamp):
        self.held[key] = stamp
        self.held.move_to_end(key)
        if len(self.held) > self.size:
            self.held.popitem(last=False)


def simulate(keys, exponent, l1, l2, instances, checks, changes_per_check, slots, rng):
    """Checks at one site; returns the shares of L1, L2 and database, and of needless reads."""
    weights = itertools.accumulate((n + 1) ** -exponent for n in range(keys))
    shares = list(weights)
    tiers, shared = [Lru(l1) for _ in range(instances)], Lru(l2)
    slot_changed, key_changed = [0] * slots, {}
    counts = collections.Counter()
    changes = 0.0
    for now in range(checks):
        changes += changes_per_check
        while changes >= 1:
            changes -= 1
            key = rng.randrange(keys)
            slot_changed[key % slots] = key_changed[key] = now
        key = bisect.bisect_left(shares, rng.random() * shares[-1])
        memory = tiers[rng.randrange(instances)]
        needed, counted = slot_changed[key % slots], now >= checks // 2
        stamp = memory.get(key)
        if stamp is not None and stamp >= needed:
            counts["L1"] += counted
            continue
        if stamp is not None and stamp >= key_changed.get(key, 0):
            counts["needless"] += counted
        found = shared.get(key)
        if found is not None and found >= needed:
            counts["L2"] += counted
            memory.put(key, found)
            continue
        counts["database"] += counted
        memory.put(key, now)
        shared.put(key, now)
    total = counts["L1"] + counts["L2"] + counts["database"]
    return {name: counts[name] / total for name in ("L1", "L2", "database", "needless")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checks", type=int, default=600_000, help="Checks of a simulated site")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    keys, scale = 100_000, 1_000
    print("1:1,000 of 100 million keys; 4 instances a site; 5,000 Checks a second and site")
    print("| Zipf | L1, keys an instance | L2, keys a site | changes a second | L1 | L2 | database | needless reads |")
    print("|---|---|---|---|---|---|---|---|")
    for exponent, l1, l2, changes in itertools.product((0.8, 1.0, 1.2), (65, 500), (5_000, 20_000), (20, 200)):
        if (l1, l2, changes) not in {(65, 5_000, 20), (500, 5_000, 20), (500, 20_000, 20), (500, 20_000, 200)}:
            continue
        # A slot stands for as many keys in the small as in the large when there are fewer of them.
        found = simulate(keys, exponent, l1, l2, 4, options.checks, changes / 5_000, max(1, SLOTS // scale),
                         random.Random(options.seed))
        shares = " | ".join(f"{found[name]:.1%}" for name in ("L1", "L2", "database", "needless"))
        print(f"| {exponent} | {l1 * scale:,} | {l2 * scale:,} | {changes} | {shares} |")
    print("\nby arithmetic, 50 sites × 4 instances:")
    instances = 50 * 4
    for changes in (20, 200, 2_000):
        print(f"- {changes:,} changes a second: log of an hour {changes * 3_600:,} rows, polls {instances} a second that each "
              f"read {changes:,} rows ({instances * changes:,} rows a second in all), slots touched in 5 s: "
              f"{1 - (1 - 1 / SLOTS) ** (changes * 5):.1%}")


if __name__ == "__main__":
    main()
