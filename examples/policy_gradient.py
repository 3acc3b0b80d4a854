"""Policy gradient in one compiled loop: fastsoftmax inside a function under Numba's ``@njit``.

A gambler meets one of some tables at a time, each with arms of its own, pulls one, and wins or not. He knows nothing
but what he won. His policy is a softmax of the logits of the table he sits at, and REINFORCE (R. J. Williams, "Simple
statistical gradient-following algorithms for connectionist reinforcement learning", Machine Learning 8, 1992) makes
the arms that won more than usual more probable:

    logits += rate * (reward - usual reward) * (onehot(arm) - probs)

Every step draws from the softmax that the step before has changed, so nothing can be batched: in Python each step is a
dozen calls, in compiled code it is a loop.

    python examples/policy_gradient.py
"""

from __future__ import annotations

import argparse
import time

import numba
import numpy as np

import fastsoftmax


@numba.njit
def train(chances, steps, rate, rng):
    """Play `steps` times; give the logits (tables, arms) and the mean reward of the last tenth."""
    tables, arms = chances.shape
    logits = np.zeros((tables, arms), np.float32)
    probs = np.empty(arms, np.float32)
    usual = np.zeros(tables)
    won = 0.0
    for step in range(steps):
        table = step % tables
        fastsoftmax.softmax(logits[table], axis=0, out=probs)
        arm = draw(probs, rng.random())
        reward = 1.0 if rng.random() < chances[table, arm] else 0.0
        push = rate * (reward - usual[table])
        usual[table] += 0.05 * (reward - usual[table])
        for a in range(arms):
            logits[table, a] -= push * probs[a]
        logits[table, arm] += push
        if step >= steps - steps // 10:
            won += reward
    return logits, won / (steps // 10)


@numba.njit
def draw(probs, u):
    """Draw an index with these probabilities, from a number between 0 and 1."""
    for i in range(len(probs)):
        u -= probs[i]
        if u < 0:
            return i
    return len(probs) - 1


def train_in_numpy(chances, steps, rate, rng):
    """Do what `train` does in plain NumPy."""
    tables, arms = chances.shape
    logits = np.zeros((tables, arms), np.float32)
    usual = np.zeros(tables)
    won = 0.0
    for step in range(steps):
        table = step % tables
        probs = np.exp(logits[table] - logits[table].max())
        probs /= probs.sum()
        arm = min(int(np.searchsorted(np.cumsum(probs), rng.random(), side="right")), arms - 1)
        reward = 1.0 if rng.random() < chances[table, arm] else 0.0
        push = rate * (reward - usual[table])
        usual[table] += 0.05 * (reward - usual[table])
        logits[table] -= push * probs
        logits[table, arm] += push
        if step >= steps - steps // 10:
            won += reward
    return logits, won / (steps // 10)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1_000_000, help="pulls of an arm, compiled (default %(default)s)")
    parser.add_argument("--arms", type=int, default=10, help="arms of a table (default %(default)s)")
    steps, arms = (vars(parser.parse_args(arguments))[name] for name in ("steps", "arms"))

    chances = np.random.default_rng(0).uniform(0.1, 0.9, (20, arms))
    begin = time.perf_counter()
    train(chances, 100, 0.1, np.random.default_rng(0))
    print(f"compiled in {time.perf_counter() - begin:.1f} s")

    for name, function, some in [("@njit", train, steps), ("plain NumPy", train_in_numpy, max(steps // 20, 10))]:
        begin = time.perf_counter()
        _, reward = function(chances, some, 0.1, np.random.default_rng(0))
        each = (time.perf_counter() - begin) / some
        print(f"{name:12}{each * 1e9:10,.0f} ns a step; {some:,} steps; mean reward at the end {reward:.3f}")
    print(f"best possible: {chances.max(axis=1).mean():.3f}, by chance: {chances.mean():.3f}")


if __name__ == "__main__":
    main()
