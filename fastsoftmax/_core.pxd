"""The C API of src/fastsoftmax.h, as _native.pyx sees it."""

from libc.stdint cimport int64_t


cdef extern from "fastsoftmax.h" nogil:
    ctypedef enum fs_status:
        FS_OK
        FS_NO_MEMORY
        FS_INTERRUPTED
        FS_UNSUPPORTED

    ctypedef enum fs_dtype:
        FS_FLOAT32
        FS_FLOAT64
        FS_FLOAT16
        FS_BFLOAT16

    ctypedef enum fs_op:
        FS_SOFTMAX
        FS_LOG_SOFTMAX
        FS_LOGSUMEXP
        FS_CROSS_ENTROPY
        FS_CROSS_ENTROPY_GRAD
        FS_CROSS_ENTROPY_SPREAD
        FS_CROSS_ENTROPY_SPREAD_GRAD
        FS_SOFTMAX_GRAD
        FS_LOG_SOFTMAX_GRAD
        FS_OPS

    ctypedef struct fs_strides:
        int64_t outer, n, inner

    ctypedef struct fs_call:
        fs_op op
        fs_dtype dtype
        int64_t outer, n, inner
        const void *x
        fs_strides x_strides
        void *out
        fs_strides out_strides
        int n_threads
        int (*interrupted)() noexcept
        void *lse
        void *loss
        const int64_t *labels
        int64_t ignore_index
        const void *y
        fs_dtype y_dtype
        fs_strides y_strides
        const void *weight
        const void *sample_weight
        const void *given_lse
        double label_smoothing, z_loss
        double grad_scale

    fs_status fs_run(const fs_call *call)
    int fs_writes(fs_op op)
    int64_t fs_check_labels(const int64_t *labels, int64_t count, int64_t classes, int64_t ignore_index,
                            int64_t *valid)
    double fs_sum(fs_dtype dtype, const void *values, int64_t count)
    const char *fs_isa()
    const char *fs_supported_isa(int i)
    fs_status fs_select_isa(const char *name)
    void fs_set_cache_size(int64_t bytes)
    int fs_openmp()
    int fs_thread_limit()
    int fs_default_threads()
    void fs_exp(fs_dtype dtype, const void *x, void *out, int64_t count)
    void fs_log1p(fs_dtype dtype, const void *x, void *out, int64_t count)
