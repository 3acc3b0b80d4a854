"""What the devices are; tests may change `emulated`."""

from types import SimpleNamespace

emulated = SimpleNamespace(devices=1, compute_capability="90", multiprocessors=132)

# The most dynamic shared memory that a kernel has without asking; that it may ask for, in KB by compute capability.
SHARED_WITHOUT_ASKING = 48 << 10
_SHARED = {"80": 163, "86": 99, "87": 163, "89": 99, "90": 227, "100": 227, "103": 227, "120": 99}

# Attributes of a kernel: CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, _NON_PORTABLE_CLUSTER_SIZE_ALLOWED.
MOST_SHARED = 8
NON_PORTABLE_CLUSTER = 14


def shared_limit():
    """Give the most dynamic shared memory that a kernel may ask for."""
    return _SHARED[emulated.compute_capability] << 10
