#include "engine/data/labels.h"
#include "base/error.h"
#include "engine/data/label_rows.h"
#include "engine/data/rows.h"
#include "engine/store/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- which file, and what it is --- */
static int split_weight(const char *input, char **path, double *weight) {
  *weight = 1;
  const char *colon = strrchr(input, ':');
  size_t bytes = strlen(input);
  if (colon && colon[1] && !sw_exists(input)) {
    char *end;
    double value = strtod(colon + 1, &end);
    if (!*end) {
      if (!(value > 0) || !isfinite((float)value) || !((float)value > 0))
        return sw_fail("%s: the weight behind ':' must be a number above 0", input);
      *weight = value;
      bytes = (size_t)(colon - input);
    }
  }
  return (*path = sw_strndup(input, bytes)) ? 0 : -1;
}

int sw_labels_check_output(const char *output, const char *const *inputs, size_t count) {
  int status = 0;
  for (size_t i = 0; i < count && !status; i++) {
    char *path = NULL;
    double weight;
    status = split_weight(inputs[i], &path, &weight) || sw_check_output(output, (const char *const *)&path, 1) ? -1 : 0;
    free(path);
  }
  return status;
}

static int name_ends(const char *path, const char *ending) {
  size_t n = strlen(path), m = strlen(ending);
  if (n > 3 && !strcmp(path + n - 3, ".gz")) n -= 3;
  if (n > 4 && !strcmp(path + n - 4, ".zst")) n -= 4;
  return n > m && !strncasecmp(path + n - m, ending, m);
}

/* Whether the file is JSON: 1, 0 (CoNLL), or -1 on failure. */
static int is_json(sw_window *w, const char *path) {
  int first = sw_window_peek(w);
  if (first < 0) return -1;
  if (name_ends(path, ".json") || name_ends(path, ".jsonl") || name_ends(path, ".ndjson")) return 1;
  if (first != '{' && first != '[') return 0;
  if (w->end - w->start < 4096 && sw_window_fill(w) < 0) return -1;
  const char *p = memchr(w->data + w->start, first, w->end - w->start);
  const char *end = w->data + w->end;
  for (p++; p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'); p++) continue;
  /* a word of a CoNLL file may be a bracket, too, but a tag or another column follows it */
  return p == end || (first == '{' ? *p == '"' || *p == '}' : *p == '{' || *p == ']');
}

static int read_json(sw_label_reader *r, sw_window *w) {
  sw_rows rows;
  sw_window window = *w;
  *w = (sw_window){0};
  if (sw_rows_open(&rows, window, r->path, 0)) return -1;
  const char *text;
  size_t bytes;
  uint64_t line;
  int status;
  while ((status = sw_rows_next(&rows, &text, &bytes, &line)) > 0) {
    json_error_t error;
    json_t *row = NULL;
    if (status == SW_ROW && sw_json_row(text, bytes, 0, &row, &error)) {
      status = sw_fail_in("%s, line %llu", r->path, (unsigned long long)line);
      break;
    }
    sw_row_begin(r);
    if (status == SW_ROW_LONG)
      sw_bad_row(r, "longer than %d bytes", (int)SW_MAX_ROW_BYTES);
    else if (!row)
      sw_bad_row(r, "broken JSON: %.150s (byte %d)", error.text, error.position);
    status = row ? sw_row_from_json(r, row) : 1;
    if (!status) status = sw_row_commit(r, line);
    json_decref(row);
    if (status == 1) status = sw_row_reject(r, line, text, bytes);
    if (status) break;
  }
  *w = rows.window; /* back, for the hash */
  return status;
}

/* Rows of spans cover every layer that a span of the file names; where none does, nothing says what they are labelled
 * for. */
static int settle_spans(sw_label_reader *r, size_t first) {
  size_t covered = 0, kept = first;
  for (size_t i = 0; i < r->num_layers; i++) covered += r->covered[i];
  for (size_t i = first; i < r->num_examples; i++) {
    sw_raw_example *e = &r->examples[i];
    if (!e->from_spans || covered) {
      if (e->from_spans) {
        uint32_t *layers = sw_alloc_array(covered, sizeof *layers);
        int32_t *tags = sw_alloc_array(covered * e->num_words, sizeof *tags);
        if (!layers || !tags) {
          free(layers);
          free(tags);
          return -1;
        }
        size_t n = 0;
        for (uint32_t layer = 0; layer < r->num_layers; layer++) {
          if (!r->covered[layer]) continue;
          for (size_t k = 0; k < e->num_layers; k++)
            if (e->layers[k] == layer)
              memcpy(tags + n * e->num_words, e->tags + k * e->num_words, e->num_words * sizeof *tags);
          layers[n++] = layer;
        }
        free(e->layers);
        free(e->tags);
        e->layers = layers;
        e->tags = tags;
        e->num_layers = covered;
      }
      r->examples[kept++] = *e;
      continue;
    }
    sw_bad_row(r, r->fixed ? "no span of the file has a label of the model, so what the row is labelled for is unknown"
                           : "the file holds no span, so what the row is labelled for is unknown");
    r->rows--; /* counted as usable before */
    int status = sw_row_reject(r, e->line, e->text, e->bytes);
    free(e->text);
    free(e->words);
    free(e->layers);
    free(e->tags);
    *e = (sw_raw_example){0};
    if (status) {
      /* close the gap, so that what is freed later is freed once */
      memmove(r->examples + kept, r->examples + i + 1, (r->num_examples - i - 1) * sizeof *e);
      r->num_examples -= i + 1 - kept;
      return -1;
    }
  }
  r->num_examples = kept;
  return 0;
}

static int read_file(sw_label_reader *r, const char *input, struct sw_data_file *file) {
  if (split_weight(input, &file->path, &file->weight)) return -1;
  r->path = file->path;
  r->weight = file->weight;
  r->rows = r->rejected = 0;
  memset(r->covered, 0, sizeof r->covered);
  size_t first = r->num_examples;
  sw_window w;
  if (sw_window_open(&w, file->path, 1)) return -1;
  int json = is_json(&w, file->path);
  int status = json < 0 ? -1 : json ? read_json(r, &w) : sw_read_conll(r, &w);
  if (!status) status = sw_byte_stream_sha256(w.stream, file->sha256);
  sw_window_close(&w);
  if (!status) status = settle_spans(r, first);
  if (status) return -1;
  file->rows = r->rows;
  file->rejected = r->rejected;
  if (r->num_examples > first) return 0;
  if (!r->rejected) return sw_fail("%s is empty: it holds no labelled row", file->path);
  return sw_fail("%s: no row can be used, %zu of %zu %s set aside; line %llu: %s", file->path, r->rejected, r->rows,
                 r->rows == 1 ? "was" : "were",
                 (unsigned long long)r->first_line, r->first_reason);
}

/* --- numbering --- */
static int compare_names(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}
static int compare_layers(const void *a, const void *b) {
  return strcmp((*(sw_raw_layer *const *)a)->name, (*(sw_raw_layer *const *)b)->name);
}

/* A layer's labels from its types: "O", then B and I of each type by name. */
static int number_labels(sw_raw_layer *layer, sw_layer *out) {
  if (!layer->num_types) { /* nothing but O was seen: it can still learn the nameless type */
    if (!(layer->types[0] = sw_strdup(""))) return -1;
    layer->num_types = 1;
  }
  size_t n = layer->num_types;
  char **sorted = sw_alloc_array(n, sizeof *sorted);
  layer->ids = sw_alloc_array(n, sizeof *layer->ids);
  out->labels = sw_alloc_array(1 + 2 * n, sizeof *out->labels);
  out->name = sw_strdup(layer->name);
  int status = sorted && layer->ids && out->labels && out->name ? 0 : -1;
  if (!status) {
    memcpy(sorted, layer->types, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare_names);
    for (size_t i = 0; i < 1 + 2 * n && !status; i++) {
      sw_buffer label = {0};
      const char *type = i ? sorted[(i - 1) / 2] : "";
      if (sw_buffer_print(&label, "%s%s%s",
                          i == 0  ? "O"
                          : i % 2 ? "B"
                                  : "I",
                          *type ? "-" : "", type) ||
          !(out->labels[i] = sw_buffer_take(&label))) {
        sw_buffer_close(&label);
        status = -1;
      }
      out->num_labels = i + 1;
    }
    for (size_t i = 0; i < n && !status; i++) {
      char **at = bsearch(&layer->types[i], sorted, n, sizeof *sorted, compare_names);
      layer->ids[i][0] = 1 + 2 * (int32_t)(at - sorted);
      layer->ids[i][1] = layer->ids[i][0] + 1;
    }
  }
  free(sorted);
  return status;
}

static int number_layers(sw_label_reader *r, sw_labels *out) {
  sw_raw_layer *sorted[SW_MAX_LAYERS];
  for (size_t i = 0; i < r->num_layers; i++) sorted[i] = &r->layers[i];
  qsort(sorted, r->num_layers, sizeof *sorted, compare_layers);
  if (!(out->layers = sw_alloc_array(r->num_layers, sizeof *out->layers))) return -1;
  out->num_layers = r->num_layers;
  for (size_t i = 0; i < r->num_layers; i++) {
    sorted[i]->rank = (uint32_t)i;
    if (number_labels(sorted[i], &out->layers[i])) return -1;
  }
  return 0;
}

/* Takes layers and labels as they are given. */
static int fix_layers(sw_label_reader *r, const sw_labels *fixed, sw_labels *out) {
  r->fixed = 1;
  if (fixed->num_layers > SW_MAX_LAYERS)
    return sw_fail("the model has more than %d layers of labels", (int)SW_MAX_LAYERS);
  if (!(out->layers = sw_alloc_array(fixed->num_layers, sizeof *out->layers))) return -1;
  for (size_t i = 0; i < fixed->num_layers; i++) {
    const sw_layer *from = &fixed->layers[i];
    sw_layer *to = &out->layers[out->num_layers++];
    sw_raw_layer *layer = &r->layers[r->num_layers++];
    size_t n = from->num_labels;
    *layer = (sw_raw_layer){.name = sw_strdup(from->name), .rank = (uint32_t)i, .outside = -1};
    layer->types = sw_alloc_array(n, sizeof *layer->types);
    layer->ids = sw_alloc_array(n, sizeof *layer->ids);
    to->name = sw_strdup(from->name);
    to->labels = sw_alloc_array(n, sizeof *to->labels);
    if (!layer->name || !layer->types || !layer->ids || !to->name || !to->labels) return -1;
    for (size_t k = 0; k < n; k++) {
      if (!(to->labels[k] = sw_strdup(from->labels[k]))) return -1;
      to->num_labels = k + 1;
      sw_raw_tag tag;
      if (sw_tag_parse(from->labels[k], strlen(from->labels[k]), &tag))
        return sw_fail("layer %s of the model has the label \"%.60s\", which is no B, I or O tag", from->name,
                       from->labels[k]);
      if (tag.kind == 'O') {
        layer->outside = (int32_t)k;
        continue;
      }
      size_t t = 0;
      while (t < layer->num_types && strcmp(layer->types[t], tag.type)) t++;
      if (t == layer->num_types) {
        if (!(layer->types[t] = sw_strdup(tag.type))) return -1;
        layer->ids[t][0] = layer->ids[t][1] = -1;
        layer->num_types++;
      }
      layer->ids[t][tag.kind == 'I'] = (int32_t)k;
    }
    if (layer->outside < 0) return sw_fail("layer %s of the model has no label \"O\"", from->name);
    for (size_t t = 0; t < layer->num_types; t++)
      if (layer->ids[t][0] < 0 || layer->ids[t][1] < 0)
        return sw_fail("layer %s of the model has only one of the labels B and I for \"%.60s\"", from->name,
                       layer->types[t]);
  }
  return 0;
}

static int number_examples(sw_label_reader *r, sw_labels *out) {
  if (!(out->examples = sw_alloc_array(r->num_examples, sizeof *out->examples))) return -1;
  for (size_t i = 0; i < r->num_examples; i++) {
    sw_raw_example *e = &r->examples[i];
    size_t n = e->num_words, all = out->num_layers * n;
    int32_t *tags = sw_alloc_array(all, sizeof *tags);
    if (!tags) return -1;
    for (size_t k = 0; k < all; k++) tags[k] = SW_IGNORE;
    for (size_t k = 0; k < e->num_layers; k++) {
      const sw_raw_layer *layer = &r->layers[e->layers[k]];
      const int32_t *raw = e->tags + k * n;
      int32_t *to = tags + layer->rank * n;
      for (size_t w = 0; w < n; w++) to[w] = raw[w] ? layer->ids[(raw[w] - 1) / 2][(raw[w] - 1) % 2] : layer->outside;
    }
    out->examples[i] = (sw_example){.text = e->text,
                                    .bytes = e->bytes,
                                    .num_words = n,
                                    .words = e->words,
                                    .tags = tags,
                                    .weight = e->weight,
                                    .file = e->file,
                                    .line = e->line};
    e->text = NULL;
    e->words = NULL;
    out->num_examples = i + 1;
  }
  return 0;
}

void sw_raw_example_close(sw_raw_example *e) {
  free(e->text);
  free(e->words);
  free(e->layers);
  free(e->tags);
}

static void close_reader(sw_label_reader *r) {
  for (size_t i = 0; i < r->num_layers; i++) {
    sw_raw_layer *layer = &r->layers[i];
    free(layer->name);
    for (size_t t = 0; t < layer->num_types; t++) free(layer->types[t]);
    free(layer->types);
    free(layer->ids);
  }
  for (size_t i = 0; i < r->num_examples; i++) sw_raw_example_close(&r->examples[i]);
  free(r->examples);
  free(r->row.names);
  free(r->row.tags);
  sw_buffer_close(&r->row.text);
  sw_spans_close(&r->row.words);
  sw_buffer_close(&r->skipped);
  sw_rejects_close(&r->rejects);
  free(r);
}

static int read_all(sw_label_reader *r, const char *const *inputs, size_t count, const sw_labels *fixed, int settle,
                    sw_labels *out) {
  if (!(r->row.names = sw_alloc_array(SW_MAX_LAYERS, sizeof *r->row.names))) return -1;
  if (!count) return sw_fail("no labelled data was given");
  if (fixed && fix_layers(r, fixed, out)) return -1;
  if (!(out->files = sw_alloc_array(count, sizeof *out->files))) return -1;
  for (size_t i = 0; i < count; i++) {
    r->file = (uint32_t)i;
    out->num_files = i + 1;
    if (read_file(r, inputs[i], &out->files[i])) return -1;
    out->rejected += out->files[i].rejected;
  }
  if (settle && sw_labels_settle_conflicts(r, out)) return -1;
  if (!fixed && number_layers(r, out)) return -1;
  if (number_examples(r, out)) return -1;
  out->repaired = r->repaired;
  return r->skipped.size && !(out->skipped_layers = sw_buffer_take(&r->skipped)) ? -1 : 0;
}

static int read_labels(const char *const *inputs, size_t count, const char *rejected_path, const sw_labels *fixed_layers,
                       int settle, sw_labels *out) {
  *out = (sw_labels){0};
  sw_label_reader *r = sw_alloc(sizeof *r);
  if (!r) return -1;
  int status = sw_rejects_open(&r->rejects, rejected_path) || read_all(r, inputs, count, fixed_layers, settle, out) ? -1 : 0;
  if (status) { /* the reasons are worth having all the more; the first failure is the one to report */
    char *why = sw_strdup(sw_error());
    if (r->rejects.count && sw_rejects_commit(&r->rejects)) status = -1;
    sw_fail("%s", why ? why : "out of memory");
    free(why);
  } else {
    status = sw_rejects_commit(&r->rejects);
  }
  if (status) sw_labels_close(out);
  close_reader(r);
  return status;
}

int sw_labels_read(const char *const *inputs, size_t count, const char *rejected_path, const sw_labels *fixed_layers,
                   sw_labels *out) {
  return read_labels(inputs, count, rejected_path, fixed_layers, 0, out);
}

int sw_labels_read_training(const char *const *inputs, size_t count, const char *rejected_path, sw_labels *out) {
  return read_labels(inputs, count, rejected_path, NULL, 1, out);
}

void sw_labels_close(sw_labels *labels) {
  for (size_t i = 0; i < labels->num_layers; i++) {
    free(labels->layers[i].name);
    for (size_t k = 0; k < labels->layers[i].num_labels; k++) free(labels->layers[i].labels[k]);
    free(labels->layers[i].labels);
  }
  for (size_t i = 0; i < labels->num_examples; i++) {
    free(labels->examples[i].text);
    free(labels->examples[i].words);
    free(labels->examples[i].tags);
  }
  for (size_t i = 0; i < labels->num_files; i++) free(labels->files[i].path);
  free(labels->layers);
  free(labels->examples);
  free(labels->files);
  free(labels->skipped_layers);
  *labels = (sw_labels){0};
}
