// From a call to its kernel: checks the view, chooses the traversal, splits the work.
//
// The traversal follows from n and the strides alone, never from how many slices there are: it fixes the order of
// summation, and with it the bits of the result.
#include <unistd.h>

#include <atomic>
#include <cstdio>

#include "dispatch.h"
#include "parallel.h"

namespace fastsoftmax {
namespace {

// What runs between two questions to `interrupted`: about 50 ms on one thread.
constexpr int64_t kUninterrupted = int64_t(1) << 25;

// Whether the elements of each slice are neighbours (rows), or the slices are (columns).
bool in_rows(const fs_call &call, const fs_strides &strides) {
    return call.inner == 1 && (strides.n == 1 || call.n == 1);
}
bool in_columns(const fs_call &call, const fs_strides &strides) { return call.inner == 1 || strides.inner == 1; }

constexpr int64_t kItemSize[FS_DTYPES] = {4, 8, 2, 2};

// Bytes of the last-level cache; where the system does not say, those of a common one. (The kernel is asked first: what
// sysconf of glibc 2.36 says on AMD is the sum of a processor's several.)
int64_t last_level_cache() {
    if (std::FILE *file = std::fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r")) {
        long kilobytes = 0;
        const bool found = std::fscanf(file, "%ldK", &kilobytes) == 1 && kilobytes > 0;
        std::fclose(file);
        if (found) return int64_t(kilobytes) << 10;
    }
#if defined(_SC_LEVEL3_CACHE_SIZE)
    const long size = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (size > 0) return size;
#endif
    return int64_t(1) << 25;
}

std::atomic<int64_t> cache_size{last_level_cache()};

// Arrays of more than three quarters of it are written past it: the rest holds whatever else is in use. (From 24 of 32 MB on
// that is faster, by a tenth where they fill it.)
bool beyond_cache(int64_t bytes) { return bytes > cache_size / 4 * 3; }

Team serial() { return {1, parallel_for}; }

// Units begin..end-1 on several threads, each taking a contiguous share.
fs_status run_units(const fs_call &call, const Kernel &kernel, int64_t begin, int64_t end, int threads, bool stream) {
    if (threads == 1) return kernel.run(call, begin, end, serial(), stream);
    std::atomic<fs_status> status{FS_OK};
    auto share = [&](int64_t i) {
        const int64_t units = end - begin;
        const fs_status own =
            kernel.run(call, begin + units * i / threads, begin + units * (i + 1) / threads, serial(), stream);
        if (own != FS_OK) status = own;
    };
    Team{threads, parallel_for}.for_each(threads, share);
    return status;
}

}  // namespace
}  // namespace fastsoftmax

using namespace fastsoftmax;

int fs_writes(fs_op op) { return op != FS_LOGSUMEXP && op != FS_CROSS_ENTROPY && op != FS_CROSS_ENTROPY_SPREAD; }

fs_status fs_run(const fs_call *pointer) {
    const fs_call &call = *pointer;
    if (call.outer == 0 || call.inner == 0 || call.n == 0) return FS_OK;
    const bool output = fs_writes(call.op);
    auto all = [&](bool (*in)(const fs_call &, const fs_strides &)) {
        return in(call, call.x_strides) && (!output || in(call, call.out_strides)) &&
               (call.y == nullptr || in(call, call.y_strides));
    };
    Traversal traversal;
    if (all(in_rows)) {
        traversal = kRows;
    } else if (all(in_columns)) {
        traversal = kColumns;
    } else {
        return FS_UNSUPPORTED;
    }
    const Kernel &kernel = kernels_in_use(call.dtype).ops[call.op][traversal];
    const int64_t units = traversal == kColumns ? call.outer * ceil_divide(call.inner, kernel.width)
                                                : ceil_divide(call.outer, kernel.width);
    const int threads = threads_for(call.outer * call.inner * call.n, call.n_threads);
    const int64_t bytes = call.outer * call.inner * call.n * kItemSize[call.dtype];
    const bool stream = output && beyond_cache((call.x == call.out ? 1 : 2) * bytes);
    const int64_t piece = traversal == kColumns ? kColumnPiece : kRowPiece;
    if (units < threads && call.n > piece) {
        const Team team{threads, parallel_for};
        for (int64_t unit = 0; unit < units; ++unit) {
            if (unit > 0 && call.interrupted != nullptr && call.interrupted()) return FS_INTERRUPTED;
            const fs_status status = kernel.run(call, unit, unit + 1, team, stream);
            if (status != FS_OK) return status;
        }
        return FS_OK;
    }
    const int64_t unit_elements = call.n * kernel.width;
    const int64_t step = unit_elements < kUninterrupted ? kUninterrupted / unit_elements * threads : threads;
    for (int64_t begin = 0; begin < units; begin += step) {
        if (begin > 0 && call.interrupted != nullptr && call.interrupted()) return FS_INTERRUPTED;
        const int64_t end = begin + step < units ? begin + step : units;
        const int shares = end - begin < threads ? int(end - begin) : threads;
        const fs_status status = run_units(call, kernel, begin, end, shares, stream);
        if (status != FS_OK) return status;
    }
    return FS_OK;
}

void fs_set_cache_size(int64_t bytes) { cache_size = bytes < 0 ? last_level_cache() : bytes; }

int64_t fs_check_labels(const int64_t *labels, int64_t count, int64_t classes, int64_t ignore_index, int64_t *valid) {
    int64_t ignored = 0, wrong = 0;
    for (int64_t i = 0; i < count; ++i) {
        const bool ignore = labels[i] == ignore_index;
        ignored += ignore;
        wrong += !ignore & (uint64_t(labels[i]) >= uint64_t(classes));
    }
    *valid = count - ignored;
    if (wrong == 0) return -1;
    for (int64_t i = 0; i < count; ++i)
        if (labels[i] != ignore_index && uint64_t(labels[i]) >= uint64_t(classes)) return i;
    return -1;  // changed since
}

namespace {

// What each addition rounds off is carried along (Neumaier), so that the error does not grow with the count. Eight chains,
// for the latency.
template <class T>
double compensated_sum(const T *values, int64_t count) {
    double chain[8] = {}, lost[8] = {};
    auto add = [&](int c, double x) {
        const double sum = chain[c] + x, seen = sum - chain[c];
        lost[c] += (chain[c] - (sum - seen)) + (x - seen);
        chain[c] = sum;
    };
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (int c = 0; c < 8; ++c) add(c, double(values[i + c]));
    for (int c = 0; i < count; ++i, ++c) add(c, double(values[i]));
    for (int c = 1; c < 8; ++c) {
        add(0, chain[c]);
        lost[0] += lost[c];
    }
    // (The rest of an infinite sum is infinity less infinity.)
    return chain[0] - chain[0] == 0 ? chain[0] + lost[0] : chain[0];
}

}  // namespace

double fs_sum(fs_dtype dtype, const void *values, int64_t count) {
    if (dtype == FS_FLOAT64) return compensated_sum(static_cast<const double *>(values), count);
    return compensated_sum(static_cast<const float *>(values), count);
}

void fs_exp(fs_dtype dtype, const void *x, void *out, int64_t count) {
    kernels_in_use(dtype).exp(x, out, count);
}

void fs_log1p(fs_dtype dtype, const void *x, void *out, int64_t count) {
    kernels_in_use(dtype).log1p(x, out, count);
}
