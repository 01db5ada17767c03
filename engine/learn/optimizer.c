#include "engine/learn/optimizer.h"
#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sw_optimizer {
  sw_stream stream;
  sw_model *model;
  sw_optimizer_options options;
  int64_t steps; /* updates done */
  float *m, *v;  /* device arenas, parameters' offsets */
  float *anchor; /* the same: the weights as they were; NULL without a pull */
  double *squares; /* device: sum of the gradient's squares; 64 bytes on, the operator's scratch */
  sw_gradients gradients;
  sw_adamw_tensor *tensors; /* every dense parameter, then one place for the word rows' gradient */
  int num_tensors;

  const sw_parameter *words; /* NULL where its gradient is dense: then it is updated as the others are */
  int32_t *last_step;        /* device [vocab] */
  sw_adamw_step *history;    /* device [HISTORY]: scalars of steps first_step .. steps */
  int64_t first_step;
  sw_adamw_step last;        /* of step `steps` */
  int32_t *touched;          /* device: ids of the rows handed to the operator */
  int64_t max_touched;
  uint32_t *mark, generation; /* host [vocab]: which ids were seen in this pass */
  int32_t *ids;              /* host: distinct ids of a pass */
  int64_t num_ids;
  double host_squares;       /* a copy of *squares, there once the device is synchronised */

  /* word gradients of a step, over its micro-batches */
  float *merged;             /* device [max_touched, hidden]; unused when a step is one micro-batch */
  int32_t *merged_ids;       /* host, in order of first sight */
  int32_t *slot_of;          /* host [vocab]: place in merged */
  int32_t *slots, *device_slots;
  int64_t merged_count;
  int micro_batches, accumulate;

  sw_group *group;
  int direct;                /* gradients go from device to device */
  float *rows_of_all;        /* then: device, the word rows of all processes */
  float *host_values;        /* by way of the host, where the device is not the CPU: gradients on their way to the others */
  size_t dense, sent;        /* the arena's floats from `dense` on are summed densely, those from `sent` on are under way */
  char *host_rows;           /* word rows of this process, then of all: see gather_rows */
  size_t host_rows_bytes;
};

enum { BUCKETS = 16, LEAST_BUCKET = 1024, MOST_BUCKET = 1 << 20 }; /* floats of a bucket: what is sent together */
enum { HISTORY = 4096 }; /* steps; then every row is brought up to date and the history starts anew */

static void *device_zeroed(sw_stream *stream, size_t bytes) {
  void *p = stream->device->alloc(stream->device, bytes);
  if (p && stream->device->zero(stream, p, bytes)) {
    stream->device->release(stream->device, p);
    p = NULL;
  }
  return p;
}

/* Whether a step's word rows come from more than one backward. */
static int merges(const sw_optimizer *o) { return o->words && (o->accumulate > 1 || o->group); }

static int open_optimizer(sw_optimizer *o, int64_t max_tokens) {
  sw_stream *stream = &o->stream;
  sw_device *device = stream->device;
  const sw_model *model = o->model;
  const size_t arena = model->values_count * sizeof(float), vocab = (size_t)model->config.vocab_size;
  for (size_t i = 0; i < model->num_parameters; i++)
    if (model->parameters[i].sparse_rows) o->words = &model->parameters[i];
  const size_t hidden = (size_t)model->parameters[0].shape[1]; /* of the word table */
  const int64_t all_tokens = max_tokens * o->accumulate * sw_group_size(o->group);
  o->max_touched = all_tokens < (int64_t)vocab ? all_tokens : (int64_t)vocab;
  o->dense = o->words ? o->words->offset + o->words->count : 0; /* the table is the first in the arena */
  o->sent = model->values_count;
  if (!(o->m = device_zeroed(stream, arena)) || !(o->v = device_zeroed(stream, arena)) ||
      !(o->squares = device->alloc(device, 64 + SW_SUM_WORKSPACE)) || !(o->gradients.values = device_zeroed(stream, arena)) ||
      !(o->gradients.word_rows = device->alloc(device, (size_t)max_tokens * hidden * sizeof(float))) ||
      !(o->touched = device->alloc(device, vocab * 4)))
    return -1;
  if (o->words && (!(o->last_step = device_zeroed(stream, vocab * 4)) || !(o->history = device->alloc(device, HISTORY * sizeof *o->history))))
    return -1;
  if (o->options.pull > 0) {
    if (!(o->anchor = device->alloc(device, arena)) ||
        SW_RUN(stream, cast, (int64_t)model->values_count, SW_F32, model->values, SW_F32, o->anchor))
      return -1;
  }
  o->gradients.word_ids = sw_alloc_array((size_t)max_tokens, sizeof(int32_t));
  o->mark = sw_alloc_array(vocab, sizeof(uint32_t));
  o->ids = sw_alloc_array(vocab, sizeof(int32_t));
  o->tensors = sw_alloc_array(model->num_parameters + 1, sizeof *o->tensors);
  if (!o->gradients.word_ids || !o->mark || !o->ids || !o->tensors) return -1;
  o->direct = sw_group_joined(o->group);
  if (o->group && !o->direct && strcmp(device->backend, "cpu") && !(o->host_values = sw_alloc_array(model->values_count, sizeof(float)))) return -1;
  if (merges(o)) {
    o->merged = device_zeroed(stream, (size_t)o->max_touched * hidden * sizeof(float));
    o->device_slots = device->alloc(device, (size_t)o->max_touched * 4);
    o->merged_ids = sw_alloc_array((size_t)o->max_touched, sizeof(int32_t));
    o->slot_of = sw_alloc_array(vocab, sizeof(int32_t));
    o->slots = sw_alloc_array((size_t)max_tokens, sizeof(int32_t));
    if (!o->merged || !o->device_slots || !o->merged_ids || !o->slot_of || !o->slots) return -1;
    for (size_t i = 0; i < vocab; i++) o->slot_of[i] = -1;
  }
  if (o->words && o->direct) {
    const size_t own = (size_t)(max_tokens * o->accumulate), most = own < vocab ? own : vocab;
    if (!(o->rows_of_all = device->alloc(device, (size_t)sw_group_size(o->group) * most * hidden * sizeof(float)))) return -1;
  }
  for (size_t i = 0; i < model->num_parameters; i++) {
    const sw_parameter *p = &model->parameters[i];
    if (p == o->words) continue;
    o->tensors[o->num_tensors++] = (sw_adamw_tensor){.p = model->values + p->offset, .m = o->m + p->offset, .v = o->v + p->offset,
                                                     .g = o->gradients.values + p->offset, .count = (int64_t)p->count, .decays = p->decays,
                                                     .anchor = o->anchor && strncmp(p->name, "heads.", 6) ? o->anchor + p->offset : NULL};
  }
  o->first_step = 1;
  o->generation = 1;
  return 0;
}

int sw_optimizer_open(sw_stream *stream, sw_model *model, const sw_optimizer_options *options, int64_t max_tokens, int accumulate,
                      sw_optimizer **out) {
  *out = NULL;
  sw_optimizer *o = sw_alloc(sizeof *o);
  if (!o) return -1;
  o->stream = *stream;
  o->model = model;
  o->options = *options;
  o->accumulate = accumulate;
  o->group = options->group;
  if (open_optimizer(o, max_tokens)) {
    sw_optimizer_close(o);
    return -1;
  }
  *out = o;
  return 0;
}

void sw_optimizer_close(sw_optimizer *o) {
  if (!o) return;
  sw_group_wait(o->group); /* after a failure sums may be under way in what is released here */
  sw_device *device = o->stream.device;
  void *const owned[] = {o->m,       o->v,      o->anchor,       o->squares, o->gradients.values, o->last_step, o->gradients.word_rows,
                         o->touched, o->merged, o->device_slots, o->history, o->rows_of_all};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
    if (owned[i]) device->release(device, owned[i]);
  free(o->gradients.word_ids);
  free(o->mark);
  free(o->ids);
  free(o->tensors);
  free(o->merged_ids);
  free(o->slot_of);
  free(o->slots);
  free(o->host_values);
  free(o->host_rows);
  free(o);
}

sw_gradients *sw_optimizer_gradients(sw_optimizer *o) { return &o->gradients; }
int64_t sw_optimizer_steps(const sw_optimizer *o) { return o->steps; }

/* The word rows through the row-wise operator; ids and gradients as its contract says. */
static int update_rows(sw_optimizer *o, const int32_t *ids, int64_t count, const float *gradients, float scale) {
  const sw_parameter *p = o->words;
  sw_device *device = o->stream.device;
  if (ids && device->copy_in(&o->stream, o->touched, ids, (size_t)count * 4)) return -1;
  sw_adamw_rows_desc desc = {.rows = p->shape[0], .hidden = (int)p->shape[1], .decays = p->decays, .grad_scale = scale, .step = o->steps,
                             .first_step = o->first_step, .anchor = o->anchor ? o->anchor + p->offset : NULL};
  return SW_RUN(&o->stream, adamw_rows, &desc, o->history, o->model->values + p->offset, o->m + p->offset, o->v + p->offset, o->last_step,
                ids ? o->touched : NULL, count, gradients);
}

void sw_optimizer_touch(sw_optimizer *o, const int32_t *ids, int64_t count) {
  if (!o->words) return;
  for (int64_t i = 0; i < count; i++) {
    if (o->mark[ids[i]] == o->generation) continue;
    o->mark[ids[i]] = o->generation;
    o->ids[o->num_ids++] = ids[i];
  }
}

int sw_optimizer_refresh(sw_optimizer *o, const int32_t *ids, int64_t count) {
  if (!o->words) return 0;
  sw_optimizer_touch(o, ids, count);
  const int64_t distinct = o->num_ids;
  o->num_ids = 0;
  o->generation++;
  if (o->steps < o->first_step) return 0; /* no step since every row was current */
  return update_rows(o, o->ids, distinct, NULL, 1);
}

/* The place of a word's row in o->merged. */
static int32_t slot_of(sw_optimizer *o, int32_t id) {
  if (o->slot_of[id] < 0) {
    o->slot_of[id] = (int32_t)o->merged_count;
    o->merged_ids[o->merged_count++] = id;
  }
  return o->slot_of[id];
}
static void forget_slots(sw_optimizer *o) {
  for (int64_t i = 0; i < o->merged_count; i++) o->slot_of[o->merged_ids[i]] = -1;
  o->merged_count = 0;
}

int sw_optimizer_collect(sw_optimizer *o) {
  sw_gradients *g = &o->gradients;
  if (++o->micro_batches > o->accumulate) return sw_fail("more than %d micro-batches in a step", o->accumulate);
  sw_add_rows_desc desc = {.rows = g->unique, .hidden = (int)o->model->parameters[0].shape[1]};
  if (!o->words) { /* the table is the first parameter */
    if (o->stream.device->copy_in(&o->stream, o->touched, g->word_ids, (size_t)g->unique * 4)) return -1;
    return SW_RUN(&o->stream, add_rows, &desc, o->touched, g->word_rows, g->values + o->model->parameters[0].offset);
  }
  if (o->accumulate == 1) return 0;
  for (int64_t i = 0; i < g->unique; i++) o->slots[i] = slot_of(o, g->word_ids[i]);
  if (o->stream.device->copy_in(&o->stream, o->device_slots, o->slots, (size_t)g->unique * 4)) return -1;
  return SW_RUN(&o->stream, add_rows, &desc, o->device_slots, g->word_rows, o->merged);
}

static int empty_gradients(sw_optimizer *o) {
  sw_device *device = o->stream.device;
  const sw_parameter *p = o->words;
  if (device->zero(&o->stream, o->gradients.values + o->dense, (o->model->values_count - o->dense) * sizeof(float))) return -1;
  if (merges(o)) {
    if (device->zero(&o->stream, o->merged, (size_t)o->merged_count * (size_t)p->shape[1] * sizeof(float))) return -1;
    forget_slots(o);
  }
  o->micro_batches = 0;
  return 0;
}

/* The scalars of the next step, also for rows that see it later. */
static int remember_step(sw_optimizer *o, double rate) {
  o->steps++;
  o->last = sw_adamw_step_of(rate, o->options.beta1, o->options.beta2, o->options.eps, o->options.weight_decay, o->options.pull,
                             o->steps);
  if (!o->words) return 0;
  return o->stream.device->copy_in(&o->stream, o->history + (o->steps - o->first_step), &o->last, sizeof o->last);
}

/* The word rows' gradient of a step; none where it is dense. */
static float *row_gradients(sw_optimizer *o, const int32_t **ids, int64_t *rows) {
  const int merged = merges(o);
  *ids = merged ? o->merged_ids : o->gradients.word_ids;
  *rows = !o->words ? 0 : merged ? o->merged_count : o->gradients.unique;
  return merged ? o->merged : o->gradients.word_rows;
}

/* --- the other processes --- */

/* The buckets whose gradients from offset `from` on are final go out. Where they are cut follows from the model alone, and adding up goes element
 * by element: neither the cuts nor the moment change a bit. */
static int send_from(void *context, size_t from) {
  sw_optimizer *o = context;
  const sw_collectives *direct = o->direct ? o->stream.device->collectives : NULL;
  float *values = o->host_values ? o->host_values : o->gradients.values;
  size_t bucket = (o->model->values_count - o->dense) / BUCKETS;
  bucket = bucket < LEAST_BUCKET ? LEAST_BUCKET : bucket > MOST_BUCKET ? MOST_BUCKET : bucket;
  while (o->sent > o->dense) {
    const size_t begin = o->sent - o->dense > bucket ? o->sent - bucket : o->dense;
    if (begin < from) break;
    if (direct ? direct->sum(&o->stream, values + begin, o->sent - begin) : sw_group_start_sum(o->group, values + begin, o->sent - begin)) return -1;
    o->sent = begin;
  }
  return 0;
}

void sw_optimizer_begin_sum(sw_optimizer *o) {
  if (!o->group || o->host_values) return;
  o->gradients.done = send_from;
  o->gradients.context = o;
}

/* Everybody's word rows: added up in the order of the ranks, to o->merged. Those who have fewer rows than the most fill up. */
typedef struct {
  const int32_t *ids; /* of this process */
  const float *rows;  /* device */
  int64_t own, most, *counts;
} shares;

/* From device to device: only the ids pass through the host. */
static int gather_rows_directly(sw_optimizer *o, const shares *s) {
  sw_device *device = o->stream.device;
  const size_t ranks = (size_t)sw_group_size(o->group), rank = (size_t)sw_group_rank(o->group), hidden = (size_t)o->words->shape[1], most = (size_t)s->most;
  const size_t each = most * hidden;
  sw_add_rows_desc desc = {.hidden = (int)hidden};
  int32_t *ids = sw_alloc_array((ranks + 1) * most + 1, sizeof *ids);
  int status = ids ? 0 : -1;
  if (!status && s->own) {
    memcpy(ids, s->ids, (size_t)s->own * sizeof *ids);
    status = SW_RUN(&o->stream, cast, s->own * (int64_t)hidden, SW_F32, s->rows, SW_F32, o->rows_of_all + rank * each);
  }
  if (!status) status = device->collectives->gather(&o->stream, o->rows_of_all, each * sizeof(float));
  if (!status) status = sw_group_gather(o->group, ids, most * sizeof *ids, ids + most);
  if (!status && o->merged_count) status = device->zero(&o->stream, o->merged, (size_t)o->merged_count * hidden * sizeof(float));
  forget_slots(o);
  if (!status) status = device->collectives->wait(&o->stream);
  for (size_t r = 0; r < ranks && !status; r++) {
    int32_t *part = ids + (r + 1) * most;
    for (int64_t i = 0; i < s->counts[r]; i++) part[i] = slot_of(o, part[i]);
    desc.rows = s->counts[r];
    status = device->copy_in(&o->stream, o->device_slots, part, (size_t)desc.rows * sizeof *part) ||
             SW_RUN(&o->stream, add_rows, &desc, o->device_slots, o->rows_of_all + r * each, o->merged);
  }
  free(ids);
  return status ? -1 : 0;
}

/* A process gives its ids, then its rows. */
static int gather_rows_by_host(sw_optimizer *o, const shares *s) {
  sw_device *device = o->stream.device;
  const size_t ranks = (size_t)sw_group_size(o->group), hidden = (size_t)o->words->shape[1];
  const size_t row = hidden * sizeof(float), ids_bytes = ((size_t)s->most * sizeof(int32_t) + 15) / 16 * 16, each = ids_bytes + (size_t)s->most * row;
  const size_t total = (size_t)o->max_touched * row, wanted = (ranks + 1) * each + total; /* mine, everybody's, and their sum */
  if (wanted > o->host_rows_bytes) {
    free(o->host_rows);
    o->host_rows_bytes = (o->host_rows = sw_alloc_aligned(wanted)) ? wanted : 0;
  }
  int status = o->host_rows ? 0 : -1;
  if (!status && s->own) {
    memcpy(o->host_rows, s->ids, (size_t)s->own * sizeof *s->ids);
    status = device->copy_out(&o->stream, o->host_rows + ids_bytes, s->rows, (size_t)s->own * row) || device->synchronize(&o->stream) ? -1 : 0;
  }
  if (!status) status = sw_group_gather(o->group, o->host_rows, each, o->host_rows + each);
  forget_slots(o);
  float *sums = (float *)(void *)(o->host_rows + (ranks + 1) * each);
  for (size_t r = 0; r < ranks && !status; r++) {
    const char *part = o->host_rows + (r + 1) * each;
    const int32_t *part_ids = (const int32_t *)(const void *)part;
    const float *part_rows = (const float *)(const void *)(part + ids_bytes);
    for (int64_t i = 0; i < s->counts[r]; i++, part_rows += hidden) {
      const int64_t before = o->merged_count;
      const int32_t slot = slot_of(o, part_ids[i]);
      float *sum = sums + (size_t)slot * hidden;
      if (slot >= before)
        memcpy(sum, part_rows, row);
      else
        for (size_t k = 0; k < hidden; k++) sum[k] += part_rows[k];
    }
  }
  return status || device->copy_in(&o->stream, o->merged, sums, (size_t)o->merged_count * row) ? -1 : 0;
}

static int gather_rows(sw_optimizer *o) {
  const size_t ranks = (size_t)sw_group_size(o->group);
  const int accumulated = o->accumulate > 1;
  shares s = {.ids = accumulated ? o->merged_ids : o->gradients.word_ids, .rows = accumulated ? o->merged : o->gradients.word_rows};
  s.own = o->micro_batches == 0 ? 0 : accumulated ? o->merged_count : o->gradients.unique;
  s.counts = sw_alloc_array(ranks, sizeof *s.counts);
  int status = !s.counts || sw_group_gather(o->group, &s.own, sizeof s.own, s.counts) ? -1 : 0;
  for (size_t r = 0; r < ranks && !status; r++)
    if (s.counts[r] > s.most) s.most = s.counts[r];
  if (!status) status = o->direct ? gather_rows_directly(o, &s) : gather_rows_by_host(o, &s);
  free(s.counts);
  return status;
}

int sw_optimizer_finish_sum(sw_optimizer *o) {
  if (!o->group) return 0;
  sw_device *device = o->stream.device;
  float *values = o->gradients.values + o->dense;
  const size_t bytes = (o->model->values_count - o->dense) * sizeof(float);
  o->gradients.done = NULL;
  if (o->host_values && (device->copy_out(&o->stream, o->host_values + o->dense, values, bytes) || device->synchronize(&o->stream))) return -1;
  if (send_from(o, 0)) return -1;
  o->sent = o->model->values_count;
  if ((o->words && gather_rows(o)) || sw_group_wait(o->group) || (o->direct && device->collectives->wait(&o->stream))) return -1;
  return o->host_values ? device->copy_in(&o->stream, values, o->host_values + o->dense, bytes) : 0;
}

int sw_optimizer_measure(sw_optimizer *o) {
  const int32_t *ids;
  int64_t rows;
  float *g = row_gradients(o, &ids, &rows);
  o->tensors[o->num_tensors] = (sw_adamw_tensor){.g = g, .count = rows * (o->words ? o->words->shape[1] : 0)};
  return SW_RUN(&o->stream, sum_squares, o->num_tensors + (o->words != NULL), o->tensors, o->squares, o->squares + 8) ||
                 o->stream.device->copy_out(&o->stream, &o->host_squares, o->squares, sizeof o->host_squares)
             ? -1
             : 0;
}

int sw_optimizer_step(sw_optimizer *o, double learning_rate, double *norm) {
  const int32_t *ids;
  int64_t rows;
  float *g = row_gradients(o, &ids, &rows);
  *norm = sqrt(o->host_squares);
  if (!isfinite(*norm)) return sw_fail("the gradient is not finite (norm %g)", *norm);
  float scale = 1;
  if (o->options.clip > 0) { /* torch.nn.utils.clip_grad_norm_ */
    double ratio = o->options.clip / (*norm + 1e-6);
    if (ratio < 1) scale = (float)ratio;
  }
  if (o->words && o->steps + 1 - o->first_step >= HISTORY && sw_optimizer_settle(o)) return -1; /* no room in the history */
  if (sw_collect(&o->stream)) return -1;
  int status = remember_step(o, learning_rate);
  sw_adamw_desc desc = {.tensors = o->num_tensors, .step = o->last, .grad_scale = scale};
  if (!status)
    status = SW_RUN(&o->stream, adamw, &desc, o->tensors) || (o->words && update_rows(o, ids, rows, g, scale)) || empty_gradients(o);
  return sw_submit(&o->stream, status || sw_model_prepare(&o->stream, o->model) ? -1 : 0);
}

int sw_optimizer_settle(sw_optimizer *o) {
  if (!o->words || o->steps < o->first_step) return 0;
  if (update_rows(o, NULL, 0, NULL, 1)) return -1;
  o->first_step = o->steps + 1; /* every row has seen every step: the history can start anew */
  return 0;
}

int sw_optimizer_save(sw_optimizer *o, sw_checkpoint *checkpoint) {
  if (sw_optimizer_settle(o)) return -1;
  sw_tensors_close(&checkpoint->optimizer);
  checkpoint->optimizer = (sw_tensors){0};
  for (int k = 0; k < 2; k++)
    for (size_t i = 0; i < o->model->num_parameters; i++) {
      const sw_parameter *p = &o->model->parameters[i];
      char name[320];
      snprintf(name, sizeof name, "%c/%s", k ? 'v' : 'm', p->name);
      sw_tensor *t = sw_tensors_add(&checkpoint->optimizer, name, SW_F32, p->rank, p->shape);
      if (!t || o->stream.device->copy_out(&o->stream, t->data, (k ? o->v : o->m) + p->offset, p->count * sizeof(float))) return -1;
    }
  return o->stream.device->synchronize(&o->stream);
}

int sw_optimizer_load(sw_optimizer *o, const sw_checkpoint *checkpoint, int64_t steps) {
  for (int k = 0; k < 2; k++)
    for (size_t i = 0; i < o->model->num_parameters; i++) {
      const sw_parameter *p = &o->model->parameters[i];
      char name[320];
      snprintf(name, sizeof name, "%c/%s", k ? 'v' : 'm', p->name);
      const sw_tensor *t = sw_tensors_find(&checkpoint->optimizer, name);
      if (!t || t->dtype != SW_F32 || sw_tensor_elements(t) != (int64_t)p->count)
        return sw_fail("the checkpoint has no optimizer state '%s': it cannot be resumed from", name);
      if (o->stream.device->copy_in(&o->stream, (k ? o->v : o->m) + p->offset, t->data, p->count * sizeof(float))) return -1;
    }
  o->steps = steps;
  if (!o->words) return o->stream.device->synchronize(&o->stream);
  const size_t vocab = (size_t)o->words->shape[0];
  for (size_t i = 0; i < vocab; i++) o->ids[i] = (int32_t)steps;
  o->first_step = steps + 1;
  if (o->stream.device->copy_in(&o->stream, o->last_step, o->ids, vocab * 4)) return -1;
  return o->stream.device->synchronize(&o->stream);
}
