/* GRU on the GPU: see gru.h. Steps wait for each other, so a block keeps a few sequences and stays in its kernel for all their steps. It
 * has S slots; slot s of block b takes sequences b S + s, then one after S times the number of blocks more, and so on: no slot waits for another.
 *
 * Tensor cores (bf16, up to 192 cells): 12 warps of 16 cells and 8 slots. The whole weight stays on the multiprocessor, rounded to bf16, as
 * fragments of m16n8k16 products: two thirds in the warps' registers, the rest in shared memory. A thread has the r, z and q sums
 * of the same two cells and two slots, and so makes their new state in registers, in fp32; only the state as bf16 goes through shared
 * memory (two buffers, one barrier a step). Backward the same with the transposed weight and the three gradients in place of the state. What the
 * next step reads from memory is on its way while the products run.
 *
 * Plain multiply-adds (fp32, and more cells): a thread a row of the weight, S = 4 slots at a time. The weight is laid out as [k / 4][row][4],
 * so that neighbouring threads read neighbouring 16 bytes; what fits of it lies in shared memory, the rest comes from L2 in every step. Backward a
 * thread has one gate's part of a cell's sum, and the three are added in order.
 *
 * The weight's and the bias's gradient: one product of all tokens' gradients with the states before them and a column of ones. Tokens are cut into slices;
 * each block sums a tile of 64 x 64 over a slice, then the slices are added in order.
 *
 * Deterministic: every sum has one order, which depends on the number of cells only (the slices': on the tokens', too). */
#include "kernels/cuda/cuda.cuh"
extern "C" {
#include "kernels/gru/check.h"
}
#include "kernels/cuda/operators.cuh"
#include <type_traits>

namespace {
struct gru_job {
  int batch, hidden;
  int64_t total;
  bool reverse;
  const int32_t *cu_seqlens;
  const float *bias, *initial;
  float *dinitial;
  int32_t *previous; /* of each token: the token of the state before it, or -1 - its sequence for the initial state */
};
constexpr int32_t NO_SEQUENCE = (int32_t)0x80808080; /* in `previous`: a token that none has */

/* --- cells --- */
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
/* The new state, and what is kept for backward in place of i_r, i_z, i_n. */
template <class T> __device__ __forceinline__ float new_state(float gates[3], float p_r, float p_z, float q, float h) {
  const float before_r = gates[0] + p_r, before_z = gates[1] + p_z, r = sigmoid(before_r), z = sigmoid(before_z);
  const float before_n = gates[2] + r * q, n = tanhf(before_n);
  constexpr bool activated = std::is_same<T, float>::value;
  gates[0] = activated ? r : before_r, gates[1] = activated ? z : before_z, gates[2] = activated ? n : before_n;
  return (1.0f - z) * n + z * h;
}
/* From dh: gates becomes the gradients di_r, di_z, di_n, q becomes dq; what goes on to the state before is returned. */
template <class T> __device__ __forceinline__ float gradients(float gates[3], float &q, float h, float dh) {
  constexpr bool activated = std::is_same<T, float>::value;
  const float r = activated ? gates[0] : sigmoid(gates[0]), z = activated ? gates[1] : sigmoid(gates[1]), n = activated ? gates[2] : tanhf(gates[2]);
  const float di_n = dh * (1.0f - z) * (1.0f - n * n);
  gates[0] = di_n * q * (r * (1.0f - r)), gates[1] = dh * (h - n) * (z * (1.0f - z)), gates[2] = di_n;
  q = di_n * r;
  return dh * z;
}

/* --- slots --- */
struct slot {
  int sequence, token, left; /* left: steps with this one; 0: the slot is idle */
};
/* The next sequence that has tokens, `apart` after the slot's. */
__device__ __forceinline__ void take(const gru_job &job, slot &s, int apart, bool from_end) {
  do {
    if (s.sequence >= job.batch - apart) { /* s.sequence + apart may be beyond an int */
      s.left = 0;
      return;
    }
    s.sequence += apart;
    const int first = job.cu_seqlens[s.sequence], end = job.cu_seqlens[s.sequence + 1];
    s.left = first >= 0 && end > first && end <= job.total ? end - first : 0;
    s.token = from_end ? end - 1 : first;
  } while (s.left == 0);
}
__device__ __forceinline__ slot after(const gru_job &job, slot s, int apart, bool from_end) {
  if (s.left > 1) {
    s.left--;
    s.token += from_end ? -1 : 1;
  } else if (s.left == 1) {
    take(job, s, apart, from_end);
  }
  return s;
}
__device__ __forceinline__ float initial_of(const gru_job &job, int sequence, int cell) {
  return job.initial ? job.initial[(int64_t)sequence * job.hidden + cell] : 0.0f;
}
/* Where the state before a slot's token is, walking backward. */
__device__ __forceinline__ int32_t state_before(const gru_job &job, const slot &s) {
  return s.left == 1 ? -1 - s.sequence : s.token + (job.reverse ? 1 : -1);
}
template <class T> __device__ __forceinline__ float state_at(const gru_job &job, const T *y, int32_t before, int cell) {
  return before >= 0 ? sw_to_float(y[(int64_t)before * job.hidden + cell]) : initial_of(job, -1 - before, cell);
}

/* The weight's element that multiplies vector element k in the sum for `cell` of a gate; backward it is the transposed one. Zeros beyond. */
__device__ __forceinline__ float factor(const float *weight, int hidden, bool transposed, int gate, int cell, int k) {
  if (cell >= hidden || k >= hidden) return 0.0f;
  return weight[((int64_t)gate * hidden + (transposed ? k : cell)) * hidden + (transposed ? cell : k)];
}

/* --- plain multiply-adds --- */
constexpr int SLOTS = 4, MOST_THREADS = 768, MOST_BLOCKS = 1024;

template <class T> struct alignas(4 * sizeof(T)) quad {
  T v[4];
};
template <class T> static __global__ void lay_out(int hidden, bool transposed, const float *weight, quad<T> *rows) {
  const int64_t count = (int64_t)((hidden + 3) / 4) * 3 * hidden, i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int row = (int)(i % (3 * hidden)), k = (int)(i / (3 * hidden)) * 4;
  quad<T> out;
#pragma unroll
  for (int j = 0; j < 4; j++) out.v[j] = sw_from_float<T>(factor(weight, hidden, transposed, row / hidden, row % hidden, k + j));
  rows[i] = out;
}

/* Shared memory of a block: vectors [SLOTS][gates][padded], sums [SLOTS][3 hidden], dh [SLOTS][hidden] backward, then quads of the weight. */
__device__ __host__ __forceinline__ int padded(int hidden) { return (hidden + 3) / 4 * 4; }
__device__ __host__ __forceinline__ int state_floats(int hidden, int gates) {
  return SLOTS * (gates * padded(hidden) + 3 * padded(hidden) + padded(hidden));
}
/* sums[slot][row] = the weight's row times the slot's vector; a vector has one part (forward) or one for each gate. */
template <class T>
__device__ __forceinline__ void multiply(int hidden, int gates, const quad<T> *weight, const quad<T> *kept, int kept_quads, const float *vectors,
                                         float *sums) {
  const int rows = 3 * hidden, quads = (hidden + 3) / 4, length = gates * padded(hidden);
  for (int row = threadIdx.x; row < rows; row += blockDim.x) {
    const float *vector = vectors + (gates == 1 ? 0 : row / hidden * padded(hidden));
    float sum[SLOTS] = {};
    const auto add = [&](const quad<T> &w, int k) {
#pragma unroll
      for (int s = 0; s < SLOTS; s++) {
        const float4 v = sw_load4(vector + s * length + 4 * k);
        sum[s] += sw_to_float(w.v[0]) * v.x;
        sum[s] += sw_to_float(w.v[1]) * v.y;
        sum[s] += sw_to_float(w.v[2]) * v.z;
        sum[s] += sw_to_float(w.v[3]) * v.w;
      }
    };
#pragma unroll 4
    for (int k = 0; k < kept_quads; k++) add(kept[(int64_t)k * rows + row], k);
#pragma unroll 4
    for (int k = kept_quads; k < quads; k++) add(weight[(int64_t)k * rows + row], k);
#pragma unroll
    for (int s = 0; s < SLOTS; s++) sums[s * rows + row] = sum[s];
  }
}
__device__ __forceinline__ bool any_left(const slot (&slots)[SLOTS]) {
  int left = 0;
#pragma unroll
  for (int s = 0; s < SLOTS; s++) left |= slots[s].left;
  return left != 0;
}

template <class T>
static __global__ void __launch_bounds__(MOST_THREADS)
    forward(gru_job job, const quad<T> *weight, int kept_quads, T *gates, T *saved, T *y) {
  SW_DYNAMIC_SHARED(float, shared);
  const int hidden = job.hidden, length = padded(hidden), apart = (int)gridDim.x * SLOTS;
  float *h = shared, *sums = h + SLOTS * length;
  quad<T> *kept = reinterpret_cast<quad<T> *>(shared + state_floats(hidden, 1));
  slot slots[SLOTS];
#pragma unroll
  for (int s = 0; s < SLOTS; s++) {
    slots[s] = {(int)blockIdx.x * SLOTS + s - apart, 0, 0};
    take(job, slots[s], apart, job.reverse);
    for (int cell = threadIdx.x; cell < length; cell += blockDim.x)
      h[s * length + cell] = cell < hidden && slots[s].left ? initial_of(job, slots[s].sequence, cell) : 0.0f;
  }
  for (int64_t i = threadIdx.x; i < (int64_t)kept_quads * 3 * hidden; i += blockDim.x) kept[i] = weight[i];
  __syncthreads();
  while (any_left(slots)) {
    multiply<T>(hidden, 1, weight, kept, kept_quads, h, sums);
    __syncthreads();
#pragma unroll
    for (int s = 0; s < SLOTS; s++) {
      const slot now = slots[s];
      slots[s] = after(job, now, apart, job.reverse);
      if (!now.left) continue;
      for (int cell = threadIdx.x; cell < hidden; cell += blockDim.x) {
        const int64_t at = (int64_t)now.token * hidden + cell;
        T *gate = gates + (int64_t)now.token * 3 * hidden + cell;
        const float *sum = sums + s * 3 * hidden + cell;
        float v[3] = {sw_to_float(gate[0]), sw_to_float(gate[hidden]), sw_to_float(gate[2 * hidden])};
        const float q = sum[2 * hidden] + job.bias[2 * hidden + cell];
        const float state = new_state<T>(v, sum[0] + job.bias[cell], sum[hidden] + job.bias[hidden + cell], q, h[s * length + cell]);
        y[at] = sw_from_float<T>(state);
        if (saved) {
          gate[0] = sw_from_float<T>(v[0]), gate[hidden] = sw_from_float<T>(v[1]), gate[2 * hidden] = sw_from_float<T>(v[2]);
          saved[at] = sw_from_float<T>(q);
        }
        h[s * length + cell] = now.left == 1 && slots[s].left ? initial_of(job, slots[s].sequence, cell) : state;
      }
    }
    __syncthreads();
  }
}

template <class T>
static __global__ void __launch_bounds__(MOST_THREADS)
    backward(gru_job job, const quad<T> *weight, int kept_quads, T *gates, T *saved, const T *y, const T *dy) {
  SW_DYNAMIC_SHARED(float, shared);
  const int hidden = job.hidden, length = padded(hidden), apart = (int)gridDim.x * SLOTS;
  float *products = shared, *sums = products + SLOTS * 3 * length, *dh = sums + SLOTS * 3 * length;
  quad<T> *kept = reinterpret_cast<quad<T> *>(shared + state_floats(hidden, 3));
  slot slots[SLOTS];
#pragma unroll
  for (int s = 0; s < SLOTS; s++) {
    slots[s] = {(int)blockIdx.x * SLOTS + s - apart, 0, 0};
    take(job, slots[s], apart, !job.reverse);
    for (int cell = threadIdx.x; cell < hidden; cell += blockDim.x) dh[s * hidden + cell] = 0.0f;
    for (int i = threadIdx.x; i < 3 * (length - hidden); i += blockDim.x)
      products[(s * 3 + i % 3) * length + hidden + i / 3] = 0.0f; /* beyond the cells: zeros, where the weight has zeros, too */
  }
  for (int64_t i = threadIdx.x; i < (int64_t)kept_quads * 3 * hidden; i += blockDim.x) kept[i] = weight[i];
  while (any_left(slots)) {
#pragma unroll
    for (int s = 0; s < SLOTS; s++) {
      if (!slots[s].left) continue;
      const int32_t before = state_before(job, slots[s]);
      if (threadIdx.x == 0) job.previous[slots[s].token] = before;
      for (int cell = threadIdx.x; cell < hidden; cell += blockDim.x) {
        const int64_t at = (int64_t)slots[s].token * hidden + cell;
        T *gate = gates + (int64_t)slots[s].token * 3 * hidden + cell;
        float v[3] = {sw_to_float(gate[0]), sw_to_float(gate[hidden]), sw_to_float(gate[2 * hidden])}, q = sw_to_float(saved[at]);
        dh[s * hidden + cell] = gradients<T>(v, q, state_at(job, y, before, cell), dh[s * hidden + cell] + sw_to_float(dy[at]));
        gate[0] = sw_from_float<T>(v[0]), gate[hidden] = sw_from_float<T>(v[1]), gate[2 * hidden] = sw_from_float<T>(v[2]);
        saved[at] = sw_from_float<T>(q);
        float *product = products + s * 3 * length + cell;
        product[0] = v[0], product[length] = v[1], product[2 * length] = q;
      }
    }
    __syncthreads();
    multiply<T>(hidden, 3, weight, kept, kept_quads, products, sums);
    __syncthreads();
#pragma unroll
    for (int s = 0; s < SLOTS; s++) {
      const slot now = slots[s];
      slots[s] = after(job, now, apart, !job.reverse);
      if (!now.left) continue;
      for (int cell = threadIdx.x; cell < hidden; cell += blockDim.x) {
        const float *sum = sums + s * 3 * hidden + cell;
        const float earlier = dh[s * hidden + cell] + (sum[0] + sum[hidden] + sum[2 * hidden]);
        if (now.left == 1 && job.dinitial) job.dinitial[(int64_t)now.sequence * hidden + cell] = earlier;
        dh[s * hidden + cell] = now.left == 1 ? 0.0f : earlier;
      }
    }
  }
}

/* --- tensor cores --- */
constexpr int WARPS = 12, CELLS = 16 * WARPS, TILES = CELLS / 16, COLUMNS = 8; /* tiles: of 16 k; columns: slots */
constexpr int IN_REGISTERS = 8;                                                 /* tiles of a gate */
constexpr int PITCH = CELLS + 8;                                                /* bf16 in a row of shared memory: no bank conflicts */
constexpr int FRAGMENTS = WARPS * 3 * TILES * SW_WARP;

static __global__ void lay_out_fragments(int hidden, bool transposed, const float *weight, uint4 *fragments) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x; /* [warp][gate][tile][lane] */
  if (i >= FRAGMENTS) return;
  const int lane = i % SW_WARP, tile = i / SW_WARP % TILES, gate = i / SW_WARP / TILES % 3, warp = i / SW_WARP / TILES / 3;
  const int cell = warp * 16 + lane / 4, k = tile * 16 + lane % 4 * 2;
  const auto pair = [&](int c, int j) {
    return sw_pack_bf16(factor(weight, hidden, transposed, gate, c, j), factor(weight, hidden, transposed, gate, c, j + 1));
  };
  fragments[i] = make_uint4(pair(cell, k), pair(cell + 8, k), pair(cell, k + 8), pair(cell + 8, k + 8));
}

/* A warp's rows of the weight, and their products with the slots' vectors. */
struct warp_weight {
  uint4 fragment[3][IN_REGISTERS];
  const uint4 *rest; /* [3][TILES - IN_REGISTERS][32] in shared memory */
};
constexpr int REST = 3 * (TILES - IN_REGISTERS) * SW_WARP; /* a warp's */
__device__ __forceinline__ void load(warp_weight &w, const uint4 *fragments, uint4 *shared) {
  const int warp = threadIdx.x / SW_WARP, lane = threadIdx.x % SW_WARP;
  const uint4 *own = fragments + warp * 3 * TILES * SW_WARP + lane;
  uint4 *rest = shared + warp * REST + lane;
  w.rest = rest;
#pragma unroll
  for (int gate = 0; gate < 3; gate++)
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      const uint4 f = own[(gate * TILES + tile) * SW_WARP];
      if (tile < IN_REGISTERS)
        w.fragment[gate][tile] = f;
      else /* read by the lane that writes it */
        rest[(gate * (TILES - IN_REGISTERS) + tile - IN_REGISTERS) * SW_WARP] = f;
    }
}
/* sums[gate] = rows times `vectors` [COLUMNS][.., row_elements a row]; gate g's vector begins g * gate_apart after its row. */
__device__ __forceinline__ void multiply(const warp_weight &w, const sw_bf16 *vectors, int row_elements, int gate_apart, float (&sums)[3][4]) {
  const int lane = threadIdx.x % SW_WARP;
  const sw_bf16 *row = vectors + lane % 8 * row_elements + lane / 8 * 8;
#pragma unroll
  for (int gate = 0; gate < 3; gate++)
#pragma unroll
    for (int i = 0; i < 4; i++) sums[gate][i] = 0.0f;
#pragma unroll
  for (int tile = 0; tile < TILES; tile += 2) {
    uint32_t b[4];
#pragma unroll
    for (int gate = 0; gate < 3; gate++) {
      if (gate == 0 || gate_apart) sw_ldmatrix_x4(b, row + gate * gate_apart + tile * 16);
#pragma unroll
      for (int j = 0; j < 2; j++) {
        const int at = tile + j;
        const uint4 f = at < IN_REGISTERS ? w.fragment[gate][at < IN_REGISTERS ? at : 0]
                                          : w.rest[(gate * (TILES - IN_REGISTERS) + at - IN_REGISTERS) * SW_WARP];
        const uint32_t a[4] = {f.x, f.y, f.z, f.w};
        sw_mma_bf16(sums[gate], a, b + 2 * j);
      }
    }
  }
}

/* The lanes of a warp have all slots, and each warp the same ones: the whole block agrees. */
__device__ __forceinline__ bool any_left(const slot (&slots)[2]) { return __any_sync(SW_ALL_LANES, slots[0].left | slots[1].left); }

/* A thread's four states i: cell[i / 2] of slot[i % 2]. */
struct own_cells {
  int cell[2], column; /* column: of slot 0 */
  __device__ __forceinline__ own_cells() {
    const int lane = threadIdx.x % SW_WARP;
    cell[0] = (int)threadIdx.x / SW_WARP * 16 + lane / 4;
    cell[1] = cell[0] + 8;
    column = lane % 4 * 2;
  }
};

static __global__ void __launch_bounds__(WARPS *SW_WARP)
    forward_tensor(gru_job job, const uint4 *fragments, sw_bf16 *gates, sw_bf16 *saved, sw_bf16 *y) {
  SW_DYNAMIC_SHARED(uint4, rest);
  SW_SHARED(sw_bf16, vectors, 2 * COLUMNS * PITCH);
  const int hidden = job.hidden, apart = (int)gridDim.x * COLUMNS;
  const own_cells own;
  warp_weight weight;
  load(weight, fragments, rest);
  slot slots[2];
  float h[4], bias[3][2];
  sw_bf16 in[3][4];
#pragma unroll
  for (int s = 0; s < 2; s++) {
    slots[s] = {(int)blockIdx.x * COLUMNS + own.column + s - apart, 0, 0};
    take(job, slots[s], apart, job.reverse);
  }
  const auto fetch = [&] { /* the gates of the slots' tokens */
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int cell = own.cell[i / 2];
      const slot &s = slots[i % 2];
#pragma unroll
      for (int gate = 0; gate < 3; gate++)
        in[gate][i] = s.left && cell < hidden ? gates[((int64_t)s.token * 3 + gate) * hidden + cell] : (sw_bf16)0;
    }
  };
#pragma unroll
  for (int c = 0; c < 2; c++)
#pragma unroll
    for (int gate = 0; gate < 3; gate++) bias[gate][c] = own.cell[c] < hidden ? job.bias[gate * hidden + own.cell[c]] : 0.0f;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int cell = own.cell[i / 2];
    h[i] = slots[i % 2].left && cell < hidden ? initial_of(job, slots[i % 2].sequence, cell) : 0.0f;
    vectors[(own.column + i % 2) * PITCH + cell] = sw_from_float<sw_bf16>(h[i]);
  }
  fetch();
  for (int from = 0; any_left(slots); from ^= 1) {
    __syncthreads(); /* the states are all there, and nobody reads the other buffer any more */
    float sums[3][4];
    multiply(weight, vectors + from * COLUMNS * PITCH, PITCH, 0, sums);
    sw_bf16 *to = vectors + (from ^ 1) * COLUMNS * PITCH + own.column * PITCH;
    slot next[2];
#pragma unroll
    for (int s = 0; s < 2; s++) next[s] = after(job, slots[s], apart, job.reverse);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int cell = own.cell[i / 2];
      const slot &now = slots[i % 2];
      if (now.left && cell < hidden) {
        float v[3] = {sw_to_float(in[0][i]), sw_to_float(in[1][i]), sw_to_float(in[2][i])};
        const float q = sums[2][i] + bias[2][i / 2];
        const int64_t at = (int64_t)now.token * hidden + cell;
        h[i] = new_state<sw_bf16>(v, sums[0][i] + bias[0][i / 2], sums[1][i] + bias[1][i / 2], q, h[i]);
        y[at] = sw_from_float<sw_bf16>(h[i]);
        if (saved) {
#pragma unroll
          for (int gate = 0; gate < 3; gate++) gates[((int64_t)now.token * 3 + gate) * hidden + cell] = sw_from_float<sw_bf16>(v[gate]);
          saved[at] = sw_from_float<sw_bf16>(q);
        }
        if (now.left == 1 && next[i % 2].left) h[i] = initial_of(job, next[i % 2].sequence, cell);
      }
      to[i % 2 * PITCH + cell] = sw_from_float<sw_bf16>(h[i]);
    }
    slots[0] = next[0], slots[1] = next[1];
    fetch();
  }
}

static __global__ void __launch_bounds__(WARPS *SW_WARP)
    backward_tensor(gru_job job, const uint4 *fragments, sw_bf16 *gates, sw_bf16 *saved, const sw_bf16 *y, const sw_bf16 *dy) {
  SW_DYNAMIC_SHARED(uint4, rest);
  constexpr int ROW = 3 * CELLS + 8; /* no bank conflicts here either */
  SW_SHARED(sw_bf16, vectors, 2 * COLUMNS * ROW);
  const int hidden = job.hidden, apart = (int)gridDim.x * COLUMNS;
  const own_cells own;
  warp_weight weight;
  load(weight, fragments, rest);
  slot slots[2];
  float dh[4] = {}, h[4];
  sw_bf16 in[3][4], in_q[4], in_dy[4];
#pragma unroll
  for (int s = 0; s < 2; s++) {
    slots[s] = {(int)blockIdx.x * COLUMNS + own.column + s - apart, 0, 0};
    take(job, slots[s], apart, !job.reverse);
  }
  const auto fetch = [&] {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int cell = own.cell[i / 2];
      const slot &s = slots[i % 2];
      const bool there = s.left && cell < hidden;
      const int64_t at = (int64_t)s.token * hidden + cell;
#pragma unroll
      for (int gate = 0; gate < 3; gate++) in[gate][i] = there ? gates[((int64_t)s.token * 3 + gate) * hidden + cell] : (sw_bf16)0;
      in_q[i] = there ? saved[at] : (sw_bf16)0;
      in_dy[i] = there ? dy[at] : (sw_bf16)0;
      h[i] = there ? state_at(job, y, state_before(job, s), cell) : 0.0f;
    }
  };
  fetch();
  for (int buffer = 0; any_left(slots); buffer ^= 1) {
    sw_bf16 *products = vectors + buffer * COLUMNS * ROW, *to = products + own.column * ROW;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int cell = own.cell[i / 2];
      const slot &now = slots[i % 2];
      float v[3] = {sw_to_float(in[0][i]), sw_to_float(in[1][i]), sw_to_float(in[2][i])}, q = sw_to_float(in_q[i]);
      dh[i] = gradients<sw_bf16>(v, q, h[i], dh[i] + sw_to_float(in_dy[i]));
      const sw_bf16 rounded[4] = {sw_from_float<sw_bf16>(v[0]), sw_from_float<sw_bf16>(v[1]), sw_from_float<sw_bf16>(v[2]), sw_from_float<sw_bf16>(q)};
      if (now.left && cell < hidden) {
#pragma unroll
        for (int gate = 0; gate < 3; gate++) gates[((int64_t)now.token * 3 + gate) * hidden + cell] = rounded[gate];
        saved[(int64_t)now.token * hidden + cell] = rounded[3];
      }
#pragma unroll
      for (int gate = 0; gate < 3; gate++) to[i % 2 * ROW + gate * CELLS + cell] = rounded[gate == 2 ? 3 : gate];
    }
    if (threadIdx.x < 4) { /* the lanes that have a cell of 0, one for each pair of slots */
#pragma unroll
      for (int s = 0; s < 2; s++)
        if (slots[s].left) job.previous[slots[s].token] = state_before(job, slots[s]);
    }
    const slot now[2] = {slots[0], slots[1]};
#pragma unroll
    for (int s = 0; s < 2; s++) slots[s] = after(job, now[s], apart, !job.reverse);
    fetch();
    __syncthreads(); /* two buffers: the one read in the last step is written only after this */
    float sums[3][4];
    multiply(weight, products, ROW, CELLS, sums);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int cell = own.cell[i / 2];
      dh[i] += sums[0][i] + sums[1][i] + sums[2][i];
      if (now[i % 2].left == 1) {
        if (job.dinitial && cell < hidden) job.dinitial[(int64_t)now[i % 2].sequence * hidden + cell] = dh[i];
        dh[i] = 0.0f;
      }
    }
  }
}

/* --- the weight's gradient --- */
constexpr int SIDE = 64, DEPTH = 16, GRADIENT_THREADS = 256, MOST_TILES = 512;

/* Rows of the product: 3 hidden; columns: hidden, then one of ones for the bias. */
struct gradient_plan {
  int rows, columns, slices;
  int64_t slice_tokens;
  dim3 tiles;
};
static gradient_plan plan_of(int hidden, int64_t tokens) {
  gradient_plan p;
  p.rows = 3 * hidden, p.columns = hidden + 1;
  p.tiles = dim3(sw_blocks(p.rows, SIDE), sw_blocks(p.columns, SIDE));
  const int most = (int)(MOST_TILES / (p.tiles.x * p.tiles.y));
  p.slice_tokens = (tokens + (most ? most : 1) - 1) / (most ? most : 1);
  p.slice_tokens = (p.slice_tokens + SIDE - 1) / SIDE * SIDE;
  p.slices = (int)sw_blocks(tokens, p.slice_tokens ? p.slice_tokens : 1);
  p.tiles.z = (unsigned)p.slices;
  return p;
}

template <class T>
static __global__ void __launch_bounds__(GRADIENT_THREADS)
    sum_products(gru_job job, int64_t slice_tokens, const T *gates, const T *saved, const T *y, float *partial) {
  SW_SHARED(float, left, DEPTH * SIDE);  /* [token][row]: gradients */
  SW_SHARED(float, right, DEPTH * SIDE); /* [token][column]: states */
  const int hidden = job.hidden, rows = 3 * hidden, columns = hidden + 1;
  const int first_row = (int)blockIdx.x * SIDE, first_column = (int)blockIdx.y * SIDE;
  const int across = threadIdx.x % 16 * 4, down = threadIdx.x / 16 * 4; /* of the thread's 4 x 4 sums */
  const int64_t from = blockIdx.z * slice_tokens, end = min((long)(from + slice_tokens), (long)job.total);
  float sum[4][4] = {};
  for (int64_t at = from; at < end; at += DEPTH) {
    const int64_t token = at + threadIdx.x / 16;
    const int32_t before = token < end ? job.previous[token] : NO_SEQUENCE;
    float g[4], h[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int row = first_row + across + i, column = first_column + across + i;
      const bool there = before != NO_SEQUENCE;
      g[i] = !there || row >= rows  ? 0.0f
             : row < 2 * hidden     ? sw_to_float(gates[token * rows + row])
                                    : sw_to_float(saved[token * hidden + row - 2 * hidden]);
      h[i] = !there || column > hidden ? 0.0f : column == hidden ? 1.0f : state_at(job, y, before, column);
    }
    __syncthreads(); /* everybody has read the tokens before */
    sw_store4(left + threadIdx.x * 4, make_float4(g[0], g[1], g[2], g[3]));
    sw_store4(right + threadIdx.x * 4, make_float4(h[0], h[1], h[2], h[3]));
    __syncthreads();
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      const float4 a = sw_load4(left + k * SIDE + down), b = sw_load4(right + k * SIDE + across);
      const float factors[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
      for (int i = 0; i < 4; i++) {
        sum[i][0] += factors[i] * b.x;
        sum[i][1] += factors[i] * b.y;
        sum[i][2] += factors[i] * b.z;
        sum[i][3] += factors[i] * b.w;
      }
    }
  }
  float *to = partial + (int64_t)blockIdx.z * rows * columns;
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int row = first_row + down + i, column = first_column + across + j;
      if (row < rows && column < columns) to[(int64_t)row * columns + column] = sum[i][j];
    }
}
static __global__ void add_slices(int hidden, int slices, const float *partial, float *dweight, float *dbias) {
  const int64_t columns = hidden + 1, count = 3 * hidden * columns, i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float sum = 0;
#pragma unroll 8
  for (int s = 0; s < slices; s++) sum += partial[s * count + i];
  const int64_t row = i / columns, column = i % columns;
  if (column < hidden)
    dweight[row * hidden + column] += sum;
  else
    dbias[row] += sum;
}

/* --- calls --- */
size_t whole_lines(size_t bytes) { return (bytes + 127) / 128 * 128; }
size_t weight_bytes(int hidden) {
  const size_t quads = 3 * (size_t)hidden * padded(hidden) * sizeof(float), fragments = FRAGMENTS * sizeof(uint4);
  return whole_lines(quads > fragments ? quads : fragments);
}
/* Of any plan: at most MOST_TILES tiles, or one slice. */
size_t partial_bytes(int hidden) {
  const size_t tiles = (size_t)MOST_TILES * SIDE * SIDE, one = 3 * (size_t)hidden * (hidden + 1);
  return (tiles > one ? tiles : one) * sizeof(float);
}
bool on_tensor_cores(const sw_gru_desc *d) { return d->dtype == SW_BF16 && d->hidden <= CELLS; }

/* How a recurrence is launched with plain multiply-adds. */
struct plain_launch {
  unsigned blocks, threads;
  int kept_quads;
  size_t shared;
};
template <class T> int plan_launch(const sw_stream *stream, const sw_gru_desc *d, int gates, plain_launch *out) {
  const int rows = 3 * d->hidden, quads = (d->hidden + 3) / 4;
  const size_t state = (size_t)state_floats(d->hidden, gates) * sizeof(float), each = (size_t)rows * sizeof(quad<T>);
  const size_t limit = sw_cuda_shared_bytes(stream->device);
  if (state > limit)
    return sw_fail("gru: hidden size %d needs %zu bytes of shared memory; %s gives a block %zu", d->hidden, state, stream->device->name, limit);
  plain_launch l;
  l.blocks = sw_blocks(d->batch, SLOTS) < MOST_BLOCKS ? sw_blocks(d->batch, SLOTS) : MOST_BLOCKS;
  l.threads = rows < MOST_THREADS ? (unsigned)(rows + SW_WARP - 1) / SW_WARP * SW_WARP : MOST_THREADS;
  l.kept_quads = (int)((limit - state) / each);
  if (l.kept_quads > quads) l.kept_quads = quads;
  l.shared = state + (size_t)l.kept_quads * each;
  *out = l;
  return 0;
}
unsigned tensor_blocks(const sw_gru_desc *d) {
  const unsigned blocks = sw_blocks(d->batch, COLUMNS);
  return blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS;
}
constexpr size_t REST_BYTES = WARPS * REST * sizeof(uint4);

template <class T> int lay_out_rows(sw_stream *stream, int hidden, bool transposed, const float *weight, void *workspace) {
  return sw_launch(stream, "gru: weight", lay_out<T>, dim3(sw_blocks((int64_t)padded(hidden) / 4 * 3 * hidden, 256)), dim3(256), 0, hidden,
                   transposed, weight, (quad<T> *)workspace);
}
int lay_out_for_tensor_cores(sw_stream *stream, int hidden, bool transposed, const float *weight, void *workspace) {
  return sw_launch(stream, "gru: weight", lay_out_fragments, dim3(sw_blocks(FRAGMENTS, 256)), dim3(256), 0, hidden, transposed, weight,
                   (uint4 *)workspace);
}
gru_job job_of(const sw_gru_desc *d, const int32_t *cu_seqlens, const float *bias, const float *initial) {
  return {d->batch, d->hidden, d->total_tokens, d->reverse != 0, cu_seqlens, bias, initial, nullptr, nullptr};
}
} // namespace

int sw_cuda_gru_workspace(sw_stream *, const sw_gru_desc *desc, size_t *bytes) {
  if (gru_check(desc)) return -1;
  *bytes = weight_bytes(desc->hidden) + whole_lines((size_t)desc->total_tokens * sizeof(int32_t)) + partial_bytes(desc->hidden);
  return 0;
}

int sw_cuda_gru_forward(sw_stream *stream, const sw_gru_desc *desc, const int32_t *cu_seqlens, void *gates, const float *weight,
                        const float *bias, const float *initial, void *y, void *saved, void *workspace) {
  if (gru_check(desc)) return -1;
  if (saved && sw_cudnn_gru_takes(desc))
    return sw_cudnn_gru_forward(stream, desc, (const float *)gates, weight, bias, initial, (float *)y, saved);
  const gru_job job = job_of(desc, cu_seqlens, bias, initial);
  if (on_tensor_cores(desc))
    return lay_out_for_tensor_cores(stream, desc->hidden, false, weight, workspace) ||
                   sw_launch(stream, "gru_forward", forward_tensor, dim3(tensor_blocks(desc)), dim3(WARPS * SW_WARP), REST_BYTES, job,
                             (const uint4 *)workspace, (sw_bf16 *)gates, (sw_bf16 *)saved, (sw_bf16 *)y)
               ? -1
               : 0;
  return sw_with_type(desc->dtype, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    plain_launch l;
    if (plan_launch<T>(stream, desc, 1, &l) || lay_out_rows<T>(stream, desc->hidden, false, weight, workspace)) return -1;
    return sw_launch(stream, "gru_forward", forward<T>, dim3(l.blocks), dim3(l.threads), l.shared, job, (const quad<T> *)workspace, l.kept_quads,
                     (T *)gates, (T *)saved, (T *)y);
  });
}

int sw_cuda_gru_backward(sw_stream *stream, const sw_gru_desc *desc, const int32_t *cu_seqlens, void *gates, void *saved, const float *weight,
                         const float *initial, const void *y, const void *dy, float *dweight, float *dbias, float *dinitial, void *workspace) {
  if (gru_check(desc)) return -1;
  if (sw_cudnn_gru_takes(desc))
    return sw_cudnn_gru_backward(stream, desc, (float *)gates, saved, (const float *)dy, dweight, dbias, dinitial);
  const int hidden = desc->hidden;
  char *previous = (char *)workspace + weight_bytes(hidden);
  const size_t previous_bytes = (size_t)desc->total_tokens * sizeof(int32_t), dinitial_bytes = (size_t)desc->batch * (size_t)hidden * sizeof(float);
  float *partial = (float *)(previous + whole_lines(previous_bytes));
  gru_job job = job_of(desc, cu_seqlens, nullptr, initial);
  job.dinitial = dinitial;
  job.previous = (int32_t *)previous;
  if (previous_bytes && sw_cuda_check(cudaMemsetAsync(previous, 0x80, previous_bytes, sw_cuda_stream(stream)), "gru_backward")) return -1;
  if (dinitial && dinitial_bytes && sw_cuda_check(cudaMemsetAsync(dinitial, 0, dinitial_bytes, sw_cuda_stream(stream)), "gru_backward")) return -1;
  return sw_with_type(desc->dtype, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if (on_tensor_cores(desc)) {
      if (lay_out_for_tensor_cores(stream, hidden, true, weight, workspace) ||
          sw_launch(stream, "gru_backward", backward_tensor, dim3(tensor_blocks(desc)), dim3(WARPS * SW_WARP), REST_BYTES, job,
                    (const uint4 *)workspace, (sw_bf16 *)gates, (sw_bf16 *)saved, (const sw_bf16 *)y, (const sw_bf16 *)dy))
        return -1;
    } else {
      plain_launch l;
      if (plan_launch<T>(stream, desc, 3, &l) || lay_out_rows<T>(stream, hidden, true, weight, workspace) ||
          sw_launch(stream, "gru_backward", backward<T>, dim3(l.blocks), dim3(l.threads), l.shared, job, (const quad<T> *)workspace, l.kept_quads,
                    (T *)gates, (T *)saved, (const T *)y, (const T *)dy))
        return -1;
    }
    const gradient_plan p = plan_of(hidden, desc->total_tokens);
    if (sw_launch(stream, "gru: products", sum_products<T>, p.tiles, dim3(GRADIENT_THREADS), 0, job, p.slice_tokens, (const T *)gates,
                  (const T *)saved, (const T *)y, partial))
      return -1;
    return sw_launch(stream, "gru: gradient", add_slices, dim3(sw_blocks((int64_t)p.rows * p.columns, 256)), dim3(256), 0, hidden, p.slices, partial,
                     dweight, dbias);
  });
}
