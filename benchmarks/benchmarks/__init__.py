"""The asv benchmarks: one file a topic, `common.py` for what they share, `turns.py` for how times are taken."""
