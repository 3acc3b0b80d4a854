"""Two processes, each with a build of its own, that take turns."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from builds import Build

ROUNDS = 3  # of four turns


class Worker:
    """One of the processes. It names its cases, then answers requests by numbers; both are lines of JSON."""

    def __init__(self, build: Build) -> None:
        folder = [str(build.folder)] if build.folder is not None else []
        inherited = [path for path in [os.environ.get("PYTHONPATH")] if path]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(folder + inherited)}
        command = [sys.executable, str(Path(__file__).with_name("worker.py")), *folder]
        self.build = build
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.names: list[str] = self.answer()

    def answer(self) -> Any:
        """Read one line."""
        line = self.process.stdout.readline()
        if not line:
            self.close()
            raise SystemExit(f"the worker of {self.build} ended with status {self.process.returncode}")
        return json.loads(line)

    def ask(self, request: str | None) -> float | None:
        """Name a case to prepare it (None: it does not run), or send None for a turn at it, in seconds per call."""
        with contextlib.suppress(BrokenPipeError):  # answer() says so
            print(json.dumps(request), file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


class Pair:
    """A worker for each of two builds, both on one processor: one pair after the other takes the next one.

    On a machine that others use too, one processor may be half as fast as another for minutes.
    """

    def __init__(self, base: Build, head: Build, number: int) -> None:
        with contextlib.ExitStack() as stack:
            self.workers = []
            for build in (base, head):
                self.workers.append(Worker(build))
                stack.callback(self.workers[-1].close)
                if hasattr(os, "sched_setaffinity"):
                    processors = sorted(os.sched_getaffinity(0))
                    os.sched_setaffinity(self.workers[-1].process.pid, {processors[number % len(processors)]})
            self.stack = stack.pop_all()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stack.close()

    def ratio(self, name: str) -> list[float]:
        """Time a case: the second worker's time over the first's, or nothing if the first cannot run it."""
        base, head = self.workers
        if base.ask(name) is None:
            return []
        if head.ask(name) is None:
            raise SystemExit(f"{name} runs with {base.build}, but not with {head.build}")
        times: dict[Worker, list[float]] = {base: [], head: []}
        for worker in (base, head, head, base) * ROUNDS:
            times[worker].append(worker.ask(None))
        return [statistics.median(times[head]) / statistics.median(times[base])]
