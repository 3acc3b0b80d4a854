"""Which backend computes: as the process, a block of code, the environment or what is installed says."""

import contextlib
import contextvars
import importlib.util
import shutil
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
import oracles
from fastsoftmax import _registry

PACKAGE = Path(fastsoftmax.__file__).parent

needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="Numba is not installed")

# Makes a module impossible to find, as where it is not installed.
HIDE = """
    import importlib.machinery, importlib.util, sys

    def hidden(name, path=None, target=None, find=importlib.machinery.PathFinder.find_spec):
        return None if name in ("numba", "numba_cuda") else find(name, path, target)

    importlib.machinery.PathFinder.find_spec = hidden
"""


@pytest.fixture
def restored():
    """Set back what the test chooses for the process."""
    before = fastsoftmax.get_backend()
    yield
    fastsoftmax.set_backend(before)


@pytest.fixture
def used(monkeypatch):
    """The names of the backends that computed, in order."""
    names = []
    for name in _registry.BACKENDS:
        if _registry.is_there(name):
            module = _registry.load(name)

            def spy(*args, name=name, softmax=module.softmax):
                names.append(name)
                return softmax(*args)

            monkeypatch.setattr(module, "softmax", spy)
    return names


# Not a plain call: such a one the compiled function takes to the native backend without asking it by name.
X = np.zeros((4, 6), "float32")[:, ::2]


@pytest.mark.parametrize("select", ["set_backend", "use_backend"])
def test_unknown(select):
    with pytest.raises(ValueError, match="native, numba") as caught, contextlib.ExitStack() as stack:
        stack.enter_context(getattr(fastsoftmax, select)("abacus"))
    assert "abacus" in str(caught.value)
    with pytest.raises(ValueError, match="abacus"):
        fastsoftmax.get_backend("abacus")


@needs_numba
def test_of_the_process(restored, used):
    for name in ("numba", "native"):
        fastsoftmax.set_backend(name)
        assert fastsoftmax.get_backend() == name
        assert fastsoftmax.get_backend("cpu") == name
        fastsoftmax.softmax(X)
        threads = [threading.Thread(target=fastsoftmax.softmax, args=(X,))]
        for thread in threads:
            thread.start()
            thread.join()
    assert used == ["numba", "numba", "native", "native"]


@needs_numba
def test_of_a_block(used):
    before = fastsoftmax.get_backend()
    with fastsoftmax.use_backend("numba"):
        assert fastsoftmax.get_backend() == "numba"
        with fastsoftmax.use_backend("native"):
            fastsoftmax.softmax(X)
        fastsoftmax.softmax(X)
        # Another thread is none of the block's concern, but for one that is given its context.
        context = contextvars.copy_context()
        for target in (fastsoftmax.softmax, lambda x: context.run(fastsoftmax.softmax, x)):
            thread = threading.Thread(target=target, args=(X,))
            thread.start()
            thread.join()
    assert fastsoftmax.get_backend() == before
    assert used == ["native", "numba", before, "numba"]


def test_a_block_ends_by_an_error_too():
    before = fastsoftmax.get_backend()
    with pytest.raises(KeyError), fastsoftmax.use_backend("native"):
        raise KeyError
    assert fastsoftmax.get_backend() == before


@needs_numba
def test_a_plain_call_goes_where_it_is_told(used):
    """The compiled functions' short way is closed while any block is open that it does not see."""
    plain = np.zeros((4, 6), "float32")
    with fastsoftmax.use_backend("numba"):
        fastsoftmax.softmax(plain)
    fastsoftmax.softmax(plain)
    assert used == ["numba"]  # the second went the short way


@needs_numba
@pytest.mark.parametrize("name", ["native", "numba"])
def test_of_the_environment(run_python, name):
    code = "import fastsoftmax, sys; print(fastsoftmax.get_backend(), 'numba' in sys.modules)"
    assert run_python(code, FASTSOFTMAX_BACKEND=name).stdout.split() == [name, "False"]


def test_unknown_in_the_environment(run_python):
    done = run_python("import fastsoftmax", check=False, FASTSOFTMAX_BACKEND="abacus")
    assert "ImportError: FASTSOFTMAX_BACKEND='abacus': expected one of cupy, native, numba" in done.stderr


class TestNotInstalled:
    @pytest.mark.parametrize("select", ["set_backend('numba')", "use_backend('numba').__enter__()"])
    def test_chosen(self, run_python, select):
        done = run_python(HIDE + f"    import fastsoftmax\n    fastsoftmax.{select}", check=False)
        assert 'ImportError: the numba backend is not installed: pip install "fastsoftmax[numba]"' in done.stderr

    def test_in_the_environment(self, run_python):
        done = run_python(HIDE + "    import fastsoftmax", check=False, FASTSOFTMAX_BACKEND="numba")
        assert "ImportError: FASTSOFTMAX_BACKEND='numba' is not installed: pip install" in done.stderr

    def test_show_config(self, run_python):
        done = run_python(HIDE + "    import fastsoftmax; fastsoftmax.show_config()")
        assert 'cpu backend numba: not installed (pip install "fastsoftmax[numba]")' in done.stdout


# Forgets where an editable installation has its extension.
FORGET = """
    import sys

    sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
"""


class TestWithoutTheExtension:
    """A checkout that was never compiled."""

    @pytest.fixture
    def checkout(self, tmp_path):
        # (With the kernels that Numba has kept on disk.)
        shutil.copytree(PACKAGE, tmp_path / "fastsoftmax", ignore=shutil.ignore_patterns("_native*"))
        return tmp_path

    @needs_numba
    def test_numba_takes_its_place(self, checkout, run_python):
        """With one warning, and every function, argument check and default there."""
        rows = oracles.normal((7, 33), "float32")
        np.savez(checkout / "in.npz", rows=rows, labels=np.arange(7))
        code = """
            import sys, warnings
            import numpy as np
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                import fastsoftmax as f
            assert [str(w.message) for w in caught] == [
                "fastsoftmax's compiled extension is missing: the numba backend takes its place"
            ], caught
            assert caught[0].category is RuntimeWarning
            assert f.__file__.startswith(sys.argv[1]), f.__file__
            assert f.get_backend() == "numba"
            assert f.softmax.__module__ == "fastsoftmax" and f.softmax.__doc__
            f.show_config()
            given = np.load(sys.argv[1] + "/in.npz")
            x, labels = given["rows"], given["labels"]
            p, logs = f.softmax(x), f.log_softmax(x.tolist())
            loss, grad = f.cross_entropy_with_grad(x, labels)
            f.set_num_threads(1)
            assert f.get_num_threads() == 1
            for wrong in ({"n_threads": 0}, {"n_threads": -1}):
                try:
                    f.softmax(x, **wrong)
                except ValueError as error:
                    assert "n_threads" in str(error)
                else:
                    raise AssertionError(wrong)
            np.savez(
                sys.argv[1] + "/out.npz", softmax=p, log_softmax=logs, logsumexp=f.logsumexp(x, n_threads=1),
                cross_entropy=loss, cross_entropy_grad=grad, softmax_grad=f.softmax_grad(x, p),
            )
            try:
                f.set_backend("native")
            except ImportError as error:
                print(error)
        """
        done = run_python(
            FORGET + textwrap.indent(textwrap.dedent(code), "    "),
            checkout,
            PYTHONPATH=checkout,
            FASTSOFTMAX_BACKEND=None,
        )
        assert "the native backend is not installed: install fastsoftmax with a C++ compiler at hand" in done.stdout
        got = np.load(checkout / "out.npz")
        oracles.check("softmax", got["softmax"], rows)
        oracles.check("log_softmax", got["log_softmax"], rows.astype("float64"))
        oracles.check("logsumexp", got["logsumexp"], rows)
        loss, grad = fastsoftmax.cross_entropy_with_grad(rows, np.arange(7))
        np.testing.assert_allclose(got["cross_entropy"], loss, rtol=1e-6)
        np.testing.assert_allclose(got["cross_entropy_grad"], grad, rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(
            got["softmax_grad"], fastsoftmax.softmax_grad(rows, got["softmax"]), rtol=1e-5, atol=1e-7
        )

    def test_nor_numba(self, checkout, run_python):
        done = run_python(
            FORGET + HIDE + "    import fastsoftmax", check=False, PYTHONPATH=checkout, FASTSOFTMAX_BACKEND=None
        )
        assert "ImportError: fastsoftmax's compiled extension is missing, and so is Numba" in done.stderr
        assert 'pip install "fastsoftmax[numba]"' in done.stderr
