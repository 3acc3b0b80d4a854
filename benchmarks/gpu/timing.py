"""Time several contestants against one another on the device.

What is timed is the device: events around calls that lie back to back in its queue. A library's call costs the host
microseconds to tens of microseconds, as much as many of these kernels run, so the device is first given a kernel that
only waits (`delay`), and finds the whole turn queued when it is done with that. Whether the host was done in time is
looked at: if not, the wait is doubled and the turn repeated. A contestant that waits for the device inside its call can
never be ahead; it keeps its gaps, which are its own, and is marked.

The contestants take turns, so that clocks and temperature are the same for all; a figure is the median of its turns.
Every call uses the next one of several sets of arrays (arrays.py), too many for the L2 to hold from lap to lap.

Everybody works on the legacy default stream, which is CuPy's and PyTorch's own default.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

TURN = 4e-3  # seconds on the device
# A queue holds about a thousand launches before the host must wait, and a call may be several.
MOST_CALLS = 64
WARM_UP_CALLS = 3  # the first may compile; at least one for each set of arrays, or later ones would allocate
ESTIMATE_CALLS = 5
PATIENCE = 5  # doublings of the wait, for a contestant
LEAST_WAIT = 100e-6


class Times(NamedTuple):
    """What the turns of a contestant gave."""

    seconds: float  # median, of a call
    spread: float  # between the quartiles, over the median: what is closer together than this may be equal
    ahead: bool  # whether the host was, so that no gaps between the calls are in the time


class Stopwatch:
    """The clocks of the device and of the host."""

    def __init__(self, delay: Callable[[float], None]) -> None:
        import cupy

        self.delay = delay
        self.begin, self.end = cupy.cuda.Event(), cupy.cuda.Event()
        self.elapsed = cupy.cuda.get_elapsed_time
        self.synchronize = cupy.cuda.runtime.deviceSynchronize

    def on_device(self, call: Callable[[], object], count: int, wait: float) -> tuple[float, bool]:
        """Seconds of each of `count` calls, and whether all were queued within `wait` seconds."""
        self.delay(wait)
        self.begin.record()
        for _ in range(count):
            call()
        ahead = not self.begin.done
        self.end.record()
        self.end.synchronize()
        return self.elapsed(self.begin, self.end) * 1e-3 / count, ahead

    def on_host(self, call: Callable[[], object], count: int) -> float:
        """Seconds that the host needs for each of `count` calls, without waiting for the device."""
        self.synchronize()
        begin = time.perf_counter()
        for _ in range(count):
            call()
        seconds = (time.perf_counter() - begin) / count
        self.synchronize()
        return seconds


class Turns:
    """One contestant: how its turns look, and what they gave."""

    def __init__(self, call: Callable[[int], object], slots: int, stopwatch: Stopwatch) -> None:
        slot = itertools.cycle(range(slots))
        self.call = lambda: call(next(slot))
        self.stopwatch = stopwatch
        for _ in range(max(WARM_UP_CALLS, slots + 1)):
            self.call()
        host = stopwatch.on_host(self.call, ESTIMATE_CALLS)
        device, _ = stopwatch.on_device(self.call, ESTIMATE_CALLS, LEAST_WAIT + 2 * host * ESTIMATE_CALLS)
        self.count = min(MOST_CALLS, max(1, round(TURN / device)))
        self.wait = LEAST_WAIT + 1.5 * host * self.count
        self.patience = PATIENCE
        self.times: list[float] = []
        self.aheads: list[bool] = []

    def take(self) -> None:
        """Take one turn; repeat it while a longer wait may still help."""
        seconds, ahead = self.stopwatch.on_device(self.call, self.count, self.wait)
        while not ahead and self.patience:
            self.patience -= 1
            self.wait *= 2
            seconds, ahead = self.stopwatch.on_device(self.call, self.count, self.wait)
        self.times.append(seconds)
        self.aheads.append(ahead)

    def result(self) -> Times:
        """Sum the turns up."""
        median = statistics.median(self.times)
        first, _, third = statistics.quantiles(self.times, n=4) if len(self.times) > 1 else (median, median, median)
        return Times(median, (third - first) / median, all(self.aheads))


def interleave(
    calls: dict[str, Callable[[int], object]], slots: int, rounds: int, stopwatch: Stopwatch
) -> dict[str, Times]:
    """Time each contestant, whose call is given the number of a set of arrays, in turns with the others."""
    contestants = {name: Turns(call, slots, stopwatch) for name, call in calls.items()}
    for _ in range(rounds):
        for contestant in contestants.values():
            contestant.take()
    return {name: contestant.result() for name, contestant in contestants.items()}
