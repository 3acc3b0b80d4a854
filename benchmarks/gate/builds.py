"""A commit as a folder that its package can be imported from."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

INSTALLED = "installed"
# What makes another build of the same commit.
VARIABLES = (
    "CC",
    "CXX",
    "CFLAGS",
    "CXXFLAGS",
    "LDFLAGS",
    "FASTSOFTMAX_ISAS",
    "FASTSOFTMAX_NO_OPENMP",
    "FASTSOFTMAX_SANITIZE",
)


def checkout() -> Path:
    """Give the root of the checkout that this file lies in."""
    return Path(__file__).resolve().parents[2]


class Build(NamedTuple):
    """What a worker imports."""

    name: str
    folder: Path | None  # None: what this Python imports anyway

    def __str__(self) -> str:
        return self.name

    @classmethod
    def of(cls, name: str, repo: Path, cache: Path) -> Build:
        """Build a commit with this Python, unless that was done before."""
        if name == INSTALLED:
            return cls(name, None)
        commit = find_commit(name, repo)
        variant = hashlib.sha256(repr([os.environ.get(variable) for variable in VARIABLES]).encode()).hexdigest()[:8]
        folder = cache.resolve() / f"{commit}-{sys.implementation.cache_tag}-{variant}"
        if not folder.exists():
            print(f"Building {name}, {commit[:8]}", file=sys.stderr, flush=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            # Renamed when it is complete: a build that was broken off is no build.
            with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
                pip_install(f"git+{repo.resolve().as_uri()}@{commit}", Path(unfinished, "build"))
                Path(unfinished, "build").rename(folder)
        return cls(name if commit.startswith(name) else f"{name} ({commit[:8]})", folder)


def find_commit(name: str, repo: Path) -> str:
    """Give the whole hash of a commit."""
    command = ["git", "-C", str(repo), "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}"]
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit(f"{name!r} is no commit of {repo}") from None


def pip_install(requirement: str, folder: Path) -> None:
    """Build and install a package and nothing else; not from pip's own cache, which knows no variants."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-cache-dir"]
    if subprocess.run([*command, "--target", str(folder), requirement], check=False).returncode:
        raise SystemExit(f"{requirement} does not build")
