"""Measure a case: every contestant is judged, then those who are right are timed beside the kernels that move bytes."""

from __future__ import annotations

from collections.abc import Callable

import arrays
import ceilings
import device
from contestants import OURS, Contestant, Library, to_cupy
from judge import Judge, WrongError, poison
from targets import TRAFFIC, Case
from timing import Stopwatch, Times, interleave


def rounded(value: float) -> float:
    """Keep the four digits that may mean something."""
    return float(f"{value:.4g}")


def reason(error: Exception) -> str:
    """Say on one line what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}".replace("|", "/")[:200]


def verdict(contestant: Contestant, call: Callable[[int], object], judge: Judge) -> dict[str, object]:
    """Give the error of what a contestant computes in the first set of arrays, or why it is not timed."""
    found: dict[str, object] = {"expression": contestant.expression}
    try:
        error = judge.error(*to_cupy(call(0)))
    except WrongError as wrong:
        return found | {"wrong": str(wrong)}
    except Exception as failure:  # of any library: a dtype that it has not, a row too long, no memory
        return found | {"failed": reason(failure)}
    return found if error is None else found | {"ulp": rounded(error)}


def judged(
    case: Case, libraries: list[Library], slots: list[arrays.Slot]
) -> tuple[dict[str, dict], dict[str, Callable[[int], object]]]:
    """Judge every contestant; return what was found, and the calls of those who may be timed."""
    judge = Judge(case, slots[0])
    results: dict[str, dict] = {}
    calls: dict[str, Callable[[int], object]] = {}
    for library in libraries:
        if slots[0].out is not None:
            poison(slots[0].out)
        try:
            contestant = library.adapter(case, slots)
        except Exception as failure:
            results[library.name] = {"failed": reason(failure)}
            continue
        if contestant is None:
            continue
        call = contestant.caller()
        results[library.name] = verdict(contestant, call, judge)
        if not {"wrong", "failed"} & results[library.name].keys():
            calls[library.name] = call
    return results, calls


def check(case: Case, slot: arrays.Slot, movers: dict[str, Callable[[int], object]]) -> None:
    """See that the kernels move what they should; a pure read leaves nothing to see."""
    if not case.writes:
        return
    expected = arrays.bits(slot.x) ^ arrays.bits(slot.y) if case.ceiling == "combine" else arrays.bits(slot.x)
    for name, call in movers.items():
        poison(slot.out)
        call(0)
        if not bool((arrays.bits(slot.out) == expected).all()):
            raise WrongError(f"{name} does not move all bytes")


def speed(times: Times, moved_bytes: int) -> dict[str, object]:
    """Time of a call, and the bandwidth that it would have if it moved no more bytes than it must."""
    found: dict[str, object] = {"seconds": rounded(times.seconds), "GB/s": rounded(moved_bytes / times.seconds * 1e-9)}
    found["spread"] = rounded(times.spread)
    return found if times.ahead else found | {"gaps": True}


def record(case: Case, results: dict[str, dict], times: dict[str, Times], movers: list[str]) -> dict[str, object]:
    """Put together what the tables and the JSON say about a case."""
    fastest = min(movers, key=lambda name: times[name].seconds)
    moved = sum(TRAFFIC[case.op]) * case.array_bytes
    ceiling = {"kernel": fastest} | speed(times[fastest], moved)
    for name, result in results.items():
        if name in times:
            result |= speed(times[name], case.moved_bytes)
            result["fraction"] = rounded(result["GB/s"] / ceiling["GB/s"])
            if name != OURS.name and OURS.name in times:
                result["ratio"] = rounded(times[name].seconds / times[OURS.name].seconds)
    ours = results.get(OURS.name, {})
    if case.target is not None and "fraction" in ours:
        ours |= {"target": case.target, "met": ours["fraction"] >= case.target}
    described = {key: getattr(case, key) for key in ("name", "group", "op", "shape", "axis", "dtype")}
    return described | {"ceiling": ceiling, "results": results}


def measure(case: Case, libraries: list[Library], rounds: int, stopwatch: Stopwatch) -> dict[str, object]:
    """Measure one case; ValueError if the device has no room for it."""
    import cupy

    l2 = device.l2_bytes()
    arrays.release()
    if not arrays.fits(case, l2, cupy.cuda.runtime.memGetInfo()[0]):
        raise ValueError(f"{case.name} is left out: the device has too little memory")
    slots = arrays.make(case, l2)
    results, calls = judged(case, libraries, slots)
    movers = ceilings.movers(case, slots)
    check(case, slots[0], movers)
    times = interleave(calls | movers, len(slots), rounds, stopwatch)
    clocks = device.clocks() or {}
    return record(case, results, times, list(movers)) | {"sets": len(slots), "SM MHz": clocks.get("clocks.sm")}
