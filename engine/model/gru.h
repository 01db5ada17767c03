/* The GRU as an encoder (sw_model with config "model_type": "gru"), for the small multilabel model. One layer, forward in time:
 *
 *   e_t = dropout(embedding[id_t])                          embedding.weight [vocab_size, embedding_size]
 *   i_t = W_i e_t + b_i                                     gru.weight_ih_l0 [3 hidden, embedding_size], gru.bias_ih_l0 [3 hidden]
 *   h_t = GRU(i_t, h_(t-1)) (kernels/gru/gru.h)             gru.weight_hh_l0 [3 hidden, hidden], gru.bias_hh_l0 [3 hidden]
 *   logits = W_h dropout(h_last) + b_h, each label with a sigmoid of its own   heads.<name>.weight [labels, hidden], heads.<name>.bias
 *
 * Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014; names and gate order are torch.nn.GRU's. Keys of the
 * config: vocab_size, embedding_size, hidden_size (the cells), max_position_embeddings (words of a text), hidden_dropout_prob.
 *
 * sw_model_open, sw_run_forward (states: h_t), sw_run_label_loss, sw_run_backward, the optimizer and the trainer's loop work as for the
 * BERT family. Every text must have a word: the last state of none is not defined. */
#ifndef SW_MODEL_GRU_H
#define SW_MODEL_GRU_H
#include "engine/model/model.h"

enum { SW_GRU_EMBEDDING = 128, SW_GRU_CELLS = 180 };

/* Sets config, weights (PyTorch's initial distributions: N(0, 1) for the embedding, U(-k, k) with k = 1 / sqrt(hidden) for the rest) and the
 * head `name` with these labels in a checkpoint that has none of them. The weights follow from the seed. */
int sw_gru_init(sw_checkpoint *checkpoint, int vocab_size, int embedding_size, int hidden_size, int max_words, double dropout,
                const char *name, const char *const *labels, size_t num_labels, uint64_t seed);
#endif
