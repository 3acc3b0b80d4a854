/* The C API of the fastsoftmax core: no Python, no NumPy.
 *
 * A call names an operation and a view of the logits as (outer, n, inner): every slice runs along n, and there
 * are outer * inner of them. All sizes and strides are counts of elements in 64 bits. The views that a kernel can
 * read have n_stride 1 (inner is then 1) or inner_stride 1; the caller brings anything else into one of them.
 */
#ifndef FASTSOFTMAX_H
#define FASTSOFTMAX_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum fs_status {
    FS_OK = 0,
    FS_NO_MEMORY = 1,
    FS_INTERRUPTED = 2,   /* the caller's `interrupted` said so; the outputs are unspecified */
    FS_UNSUPPORTED = 3    /* a view that no kernel reads, or an ISA that this machine lacks */
} fs_status;

typedef enum fs_dtype { FS_FLOAT32, FS_FLOAT64, FS_FLOAT16, FS_BFLOAT16, FS_DTYPES } fs_dtype;

/* FS_CROSS_ENTROPY reads the logits once more than FS_LOGSUMEXP per slice: at its label. FS_CROSS_ENTROPY_SPREAD is for
 * targets of which every class may have a share: probability labels, label smoothing. Those that end in GRAD write the
 * gradient, and the loss too where `loss` is not NULL. FS_SOFTMAX_GRAD and FS_LOG_SOFTMAX_GRAD are vector-Jacobian
 * products: x is the upstream gradient, y the saved output. */
typedef enum fs_op {
    FS_SOFTMAX,
    FS_LOG_SOFTMAX,
    FS_LOGSUMEXP,
    FS_CROSS_ENTROPY,
    FS_CROSS_ENTROPY_GRAD,
    FS_CROSS_ENTROPY_SPREAD,
    FS_CROSS_ENTROPY_SPREAD_GRAD,
    FS_SOFTMAX_GRAD,
    FS_LOG_SOFTMAX_GRAD,
    FS_OPS
} fs_op;

typedef struct fs_strides {
    int64_t outer, n, inner;
} fs_strides;

typedef struct fs_call {
    fs_op op;
    fs_dtype dtype; /* of x and out */
    int64_t outer, n, inner;
    const void *x; /* this and every other pointer: aligned as its elements are */
    fs_strides x_strides;
    void *out; /* one element per logit, of x's dtype; may be x or y itself; NULL where the operation writes none */
    fs_strides out_strides;
    int n_threads;            /* at most so many; 0: fs_default_threads() */
    int (*interrupted)(void); /* asked between slices, every 50 ms or so of work, on the calling thread; may be NULL */

    /* Numbers per slice are (outer, inner), C-contiguous. Where they are floating they, and the class weights, have the
     * computing dtype: double for float64, else float. Each of these pointers may be NULL. */
    void *lse;
    void *loss;
    const int64_t *labels; /* each in 0..n-1 or ignore_index (see fs_check_labels) */
    int64_t ignore_index;
    const void *y; /* probability labels, of x's or the computing dtype; of a product the saved output, of x's, never NULL */
    fs_dtype y_dtype;
    fs_strides y_strides;
    const void *weight;        /* n class weights; NULL: 1 */
    const void *sample_weight; /* one per slice; NULL: 1 */
    const void *given_lse;     /* logsumexps known already, for the gradient alone: no reduction is done then */
    double label_smoothing, z_loss;
    double grad_scale; /* the gradient of each slice is multiplied by it */
} fs_call;

fs_status fs_run(const fs_call *call);

/* Whether the operation writes an output of one element per logit. */
int fs_writes(fs_op op);

/* Position of the first label that is neither in 0..classes-1 nor ignore_index, or -1; counts those not ignored. */
int64_t fs_check_labels(const int64_t *labels, int64_t count, int64_t classes, int64_t ignore_index, int64_t *valid);

/* Sum in double of float (FS_FLOAT32) or double (FS_FLOAT64) values; its order depends on count alone. */
double fs_sum(fs_dtype dtype, const void *values, int64_t count);

/* The ISA in use, and those that this machine can run, best first: the i-th, or NULL past the last. Where there is none (in
 * a build without the baseline), nothing else here may be called. */
const char *fs_isa(void);
const char *fs_supported_isa(int i);
fs_status fs_select_isa(const char *name); /* NULL: the best */

/* Outputs that take, with their input, more than three quarters of a last-level cache of so many bytes are written past
 * it; negative: the machine's own. For the tests: results do not depend on it. */
void fs_set_cache_size(int64_t bytes);

int fs_openmp(void);      /* 1 where the core was built with OpenMP */
int fs_thread_limit(void); /* the most threads that a call may use on this machine */
int fs_default_threads(void); /* what OpenMP's own settings (OMP_NUM_THREADS, ...) say for the calling thread */

/* The kernels' own exponential and log1p (x >= 0), element by element, for the tests of their accuracy. */
void fs_exp(fs_dtype dtype, const void *x, void *out, int64_t count);
void fs_log1p(fs_dtype dtype, const void *x, void *out, int64_t count);

#ifdef __cplusplus
}
#endif

#endif
