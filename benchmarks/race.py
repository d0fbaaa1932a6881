"""Races: contenders that are timed by turns in one process.

A round times each contender once, next to fastnorm, and gives one ratio per rival, so whatever slows the machine for
longer than a round slows both sides of the ratio. Where inputs fit a cache, a contender rotates through copies of them.
"""

import gc
import itertools
import math
import os
import statistics
import time
from pathlib import Path

import numpy as np
import rivals
from jobs import inputs
from libraries import fastnorm

SAMPLE_NS = 2_000_000
FEWEST_ROUNDS = 7  # for every rival
ROTATED_BYTES, MOST_COPIES = 2**19, 16


def calls(name, job):
    """Build a rival's call, and the same on copies of the job's inputs, as many as fit a cache together."""
    first = rivals.rival(name, job)
    if name == "best" or hasattr(first, "refresh"):
        return [first]
    copies = min(MOST_COPIES, ROTATED_BYTES // job.nbytes)
    return [first, *[rivals.rival(name, job, inputs(job).each(np.copy)) for _ in range(copies - 1)]]


class Contender:
    """Calls on copies of the same inputs, with the repetitions that make one sample long enough for the clock.

    `threads`, where given, are those of fastnorm in this contender's calls.
    """

    def __init__(self, calls, sample_ns=SAMPLE_NS, threads=None):
        first = calls[0]
        self.calls, self.threads = calls, threads
        self.way = f"{first.way} of {', '.join(first.among)}" if hasattr(first, "way") else ""
        self.refresh = getattr(first, "refresh", None)
        self.repeats, self.warm_repeats = 1, 0
        estimate = self.quickest(4 * sample_ns)
        self.repeats = math.ceil(sample_ns / estimate)
        if estimate < 10 * sample_ns:  # a longer call needs no warming
            self.warm_repeats = math.ceil(sample_ns / 4 / estimate)
        self.cost = estimate * (self.repeats + self.warm_repeats)
        self.every = 1

    def quickest(self, nanoseconds):
        """Time calls for a while: nanoseconds of the quickest."""
        until = time.perf_counter_ns() + nanoseconds
        best = self.warm_sample()
        while time.perf_counter_ns() < until:
            best = min(best, self.sample())
        return best

    def turns(self, repeats):
        return itertools.islice(itertools.cycle(self.calls), repeats)

    def sample(self):
        """Time all repetitions: nanoseconds of one call."""
        turns = self.turns(self.repeats)
        start = time.perf_counter_ns()
        for call in turns:
            call()
        return (time.perf_counter_ns() - start) / self.repeats

    def warm_sample(self):
        """Take a sample after untimed calls that bring this contender's threads and data back in."""
        if self.threads:
            fastnorm.set_num_threads(self.threads)
        if self.refresh:
            self.refresh()
        for call in self.turns(self.warm_repeats):
            call()
        return self.sample()


def measure(ready, rounds, seconds, fewest=FEWEST_ROUNDS):
    """Take pairs (fastnorm's time, the rival's time) for each rival, in turns that swap who goes first.

    Runs `rounds` rounds, or for `seconds` when that is None, but never fewer than `fewest` of any rival.
    """
    fast = ready["fastnorm"]
    pairs = {name: [] for name in ready if name != "fastnorm"}
    least = fewest * max(ready[name].every for name in pairs)
    until = time.perf_counter() + seconds
    number = 0
    gc.disable()
    try:
        while number < least or (number < rounds if rounds else time.perf_counter() < until):
            for name, found in pairs.items():
                rival = ready[name]
                if number % rival.every:
                    continue
                first, second = (fast, rival) if number // rival.every % 2 else (rival, fast)
                times = {first: first.warm_sample(), second: second.warm_sample()}
                found.append((times[fast], times[rival]))
            number += 1
    finally:
        gc.enable()
    return pairs


def quartiles(pairs):
    """Return the quartiles of the rival's time divided by ours."""
    return statistics.quantiles([theirs / ours for ours, theirs in pairs], n=4, method="inclusive")


def medians(pairs):
    """Return the median times, ours and the rival's, in seconds."""
    return [statistics.median(times) / 1e9 for times in zip(*pairs, strict=True)]


class Neighbours:
    """Processor time taken by other programs, in cores, since this was made; 0 where Linux does not tell."""

    def __init__(self):
        self.start = self.now()

    @staticmethod
    def now():
        try:
            first = Path("/proc/stat").read_text().partition("\n")[0]
        except OSError:
            return 0.0, time.perf_counter()
        user, nice, system, _, _, irq, softirq, steal = map(int, first.split()[1:9])
        everyone = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        children = os.times().children_user + os.times().children_system
        return everyone - time.process_time() - children, time.perf_counter()

    def cores(self):
        others, clock = self.now()
        return max(0.0, (others - self.start[0]) / (clock - self.start[1]))
