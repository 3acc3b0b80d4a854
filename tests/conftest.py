"""Fixtures that every test file shares."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import fastsoftmax

# The test files are no package (pytest imports each by its path), so the helper beside them,
# oracles.py, is found through sys.path.
sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("oracles")

# A backend joins every test that uses the fixture below by adding its name here.
BACKENDS = ["native"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Run the test on each backend in turn."""
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
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            pytest.fail(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    return run
