/* cuDNN's twin: a GRU layer of one direction over packed sequences in fp32, as cuDNN 9's documentation describes cudnnRNNForward, BackwardData_v8
 * and BackwardWeights_v8. What is not emulated is refused. Weights lie in an order, and with gaps, that only cudnnGetRNNWeightParams tells. */
#include "kernels/gru/cudnn.h"

#include <cmath>
#include <cstdlib>
#include <memory>
#include <vector>

static thread_local const char *reason = "";
static cudnnStatus_t refuse(cudnnStatus_t status, const char *why) { return reason = why, status; }
static cudnnStatus_t bad(const char *why) { return refuse(CUDNN_STATUS_BAD_PARAM, why); }
const char *cudnnGetErrorString(cudnnStatus_t status) { return status == CUDNN_STATUS_SUCCESS ? "success" : reason; }

struct cudnnContext { cudaStream_t stream; };
struct cudnnTensorStruct { std::vector<int> shape; };
struct cudnnDropoutStruct { bool set; };
struct cudnnRNNStruct { int64_t input, hidden; };
struct cudnnRNNDataStruct {
  int64_t size;
  std::vector<int> lengths;
  std::vector<int64_t> steps; /* the row where each step begins, and their number */
  int64_t rows() const { return steps.back(); }
};
#define PAIR(name, type)                                                                                                                   \
  cudnnStatus_t cudnnCreate##name(type **d) { return *d = new type(), CUDNN_STATUS_SUCCESS; }                                              \
  cudnnStatus_t cudnnDestroy##name(type *d) { return delete d, CUDNN_STATUS_SUCCESS; }
PAIR(, cudnnContext)
PAIR(TensorDescriptor, cudnnTensorStruct)
PAIR(DropoutDescriptor, cudnnDropoutStruct)
PAIR(RNNDescriptor, cudnnRNNStruct)
PAIR(RNNDataDescriptor, cudnnRNNDataStruct)

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) { return handle->stream = stream, CUDNN_STATUS_SUCCESS; }
cudnnStatus_t cudnnSetTensorNdDescriptor(cudnnTensorDescriptor_t d, cudnnDataType_t, int rank, const int *shape, const int *strides) {
  int stride = 1;
  for (int i = rank; i-- > 0; stride *= shape[i])
    if (strides[i] != stride) return refuse(CUDNN_STATUS_NOT_SUPPORTED, "states with gaps");
  d->shape.assign(shape, shape + rank);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetDropoutDescriptor(cudnnDropoutDescriptor_t d, cudnnHandle_t handle, float p, void *states, size_t bytes, unsigned long long) {
  if (!handle || p != 0 || states || bytes) return refuse(CUDNN_STATUS_NOT_SUPPORTED, "dropout is not emulated");
  return d->set = true, CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetRNNDescriptor_v8(cudnnRNNDescriptor_t d, cudnnRNNAlgo_t algorithm, cudnnRNNMode_t cell, cudnnRNNBiasMode_t bias,
                                       cudnnDirectionMode_t direction, cudnnRNNInputMode_t input, cudnnDataType_t type, cudnnDataType_t precision,
                                       cudnnMathType_t math, int32_t input_size, int32_t hidden, int32_t projection, int32_t layers,
                                       cudnnDropoutDescriptor_t dropout, uint32_t flags) {
  if (algorithm != CUDNN_RNN_ALGO_STANDARD || cell != CUDNN_GRU || bias != CUDNN_RNN_SINGLE_REC_BIAS || direction != CUDNN_UNIDIRECTIONAL ||
      input != CUDNN_LINEAR_INPUT || type != CUDNN_DATA_FLOAT || precision != CUDNN_DATA_FLOAT || math != CUDNN_FMA_MATH || layers != 1 || flags)
    return refuse(CUDNN_STATUS_NOT_SUPPORTED, "a layer that is not emulated");
  if (input_size < 1 || hidden < 1 || projection != hidden || !dropout || !dropout->set) return bad("sizes, or a dropout that is not described");
  return *d = {input_size, hidden}, CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetRNNDataDescriptor(cudnnRNNDataDescriptor_t d, cudnnDataType_t, cudnnRNNDataLayout_t layout, int longest, int batch, int size,
                                        const int *lengths, void *) {
  if (layout != CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED) return refuse(CUDNN_STATUS_NOT_SUPPORTED, "only packed sequences are emulated");
  if (batch < 1 || size < 1 || lengths[0] != longest) return bad("no sequences, or the first is not the longest");
  for (int i = 0; i < batch; i++)
    if (lengths[i] < 1 || (i && lengths[i] > lengths[i - 1])) return bad("packed sequences must fall in length, and have steps");
  d->size = size;
  d->lengths.assign(lengths, lengths + batch);
  d->steps = {0};
  for (int step = 0, alive = batch; step < longest; step++) {
    while (lengths[alive - 1] <= step) alive--;
    d->steps.push_back(d->steps.back() + alive);
  }
  return CUDNN_STATUS_SUCCESS;
}

/* --- sizes and places --- */
enum { GAP = 24 }; /* floats before each block of weights */
/* Biases first, then the gates from the last to the first. */
static int64_t bias_at(const cudnnRNNStruct *d, int gate) { return GAP + (5 - gate) * (d->hidden + GAP); }
static int64_t matrix_at(const cudnnRNNStruct *d, int gate) {
  const int64_t recurrent = d->hidden * d->hidden + GAP, input = d->hidden * d->input + GAP, first = GAP + 3 * (d->hidden + GAP);
  return gate >= 3 ? first + (5 - gate) * recurrent : first + 3 * recurrent + (2 - gate) * input;
}
static int64_t weight_floats(const cudnnRNNStruct *d) { return matrix_at(d, 0) + d->hidden * d->input; }
cudnnStatus_t cudnnGetRNNWeightSpaceSize(cudnnHandle_t, cudnnRNNDescriptor_t d, size_t *bytes) {
  return *bytes = (size_t)weight_floats(d) * sizeof(float), CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetRNNWeightParams(cudnnHandle_t, cudnnRNNDescriptor_t d, int32_t layer, size_t bytes, const void *weights, int32_t gate,
                                      cudnnTensorDescriptor_t matrix_d, void **matrix, cudnnTensorDescriptor_t bias_d, void **bias) {
  if (layer || gate < 0 || gate > 5 || bytes != (size_t)weight_floats(d) * sizeof(float)) return bad("no such weights");
  float *const w = (float *)const_cast<void *>(weights);
  matrix_d->shape = {1, (int)d->hidden, (int)(gate < 3 ? d->input : d->hidden)};
  bias_d->shape = {1, (int)d->hidden, 1};
  *matrix = w + matrix_at(d, gate);
  *bias = gate < 3 ? nullptr : w + bias_at(d, gate);
  return CUDNN_STATUS_SUCCESS;
}
/* The reserve: a mark, then r, z, n, q and the state before of each row; BackwardData leaves the gradients in place of the first four. */
enum { MARKS = 64, NOTHING = 0, FORWARD = 0x5eed1, BACKWARD = 0x5eed2 };
cudnnStatus_t cudnnGetRNNTempSpaceSizes(cudnnHandle_t, cudnnRNNDescriptor_t d, cudnnForwardMode_t mode, cudnnRNNDataDescriptor_t x, size_t *work,
                                        size_t *reserve) {
  if (mode != CUDNN_FWD_MODE_TRAINING) return refuse(CUDNN_STATUS_NOT_SUPPORTED, "only training is emulated");
  *work = (size_t)(x->lengths.size() * (size_t)d->hidden) * sizeof(double);
  *reserve = MARKS * sizeof(float) + (size_t)(x->rows() * 5 * d->hidden) * sizeof(float);
  return CUDNN_STATUS_SUCCESS;
}

/* --- calls --- */
struct call {
  cudnnRNNStruct d;
  cudnnRNNDataStruct x_d;
  const float *x, *hx, *y, *dy, *dhy;
  float *out, *dx, *dhx;
  const float *weights;
  float *dweights;
  char *work;
  size_t work_bytes;
  float *reserve;
  const float *matrix(int gate) const { return weights + matrix_at(&d, gate); }
  float *row_reserve(int64_t row) const { return reserve + MARKS + row * 5 * d.hidden; }
  bool expect(int mark, const char *what) const {
    int is;
    memcpy(&is, reserve, sizeof is);
    if (is != mark) emu_set_error(cudaErrorLaunchFailure, "cuDNN: %s: the reserve is not as the call before leaves it", what);
    return is == mark;
  }
  void leave(int mark) const { memcpy(reserve, &mark, sizeof mark); }
};
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static void run_forward(const call &c) {
  const int64_t h = c.d.hidden, in = c.d.input;
  memset(c.work, 0xff, c.work_bytes);
  std::vector<float> state((size_t)h), next((size_t)h);
  for (size_t s = 0; s < c.x_d.lengths.size(); s++) {
    for (int64_t i = 0; i < h; i++) state[(size_t)i] = c.hx ? c.hx[(int64_t)s * h + i] : 0;
    for (int t = 0; t < c.x_d.lengths[s]; t++) {
      const int64_t row = c.x_d.steps[(size_t)t] + (int64_t)s;
      float *kept = c.row_reserve(row);
      for (int64_t i = 0; i < h; i++) {
        double input[3], recurrent[3];
        for (int g = 0; g < 3; g++) {
          input[g] = 0, recurrent[g] = c.weights[bias_at(&c.d, 3 + g) + i];
          const float *w = c.matrix(g) + i * in, *r = c.matrix(3 + g) + i * h, *x = c.x + row * in;
          for (int64_t k = 0; k < in; k++) input[g] += (double)w[k] * x[k];
          for (int64_t k = 0; k < h; k++) recurrent[g] += (double)r[k] * state[(size_t)k];
        }
        const double r = sigmoid(input[0] + recurrent[0]), z = sigmoid(input[1] + recurrent[1]), n = tanh(input[2] + r * recurrent[2]);
        const double values[5] = {r, z, n, recurrent[2], state[(size_t)i]};
        for (int v = 0; v < 5; v++) kept[v * h + i] = (float)values[v];
        c.out[row * h + i] = next[(size_t)i] = (float)((1 - z) * n + z * state[(size_t)i]);
      }
      state = next;
    }
  }
  c.leave(FORWARD);
}

static void run_backward_data(const call &c) {
  const int64_t h = c.d.hidden, in = c.d.input;
  if (!c.expect(FORWARD, "BackwardData")) return;
  memset(c.work, 0xff, c.work_bytes);
  std::vector<double> dh((size_t)h), before((size_t)h), dx((size_t)in);
  for (size_t s = 0; s < c.x_d.lengths.size(); s++) {
    for (int64_t i = 0; i < h; i++) dh[(size_t)i] = c.dhy ? c.dhy[(int64_t)s * h + i] : 0;
    for (int t = c.x_d.lengths[s]; t-- > 0;) {
      const int64_t row = c.x_d.steps[(size_t)t] + (int64_t)s;
      float *kept = c.row_reserve(row);
      for (int64_t i = 0; i < h; i++) {
        const double d = dh[(size_t)i] + c.dy[row * h + i], r = kept[i], z = kept[h + i], n = kept[2 * h + i], q = kept[3 * h + i], state = kept[4 * h + i];
        const double di_n = d * (1 - z) * (1 - n * n), values[4] = {di_n * q * r * (1 - r), d * (state - n) * z * (1 - z), di_n, di_n * r};
        for (int v = 0; v < 4; v++) kept[v * h + i] = (float)values[v];
        before[(size_t)i] = d * z;
      }
      dx.assign((size_t)in, 0);
      for (int g = 0; g < 3; g++)
        for (int64_t i = 0; i < h; i++) {
          const double di = kept[g * h + i], dr = kept[(g == 2 ? 3 : g) * h + i];
          const float *w = c.matrix(g) + i * in, *r = c.matrix(3 + g) + i * h;
          for (int64_t k = 0; k < in; k++) dx[(size_t)k] += di * w[k];
          for (int64_t k = 0; k < h; k++) before[(size_t)k] += dr * r[k];
        }
      for (int64_t k = 0; k < in; k++) c.dx[row * in + k] = (float)dx[(size_t)k];
      dh = before;
    }
    for (int64_t i = 0; c.dhx && i < h; i++) c.dhx[(int64_t)s * h + i] = (float)dh[(size_t)i];
  }
  c.leave(BACKWARD);
}

static void run_backward_weights(const call &c) {
  const int64_t h = c.d.hidden, in = c.d.input;
  if (!c.expect(BACKWARD, "BackwardWeights")) return;
  memset(c.work, 0xff, c.work_bytes);
  std::vector<double> sum((size_t)weight_floats(&c.d));
  for (int64_t row = 0; row < c.x_d.rows(); row++) {
    const float *kept = c.row_reserve(row), *x = c.x + row * in;
    for (int g = 0; g < 3; g++)
      for (int64_t i = 0; i < h; i++) {
        const double di = kept[g * h + i], dr = kept[(g == 2 ? 3 : g) * h + i];
        double *w = sum.data() + matrix_at(&c.d, g) + i * in, *r = sum.data() + matrix_at(&c.d, 3 + g) + i * h;
        for (int64_t k = 0; k < in; k++) w[k] += di * x[k];
        for (int64_t k = 0; k < h; k++) r[k] += dr * kept[4 * h + k];
        sum[(size_t)(bias_at(&c.d, 3 + g) + i)] += dr;
      }
  }
  for (size_t i = 0; i < sum.size(); i++) c.dweights[i] += (float)sum[i];
  c.leave(BACKWARD);
}

static bool within(const void *p, int64_t floats) { return emu_device_memory(p, (size_t)floats * sizeof(float)); }
/* What all three have in common; y_d describes [rows, hidden]. */
static cudnnStatus_t check(const cudnnRNNStruct *d, const int32_t *device_lengths, const cudnnRNNDataStruct *x_d, const cudnnRNNDataStruct *y_d,
                           const cudnnTensorStruct *h_d, const void *c_d, size_t weight_bytes, const void *weights, size_t work_bytes, const void *work,
                           size_t reserve_bytes, const void *reserve) {
  size_t wanted_work, wanted_reserve;
  if (device_lengths || c_d) return bad("lengths on the device, or cells of an LSTM: both must be NULL");
  if (x_d->size != d->input || y_d->size != d->hidden || x_d->lengths != y_d->lengths) return bad("x or y is described otherwise than the layer");
  if (h_d->shape != std::vector<int>{1, (int)x_d->lengths.size(), (int)d->hidden}) return bad("the states are not [1, batch, hidden]");
  cudnnGetRNNTempSpaceSizes(nullptr, const_cast<cudnnRNNStruct *>(d), CUDNN_FWD_MODE_TRAINING, const_cast<cudnnRNNDataStruct *>(x_d), &wanted_work,
                            &wanted_reserve);
  if (weight_bytes != (size_t)weight_floats(d) * sizeof(float) || work_bytes < wanted_work || reserve_bytes < wanted_reserve)
    return bad("weights, workspace or reserve of another size");
  if (!emu_device_memory(weights, weight_bytes) || !emu_device_memory(work, work_bytes) || !emu_device_memory(reserve, reserve_bytes))
    return bad("weights, workspace or reserve that leave their allocation");
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnRNNForward(cudnnHandle_t handle, cudnnRNNDescriptor_t d, cudnnForwardMode_t mode, const int32_t *device_lengths,
                              cudnnRNNDataDescriptor_t x_d, const void *x, cudnnRNNDataDescriptor_t y_d, void *y, cudnnTensorDescriptor_t h_d,
                              const void *hx, void *hy, cudnnTensorDescriptor_t c_d, const void *cx, void *cy, size_t weight_bytes, const void *weights,
                              size_t work_bytes, void *work, size_t reserve_bytes, void *reserve) {
  const cudnnStatus_t status = check(d, device_lengths, x_d, y_d, h_d, c_d, weight_bytes, weights, work_bytes, work, reserve_bytes, reserve);
  if (status) return status;
  const int64_t states = (int64_t)x_d->lengths.size() * d->hidden;
  if (mode != CUDNN_FWD_MODE_TRAINING || hy || cx || cy) return refuse(CUDNN_STATUS_NOT_SUPPORTED, "a forward that is not emulated");
  if (!within(x, x_d->rows() * d->input) || !within(y, x_d->rows() * d->hidden) || (hx && !within(hx, states))) return bad("x, y or the states leave their allocation");
  call c = {*d, *x_d, (const float *)x, (const float *)hx, nullptr, nullptr, nullptr, (float *)y, nullptr, nullptr, (const float *)weights, nullptr,
            (char *)work, work_bytes, (float *)reserve};
  emu_enqueue(handle->stream, [c] { run_forward(c); });
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnRNNBackwardData_v8(cudnnHandle_t handle, cudnnRNNDescriptor_t d, const int32_t *device_lengths, cudnnRNNDataDescriptor_t y_d,
                                      const void *y, const void *dy, cudnnRNNDataDescriptor_t x_d, void *dx, cudnnTensorDescriptor_t h_d, const void *hx,
                                      const void *dhy, void *dhx, cudnnTensorDescriptor_t c_d, const void *cx, const void *dcy, void *dcx,
                                      size_t weight_bytes, const void *weights, size_t work_bytes, void *work, size_t reserve_bytes, void *reserve) {
  const cudnnStatus_t status = check(d, device_lengths, x_d, y_d, h_d, c_d, weight_bytes, weights, work_bytes, work, reserve_bytes, reserve);
  if (status) return status;
  const int64_t states = (int64_t)x_d->lengths.size() * d->hidden;
  if (cx || dcy || dcx) return bad("cells of an LSTM");
  if (!within(y, x_d->rows() * d->hidden) || !within(dy, x_d->rows() * d->hidden) || !within(dx, x_d->rows() * d->input) || (hx && !within(hx, states)) ||
      (dhy && !within(dhy, states)) || (dhx && !within(dhx, states)))
    return bad("a tensor that leaves its allocation");
  call c = {*d, *x_d, nullptr, (const float *)hx, (const float *)y, (const float *)dy, (const float *)dhy, nullptr, (float *)dx, (float *)dhx,
            (const float *)weights, nullptr, (char *)work, work_bytes, (float *)reserve};
  emu_enqueue(handle->stream, [c] { run_backward_data(c); });
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnRNNBackwardWeights_v8(cudnnHandle_t handle, cudnnRNNDescriptor_t d, cudnnWgradMode_t mode, const int32_t *device_lengths,
                                         cudnnRNNDataDescriptor_t x_d, const void *x, cudnnTensorDescriptor_t h_d, const void *hx,
                                         cudnnRNNDataDescriptor_t y_d, const void *y, size_t weight_bytes, void *dweights, size_t work_bytes, void *work,
                                         size_t reserve_bytes, void *reserve) {
  const cudnnStatus_t status = check(d, device_lengths, x_d, y_d, h_d, nullptr, weight_bytes, dweights, work_bytes, work, reserve_bytes, reserve);
  if (status) return status;
  if (mode != CUDNN_WGRAD_MODE_ADD) return refuse(CUDNN_STATUS_NOT_SUPPORTED, "gradients of weights are added");
  if (!within(x, x_d->rows() * d->input) || !within(y, x_d->rows() * d->hidden)) return bad("x or y leaves its allocation");
  call c = {*d, *x_d, (const float *)x, (const float *)hx, (const float *)y, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, (float *)dweights,
            (char *)work, work_bytes, (float *)reserve};
  emu_enqueue(handle->stream, [c] { run_backward_weights(c); });
  return CUDNN_STATUS_SUCCESS;
}
