"""Where a panel's logits and exponentials wait between the passes.

Of rows the exponentials wait in the output, from which they are read again while they stand in a cache. Those
of halves do not fit there: they wait on the stack. Columns are copied to the stack before the first pass, and become
exponentials there: rows of an array that are a power of two apart would drive each other, and the output's, out of
every cache from one pass to the next. A panel that is too large for the stack stays where it is; the exponentials of
halves are then computed twice.
"""

from __future__ import annotations

from numba.core import types

from fastsoftmax.backends.numba.compiled import by_types, helper
from fastsoftmax.backends.numba.markers import ROWS, Write
from fastsoftmax.backends.numba.memory import computing, lanes, load_some, panel_room, room_size, store
from fastsoftmax.backends.numba.panels import TILE, run_across
from fastsoftmax.backends.numba.vectors import formula, splat

__all__ = ["keeps_apart", "panel_size", "place_kept", "room_for", "room_size", "staged", "with_exponentials_in"]


@formula
def place_kept(op, x, out):
    """The output, if exponentials are to be kept and fit there; or None."""
    return out if op.write is Write.EXPONENTIALS and out.dtype == computing(x.dtype) else None


@formula
def room_for(op, traversal, x):
    """A place on the stack, for columns, or for the exponentials of halves; or None."""
    halves = x.dtype != computing(x.dtype)
    wanted = op.write is Write.EXPONENTIALS if halves else traversal != ROWS.type
    return panel_room(x) if wanted else None


def keeps_apart(job, room):
    """Whether the place on the stack is for exponentials alone: whether a job's logits are halves. Of types."""
    return room != types.none and room.dtype != job.types[job.fields.index("x")].dtype


@helper
def _rounded_up(count, w):
    return (count + w - 1) // w * w


@by_types
def panel_size(traversal, job):
    """How many numbers a panel has if its rows, or the rows across its columns, begin at a vector's boundary."""
    if traversal == ROWS.type:
        return lambda traversal, job: job.panel.count * _rounded_up(job.panel.n, lanes(job.x))
    return lambda traversal, job: job.panel.n * _rounded_up(job.panel.count, lanes(job.x))


@formula
def _with_places(room, job, lane, n):
    panel = job.panel._replace(kept=splat(job.panel.kept, 0), kept_lane=lane, kept_n=n)
    return job._replace(panel=panel, kept=room)


@by_types
def with_exponentials_in(room, traversal, job):
    """The job, its exponentials kept there."""
    if traversal == ROWS.type:
        return lambda room, traversal, job: _with_places(room, job, _rounded_up(job.panel.n, lanes(job.x)), 1)
    return lambda room, traversal, job: _with_places(room, job, 1, _rounded_up(job.panel.count, lanes(job.x)))


@formula
def _with_logits(room, job, n):
    """The job, its logits there, and its exponentials if they are kept at all; n: the distance along a column."""
    zero, one = splat(n, 0), splat(n, 1)
    panel = job.panel._replace(x=zero, x_lane=one, x_n=n, kept=zero, kept_lane=one, kept_n=n)
    return job._replace(panel=panel, x=room, kept=None if job.kept is None else room)


@helper
def _copy_run(x, run, count, room, place, step):
    for k in range(run.steps):
        store(load_some(x, run.x + k * run.x_step, count), room, place + k * step)


@by_types
def staged(traversal, job, room):
    """The job, its logits copied to the stack if they are columns for which there is room."""
    if traversal == ROWS.type or room == types.none or keeps_apart(job, room):
        return lambda traversal, job, room: job

    def of_columns(traversal, job, room):
        panel, w = job.panel, lanes(job.x)
        if panel_size(traversal, job) > room_size(room):
            return job
        distance = _rounded_up(panel.count, w)
        for c in range(0, panel.n, TILE):
            for g in range(0, panel.count, w):
                run, place = run_across(job, g, c, min(TILE, panel.n - c)), c * distance + g
                if g + w <= panel.count:
                    _copy_run(job.x, run, None, room, place, distance)
                else:
                    _copy_run(job.x, run, panel.count - g, room, place, distance)
        return _with_logits(room, job, distance)

    return of_columns
