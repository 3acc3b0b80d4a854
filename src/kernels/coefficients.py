"""Derives the constants of exp.h: minimax polynomials by Remez's exchange, in mpmath.

``python coefficients.py`` prints the tables that exp.h holds, with the maximum relative error of each polynomial
before its coefficients are rounded; a test compares the two. exp is approximated as 1 + r + r^2 q(r) with the two
leading coefficients held at 1, because they then cost no rounding and exp(0) is exact. log(1 + f) follows fdlibm's
form: with s = f / (2 + f), log(1 + f) = 2 s + s R(s^2), whose polynomial R has no constant term.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp
import numpy as np

mp.mp.prec = 200


def minimax(
    target: Callable[[mp.mpf], mp.mpf],
    weight: Callable[[mp.mpf], mp.mpf],
    powers: range,
    low: mp.mpf,
    high: mp.mpf,
    rounds: int = 12,
) -> tuple[list[mp.mpf], mp.mpf]:
    """Coefficients of sum c_i x^powers[i] that minimise max |weight (target - sum)| on [low, high]."""
    count = len(powers) + 1
    nodes = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * i / (count - 1)) for i in range(count)]
    grid = [low + (high - low) * mp.mpf(i) / 2000 for i in range(2001)]
    targets = [(x, target(x), weight(x)) for x in grid]
    coefficients: list[mp.mpf] = []
    worst = mp.inf
    for _ in range(rounds):
        system = mp.matrix(count, count)
        right = mp.matrix(count, 1)
        for row, x in enumerate(nodes):
            for column, power in enumerate(powers):
                system[row, column] = weight(x) * x**power
            system[row, count - 1] = (-1) ** row
            right[row] = weight(x) * target(x)
        solution = mp.lu_solve(system, right)
        coefficients = [solution[i] for i in range(len(powers))]
        errors = [w * (t - sum(c * x**p for c, p in zip(coefficients, powers, strict=True))) for x, t, w in targets]
        worst = max(abs(e) for e in errors)
        # One extremum for each run of errors of one sign; the levelled error makes exactly `count` runs.
        runs: list[int] = []
        for i, error in enumerate(errors):
            if error == 0:
                continue
            if runs and mp.sign(error) == mp.sign(errors[runs[-1]]):
                if abs(error) > abs(errors[runs[-1]]):
                    runs[-1] = i
            else:
                runs.append(i)
        while len(runs) > count:
            runs.pop(0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1)
        if len(runs) < count:
            break
        nodes = [grid[i] for i in runs]
        if worst <= abs(solution[count - 1]) * mp.mpf("1.001"):
            break
    return coefficients, worst


def exp_polynomial(degree: int, steps: int) -> tuple[list[mp.mpf], mp.mpf]:
    """q(r), constant term first, in exp(r) = 1 + r + r^2 q(r) for |r| a little beyond half a step of log(2) / steps."""
    # The rounding of x / log(2) may push r past the half by a few parts in a thousand.
    half = mp.log(2) / steps / 2 * mp.mpf("1.004")
    return minimax(lambda r: mp.exp(r) - 1 - r, lambda r: mp.exp(-r), range(2, degree + 1), -half, half)


def log_polynomial(terms: int) -> tuple[list[mp.mpf], mp.mpf]:
    """R(z), its linear coefficient first, for 1 + f between sqrt(1/2) and sqrt(2)."""
    largest = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2

    def target(z: mp.mpf) -> mp.mpf:
        s = mp.sqrt(z)
        return (mp.log1p(s) - mp.log1p(-s)) / s - 2

    # Every term vanishes at 0, so the interval of the exchange starts a little beyond it.
    return minimax(target, lambda z: mp.mpf(1), range(1, terms + 1), largest / 1000, largest)


def powers(steps: int, dtype: type[np.floating]) -> tuple[list[int], list[float]]:
    """2^(j / steps): bits, to which those of j / steps in the exponent's place are added, and what the rounding lost.

    The mantissa of a power between 1 and 2 begins with less than j / steps, so the bits are at most 0.
    """
    bits, lost = [], []
    mantissa = np.finfo(dtype).nmant
    for j in range(steps):
        power = mp.mpf(2) ** (mp.mpf(j) / steps)
        near = rounded(power, dtype)
        bits.append(int((mp.mpf(near) - 1) * 2**mantissa) - j * 2**mantissa // steps)
        lost.append(rounded((power - near) / near, dtype))
    return bits, lost


def split(value: mp.mpf, bits: int, dtype: type[np.floating]) -> tuple[float, float]:
    """A leading part of so many bits, and the rest rounded to dtype."""
    scale = mp.mpf(2) ** (bits - 1 - mp.floor(mp.log(value, 2)))
    high = mp.nint(value * scale) / scale
    return float(high), float(rounded(value - high, dtype))


def rounded(value: mp.mpf, dtype: type[np.floating]) -> float:
    # Through double: no coefficient lies so near a tie of float32 that the double rounding shows.
    return float(dtype(float(value)))


# The steps of each dtype's tables, and the degree that fits them (src/isa says which one an instruction set takes).
STEPS = {
    "float": (np.float32, {16: 3, 8: 4, 1: 6}),
    "double": (np.float64, {8: 7, 1: 11}),
}


def tables() -> dict[str, list]:
    """Every constant of exp.h by its name there."""
    # Without an FMA, and so without a table, products with k must be exact: it has up to 10 bits, in float64 13.
    result = {
        "float LN2": list(split(mp.log(2), 14, np.float32)),
        "float LOG2E": [rounded(1 / mp.log(2), np.float32)],
        "double LN2": list(split(mp.log(2), 40, np.float64)),
        "double LOG2E": [rounded(1 / mp.log(2), np.float64)],
        "double LOG": [rounded(c, np.float64) for c in log_polynomial(7)[0]],
    }
    for name, (dtype, degrees) in STEPS.items():
        for steps, degree in degrees.items():
            result[f"{name} EXP {steps}"] = [rounded(c, dtype) for c in exp_polynomial(degree, steps)[0]]
            if steps > 1:
                result[f"{name} POWERS {steps}"], result[f"{name} LOST {steps}"] = powers(steps, dtype)
    return result


if __name__ == "__main__":
    for name, (_, degrees) in STEPS.items():
        for steps, degree in degrees.items():
            error = exp_polynomial(degree, steps)[1]
            print(f"{name} exp, {steps} steps, degree {degree}: maximum error 2^{float(mp.log(error, 2)):.1f}")
    print(f"log, 7 terms: maximum error 2^{float(mp.log(log_polynomial(7)[1], 2)):.1f}")
    for name, values in tables().items():
        print(name, ", ".join(v.hex() if isinstance(v, float) else str(v) for v in values))
