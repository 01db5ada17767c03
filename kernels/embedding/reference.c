#include "kernels/embedding/reference.h"
#include "kernels/layernorm/reference.h"

#include <stddef.h>

void sw_reference_embedding_forward(int64_t tokens, int hidden, double eps, const int32_t *ids,
                                    const int32_t *positions, const int32_t *type_ids, const double *word,
                                    const double *position, const double *type, const double *gamma, const double *beta,
                                    const double *out_mask, double *z, double *y) {
  for (int64_t t = 0; t < tokens; t++)
    for (int c = 0; c < hidden; c++) {
      double sum = word[ids[t] * (int64_t)hidden + c] + position[positions[t] * (int64_t)hidden + c];
      if (type) sum += type[(type_ids ? type_ids[t] : 0) * (int64_t)hidden + c];
      z[t * hidden + c] = sum;
    }
  sw_reference_layernorm_forward(tokens, hidden, eps, z, NULL, NULL, gamma, beta, out_mask, NULL, y, NULL, NULL);
}

void sw_reference_embedding_backward(int64_t tokens, int hidden, double eps, const int32_t *ids,
                                     const int32_t *positions, const int32_t *type_ids, const double *dy,
                                     const double *z, const double *gamma, const double *out_mask, double *dz,
                                     double *dword, double *dposition, double *dtype_table, double *dgamma,
                                     double *dbeta) {
  sw_reference_layernorm_backward(tokens, hidden, eps, dy, z, gamma, NULL, out_mask, dz, NULL, dgamma, dbeta);
  for (int64_t t = 0; t < tokens; t++)
    for (int c = 0; c < hidden; c++) {
      double g = dz[t * hidden + c];
      dword[ids[t] * (int64_t)hidden + c] += g;
      dposition[positions[t] * (int64_t)hidden + c] += g;
      if (dtype_table) dtype_table[(type_ids ? type_ids[t] : 0) * (int64_t)hidden + c] += g;
    }
}
