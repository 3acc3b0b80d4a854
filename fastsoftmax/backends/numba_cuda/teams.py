"""The threads that share a slice, and how what they found becomes one.

A team is (t, lanes, first, step): the thread is number t of `lanes`, and the block's number of the team's thread k is
first + k step. Rooms are shared memory with a place for each thread of the block. All are unsigned, so that no index is
taken for one from an array's end.

Threads meet in two rounds: the first FAN of a team gather what the others left, each that of every FAN-th, and then all
threads read what these have. Both go in the order of the numbers, so that all get the same bits; barriers, of which
there are three, take longer than the few reads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numba import cuda

from fastsoftmax.backends.numba_cuda.arithmetic import arithmetic, function

# Threads that gather.
FAN = np.uint64(16)


@functools.cache
def rooms_for(number: type, threads: int) -> Callable:
    """Make the function that gives the rooms of a block of so many threads: two of numbers, one of counts."""

    # (Inlined by Numba itself: no two functions of a kernel may call one that has shared memory.)
    @cuda.jit(device=True, inline="always")
    def rooms():
        highs = cuda.shared.array(threads, number)
        lows = cuda.shared.array(threads, number)
        counts = cuda.shared.array(threads, np.int64)
        return highs, lows, counts

    return rooms


def _meeting(merge: Callable) -> Callable:
    """Make the function that merges pairs of numbers of all threads of a team, by way of two rooms."""
    start = np.uint64(1)

    @cuda.jit(device=True)
    def meet(a, b, team, a_room, b_room):
        t, lanes, first, step = team
        at = first + t * step
        a_room[at], b_room[at] = a, b
        cuda.syncthreads()
        if lanes > FAN:
            if t < FAN:
                k = t + FAN
                while k < lanes:
                    other = first + k * step
                    a, b = merge(a, b, a_room[other], b_room[other])
                    k += FAN
                a_room[at], b_room[at] = a, b
            cuda.syncthreads()
        a, b = a_room[first], b_room[first]
        k = start
        while k < lanes and k < FAN:
            other = first + k * step
            a, b = merge(a, b, a_room[other], b_room[other])
            k += start
        cuda.syncthreads()  # before the next ones come in
        return a, b

    return meet


@function
def _merge_peaks(a, a_count, b, b_count):
    if a == b:
        return a, a_count + b_count
    if a > b:
        return a, a_count
    return b, b_count


meet_peaks = _meeting(_merge_peaks)


@functools.cache
def meet_sums(number: type) -> Callable:
    """Give the function for sums in two numbers of a type."""
    return _meeting(arithmetic(number).merge)
