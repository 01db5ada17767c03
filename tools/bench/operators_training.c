/* Cases of losses, of the operators on parameters, and of those on single values. */
#include "tools/bench/cases.h"

enum { HISTORY = 1 << 14 };

/* --- losses, fp32: of tags, and over the vocabulary --- */
static int loss_of(const sw_bench *b, const sw_bench_shape *s, sw_dtype dtype, int variant, op_case *c) {
  if (variant > 1 || dtype != SW_F32 || s != b->shapes) return 0;
  c->any_model = 1;
  c->loss = (sw_loss_desc){.rows = variant ? masked_of(b) : tokens_of(b), .classes = variant ? s->vocab : 3, .ignore = -100, .scale = 1e-3f};
  SHAPE("%lld x %d", (long long)c->loss.rows, c->loss.classes);
  input(c, SW_F32, c->loss.rows * c->loss.classes);
  return 1;
}
RUN(cross_entropy) { return SW_RUN(stream, cross_entropy, &c->loss, t[0], t[3], NULL, NULL, t[1], t[2], t[4]); }
MAKE(cross_entropy) {
  const int made = loss_of(b, s, dtype, variant, c);
  if (made < 1) return made;
  add(c, 8, 8, ZERO, SW_F32, 0, NULL, IN | OUT);
  output(c, SW_F32, c->loss.rows * c->loss.classes);
  if (random_ids(c, c->loss.rows, c->loss.classes)) return -1;
  workspace(c, SW_SUM_WORKSPACE);
  c->run = run_cross_entropy;
  return 1;
}
RUN(sigmoid_bce) { return SW_RUN(stream, sigmoid_bce, &c->loss, t[0], t[3], NULL, t[1], t[2], t[4]); }
MAKE(sigmoid_bce) {
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  c->any_model = 1;
  c->loss = (sw_loss_desc){.rows = b->sequences, .classes = s->vocab / 10, .scale = 1e-3f};
  SHAPE("%lld x %d", (long long)c->loss.rows, c->loss.classes);
  const int64_t count = c->loss.rows * c->loss.classes;
  input(c, SW_F32, count);
  add(c, 8, 8, ZERO, SW_F32, 0, NULL, IN | OUT);
  output(c, SW_F32, count);
  constant(c, count, 0.5f);
  workspace(c, SW_SUM_WORKSPACE);
  c->run = run_sigmoid_bce;
  return 1;
}
RUN(log_softmax) { return SW_RUN(stream, log_softmax, &c->loss, t[0], t[1]); }
MAKE(log_softmax) {
  const int made = loss_of(b, s, dtype, variant, c);
  if (made < 1) return made;
  output(c, SW_F32, c->loss.rows * c->loss.classes);
  c->run = run_log_softmax;
  return 1;
}

/* --- parameters, fp32: all of a model's but the word table, and the word table by rows --- */
static void parameters_of(const sw_bench_shape *s, op_case *c) {
  const int64_t h = s->hidden, i = s->intermediate;
  const int64_t embedding[] = {s->positions * h, 2 * h, h, h};
  const int64_t layer[] = {3 * h * h, 3 * h, h * h, h, h, h, i * h, i, h * i, h, h, h};
  int n = 0;
  for (size_t k = 0; k < sizeof embedding / sizeof *embedding; k++) c->parameters.size[n++] = embedding[k];
  for (int l = 0; l < s->layers; l++)
    for (size_t k = 0; k < sizeof layer / sizeof *layer; k++) c->parameters.size[n++] = layer[k];
  c->parameters.count = n;
  for (int k = 0; k < n; k++) c->parameters.total += c->parameters.size[k];
  SHAPE("%d tensors, %.1f million", n, (double)c->parameters.total * 1e-6);
}
/* t: g, p, m, v, each with all tensors one behind the other */
static void list_of(const op_case *c, void *const *t, int all, sw_adamw_tensor list[MAX_PARAMETERS]) {
  for (int64_t k = 0, at = 0; k < c->parameters.count; at += c->parameters.size[k], k++) {
    list[k] = (sw_adamw_tensor){.g = (float *)t[0] + at, .count = c->parameters.size[k], .decays = 1};
    if (all) list[k].p = (float *)t[1] + at, list[k].m = (float *)t[2] + at, list[k].v = (float *)t[3] + at;
  }
}
RUN(adamw) {
  sw_adamw_tensor list[MAX_PARAMETERS];
  const sw_adamw_desc desc = {.tensors = c->parameters.count, .step = sw_adamw_step_of(1e-5, 0.9, 0.999, 1e-8, 0.01, 0, turn + 1), .grad_scale = 1};
  list_of(c, t, 1, list);
  return SW_RUN(stream, adamw, &desc, list);
}
MAKE(adamw) {
  if (variant || dtype != SW_F32) return 0;
  parameters_of(s, c);
  floats(c, SW_F32, c->parameters.total, VALUES, 0.01f, IN);
  floats(c, SW_F32, c->parameters.total, VALUES, 0.05f, IN | OUT);
  floats(c, SW_F32, c->parameters.total, VALUES, 0.01f, IN | OUT);
  floats(c, SW_F32, c->parameters.total, SQUARES, 0.01f, IN | OUT);
  c->run = run_adamw;
  return 1;
}
RUN(sum_squares) {
  sw_adamw_tensor list[MAX_PARAMETERS];
  list_of(c, t, 0, list);
  return SW_RUN(stream, sum_squares, c->parameters.count, list, t[1], t[2]);
}
MAKE(sum_squares) {
  if (variant || dtype != SW_F32) return 0;
  parameters_of(s, c);
  input(c, SW_F32, c->parameters.total);
  add(c, 8, 8, NOTHING, SW_F32, 0, NULL, OUT);
  workspace(c, SW_SUM_WORKSPACE);
  c->run = run_sum_squares;
  return 1;
}
RUN(adamw_rows) {
  sw_adamw_rows_desc desc = c->rows;
  desc.step = turn + 1;
  return turn < HISTORY ? SW_RUN(stream, adamw_rows, &desc, t[0], t[2], t[3], t[4], t[5], t[1], (int64_t)c->tensors[1].bytes / 4, t[6])
                        : sw_fail("adamw_rows: no more than %d steps can be measured", HISTORY);
}
MAKE(adamw_rows) {
  int64_t unique;
  if (variant || dtype != SW_F32) return 0;
  sw_adamw_step *history = own(c, HISTORY * sizeof *history);
  if (!history) return -1;
  for (int i = 0; i < HISTORY; i++) history[i] = sw_adamw_step_of(1e-5, 0.9, 0.999, 1e-8, 0.01, 0, i + 1);
  add(c, HISTORY * sizeof *history, sizeof *history, GIVEN, SW_F32, 0, history, IN | SHARED);
  if (sw_distinct_ids(c, tokens_of(b), s->vocab, 0, &unique)) return -1;
  c->rows = (sw_adamw_rows_desc){.rows = s->vocab, .hidden = s->hidden, .decays = 1, .grad_scale = 1, .first_step = 1};
  for (int i = 0; i < 3; i++) {
    table(c, s->vocab, unique, s->hidden, IN | OUT);
    if (i == 2) c->tensors[c->count - 1].fill = SQUARES;
  }
  add(c, (size_t)s->vocab * 4, (double)unique * 4, ZERO, SW_F32, 0, NULL, IN | OUT);
  floats(c, SW_F32, unique * s->hidden, VALUES, 0.01f, IN);
  c->run = run_adamw_rows;
  SHAPE("%lld of %d x %d", (long long)unique, s->vocab, s->hidden);
  return 1;
}
RUN(add_rows) { return SW_RUN(stream, add_rows, &c->add, t[0], t[1], t[2]); }
MAKE(add_rows) {
  int64_t unique;
  if (variant || dtype != SW_F32) return 0;
  if (sw_distinct_ids(c, tokens_of(b), s->vocab, 0, &unique)) return -1;
  c->add = (sw_add_rows_desc){.rows = unique, .hidden = s->hidden};
  input(c, SW_F32, unique * s->hidden);
  table(c, s->vocab, unique, s->hidden, IN | OUT);
  c->run = run_add_rows;
  SHAPE("%lld of %d x %d", (long long)unique, s->vocab, s->hidden);
  return 1;
}

/* --- elementwise --- */
RUN(cast) { return SW_RUN(stream, cast, c->cast.count, c->cast.from, t[0], c->cast.to, t[1]); }
void sw_cast_case(op_case *c, int64_t count, sw_dtype from, sw_dtype to) {
  c->cast.count = count;
  c->cast.from = from;
  c->cast.to = to;
  input(c, from, count);
  output(c, to, count);
  c->run = run_cast;
}
MAKE(cast) {
  if (variant) return 0;
  const sw_dtype from = dtype == SW_F32 ? SW_BF16 : SW_F32;
  sw_cast_case(c, tokens_of(b) * s->intermediate, from, dtype);
  SHAPE("%lld x %d, %s to %s", (long long)tokens_of(b), s->intermediate, sw_dtype_name(from), sw_dtype_name(dtype));
  return 1;
}
RUN(dropout) { return SW_RUN(stream, dropout, &c->dropout, t[0], t[1]); }
MAKE(dropout) {
  if (variant) return 0;
  c->dropout = (sw_dropout_desc){.count = tokens_of(b) * s->hidden, .dtype = dtype, .dropout = tenth};
  input(c, dtype, c->dropout.count);
  output(c, dtype, c->dropout.count);
  c->run = run_dropout;
  SHAPE("%lld x %d", (long long)tokens_of(b), s->hidden);
  return 1;
}
