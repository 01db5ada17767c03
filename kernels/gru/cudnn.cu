/* The recurrence by cuDNN's RNN instead of our own cell, in fp32 training, where SKILLWATCH_GRU=cudnn asks for it and libcudnn.so.9 is found. Never
 * in inference: cuDNN does not promise the same bits for a text whatever else is in the batch.
 *
 * cuDNN's layer makes the gates' input half itself, from an x of its own; here a linear layer has made it. So x is the input half [3 hidden], and the
 * input weights are the identity: a product by ones and zeros, which changes no bit of finite numbers and whose gradient is that of the
 * input half. It is one product for all tokens, small beside steps that wait for each other. The bias is the recurrent one only. Sequences
 * are handed over sorted by length and packed step by step, as the library wants them, those of `reverse` turned round.
 *
 * What a forward leaves for its backward, the library's reserve above all, does not fit into `gates` and `saved`: it is kept with the address of
 * `saved`, and grows to what the largest batch needs. A second backward of the same forward runs that again, since the first has used the reserve up.
 * cuDNN's calls are in no graph: what was collected before them goes out first. */
#include "kernels/gru/cudnn.h"
#include "kernels/cuda/operators.cuh"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#ifdef SW_CUDA_EMULATED
static int load() { /* its twin is compiled in */
  const char *wanted = getenv("SW_CUDA_EMULATOR_CUDNN");
  return wanted && !strcmp(wanted, "off") ? sw_fail("libcudnn.so.9 cannot be loaded: SW_CUDA_EMULATOR_CUDNN is off") : 0;
}
#else
#include <dlfcn.h>

#define X(result, name, parameters, arguments)                                                                                             \
  static result(*loaded_##name) parameters;                                                                                                \
  result name parameters { return loaded_##name arguments; }
extern "C" {
SW_CUDNN_FUNCTIONS(X)
}
#undef X
static const struct {
  const char *name;
  void **function;
} functions[] = {
#define X(result, name, parameters, arguments) {#name, (void **)&loaded_##name},
    SW_CUDNN_FUNCTIONS(X)
#undef X
};
static int load() {
  void *library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
  if (!library) return sw_fail("libcudnn.so.9 cannot be loaded: %s; name its folder in LD_LIBRARY_PATH", dlerror());
  for (const auto &f : functions)
    if (!(*f.function = dlsym(library, f.name))) return sw_fail("libcudnn.so.9 has no function %s", f.name);
  return 0;
}
#endif

static std::mutex mutex;

/* Whether this call is cuDNN's. A wish that cannot be fulfilled is told once. */
bool sw_cudnn_gru_takes(const sw_gru_desc *d) {
  static int opened; /* -1: not to be had */
  const char *wanted = getenv("SKILLWATCH_GRU");
  if (!wanted || strcmp(wanted, "cudnn") || d->dtype != SW_F32 || !d->host_cu_seqlens) return false;
  std::lock_guard<std::mutex> lock(mutex);
  if (!opened && (opened = load() ? -1 : 1) < 0) fprintf(stderr, "skillwatch: SKILLWATCH_GRU=cudnn: %s; the GRU runs in its own kernels\n", sw_error());
  return opened > 0;
}

namespace {
struct buffer {
  char *at;
  size_t bytes;
};
/* A layer: what it has of cuDNN, and what its newest forward left. */
struct rnn {
  const sw_device *device;
  const void *saved; /* its address */
  rnn *next;
  cudnnHandle_t handle;
  cudnnDropoutDescriptor_t dropout;
  cudnnRNNDescriptor_t layer;
  cudnnRNNDataDescriptor_t x_desc, y_desc;
  cudnnTensorDescriptor_t h_desc, matrix_desc, bias_desc;
  buffer scratch, reserve;
  size_t weight_bytes, work_bytes, reserve_bytes;
  bool ready;      /* the reserve is as forward left it */
  bool with_initial;
  int64_t rows;
  int hidden, sequences; /* sequences that have tokens */
  /* device, in the scratch */
  int32_t *token, *sequence; /* of each packed row; in the order of length */
  float *x, *y, *dy, *dx, *hx, *dhx, *weights, *dweights;
  void *work;
};
constexpr int MOST_LAYERS = 64; /* those that were not used for the longest time go */
rnn *rnns; /* newest first */

int check(cudnnStatus_t status, const char *what) { return status == CUDNN_STATUS_SUCCESS ? 0 : sw_fail("gru: cuDNN cannot %s: %s", what, cudnnGetErrorString(status)); }

void close_rnn(rnn *r) {
  if (r->matrix_desc) cudnnDestroyTensorDescriptor(r->matrix_desc);
  if (r->bias_desc) cudnnDestroyTensorDescriptor(r->bias_desc);
  if (r->h_desc) cudnnDestroyTensorDescriptor(r->h_desc);
  if (r->x_desc) cudnnDestroyRNNDataDescriptor(r->x_desc);
  if (r->y_desc) cudnnDestroyRNNDataDescriptor(r->y_desc);
  if (r->layer) cudnnDestroyRNNDescriptor(r->layer);
  if (r->dropout) cudnnDestroyDropoutDescriptor(r->dropout);
  if (r->handle) cudnnDestroy(r->handle);
  cudaFree(r->scratch.at);
  cudaFree(r->reserve.at);
  free(r);
}
int open_rnn(rnn *r, const sw_device *device) {
  r->device = device;
  return sw_cuda_choose(device) || check(cudnnCreate(&r->handle), "start") || check(cudnnCreateDropoutDescriptor(&r->dropout), "start") ||
                 check(cudnnSetDropoutDescriptor(r->dropout, r->handle, 0, nullptr, 0, 0), "start") ||
                 check(cudnnCreateRNNDescriptor(&r->layer), "start") || check(cudnnCreateRNNDataDescriptor(&r->x_desc), "start") ||
                 check(cudnnCreateRNNDataDescriptor(&r->y_desc), "start") || check(cudnnCreateTensorDescriptor(&r->h_desc), "start") ||
                 check(cudnnCreateTensorDescriptor(&r->matrix_desc), "start") || check(cudnnCreateTensorDescriptor(&r->bias_desc), "start")
             ? -1
             : 0;
}
/* The layer of `saved`, as the newest; NULL where it is not to be made, or cannot. */
rnn *find(const sw_device *device, const void *saved, bool make) {
  std::lock_guard<std::mutex> lock(mutex);
  rnn *r = nullptr;
  int count = 0;
  for (rnn **at = &rnns; *at; at = &(*at)->next)
    if ((*at)->device == device && (*at)->saved == saved) {
      r = *at;
      *at = r->next;
      break;
    }
  if (!r && !make) return sw_fail("gru: backward without the forward that it belongs to"), nullptr;
  if (!r && !(r = static_cast<rnn *>(calloc(1, sizeof *r)))) return sw_fail("out of memory"), nullptr;
  if (!r->device && open_rnn(r, device)) return close_rnn(r), nullptr;
  r->saved = saved;
  r->next = rnns;
  rnns = r;
  for (rnn **at = &rnns; *at; at = &(*at)->next)
    if (++count > MOST_LAYERS) {
      close_rnn(*at); /* the last of the list */
      *at = nullptr;
      break;
    }
  return r;
}

/* --- rows in the library's order --- */
template <bool BACK> static __global__ void copy_rows(int64_t count, int width, const int32_t *index, const float *from, float *to) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count * width) return;
  const int64_t other = (int64_t)index[i / width] * width + i % width;
  if (BACK)
    to[other] = from[i];
  else
    to[i] = from[other];
}
template <bool BACK> int copy(sw_stream *stream, int64_t count, int width, const int32_t *index, const float *from, float *to) {
  return sw_launch(stream, "gru: packing", copy_rows<BACK>, dim3(sw_blocks(count * width, 256)), dim3(256), 0, count, width, index, from, to);
}

/* --- weights in the library's places --- */
struct places {
  float *matrix[6], *bias[3]; /* r, z, n of the input half, then of the recurrent one, which alone has biases */
};
/* Of three places one; an index that is known only at run time would put them into local memory. */
__device__ __forceinline__ float *pick(float *const *three, int gate) { return gate == 0 ? three[0] : gate == 1 ? three[1] : three[2]; }
/* To places that are full of zeros. */
static __global__ void put_weights(int hidden, const float *weight, const float *bias, places to) {
  const int64_t each = (int64_t)hidden * hidden, i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= 3 * each) return;
  const int gate = (int)(i / each), row = (int)(i % each / hidden), k = (int)(i % hidden);
  pick(to.matrix + 3, gate)[i % each] = weight[i];
  if (k) return;
  pick(to.matrix, gate)[(int64_t)row * 3 * hidden + gate * hidden + row] = 1.0f;
  pick(to.bias, gate)[row] = bias[gate * hidden + row];
}
static __global__ void add_gradients(int hidden, places from, float *dweight, float *dbias) {
  const int64_t each = (int64_t)hidden * hidden, i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= 3 * each) return;
  const int gate = (int)(i / each);
  dweight[i] += pick(from.matrix + 3, gate)[i % each];
  if (i % hidden == 0) dbias[i / hidden] += pick(from.bias, gate)[i % each / hidden];
}
int find_places(const rnn *r, float *weights, places *out) {
  for (int gate = 0; gate < 6; gate++) {
    void *matrix = nullptr, *bias = nullptr;
    if (check(cudnnGetRNNWeightParams(r->handle, r->layer, 0, r->weight_bytes, weights, gate, r->matrix_desc, &matrix, r->bias_desc, &bias),
              "place its weights"))
      return -1;
    if (!matrix || (gate >= 3 && !bias)) return sw_fail("gru: cuDNN has no place for the weights of gate %d", gate);
    out->matrix[gate] = (float *)matrix;
    if (gate >= 3) out->bias[gate - 3] = (float *)bias;
  }
  return 0;
}

/* --- memory --- */
int grow(sw_stream *stream, buffer *b, size_t bytes) {
  if (bytes <= b->bytes) return 0;
  if (b->at) stream->device->release(stream->device, b->at);
  b->bytes = 0;
  if (!(b->at = (char *)stream->device->alloc(stream->device, bytes))) return -1;
  b->bytes = bytes;
  return 0;
}
size_t place_scratch(rnn *r, char *memory) {
  char *at = memory;
  const auto take = [&](size_t bytes) { char *here = at; return at += (bytes + 255) / 256 * 256, (void *)here; };
  const size_t row = (size_t)r->hidden * sizeof(float), rows = (size_t)r->rows * row, states = (size_t)r->sequences * row;
  r->token = (int32_t *)take((size_t)r->rows * sizeof(int32_t)), r->sequence = (int32_t *)take((size_t)r->sequences * sizeof(int32_t));
  r->x = (float *)take(3 * rows), r->dx = (float *)take(3 * rows), r->y = (float *)take(rows), r->dy = (float *)take(rows);
  r->hx = (float *)take(states), r->dhx = (float *)take(states);
  r->weights = (float *)take(r->weight_bytes), r->dweights = (float *)take(r->weight_bytes);
  r->work = take(r->work_bytes);
  return (size_t)(at - memory);
}

/* --- calls --- */
/* The order of sequences and tokens, and all descriptions; the scratch has room for them. */
int prepare(sw_stream *stream, rnn *r, const sw_gru_desc *d) {
  const int hidden = d->hidden;
  const int32_t *cu = d->host_cu_seqlens;
  if (cu[0] || cu[d->batch] != d->total_tokens) return sw_fail("gru: cu_seqlens go from %d to %d, not from 0 to %lld", cu[0], cu[d->batch], (long long)d->total_tokens);
  std::vector<int32_t> order, lengths, tokens;
  for (int i = 0; i < d->batch; i++) {
    if (cu[i + 1] < cu[i]) return sw_fail("gru: cu_seqlens falls at sequence %d", i);
    if (cu[i + 1] > cu[i]) order.push_back(i);
  }
  const auto length = [&](int32_t i) { return cu[i + 1] - cu[i]; };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return length(a) > length(b); });
  for (int32_t i : order) lengths.push_back(length(i));
  for (int32_t step = 0; !order.empty() && step < lengths[0]; step++)
    for (int32_t i : order) {
      if (length(i) <= step) break;
      tokens.push_back(d->reverse ? cu[i + 1] - 1 - step : cu[i] + step);
    }
  r->hidden = hidden;
  r->rows = d->total_tokens;
  r->sequences = (int)order.size();
  if (!r->rows) return 0;
  const int shape[] = {1, r->sequences, hidden}, strides[] = {r->sequences * hidden, hidden, 1};
  if (check(cudnnSetRNNDescriptor_v8(r->layer, CUDNN_RNN_ALGO_STANDARD, CUDNN_GRU, CUDNN_RNN_SINGLE_REC_BIAS, CUDNN_UNIDIRECTIONAL, CUDNN_LINEAR_INPUT,
                                     CUDNN_DATA_FLOAT, CUDNN_DATA_FLOAT, CUDNN_FMA_MATH, 3 * hidden, hidden, hidden, 1, r->dropout,
                                     CUDNN_RNN_PADDED_IO_DISABLED),
            "describe the layer") ||
      check(cudnnSetRNNDataDescriptor(r->x_desc, CUDNN_DATA_FLOAT, CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED, lengths[0], r->sequences, 3 * hidden,
                                      lengths.data(), nullptr),
            "describe the sequences") ||
      check(cudnnSetRNNDataDescriptor(r->y_desc, CUDNN_DATA_FLOAT, CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED, lengths[0], r->sequences, hidden,
                                      lengths.data(), nullptr),
            "describe the sequences") ||
      check(cudnnSetTensorNdDescriptor(r->h_desc, CUDNN_DATA_FLOAT, 3, shape, strides), "describe the states") ||
      check(cudnnSetStream(r->handle, sw_cuda_stream(stream)), "take the stream") ||
      check(cudnnGetRNNWeightSpaceSize(r->handle, r->layer, &r->weight_bytes), "say what its weights need") ||
      check(cudnnGetRNNTempSpaceSizes(r->handle, r->layer, CUDNN_FWD_MODE_TRAINING, r->x_desc, &r->work_bytes, &r->reserve_bytes), "say what it needs") ||
      grow(stream, &r->scratch, place_scratch(r, nullptr)) || grow(stream, &r->reserve, r->reserve_bytes))
    return -1;
  place_scratch(r, r->scratch.at);
  return stream->device->copy_in(stream, r->token, tokens.data(), tokens.size() * sizeof(int32_t)) ||
                 stream->device->copy_in(stream, r->sequence, order.data(), order.size() * sizeof(int32_t))
             ? -1
             : 0;
}
/* All that forward reads, to the library's places. */
int fill(sw_stream *stream, rnn *r, const float *gates, const float *weight, const float *bias, const float *initial) {
  places p;
  const int hidden = r->hidden;
  r->with_initial = initial != nullptr;
  return copy<false>(stream, r->rows, 3 * hidden, r->token, gates, r->x) || (initial && copy<false>(stream, r->sequences, hidden, r->sequence, initial, r->hx)) ||
                 sw_cuda_check(cudaMemsetAsync(r->weights, 0, r->weight_bytes, sw_cuda_stream(stream)), "gru") || find_places(r, r->weights, &p) ||
                 sw_launch(stream, "gru: weight", put_weights, dim3(sw_blocks(3 * (int64_t)hidden * hidden, 256)), dim3(256), 0, hidden, weight, bias, p)
             ? -1
             : 0;
}
int run_forward(rnn *r) {
  r->ready = true;
  return check(cudnnRNNForward(r->handle, r->layer, CUDNN_FWD_MODE_TRAINING, nullptr, r->x_desc, r->x, r->y_desc, r->y, r->h_desc,
                               r->with_initial ? r->hx : nullptr, nullptr, nullptr, nullptr, nullptr, r->weight_bytes, r->weights, r->work_bytes, r->work,
                               r->reserve_bytes, r->reserve.at),
               "run forward");
}
int run_backward(sw_stream *stream, rnn *r, const float *dy, float *gates, float *dweight, float *dbias, float *dinitial) {
  places p;
  const int hidden = r->hidden;
  const float *hx = r->with_initial ? r->hx : nullptr;
  r->ready = false;
  return copy<false>(stream, r->rows, hidden, r->token, dy, r->dy) ||
                 check(cudnnRNNBackwardData_v8(r->handle, r->layer, nullptr, r->y_desc, r->y, r->dy, r->x_desc, r->dx, r->h_desc, hx, nullptr,
                                               dinitial ? r->dhx : nullptr, nullptr, nullptr, nullptr, nullptr, r->weight_bytes, r->weights, r->work_bytes,
                                               r->work, r->reserve_bytes, r->reserve.at),
                       "run backward") ||
                 sw_cuda_check(cudaMemsetAsync(r->dweights, 0, r->weight_bytes, sw_cuda_stream(stream)), "gru") ||
                 check(cudnnRNNBackwardWeights_v8(r->handle, r->layer, CUDNN_WGRAD_MODE_ADD, nullptr, r->x_desc, r->x, r->h_desc, hx, r->y_desc, r->y,
                                                  r->weight_bytes, r->dweights, r->work_bytes, r->work, r->reserve_bytes, r->reserve.at),
                       "make the weights' gradient") ||
                 find_places(r, r->dweights, &p) ||
                 sw_launch(stream, "gru: gradient", add_gradients, dim3(sw_blocks(3 * (int64_t)hidden * hidden, 256)), dim3(256), 0, hidden, p, dweight, dbias) ||
                 copy<true>(stream, r->rows, 3 * hidden, r->token, r->dx, gates) ||
                 (dinitial && copy<true>(stream, r->sequences, hidden, r->sequence, r->dhx, dinitial))
             ? -1
             : 0;
}
} // namespace

int sw_cudnn_gru_forward(sw_stream *stream, const sw_gru_desc *d, const float *gates, const float *weight, const float *bias, const float *initial,
                         float *y, const void *saved) {
  int paused;
  if (!d->total_tokens) return 0;
  if (sw_cuda_pause_collecting(stream, &paused)) return -1;
  rnn *r = find(stream->device, saved, true);
  if (!r || prepare(stream, r, d) || fill(stream, r, gates, weight, bias, initial) || run_forward(r) ||
      copy<true>(stream, r->rows, r->hidden, r->token, r->y, y))
    return -1;
  return sw_cuda_resume_collecting(stream, paused);
}

int sw_cudnn_gru_backward(sw_stream *stream, const sw_gru_desc *d, float *gates, const void *saved, const float *dy, float *dweight, float *dbias,
                          float *dinitial) {
  const size_t dinitial_bytes = (size_t)d->batch * (size_t)d->hidden * sizeof(float);
  int paused;
  if (dinitial && dinitial_bytes && sw_cuda_check(cudaMemsetAsync(dinitial, 0, dinitial_bytes, sw_cuda_stream(stream)), "gru_backward")) return -1;
  if (!d->total_tokens) return 0;
  if (sw_cuda_pause_collecting(stream, &paused)) return -1;
  rnn *r = find(stream->device, saved, false);
  if (!r || (!r->ready && run_forward(r)) || run_backward(stream, r, dy, gates, dweight, dbias, dinitial)) return -1;
  return sw_cuda_resume_collecting(stream, paused);
}

void sw_cudnn_gru_close(const sw_device *device) {
  std::lock_guard<std::mutex> lock(mutex);
  for (rnn **at = &rnns; *at;) {
    rnn *r = *at;
    if (r->device != device) {
      at = &r->next;
      continue;
    }
    *at = r->next;
    close_rnn(r);
  }
}
