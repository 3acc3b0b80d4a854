"""Few combinations of factors in which every two levels of every two factors meet.

Most faults that need company need one companion: all pairs find them in some fifty combinations where the full product
has many thousands.
"""

import itertools


def all_pairs(factors):
    """List combinations (a dict each) of factors, a dict of name -> levels, that hold every pair of levels.

    Greedy: a combination begins with the first pair that is still missing, and takes for every other factor, in turn,
    the level that adds the most missing pairs. Deterministic, and within some tenths of the fewest there can be.
    """
    names = list(factors)
    missing = dict.fromkeys(
        (one, other)
        for a, b in itertools.combinations(names, 2)
        for one in itertools.product([a], factors[a])
        for other in itertools.product([b], factors[b])
    )
    combinations = []
    while missing:
        chosen = dict(next(iter(missing)))
        for name in names:
            if name not in chosen:
                chosen[name] = max(
                    factors[name], key=lambda level: len(pairs({**chosen, name: level}, names) & missing.keys())
                )
        for pair in pairs(chosen, names):
            missing.pop(pair, None)
        combinations.append(chosen)
    return combinations


def pairs(chosen, names):
    """Give the pairs of (name, level) in a combination that may not be complete yet."""
    return set(itertools.combinations([(name, chosen[name]) for name in names if name in chosen], 2))
