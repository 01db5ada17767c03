/* Plain fp64 reference of the GRU, for tests. Arguments as in gru.h, but gates stay as they are. */
#ifndef SW_KERNELS_GRU_REFERENCE_H
#define SW_KERNELS_GRU_REFERENCE_H
#include "kernels/backend.h"

/* initial may be NULL. */
void sw_gru_reference(const sw_gru_desc *desc, const int32_t *cu_seqlens, const double *gates, const double *weight, const double *bias,
                      const double *initial, double *y);
/* From the inputs alone: everything is computed anew. dgates [total, 3, hidden] and dinitial [batch, hidden] are overwritten, dweight and dbias
 * added to. */
void sw_gru_backward_reference(const sw_gru_desc *desc, const int32_t *cu_seqlens, const double *gates, const double *weight,
                               const double *bias, const double *initial, const double *dy, double *dgates, double *dweight, double *dbias,
                               double *dinitial);
#endif
