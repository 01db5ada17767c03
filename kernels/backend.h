/* A backend: a device, its memory, its streams and its table of operators. The CPU is compiled in; others are modules.
 *
 * Conventions of every operator:
 *  - activations are packed: [total_tokens, features], row-major, in the descriptor's dtype; sequences are delimited by
 *    cu_seqlens[batch + 1] (int32, cu_seqlens[0] = 0). Parameters and their gradients are fp32.
 *  - gradients of activations are overwritten (unless an argument says "accumulate"); gradients of parameters are added to.
 *  - the result for one row (one token, one sequence) has the same bits whatever else is in the batch and however many threads run.
 *  - nothing is allocated: where an operator needs scratch, <operator>_workspace says how many bytes, and the caller owns them
 *    (SW_SUM_WORKSPACE bytes for those that add up one number over a tensor).
 *  - returns 0, or -1 with sw_error() set. All pointers are device memory unless marked host. */
#ifndef SW_KERNELS_BACKEND_H
#define SW_KERNELS_BACKEND_H
#include "kernels/dtype.h"
#include <stddef.h>
#include <stdint.h>

typedef struct sw_device sw_device;

typedef struct sw_stream {
  sw_device *device;
  int threads;   /* CPU: threads an operator may use, >= 1; results do not depend on it */
  void *handle;  /* the backend's own: CUDA's stream */
} sw_stream;

/* Dropout by counters, identical on every backend. Element i of a tensor is kept where word (i & 3) of
 * philox(seed, {i >> 2 low, i >> 2 high, site, step}) is >= p * 2^32, and is then multiplied by 1 / (1 - p).
 * i is token * hidden + column for hidden states (token counts from the start of the packed batch), and
 * ((token * heads + head) << 10 | key's position in its sequence) for attention probabilities. p = 0 turns it off. `first` is added to i: a
 * process that has a part of a batch draws the masks that it has in the whole. It is a multiple of 4, for attention of 1024. */
typedef struct {
  float p;
  uint64_t seed;
  uint32_t site, step;
  uint64_t first;
} sw_dropout;

enum { SW_SUM_WORKSPACE = 8192 }; /* device memory for partial sums; its contents mean nothing before and after a call */

#include "kernels/attention/attention.h"
#include "kernels/adamw/adamw.h"
#include "kernels/contrastive/contrastive.h"
#include "kernels/dropout/dropout.h"
#include "kernels/embedding/embedding.h"
#include "kernels/gru/gru.h"
#include "kernels/kmeans/kmeans.h"
#include "kernels/layernorm/layernorm.h"
#include "kernels/lda/lda.h"
#include "kernels/linear/linear.h"
#include "kernels/loss/loss.h"
#include "kernels/neighbours/neighbours.h"
#include "kernels/pool/pool.h"
#include "kernels/rows/rows.h"
#include "kernels/umap/umap.h"

/* One row an operator: dispatch, the support list, the tests and the micro-benchmark are made from it. */
#define SW_OPERATOR_LIST(X)                                                                                                      \
  X(embedding_workspace) X(embedding_forward) X(embedding_backward)                                                              \
  X(layernorm_workspace) X(layernorm_forward) X(layernorm_backward)                                                              \
  X(linear_weight_bytes) X(linear_prepare) X(linear_workspace) X(linear_forward) X(linear_backward_input)                        \
  X(linear_backward_weight)                                                                                                      \
  X(attention_workspace) X(attention_forward) X(attention_backward)                                                              \
  X(gru_workspace) X(gru_forward) X(gru_backward)                                                                                \
  X(pool_forward) X(pool_backward) X(gather_forward) X(gather_backward)                                                          \
  X(cross_entropy) X(sigmoid_bce) X(log_softmax) X(contrastive_workspace) X(contrastive)                                         \
  X(adamw) X(adamw_rows) X(sum_squares) X(cast) X(dropout) X(add_rows)                                                           \
  X(neighbours_workspace) X(neighbours)                                                                                          \
  X(umap_weights) X(umap_multiply) X(umap_layout_workspace) X(umap_layout) X(umap_place) X(umap_ranks_workspace) X(umap_ranks)                  \
  X(lda_workspace) X(lda_beta) X(lda_documents) X(lda_update) X(kmeans_workspace) X(kmeans_assign) X(kmeans_update)

typedef struct {
#define X(name) sw_##name##_fn *name;
  SW_OPERATOR_LIST(X)
#undef X
} sw_operators;

/* SW_RUN(stream, attention_forward, &desc, ...): -1 with a message where the backend lacks the operator. */
#define SW_RUN(stream, operator, ...)                                                                                            \
  ((stream)->device->operators->operator ? (stream)->device->operators->operator((stream), __VA_ARGS__)                          \
                                         : sw_unsupported((stream)->device, #operator))
int sw_unsupported(const sw_device *device, const char *name);

/* Sums over the devices of several processes, in the order of the ranks (the same bits everywhere and in every run). All processes call the
 * same functions in the same order. Each call begins after the work that the stream was given before it, in the midst of collecting too, and goes
 * on beside the work that comes after; nothing may touch its memory before `wait`. */
enum { SW_COLLECTIVE_ID = 128 };
typedef struct {
  /* An id for one process to make and to tell the others; with NULL only whether what is needed is there. -1 with the reason. */
  int (*make_id)(sw_device *device, char id[SW_COLLECTIVE_ID]);
  int (*join)(sw_device *device, const char id[SW_COLLECTIVE_ID], int rank, int ranks); /* returns when all have come; once a device */
  int (*sum)(sw_stream *stream, float *values, size_t count);  /* the sums replace the values */
  int (*gather)(sw_stream *stream, void *all, size_t bytes);   /* all [ranks][bytes]: each process has filled in its own part */
  int (*wait)(sw_stream *stream);                              /* the stream's work from now on comes after them; the host does not wait */
} sw_collectives;

struct sw_device {
  const char *backend;  /* "cpu" */
  char name[96];        /* "cpu (avx512, amx)": for people */
  const sw_operators *operators;
  void *stream;         /* the handle of streams opened on it; NULL on the CPU */
  /* 64-byte aligned device memory, not initialised; NULL with the message set */
  void *(*alloc)(sw_device *device, size_t bytes);
  void (*release)(sw_device *device, void *memory);
  /* Copies are in the stream's order. copy_in has read `host` when it returns; `host` holds copy_out's bytes after synchronize. */
  int (*copy_in)(sw_stream *stream, void *device_memory, const void *host, size_t bytes);
  int (*copy_out)(sw_stream *stream, void *host, const void *device_memory, size_t bytes);
  int (*zero)(sw_stream *stream, void *device_memory, size_t bytes);
  int (*synchronize)(sw_stream *stream);
  /* sw_collect and sw_submit; NULL where work goes out operator by operator */
  int (*collect)(sw_stream *stream);
  int (*submit)(sw_stream *stream, int keep);
  const sw_collectives *collectives; /* NULL where sums go by way of the host */
  void (*close)(sw_device *device);
};

/* Between the two, operators and zeroings are collected, to be handed over as one piece (CUDA: a graph, made once for each form of the work
 * and then only updated). Copies in go out at once, AHEAD of what was collected: nothing collected may have used their destination. No copies
 * out and no synchronize in between. Pairs may be nested; the outermost counts. sw_submit drops what was collected where `status`, the
 * outcome of giving it, is a failure; it returns status, or the failure of handing over. */
int sw_collect(sw_stream *stream);
int sw_submit(sw_stream *stream, int status);

/* Opens "cpu", "cuda[:N]" (of several processes of a job on one machine each another one, where no N is given) or another backend that has a module (kernels/module.h), or "auto": CUDA's first device where there is one that
 * works, otherwise the CPU. SKILLWATCH_CPU_ISA=baseline|avx2|avx512|amx lowers the instruction set (for tests); asking for one the machine
 * lacks is a failure. */
int sw_device_open(const char *name, sw_device **out);
/* The same for programs: where "auto" takes the CPU although a CUDA module is installed, one line on stderr says why, unless quiet. */
int sw_device_choose(const char *name, int quiet, sw_device **out);
void sw_device_close(sw_device *device);
/* Checks --device and --threads without opening anything: names that are known, and 0 (one a core) to 1024. */
int sw_device_check(const char *name, int threads);
/* threads <= 0: one a core this process may use. */
int sw_stream_open(sw_device *device, int threads, sw_stream *out);
#endif
