"""What a user installs: the sdist, the wheel built from it, and what importing it does."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax

CHECKOUT = Path(__file__).resolve().parents[1]


def ignored(folder, names):
    """Leave out what a build or a tool wrote: a stale file must not stand in for a missing one."""
    generated = shutil.ignore_patterns(".git", ".*_cache", "__pycache__", "build", "dist", "*.egg-info", "*.so")
    environments = {name for name in names if Path(folder, name, "pyvenv.cfg").exists()}
    return generated(folder, names) | environments


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the sdist, and the wheel from it for one instruction set, once; return their paths."""
    if not (CHECKOUT / "setup.py").exists():
        pytest.skip("the tests lie outside a checkout: nothing to build")
    for name in ("build", "Cython", "setuptools"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # no origin: a folder of that name, such as a build's own
            pytest.skip(f"building without a network needs {name} installed")
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("building needs NumPy 2.0 or newer")
    clean = tmp_path_factory.mktemp("checkout") / "fastsoftmax"
    shutil.copytree(CHECKOUT, clean, ignore=ignored)
    dist = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, clean],
        cwd=dist,
        env={**os.environ, "FASTSOFTMAX_ISAS": "baseline"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    (sdist,) = dist.glob("*.tar.gz")
    (wheel,) = dist.glob("*.whl")
    return sdist, wheel


def test_sdist_has_what_the_build_and_the_tests_need(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    kept = ["src", "fastsoftmax", "tests", "examples", "docs"]
    expected = {
        str(path.relative_to(CHECKOUT))
        for folder in kept
        for suffix in ("h", "cpp", "py", "pyx", "pyi", "typed", "md")
        for path in (CHECKOUT / folder).rglob(f"*.{suffix}")
    }
    expected |= {"pyproject.toml", "setup.py", "README.md", "LICENSE", "CHANGELOG.md"}
    assert any(name.startswith("src/") and name.endswith(".h") for name in expected)
    assert expected <= names
    assert not [name for name in names if name.endswith((".so", ".pyc", ".o"))]


def test_wheel_has_the_package_and_nothing_else(built):
    names = zipfile.ZipFile(built[1]).namelist()
    top = {name.partition("/")[0] for name in names}
    version = importlib.metadata.version("fastsoftmax")
    assert top == {"fastsoftmax", f"fastsoftmax-{version}.dist-info"}
    extensions = [name for name in names if re.fullmatch(r"fastsoftmax/_native\..*\.so", name)]
    assert len(extensions) == 1
    modules = {str(p.relative_to(CHECKOUT)) for p in (CHECKOUT / "fastsoftmax").rglob("*.py")}
    assert modules <= set(names)
    assert {"fastsoftmax/_native.pyi", "fastsoftmax/py.typed"} <= set(names)
    assert not [name for name in names if name.endswith((".pyx", ".c", ".cpp", ".h"))]


def test_wheel_from_the_sdist_runs_outside_the_checkout(built, tmp_path, run_python):
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-index", "--target", target]
    subprocess.run([*pip, "install", *options, built[1]], check=True)
    code = """
        import sys
        import numpy as np
        import fastsoftmax
        import fastsoftmax._native

        assert fastsoftmax.__file__.startswith(sys.argv[1]), fastsoftmax.__file__
        assert fastsoftmax._native.__file__.startswith(sys.argv[1])
        probs = fastsoftmax.softmax(np.array([[1, 2, 3], [7, 8, 9]], np.float32))
        expected = [[0.09003057, 0.24472847, 0.66524096]] * 2
        np.testing.assert_allclose(probs, expected, rtol=1e-6)
        assert probs.dtype == np.float32
        assert fastsoftmax._native.supported_isas() == ["baseline"]
    """
    run_python(code, target, PYTHONPATH=target, FASTSOFTMAX_ISA=None)


def test_version_is_that_of_the_metadata():
    assert fastsoftmax.__version__ == importlib.metadata.version("fastsoftmax")


def test_import_loads_numpy_and_the_extension_alone(run_python):
    code = """
        import sys
        import numpy

        before = set(sys.modules)
        import fastsoftmax

        print(*(set(sys.modules) - before))
    """
    loaded = {name.partition(".")[0] for name in run_python(code).stdout.split()}
    loaded -= sys.stdlib_module_names
    own = {name for name in loaded if "cython" in name}  # the extension's runtime keeps types there
    # NumPy 1.26 loads a stub of its own when the C API is looked for where NumPy 2 has it.
    assert loaded - own - {"numpy"} == {"fastsoftmax"}


def test_import_leaves_subnormals_alone(run_python):
    """Code linked with -ffast-math would flush them to zero in the whole process."""
    code = """
        import numpy as np
        import fastsoftmax

        for subnormal in np.float32(1e-40), np.float64(1e-310):
            assert (np.full(64, subnormal) * 1 != 0).all(), "inputs are flushed to zero"
            normal = np.full(64, np.finfo(subnormal.dtype).tiny)
            assert (normal / 2 != 0).all(), "results are flushed to zero"
    """
    run_python(code)
