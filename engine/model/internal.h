/* What model.c and run.c share. */
#ifndef SW_MODEL_INTERNAL_H
#define SW_MODEL_INTERNAL_H
#include "engine/model/model.h"

/* The four matrix products of a layer. Query, key and value are one product: their rows lie side by side. */
enum { SW_QKV, SW_OUTPUT, SW_UP, SW_DOWN, SW_PRODUCTS };

typedef struct sw_model_layer {
  struct {
    size_t weight, bias; /* offsets into the arenas, in floats */
    int in, out;
    sw_activation activation;
    void *prepared;
  } product[SW_PRODUCTS];
  size_t norm1_gamma, norm1_beta, norm2_gamma, norm2_beta; /* offsets */
} sw_model_layer;

typedef struct {
  size_t word, position, type, gamma, beta; /* offsets; type = SIZE_MAX where there is none */
} sw_model_embedding;
sw_model_embedding sw_model_embedding_of(const sw_model *model);

sw_linear_desc sw_model_product_desc(const sw_model *model, const sw_model_layer *layer, int product, int64_t tokens);
sw_linear_desc sw_model_head_desc(const sw_model *model, const sw_model_head *head, int64_t tokens);
#endif
