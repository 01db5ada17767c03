/* The few functions of cuDNN 9 that cudnn.cu calls, declared here so that building needs none of its files: the library is opened at run time. */
#ifndef SW_KERNELS_GRU_CUDNN_H
#define SW_KERNELS_GRU_CUDNN_H
#include "kernels/cuda/cuda.cuh"

typedef struct cudnnContext *cudnnHandle_t;
typedef struct cudnnTensorStruct *cudnnTensorDescriptor_t;
typedef struct cudnnDropoutStruct *cudnnDropoutDescriptor_t;
typedef struct cudnnRNNStruct *cudnnRNNDescriptor_t;
typedef struct cudnnRNNDataStruct *cudnnRNNDataDescriptor_t;
typedef enum { CUDNN_STATUS_SUCCESS = 0, CUDNN_STATUS_BAD_PARAM = 2000, CUDNN_STATUS_NOT_SUPPORTED = 3000 } cudnnStatus_t;
typedef enum { CUDNN_DATA_FLOAT = 0 } cudnnDataType_t;
typedef enum { CUDNN_FMA_MATH = 3 } cudnnMathType_t;
typedef enum { CUDNN_RNN_ALGO_STANDARD = 0 } cudnnRNNAlgo_t;
typedef enum { CUDNN_FWD_MODE_TRAINING = 1 } cudnnForwardMode_t;
typedef enum { CUDNN_GRU = 3 } cudnnRNNMode_t;
typedef enum { CUDNN_RNN_SINGLE_REC_BIAS = 3 } cudnnRNNBiasMode_t;
typedef enum { CUDNN_UNIDIRECTIONAL = 0 } cudnnDirectionMode_t;
typedef enum { CUDNN_LINEAR_INPUT = 0 } cudnnRNNInputMode_t;
typedef enum { CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED = 1 } cudnnRNNDataLayout_t;
typedef enum { CUDNN_WGRAD_MODE_ADD = 0 } cudnnWgradMode_t;
enum { CUDNN_RNN_PADDED_IO_DISABLED = 0 };

/* result, name, parameters, arguments */
#define SW_CUDNN_FUNCTIONS(X)                                                                                                              \
  X(const char *, cudnnGetErrorString, (cudnnStatus_t status), (status))                                                                   \
  X(cudnnStatus_t, cudnnCreate, (cudnnHandle_t * handle), (handle))                                                                        \
  X(cudnnStatus_t, cudnnDestroy, (cudnnHandle_t handle), (handle))                                                                         \
  X(cudnnStatus_t, cudnnSetStream, (cudnnHandle_t handle, cudaStream_t stream), (handle, stream))                                          \
  X(cudnnStatus_t, cudnnCreateTensorDescriptor, (cudnnTensorDescriptor_t * d), (d))                                                        \
  X(cudnnStatus_t, cudnnDestroyTensorDescriptor, (cudnnTensorDescriptor_t d), (d))                                                         \
  X(cudnnStatus_t, cudnnSetTensorNdDescriptor,                                                                                             \
    (cudnnTensorDescriptor_t d, cudnnDataType_t type, int rank, const int *shape, const int *strides), (d, type, rank, shape, strides))    \
  X(cudnnStatus_t, cudnnCreateDropoutDescriptor, (cudnnDropoutDescriptor_t * d), (d))                                                      \
  X(cudnnStatus_t, cudnnDestroyDropoutDescriptor, (cudnnDropoutDescriptor_t d), (d))                                                       \
  X(cudnnStatus_t, cudnnSetDropoutDescriptor,                                                                                              \
    (cudnnDropoutDescriptor_t d, cudnnHandle_t handle, float p, void *states, size_t bytes, unsigned long long seed),                      \
    (d, handle, p, states, bytes, seed))                                                                                                   \
  X(cudnnStatus_t, cudnnCreateRNNDescriptor, (cudnnRNNDescriptor_t * d), (d))                                                              \
  X(cudnnStatus_t, cudnnDestroyRNNDescriptor, (cudnnRNNDescriptor_t d), (d))                                                               \
  X(cudnnStatus_t, cudnnSetRNNDescriptor_v8,                                                                                               \
    (cudnnRNNDescriptor_t d, cudnnRNNAlgo_t algorithm, cudnnRNNMode_t cell, cudnnRNNBiasMode_t bias, cudnnDirectionMode_t direction,       \
     cudnnRNNInputMode_t input, cudnnDataType_t type, cudnnDataType_t precision, cudnnMathType_t math, int32_t input_size,                 \
     int32_t hidden, int32_t projection, int32_t layers, cudnnDropoutDescriptor_t dropout, uint32_t flags),                                \
    (d, algorithm, cell, bias, direction, input, type, precision, math, input_size, hidden, projection, layers, dropout, flags))           \
  X(cudnnStatus_t, cudnnCreateRNNDataDescriptor, (cudnnRNNDataDescriptor_t * d), (d))                                                      \
  X(cudnnStatus_t, cudnnDestroyRNNDataDescriptor, (cudnnRNNDataDescriptor_t d), (d))                                                       \
  X(cudnnStatus_t, cudnnSetRNNDataDescriptor,                                                                                              \
    (cudnnRNNDataDescriptor_t d, cudnnDataType_t type, cudnnRNNDataLayout_t layout, int longest, int batch, int size, const int *lengths,  \
     void *padding),                                                                                                                       \
    (d, type, layout, longest, batch, size, lengths, padding))                                                                             \
  X(cudnnStatus_t, cudnnGetRNNWeightSpaceSize, (cudnnHandle_t handle, cudnnRNNDescriptor_t d, size_t *bytes), (handle, d, bytes))          \
  X(cudnnStatus_t, cudnnGetRNNTempSpaceSizes,                                                                                              \
    (cudnnHandle_t handle, cudnnRNNDescriptor_t d, cudnnForwardMode_t mode, cudnnRNNDataDescriptor_t x, size_t *work, size_t *reserve),    \
    (handle, d, mode, x, work, reserve))                                                                                                   \
  X(cudnnStatus_t, cudnnGetRNNWeightParams,                                                                                                \
    (cudnnHandle_t handle, cudnnRNNDescriptor_t d, int32_t layer, size_t bytes, const void *weights, int32_t gate,                         \
     cudnnTensorDescriptor_t matrix_d, void **matrix, cudnnTensorDescriptor_t bias_d, void **bias),                                        \
    (handle, d, layer, bytes, weights, gate, matrix_d, matrix, bias_d, bias))                                                              \
  X(cudnnStatus_t, cudnnRNNForward,                                                                                                        \
    (cudnnHandle_t handle, cudnnRNNDescriptor_t d, cudnnForwardMode_t mode, const int32_t *device_lengths, cudnnRNNDataDescriptor_t x_d,   \
     const void *x, cudnnRNNDataDescriptor_t y_d, void *y, cudnnTensorDescriptor_t h_d, const void *hx, void *hy,                          \
     cudnnTensorDescriptor_t c_d, const void *cx, void *cy, size_t weight_bytes, const void *weights, size_t work_bytes, void *work,       \
     size_t reserve_bytes, void *reserve),                                                                                                 \
    (handle, d, mode, device_lengths, x_d, x, y_d, y, h_d, hx, hy, c_d, cx, cy, weight_bytes, weights, work_bytes, work, reserve_bytes,    \
     reserve))                                                                                                                             \
  X(cudnnStatus_t, cudnnRNNBackwardData_v8,                                                                                                \
    (cudnnHandle_t handle, cudnnRNNDescriptor_t d, const int32_t *device_lengths, cudnnRNNDataDescriptor_t y_d, const void *y,             \
     const void *dy, cudnnRNNDataDescriptor_t x_d, void *dx, cudnnTensorDescriptor_t h_d, const void *hx, const void *dhy, void *dhx,      \
     cudnnTensorDescriptor_t c_d, const void *cx, const void *dcy, void *dcx, size_t weight_bytes, const void *weights,                    \
     size_t work_bytes, void *work, size_t reserve_bytes, void *reserve),                                                                  \
    (handle, d, device_lengths, y_d, y, dy, x_d, dx, h_d, hx, dhy, dhx, c_d, cx, dcy, dcx, weight_bytes, weights, work_bytes, work,        \
     reserve_bytes, reserve))                                                                                                              \
  X(cudnnStatus_t, cudnnRNNBackwardWeights_v8,                                                                                             \
    (cudnnHandle_t handle, cudnnRNNDescriptor_t d, cudnnWgradMode_t mode, const int32_t *device_lengths, cudnnRNNDataDescriptor_t x_d,     \
     const void *x, cudnnTensorDescriptor_t h_d, const void *hx, cudnnRNNDataDescriptor_t y_d, const void *y, size_t weight_bytes,         \
     void *dweights, size_t work_bytes, void *work, size_t reserve_bytes, void *reserve),                                                  \
    (handle, d, mode, device_lengths, x_d, x, h_d, hx, y_d, y, weight_bytes, dweights, work_bytes, work, reserve_bytes, reserve))

#define X(result, name, parameters, arguments) result name parameters;
extern "C" {
SW_CUDNN_FUNCTIONS(X)
}
#undef X
#endif
