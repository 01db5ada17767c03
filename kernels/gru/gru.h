/* GRU over packed sequences: the recurrent half of the layer. One linear layer has made the gates' input half, W_i x + b_i, for all
 * tokens at once; from it and the state h before a token
 *   r = s(i_r + W_r h + b_r)   z = s(i_z + W_z h + b_z)   n = tanh(i_n + r * q)   with q = W_n h + b_n   and s(x) = 1 / (1 + exp(-x))
 *   h' = (1 - z) n + z h
 * Gates stand in the order r, z, n. Cho et al. 2014, with the reset gate applied after the product, as cuDNN and PyTorch have it (so that
 * torch.nn.GRU's weight_hh and bias_hh are `weight` and `bias`, and weight_ih and bias_ih the linear layer's).
 * Backward, from the last token to the first, with dh = dy + what the token after it brings:
 *   di_n = dh (1 - z) (1 - n^2)   di_z = dh (h - n) z (1 - z)   di_r = di_n q r (1 - r)   dq = di_n r
 *   dh before = dh z + W_r^T di_r + W_z^T di_z + W_n^T dq
 *   dW += sum over tokens of (di_r, di_z, dq) h^T   db += sum of (di_r, di_z, dq)
 *
 * The state is carried in fp32 from token to token whatever the dtype; `y` holds it rounded to the dtype. With bf16 storage dW and db are sums
 * of rounded gradients and states, and a GPU rounds the weight to bf16, too, and the vectors that it multiplies. All sums are fp32. */
#ifndef SW_KERNELS_GRU_H
#define SW_KERNELS_GRU_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
  int batch;            /* sequences; any may be empty */
  int64_t total_tokens; /* = cu_seqlens[batch], < 2^31 */
  int hidden;           /* <= 1024 */
  int reverse;          /* from a sequence's last token to its first: the other half of a bidirectional layer */
  sw_dtype dtype;       /* of gates, y, dy and saved */
  /* host: the same as cu_seqlens, in forward and backward alike, or NULL. A library that must know lengths beforehand (cuDNN, where SKILLWATCH_GRU=cudnn
   * asks for it) then takes fp32 training instead of our own cell. It knows no infinite gates, and does not promise to give a sequence the same bits in every batch. */
  const int32_t *host_cu_seqlens;
} sw_gru_desc;

/* Scratch for forward and backward with these or smaller sizes (depends on the stream's threads). */
typedef int sw_gru_workspace_fn(sw_stream *stream, const sw_gru_desc *desc, size_t *bytes);
/* gates [total, 3, hidden]; weight [3, hidden, hidden], bias [3, hidden]; initial [batch, hidden] fp32: the state before the first
 * token, or NULL for zeros; y [total, hidden]: the state after each token.
 * saved [total, hidden] or NULL (inference). Where it is given, gates and saved become what backward needs: r, z, n and q in fp32, in bf16
 * the sums before the activations instead of r, z, n (1 - z would lose its digits in the rounding of z); a library may need something else.
 * cu_seqlens that fall or do not end at total_tokens are refused on the CPU; a GPU, which cannot look without waiting, leaves a
 * sequence alone that does not lie within the tokens. */
typedef int sw_gru_forward_fn(sw_stream *stream, const sw_gru_desc *desc, const int32_t *cu_seqlens, void *gates, const float *weight,
                              const float *bias, const float *initial, void *y, void *saved, void *workspace);
/* gates and saved as forward left them, y, and dy [total, hidden]. gates becomes the gradient of the input half, (di_r, di_z, di_n), saved
 * becomes dq (or stays, by a library); dweight and dbias are added to, in an order that depends on the shapes only; dinitial [batch, hidden] fp32 is overwritten, or
 * NULL. */
typedef int sw_gru_backward_fn(sw_stream *stream, const sw_gru_desc *desc, const int32_t *cu_seqlens, void *gates, void *saved,
                               const float *weight, const float *initial, const void *y, const void *dy, float *dweight, float *dbias,
                               float *dinitial, void *workspace);
#endif
