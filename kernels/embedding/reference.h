/* Plain fp64 reference of BERT's input, for tests; arguments as in embedding.h, out_mask [tokens, hidden] or NULL. */
#ifndef SW_KERNELS_EMBEDDING_REFERENCE_H
#define SW_KERNELS_EMBEDDING_REFERENCE_H
#include <stdint.h>

void sw_reference_embedding_forward(int64_t tokens, int hidden, double eps, const int32_t *ids,
                                    const int32_t *positions, const int32_t *type_ids, const double *word,
                                    const double *position, const double *type, const double *gamma, const double *beta,
                                    const double *out_mask, double *z, double *y);
/* dword [vocab, hidden] is the whole table's gradient. All gradients are added to; dz [tokens, hidden] is overwritten.
 */
void sw_reference_embedding_backward(int64_t tokens, int hidden, double eps, const int32_t *ids,
                                     const int32_t *positions, const int32_t *type_ids, const double *dy,
                                     const double *z, const double *gamma, const double *out_mask, double *dz,
                                     double *dword, double *dposition, double *dtype_table, double *dgamma,
                                     double *dbeta);
#endif
