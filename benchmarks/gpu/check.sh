#!/usr/bin/env bash
# Everything that takes a CUDA device: the tests of the GPU backends, some of CuPy's under compute-sanitizer, and the
# measurement. Every step runs, whatever the others find; the status is 1 if any failed, 2 if there is no device.
#
#   benchmarks/gpu/check.sh                     # all three; the last one writes benchmarks/results/gpu-<device>.*
#   benchmarks/gpu/check.sh tests sanitizer     # these alone
#   benchmarks/gpu/check.sh bench --quick       # what follows "bench" are options of bench.py
#
# PYTHON is the interpreter (python3), which must import fastsoftmax and CuPy. A test takes ten to a hundred times as
# long under compute-sanitizer: SANITIZED is pytest's expression for those that may run there (not huge), of which
# SANITIZED_TESTS (40) from all over the suite do; each tool is stopped after SANITIZER_SECONDS (900).
set -euo pipefail

cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
suite=(tests/test_cupy*.py)
# As the command pytest: with -m the checkout would be imported in an installed package's place.
pytest=("$python" -c 'import sys; sys.path.pop(0); import pytest; sys.exit(pytest.main())')
outcomes=()
failed=0

# run NAME COMMAND...: one step, with its time
run() {
    local name=$1 begin=$SECONDS status=0 outcome=passed
    shift
    printf '\n== %s\n   %s\n' "$name" "$*"
    "$@" || status=$?
    if ((status != 0)); then
        outcome="FAILED, status $status"
        failed=1
    fi
    outcomes+=("$name: $outcome, $((SECONDS - begin)) s")
}

find_sanitizer() {
    local cuda candidate
    if command -v compute-sanitizer; then return; fi
    for cuda in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda /usr/local/cuda-*; do
        for candidate in "$cuda"/{bin,compute-sanitizer}/compute-sanitizer; do
            if [[ $cuda && -x $candidate ]]; then
                echo "$candidate"
                return
            fi
        done
    done
}

choose_tests() {
    "${pytest[@]}" "${suite[@]}" --collect-only -q -k "${SANITIZED:-not huge}" | grep :: |
        awk -v wanted="${SANITIZED_TESTS:-40}" '{ names[NR] = $0 }
            END { step = NR > wanted ? NR / wanted : 1; for (i = 1; i <= NR; i += step) print names[int(i)] }'
}

sanitize() {
    local sanitizer tool chosen
    sanitizer=$(find_sanitizer)
    if [[ ! $sanitizer ]]; then
        outcomes+=("compute-sanitizer: NOT RUN, it is neither on the PATH nor in the CUDA folder (CUDA_HOME)")
        return
    fi
    mapfile -t chosen < <(choose_tests)
    if ((${#chosen[@]} == 0)); then
        run "compute-sanitizer: no test is chosen" false
        return
    fi
    export PYTHONPATH="benchmarks/gpu${PYTHONPATH:+:$PYTHONPATH}" # for exact_allocations.py
    for tool in memcheck racecheck synccheck; do
        run "compute-sanitizer $tool" timeout "${SANITIZER_SECONDS:-900}" \
            "$sanitizer" --tool "$tool" --error-exitcode 86 "${pytest[@]}" -p exact_allocations -q "${chosen[@]}"
    done
}

"$python" benchmarks/gpu/device.py || exit 2

if (($# == 0)); then set -- tests sanitizer bench; fi
while (($# > 0)); do
    step=$1
    shift
    case $step in
        tests) run "tests" "${pytest[@]}" "${suite[@]}" tests/test_numba_cuda*.py ;;
        sanitizer) sanitize ;;
        bench)
            run "bench" "$python" benchmarks/gpu/bench.py "$@"
            break
            ;;
        *)
            echo "unknown step '$step': tests, sanitizer or bench" >&2
            exit 64
            ;;
    esac
done

printf '\n'
printf '%s\n' "${outcomes[@]}"
exit "$failed"
