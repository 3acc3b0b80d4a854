// What a launch is told; `backends/cupy.py` fills it in, field by field.
//
// Arrays are seen as (outer, n, inner): slices along n whose elements are neighbours (rows, inner is 1), or
// neighbouring slices side by side (columns). Strides count elements; that of inner is 1. What is not given is a null
// pointer.
#ifndef FASTSOFTMAX_CUDA_JOB
#define FASTSOFTMAX_CUDA_JOB

// How much of the work a launch does: everything; the partial states of pieces of slices; or, from their merged
// states, what is written for each element.
enum Phase : long long { EVERYTHING, PARTIAL, FINISH };

struct Job {
    const void* x;
    const void* y;  // beside x: a saved output, or probability labels
    void* out;
    long long outer, n, inner;
    long long x_outer, x_n, y_outer, y_n, out_outer, out_n;
    long long y_is_wide;  // y is of the numbers that x is computed in, not of x's own type
    // A slice is cut into chunks; of rows, `group` threads share one, of columns, as many stand side by side.
    long long chunk, chunks, group;
    Phase phase;
    void* partials;  // states: (outer * inner, chunks)
    void* merged;    // states: (outer * inner)
    // Cross-entropy; all but the labels are numbers, one for each slice or class.
    const long long* labels;
    long long ignore_index;
    const void* weight;
    const void* sample_weight;
    const void* given_lse;
    void* losses;
    void* lses;
    const double* divisor;  // of the gradient
    double kept;            // 1 - label smoothing
    double spread;          // label smoothing / n
    double z_loss;
};

#endif
