"""One module a backend, each with the same small interface; `native` is its model.

A backend computes on arrays (outer, n, inner) of its own array type, as `_layout.arrange` makes them, every slice
running along n; what it returns per slice is (outer, inner), float64 for float64, else float32. It imports neither
another backend nor `_api`, which has checked every argument.
"""
