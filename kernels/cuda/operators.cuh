/* The functions that kernels/<operator>/cuda.cu define, one for each row of the operator table. */
#ifndef SW_KERNELS_CUDA_OPERATORS_CUH
#define SW_KERNELS_CUDA_OPERATORS_CUH
#include "kernels/cuda/cuda.cuh"
#define X(name) sw_##name##_fn sw_cuda_##name;
SW_OPERATOR_LIST(X)
#undef X
/* Makes the device the calling thread's: every thread begins with device 0. */
int sw_cuda_choose(const sw_device *device);
/* Most shared memory that a block of the device may ask for, in bytes: 163 KiB on 8.0, 99 KiB on 8.6 and 8.9, 227 KiB on 9.0. */
size_t sw_cuda_shared_bytes(const sw_device *device);
/* Opens the library that the matrix products need, once. */
int sw_cuda_linear_open();
/* Releases what the matrix products keep for the device: a handle and the chosen algorithms. */
void sw_cuda_linear_close(const sw_device *device);
/* Where work is being collected: hands over what was collected so far, for libraries whose work is in no graph; *paused for the second, which
 * goes on collecting. */
int sw_cuda_pause_collecting(sw_stream *stream, int *paused);
int sw_cuda_resume_collecting(sw_stream *stream, int paused);

/* The GRU by cuDNN (kernels/gru/cudnn.cu): whether it takes a call of training, its halves, and the end. */
bool sw_cudnn_gru_takes(const sw_gru_desc *desc);
int sw_cudnn_gru_forward(sw_stream *stream, const sw_gru_desc *desc, const float *gates, const float *weight, const float *bias, const float *initial,
                         float *y, const void *saved);
int sw_cudnn_gru_backward(sw_stream *stream, const sw_gru_desc *desc, float *gates, const void *saved, const float *dy, float *dweight, float *dbias,
                          float *dinitial);
void sw_cudnn_gru_close(const sw_device *device);

/* Sums between processes by NCCL (nccl.cu), on a stream of their own; sw_collectives in kernels/backend.h says what each does. */
struct sw_cuda_sums;
int sw_cuda_sums_id(char id[SW_COLLECTIVE_ID]);
int sw_cuda_sums_open(sw_device *device, const char id[SW_COLLECTIVE_ID], int rank, int ranks, sw_cuda_sums **out);
void sw_cuda_sums_close(sw_cuda_sums *sums);
cudaStream_t sw_cuda_sums_stream(const sw_cuda_sums *sums);
int sw_cuda_sums_add(sw_cuda_sums *sums, float *values, size_t count);
int sw_cuda_sums_gather(sw_cuda_sums *sums, void *all, size_t bytes);
#endif
