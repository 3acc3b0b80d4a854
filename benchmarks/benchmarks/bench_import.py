"""What `import fastsoftmax` costs, in processes of its own, and how much of it is not NumPy's."""

import statistics
import subprocess
import sys
import time

RUNS = 9


def timeraw_import():
    return "import fastsoftmax"


def timeraw_import_numpy():
    return "import numpy"


def seconds(statement):
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begin


def track_import_beyond_numpy():
    """Median over runs side by side."""
    differences = [seconds("import numpy, fastsoftmax") - seconds("import numpy") for _ in range(RUNS + 1)]
    return statistics.median(differences[1:]) * 1e3  # the first run read the files


track_import_beyond_numpy.unit = "ms"
