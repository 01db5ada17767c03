/* The few functions of NCCL (2.7 and later, the same in all of 2) that nccl.cu calls, declared here so that building needs none of its
 * files: the library is opened at run time. */
#ifndef SW_KERNELS_CUDA_NCCL_H
#define SW_KERNELS_CUDA_NCCL_H
#include "kernels/cuda/cuda.cuh"

typedef struct ncclComm *ncclComm_t;
typedef struct {
  char internal[128];
} ncclUniqueId;
typedef enum { ncclSuccess = 0, ncclInvalidArgument = 4, ncclInvalidUsage = 5 } ncclResult_t;
typedef enum { ncclInt8 = 0, ncclFloat32 = 7 } ncclDataType_t;

/* result, name, parameters, arguments */
#define SW_NCCL_FUNCTIONS(X)                                                                                                               \
  X(ncclResult_t, ncclGetVersion, (int *version), (version))                                                                               \
  X(ncclResult_t, ncclGetUniqueId, (ncclUniqueId * id), (id))                                                                              \
  X(ncclResult_t, ncclCommInitRank, (ncclComm_t * comm, int ranks, ncclUniqueId id, int rank), (comm, ranks, id, rank))                    \
  X(ncclResult_t, ncclCommDestroy, (ncclComm_t comm), (comm))                                                                              \
  X(const char *, ncclGetErrorString, (ncclResult_t result), (result))                                                                     \
  X(ncclResult_t, ncclGroupStart, (), ())                                                                                                  \
  X(ncclResult_t, ncclGroupEnd, (), ())                                                                                                    \
  X(ncclResult_t, ncclSend, (const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream),         \
    (from, count, type, peer, comm, stream))                                                                                               \
  X(ncclResult_t, ncclRecv, (void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream),                 \
    (to, count, type, peer, comm, stream))

#define X(result, name, parameters, arguments) result name parameters;
extern "C" {
SW_NCCL_FUNCTIONS(X)
}
#undef X
#endif
