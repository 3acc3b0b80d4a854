"""Fixtures that every test file shares."""

import gc
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import fastsoftmax

# The test files are no package (pytest imports each by its path), so the helpers beside them,
# oracles*.py, are found through sys.path.
sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("gpu_checks", "oracles", "oracles_grads", "oracles_loss")

# Tens of thousands of tests stay: to look through them as often as by default takes a twentieth of the time.
gc.set_threshold(100_000, 20, 20)

# A backend joins every test that uses the fixture below by adding its name here.
BACKENDS = ["native"]
if importlib.util.find_spec("numba") is not None:
    BACKENDS.append("numba")


def pytest_report_header():
    """Say which tests there are at all."""
    return f"fastsoftmax backends: {', '.join(BACKENDS)}{'' if 'numba' in BACKENDS else ' (Numba is not installed)'}"


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Run the test on each backend in turn, and so what it runs in other processes."""
    monkeypatch.setenv("FASTSOFTMAX_BACKEND", request.param)
    with fastsoftmax.use_backend(request.param):
        yield request.param


@pytest.fixture
def run_python(tmp_path):
    """Run code in a fresh interpreter: for what is decided once a process, and for what may hang.

    A value of None takes a variable out of the environment. The working directory is an empty
    one, so that the installed package is imported and not the checkout.
    """

    def run(code, *args, timeout=60, check=True, **variables):
        env = dict(os.environ)
        for key, value in variables.items():
            env.pop(key, None)
            if value is not None:
                env[key] = str(value)
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
            env=env,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            # With its children: a forked one that hangs would stay for ever.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            stdout = stderr = None
        if stdout is None:
            pytest.fail(f"no end after {timeout} s")
        if check and process.returncode:
            pytest.fail(f"exit status {process.returncode}\n{stdout}\n{stderr}")
        return subprocess.CompletedProcess(code, process.returncode, stdout, stderr)

    return run
