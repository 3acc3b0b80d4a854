"""What docs/accuracy.md says beside its figures; the bounds come from the tests, the constants from the kernels."""

import re
from pathlib import Path

import oracles
from oracles import BOUNDS

TITLES = {
    "softmax": "softmax",
    "sum of softmax": "sum of the probabilities",
    "log_softmax": "log_softmax",
    "logsumexp": "logsumexp",
    "cross_entropy": "cross_entropy, each loss",
    "cross_entropy_grad": "cross_entropy_grad",
}


def limit(name: str, dtype: str) -> str:
    """The bound of a function, with its unit."""
    half = dtype in oracles.HALVES
    unit = "ulp"
    if name == "sum of softmax":
        unit = "eps"
    elif name == "logsumexp":
        unit = "ulp(S)" if half else "eps S"
    elif name == "cross_entropy" and half:
        unit = "float32 ulp"
    return f"{BOUNDS[name][dtype]} {unit}"


def kernel_constants() -> dict[str, int]:
    """The figures of src/kernels/exp.h that the explanation names."""
    source = (Path(__file__).resolve().parent.parent / "src/kernels/exp.h").read_text()
    found = {}
    for dtype in ("float", "double"):
        body = re.search(rf"struct Exp<{dtype}> \{{(.*?)\n\}};", source, re.DOTALL)[1]
        for name in ("kLift", "kShiftFrom"):
            found[f"{dtype}_{name}"] = int(re.search(rf"\b{name} = (\d+)", body)[1])
        # The terms from r^2 on; 1 + r stands before them.
        for steps, terms in re.findall(
            rf"struct ExpSteps<{dtype}, (\d+)> \{{\s*static constexpr int kTerms = (\d+)", source
        ):
            found[f"{dtype}_degree_{steps}"] = int(terms) + 1
    return found


def explanation() -> str:
    """Units, method and limits."""
    return _EXPLANATION.format(**kernel_constants())


_EXPLANATION = """\
## Units

- **ulp** is the distance between neighbouring numbers of the result's dtype at the *exact* value. Correct rounding
  is an error of at most 0.5. Among subnormal numbers that distance stays what it is at the smallest normal one, so
  a result that is lost to underflow where it could be represented counts as a large error.
- A small ulp error is a small *relative* error wherever the result is a normal number: log p of a class whose p
  is 1e-30 below 1 is right to 4 units in its last digit, although p itself is rounded to 1.
- **eps** is the distance from 1 to the next number, 1.2e-7 in float32 and 2.2e-16 in float64.
- logsumexp is m + log1p(r), with m the maximum and r the sum of exp(x - m) over all entries but the first maximum.
  The two terms may cancel, so no error in ulp of their sum can be promised: the bound is stated at **S** = |m| +
  log1p(r). In float16 and bfloat16 the promise is in truth closer: half an ulp of the result and the bound of
  float32.
- Losses of half-precision logits are float32, and so is their ulp.

## How the bounds are reached

- **The rounding of x - m is the largest error of a softmax elsewhere**: where x - m is about -20, half a unit in
  its last place is 8 ulp of the exponential. Here m goes into the exponent instead. With k = round(x / log 2),
  exp(x) = 2^k p(x - k log 2), and 2^(k - k_m) p(x - k log 2) is the same multiple of exp(x) for the whole slice,
  which cancels in every ratio. Only where |m| is {float_kShiftFrom} or more (float64: {double_kShiftFrom}) is the
  maximum subtracted; there the difference is exact for every entry whose exponential counts.
- **The exponential** is a minimax polynomial after a reduction in two steps, with an error below 1 ulp: of degree
  {float_degree_1} in float32 and {double_degree_1} in float64. Where one instruction looks up a table, k counts
  sixteenths (float32, AVX-512) or eighths (float32, AVX2; float64, AVX-512), and degree {float_degree_16},
  {float_degree_8} or {double_degree_8} is enough; the polynomial takes back what the table's entries were rounded by,
  so that little more than the last rounding is left (0.6 ulp; a subnormal result of `exp` itself is rounded once
  more). It is lifted by 2^{float_kLift} (2^{double_kLift}), so that gradual underflow happens once, in the last
  multiplication.
- **Sums** are compensated: what each addition rounds off is added up beside the sum. The bounds therefore do not
  grow with the length of a row; one chain of float32 additions breaks 4 ulp at 17 equal entries.
- **The quotient** 1 / sum is a pair of numbers, so that its own rounding does not reach the results.
- **r is never formed as s - 1.** It leaves the maximum out, and is summed anew where the maximum dominates so far
  that its digits would be lost; log1p then keeps them. So log p near 0 has all its digits.
- **The gradient at an index label** is -(sum of the other exponentials) / s, not p - 1: it has all its digits where
  p is near 1.
- **float16 and bfloat16** are computed and summed in float32 and rounded once.

The method stands in `src/kernels/exp.h`, `operation.h` and `rows.h`, the derivation of the polynomials in
`src/kernels/coefficients.py`.

## What is not promised

- `logsumexp` with `b=`, every function of longdouble numbers, and of complex ones logsumexp and what is in
  `fastsoftmax.compat.scipy`: plain NumPy computes them. Terms of either sign may cancel in any case.
- A loss under `reduction="mean"` or `"sum"` is a sum of losses that are each within the bound; the sum is rounded
  once more.
- Rows of more than 2^24 entries are not tested against exact answers, though no step of the method depends on the
  length.
- The same bits on another instruction set, in another memory layout or on another machine: the bounds hold on each.
- The sign and payload of a NaN.
- Terms too small to be told apart from 0 in a softmax: an entry more than 108 (float64: 750) below its slice's largest
  adds nothing to the sum. Only a `log_softmax` or a loss below 1e-33 (float64: 1e-303) can show it.
- All digits of a gradient whose factors (`grad_output` and weights, over the sum of the exponentials relative to the
  largest) come to less than 5e-29 (float64: 1e-288).
- A vector-Jacobian product whose sum, or whose upstream less that sum, is beyond the dtype's largest number: it is
  infinite, as in the plain formula, also where the product itself is not.
"""


def page(about: str, bounds: str, summary: str, kernels: str, closer: str, details: str) -> str:
    """Put the page together."""
    return f"""\
# Accuracy

Every function has a bound on its error that holds for any input, for slices of up to 2^24 entries along any axis,
and on every instruction set. The tests assert it (`tests/oracles.py` has the table, `tests/test_accuracy.py`,
`test_long_rows.py`, `test_half_precision.py` and `test_exp.py` the inputs); this page measures how far from the
bound the results are, and how far those of other libraries. `python docs/accuracy.py` writes it anew.

{about}

## The bounds

{bounds}

softmax_grad is within 4 eps of |p| (|g| + sum |g p|), log_softmax_grad within 4 eps of |g| + p sum |g|, for the saved
outputs that were given; float16 and bfloat16 have the eps of float32 and half an ulp of the result on top
(`tests/oracles_grads.py`).

## The largest errors found

Over all inputs of the tables further down, ours on the worst instruction set. NumPy is the plain formula with the
maximum subtracted (`fastsoftmax/reference.py`). ∞: NaN or infinity in the place of a number. An empty cell: the
library has no such function, or not for this dtype.

{summary}

float32 `exp` and `log1p` of the kernels are measured over every float32, float64 on a sample of four million:

{kernels}

{explanation()}
## Where another library was closer

Where all logits are equal, the exponentials of the plain formula are exactly 1 and their sum has no error. What else
is listed here is fractions of an ulp.

{closer}

## Every kind of input

Slices along the last axis and along the first, the worse of the two. S, eps and ulp are explained above.

{details}
"""
