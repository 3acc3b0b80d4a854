"""Time several contestants against one another on a machine that others use too.

They take turns, so that whatever slows the machine slows all of them; a figure is the median of its turns. A turn lasts
some milliseconds (a call of microseconds is repeated), runs without the garbage collector, and begins with calls that
are not counted: they wake the contestant's threads and bring its arrays back into the caches.

Between turns nobody may be running. The workers of OpenMP and of ONNX Runtime go on spinning for 5 to 30 ms after a
call, in the hope of the next one; on a machine with no core to spare they would slow down whoever is next, by half.
"""

from __future__ import annotations

import math
import statistics
import time
from timeit import Timer

TURN = 5e-3  # seconds
WARM_UP = 1e-3
NO_WARM_UP = 20e-3  # a call so long warms up by itself
LONGEST_WAIT = 0.1


def wait_for_idle_workers() -> None:
    """Return when this process uses no more time: when nobody's workers spin."""
    end = time.perf_counter() + LONGEST_WAIT
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(1e-3)
        if time.process_time() - before < 2e-4:
            return


def seconds_per_call(timer: Timer) -> float:
    """Estimate, after a first call that is not counted: it may compile, or touch fresh pages."""
    timer.timeit(1)
    number = 1
    while (total := timer.timeit(number)) < WARM_UP:
        number *= 4
    return total / number


class Turns:
    """One contestant: how its turns look, and what they gave."""

    def __init__(self, timer: Timer, seconds: float, fewest: int) -> None:
        wait_for_idle_workers()
        each = seconds_per_call(timer)
        self.timer = timer
        self.number = max(1, round(TURN / each))
        self.warm_up = math.ceil(WARM_UP / each) if each < NO_WARM_UP else 0
        self.turns = max(fewest, round(seconds / (self.number * each)))
        self.times: list[float] = []

    def take(self) -> None:
        """Take one turn."""
        wait_for_idle_workers()
        if self.warm_up:
            self.timer.timeit(self.warm_up)
        self.times.append(self.timer.timeit(self.number) / self.number)


def interleave(timers: dict[str, Timer], seconds: float, fewest: int = 5) -> dict[str, float]:
    """Median seconds per call of each contestant, from about `seconds` of its own and at least `fewest` turns."""
    contestants = {name: Turns(timer, seconds, fewest) for name, timer in timers.items()}
    rounds = max(contestant.turns for contestant in contestants.values())
    for i in range(rounds):
        for contestant in contestants.values():
            # Slow ones have fewer turns: these are spread evenly over the rounds.
            if (i + 1) * contestant.turns // rounds > i * contestant.turns // rounds:
                contestant.take()
    return {name: statistics.median(contestant.times) for name, contestant in contestants.items()}
