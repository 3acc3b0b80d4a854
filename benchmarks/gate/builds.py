"""A commit as a folder that its package can be imported from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

INSTALLED = "installed"


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
        commit = subprocess.run(
            ["git", "-C", repo, "rev-parse", "--verify", f"{name}^{{commit}}"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        ).stdout.strip()
        if not commit:
            raise SystemExit(f"{name!r} is no commit of {repo}")
        folder = cache.resolve() / f"{commit}-{sys.implementation.cache_tag}"
        if not folder.exists():
            print(f"Building {name}, {commit[:8]}", file=sys.stderr, flush=True)
            # Renamed when it is complete: a build that was broken off is no build.
            unfinished = folder.with_suffix(f".{os.getpid()}")
            requirement = f"fastsoftmax @ git+{repo.resolve().as_uri()}@{commit}"
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", unfinished, requirement]
            if subprocess.run(pip, check=False).returncode:
                raise SystemExit(f"{name!r} does not build")
            unfinished.rename(folder)
        return cls(f"{name} ({commit[:8]})" if not commit.startswith(name) else name, folder)
