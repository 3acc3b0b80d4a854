"""OpenMP, which gives the native backend its threads: how many start, and whose settings count."""

import os
import textwrap

import pytest

import fastsoftmax

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def openmp_is_built_in():
    try:
        fastsoftmax.set_num_threads(2)
        return fastsoftmax.get_num_threads() == 2
    finally:
        fastsoftmax.set_num_threads(None)


needs_two = pytest.mark.skipif(
    CPUS < 2 or not openmp_is_built_in(),
    reason="one processor alone, or built without OpenMP: there are no threads to count",
)
counts_tasks = pytest.mark.skipif(
    not os.path.isdir("/proc/self/task"), reason="threads are counted through /proc, as on Linux"
)

# Prints by how many a call of big work raises the number of threads of its process.
COUNT = """
    import os
    import numpy as np
    import fastsoftmax

    def threads():
        return len(os.listdir("/proc/self/task"))

    x = np.zeros((2000, 1000), "float32")
    before = threads()
"""


@needs_two
@counts_tasks
@pytest.mark.parametrize(
    ("call", "variables", "more"),
    [
        ("fastsoftmax.softmax(x)", {"OMP_NUM_THREADS": 2}, 1),
        ("fastsoftmax.softmax(x.T, axis=0)", {"OMP_NUM_THREADS": 2}, 1),
        ("fastsoftmax.softmax(x.ravel())", {"OMP_NUM_THREADS": 2}, 1),
        ("fastsoftmax.softmax(x[:2, :50])", {"OMP_NUM_THREADS": 2}, 0),  # too small to pay
        ("fastsoftmax.softmax(x)", {"OMP_NUM_THREADS": 1}, 0),
        ("fastsoftmax.softmax(x, n_threads=1)", {"OMP_NUM_THREADS": 2}, 0),
        ("fastsoftmax.softmax(x, n_threads=2)", {"OMP_NUM_THREADS": 1}, 1),
        ("fastsoftmax.softmax(x.astype('f2'), n_threads=1)", {}, 0),
        ("fastsoftmax.cross_entropy_grad(x, np.zeros(2000, int), n_threads=1)", {}, 0),
        ("fastsoftmax.cross_entropy_grad(x, np.zeros(2000, int), n_threads=2)", {}, 1),
        ("fastsoftmax.set_num_threads(1); fastsoftmax.softmax(x)", {}, 0),
        ("fastsoftmax.set_num_threads(2); fastsoftmax.logsumexp(x)", {}, 1),
        ("fastsoftmax.set_num_threads(2); fastsoftmax.softmax(x, n_threads=1)", {}, 0),
    ],
)
def test_threads_that_start(run_python, call, variables, more):
    code = COUNT + f"    {call}\n    print(threads() - before)\n"
    done = run_python(code, **{"OMP_NUM_THREADS": None, **variables})
    assert int(done.stdout) == more


@needs_two
@counts_tasks
@pytest.mark.parametrize(("limit", "more"), [(1, 0), (2, 1)])
def test_threadpoolctl(run_python, limit, more):
    reason = "sets the limit of OpenMP: not installed"
    pytest.importorskip("threadpoolctl", reason=reason)
    code = f"""
        import threadpoolctl
        with threadpoolctl.threadpool_limits({limit}):
            assert fastsoftmax.get_num_threads() == {limit}
            fastsoftmax.softmax(x)
        print(threads() - before)
    """
    done = run_python(textwrap.dedent(COUNT) + textwrap.dedent(code), OMP_NUM_THREADS=None)
    assert int(done.stdout) == more


@needs_two
def test_environment(run_python):
    code = "import fastsoftmax; print(fastsoftmax.get_num_threads())"
    for threads in (1, 2):
        assert int(run_python(code, OMP_NUM_THREADS=threads).stdout) == threads
    assert int(run_python(code, OMP_NUM_THREADS=10_000).stdout) <= os.cpu_count()
