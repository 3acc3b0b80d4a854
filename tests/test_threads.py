"""Threads: how many, whose settings count, forks, concurrent calls, signals and the GIL."""

import contextvars
import os
import shutil
import subprocess
import threading
import time

import numpy as np
import pytest

import fastsoftmax
import oracles

pytestmark = pytest.mark.usefixtures("backend")


class TestNumberOfThreads:
    def test_set_and_get(self):
        before = fastsoftmax.get_num_threads()
        assert 1 <= before <= os.cpu_count()
        try:
            fastsoftmax.set_num_threads(1)
            assert fastsoftmax.get_num_threads() == 1
        finally:
            fastsoftmax.set_num_threads(None)  # as OpenMP says
        assert fastsoftmax.get_num_threads() == before

    def test_show_config(self, capfd):
        fastsoftmax.show_config()
        printed = capfd.readouterr().out
        for word in ("thread", "native", "OpenMP"):
            assert word.lower() in printed.lower()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
class TestFork:
    CODE = """
        import os, sys, threading, warnings
        import numpy as np
        import fastsoftmax
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks of threaded processes

        x = np.random.default_rng(0).normal(size=(3000, 1000)).astype("float32")
        labels = np.arange(3000) % 1000

        def compute():
            return [
                fastsoftmax.softmax(x), fastsoftmax.log_softmax(x.T, axis=0),
                fastsoftmax.logsumexp(x.ravel()), fastsoftmax.cross_entropy_grad(x, labels),
            ]

        def same(results):
            return all(np.array_equal(a, b) for a, b in zip(results, expected))

        expected = compute()
        if sys.argv[1] == "while another thread computes":
            stop = threading.Event()
            def work():
                while not stop.is_set():
                    compute()
            worker = threading.Thread(target=work)
            worker.start()
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                right = same(compute()) and same(compute())
                if sys.argv[1] == "twice":
                    grandchild = os.fork()
                    if grandchild == 0:
                        os._exit(0 if same(compute()) else 1)
                    right = right and os.waitpid(grandchild, 0)[1] == 0
                os._exit(0 if right else 1)
            children.append(child)
            assert same(compute()), "wrong in the parent"
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        if sys.argv[1] == "while another thread computes":
            stop.set()
            worker.join()
        print("right")
    """

    @pytest.mark.parametrize("when", ["once", "twice", "while another thread computes"])
    def test_after_use(self, run_python, when):
        # A child that waits for threads which were not forked would wait for ever.
        assert run_python(self.CODE, when, OMP_NUM_THREADS=2).stdout == "right\n"

    def test_after_threads_of_another_library_alone(self, run_python, parallel_region):
        code = """
            import ctypes, os, sys, warnings
            import numpy as np
            import fastsoftmax
            warnings.simplefilter("ignore", DeprecationWarning)
            x = np.random.default_rng(0).normal(size=(1000, 1000))
            expected = fastsoftmax.softmax(x, n_threads=1)
            callback = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda thread: None)
            ctypes.CDLL(sys.argv[1]).region(callback, 2)
            child = os.fork()
            if child == 0:
                os._exit(0 if np.array_equal(fastsoftmax.softmax(x), expected) else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert np.array_equal(fastsoftmax.softmax(x), expected)
        """
        run_python(code, parallel_region, timeout=20, OMP_NUM_THREADS=2)

    def test_multiprocessing_pool(self, run_python):
        code = """
            import multiprocessing, warnings
            import numpy as np
            import fastsoftmax
            warnings.simplefilter("ignore", DeprecationWarning)
            x = np.random.default_rng(0).normal(size=(1000, 1000))
            expected = fastsoftmax.softmax(x)
            with multiprocessing.get_context("fork").Pool(2) as pool:
                for got in pool.map(fastsoftmax.softmax, [x] * 4):
                    assert np.array_equal(got, expected)
        """
        run_python(code, OMP_NUM_THREADS=2)


@pytest.mark.parametrize("dtypes", [["float32"], ["float16", "float64"]], ids="-".join)
def test_eight_threads_at_once(dtypes):
    """All operations, in all sizes: small work, work split over slices, one slice split."""
    shapes = [(32, 10), (20_000, 10), (300, 1000), (3, 200_000)]
    jobs = []
    for shape in shapes:
        for dtype in dtypes:
            x = oracles.normal(shape, dtype)
            labels = np.arange(shape[0]) % shape[1]
            jobs += [
                (fastsoftmax.softmax, (x,), {}),
                (fastsoftmax.softmax, (x,), {"axis": 0}),
                (fastsoftmax.log_softmax, (x,), {}),
                (fastsoftmax.logsumexp, (x,), {}),
                (fastsoftmax.cross_entropy, (x, labels), {}),
                (fastsoftmax.cross_entropy_with_grad, (x, labels), {}),
            ]
    expected = [function(*args, **kwargs) for function, args, kwargs in jobs]
    both = fastsoftmax.cross_entropy_with_grad
    wrong, counts = [], [0] * 8
    deadline = time.monotonic() + 2  # some 6_000 calls, of which nearly all run beside seven others

    def work(number):
        rng = np.random.default_rng(number)
        while time.monotonic() < deadline and not wrong:
            i = rng.integers(len(jobs))
            function, args, kwargs = jobs[i]
            got = function(*args, **kwargs)
            pairs = zip(got, expected[i], strict=True) if function is both else [(got, expected[i])]
            if not all(np.array_equal(a, b) for a, b in pairs):
                wrong.append((function.__name__, args[0].shape, args[0].dtype, kwargs))
            counts[number] += 1

    # Each with the backend that was chosen here.
    contexts = [contextvars.copy_context() for _ in range(8)]
    threads = [threading.Thread(target=context.run, args=(work, i), daemon=True) for i, context in enumerate(contexts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads), "hangs"
    assert not wrong
    assert min(counts) > 3


@pytest.fixture(scope="module")
def parallel_region(tmp_path_factory):
    """A library that calls back from every thread of an OpenMP region."""
    compiler = os.environ.get("CC", "cc").split()
    if shutil.which(compiler[0]) is None:
        pytest.skip("there is no C compiler to make an OpenMP region with")
    folder = tmp_path_factory.mktemp("region")
    (folder / "region.c").write_text(
        "#include <omp.h>\n"
        "void region(void (*call)(int), int threads) {\n"
        "#pragma omp parallel num_threads(threads)\n"
        "    call(omp_get_thread_num());\n"
        "}\n"
    )
    library = folder / "region.so"
    command = [*compiler, "-shared", "-fPIC", "-fopenmp", "-o", library, folder / "region.c"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the C compiler has no OpenMP: {done.stderr[:200]}")
    return library


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_call_inside_another_openmp_region(run_python, parallel_region, threads, levels):
    code = """
        import ctypes, sys
        import numpy as np
        import fastsoftmax

        x = np.random.default_rng(0).normal(size=(1000, 1000)).astype("float32")
        calls = [
            lambda: fastsoftmax.softmax(x), lambda: fastsoftmax.softmax(x, axis=0),
            lambda: fastsoftmax.log_softmax(x.ravel()),
            lambda: fastsoftmax.cross_entropy_grad(x, np.zeros(1000, int)),
        ]
        expected = [call() for call in calls]
        results = {}

        @ctypes.CFUNCTYPE(None, ctypes.c_int)
        def callback(thread):
            results[thread] = [call() for call in calls]

        library, threads = ctypes.CDLL(sys.argv[1]), int(sys.argv[2])
        for _ in range(3):
            results.clear()
            library.region(callback, threads)
            assert sorted(results) == list(range(len(results))) and 1 <= len(results) <= threads
            for got in results.values():
                assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))
        print(len(results))
    """
    variables = {"OMP_NUM_THREADS": 2, "OMP_MAX_ACTIVE_LEVELS": levels}
    done = run_python(code, parallel_region, threads, **variables)
    assert int(done.stdout) == threads


def windows(n, *shape):
    """A batch of n arrays, each beginning one entry after the last: long work on little memory."""
    buffer = np.zeros(n + np.prod(shape), "float32")  # numbers at random would take longer than the call
    strides = (4, *np.empty(shape, "float32").strides)
    return np.lib.stride_tricks.as_strided(buffer, (n, *shape), strides, writeable=False)


LONG_CALLS = {
    "rows": lambda n: fastsoftmax.logsumexp(windows(n, 20_000), n_threads=1),
    "short rows": lambda n: fastsoftmax.logsumexp(windows(1000 * n, 20), n_threads=1),
    "columns": lambda n: fastsoftmax.logsumexp(windows(n, 20, 1000), axis=1, n_threads=1),
    "labels": lambda n: fastsoftmax.cross_entropy(windows(n, 20_000), np.zeros(n, int), n_threads=1),
}


def longest_pause(call, n):
    """Run call(n) in another thread; return its time, and the longest for which this thread stood still meanwhile."""
    worker = threading.Thread(target=call, args=(n,))
    started = last = time.monotonic()
    pause = 0.0
    worker.start()
    while worker.is_alive():
        time.sleep(0.001)
        now = time.monotonic()
        pause, last = max(pause, now - last), now
    return time.monotonic() - started, pause


@pytest.mark.parametrize("kind", LONG_CALLS)
def test_the_gil_is_released(kind):
    n, elapsed, tries = 1000, 0.25, 0
    while tries < 3:  # because a machine that stalls for a moment looks the same as a lock that is held
        if elapsed < 0.4:  # not long enough to tell
            n = int(n * max(2, min(0.5 / elapsed, 100)))
        elapsed, pause = longest_pause(LONG_CALLS[kind], n)
        if elapsed >= 0.4:
            if pause < elapsed / 2:
                return
            tries += 1
    pytest.fail("this thread stood still while the other computed")


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("call", ["logsumexp(x)", "cross_entropy(x, np.zeros(len(x), int))"])
def test_keyboard_interrupt(run_python, call, n_threads):
    code = f"""
        import os, signal, threading, time
        import numpy as np
        import fastsoftmax

        # A process that was started in the background may have inherited that SIGINT is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Rows that overlap: long work on little memory.
        x = np.random.default_rng(0).normal(size=4_020_000).astype("float32")
        x = np.lib.stride_tricks.sliding_window_view(x, 20_000)
        fastsoftmax.set_num_threads({n_threads})
        whole, x = x, x[:1000]
        fastsoftmax.{call}  # which loads and compiles what there is to be
        x, sent = whole, []

        def interrupt():
            time.sleep(0.3)
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        try:
            fastsoftmax.{call}
        except KeyboardInterrupt:
            print(time.monotonic() - sent[0])
            x = x[:100]
            assert np.isfinite(fastsoftmax.{call}).all()  # the next call is whole again
    """
    # Some 50 ms are promised; the rest is for a busy machine. Uninterrupted it takes 10 s.
    assert float(run_python(code).stdout) < 2
