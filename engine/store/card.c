#include "engine/store/card.h"
#include "base/error.h"
#include "engine/store/encoder.h"
#include "engine/store/hub.h"
#include "engine/store/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LABELS = 60, MAX_METRICS = 60 };

/* Text of a table's cell or a line: no character that would begin something else. */
static int add_plain(sw_buffer *b, const char *text) {
  int status = 0;
  for (; *text && !status; text++)
    if (strchr("\\`*_|<>[]#", *text))
      status = sw_buffer_print(b, "\\%c", *text);
    else
      status = sw_buffer_append(b, (unsigned char)*text < 0x20 ? " " : text, 1);
  return status;
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* "owner/name" of a checkpoint that was pulled from the Hub; 0: it was not. */
static int hub_source(const json_t *source, char name[256]) {
  const char *format = sw_json_string(source, "format"), *from = sw_json_string(source, "name");
  if (!format || strcmp(format, "hub") || !from) return 0;
  snprintf(name, 256, "%.*s", (int)strcspn(from, "@"), from);
  return !name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./")];
}

static int write_header(const sw_checkpoint *c, const sw_head *head, sw_buffer *b) {
  const json_t *first = json_array_get(c->lineage, 0);
  char base[256];
  const int encoder = sw_encoder_is_known(c->config);
  int status = sw_buffer_print(b, "---\n");
  if (encoder)
    status |= sw_buffer_print(b, "library_name: transformers\npipeline_tag: %s\n",
                              head ? "token-classification" : "feature-extraction");
  status |= sw_buffer_print(b, "tags:\n- skillwatch\n");
  if (hub_source(json_object_get(first ? first : c->training, "source"), base))
    status |= sw_buffer_print(b, "base_model: %s\n", base);
  return status | sw_buffer_print(b, "---\n");
}

static int write_heads(const sw_checkpoint *c, const sw_head *head, sw_buffer *b) {
  int status = c->num_heads ? sw_buffer_print(b, "\n## Labels\n\n| head | task | labels |\n| --- | --- | --- |\n") : 0;
  for (size_t i = 0; i < c->num_heads && !status; i++) {
    const sw_head *h = &c->heads[i];
    status = sw_buffer_print(b, "| ") || add_plain(b, h->name) ||
             sw_buffer_print(b, "%s | %s | ", h == head ? " (exported)" : "", h->task);
    for (size_t k = 0; k < h->num_labels && k < MAX_LABELS && !status; k++)
      status = sw_buffer_print(b, "%s", k ? ", " : "") || add_plain(b, h->labels[k][0] ? h->labels[k] : "(none)");
    if (!status && h->num_labels > MAX_LABELS)
      status = sw_buffer_print(b, ", ... %zu more", h->num_labels - MAX_LABELS);
    if (!status) status = sw_buffer_print(b, " |\n");
  }
  return status;
}

/* The numbers in `value` and below it, as rows "layers knowledge micro f1 | 0.5493". */
static int write_metrics(const json_t *value, const char *path, int *left, sw_buffer *b) {
  const char *name;
  json_t *item;
  int status = 0;
  json_object_foreach((json_t *)value, name, item) {
    sw_buffer longer = {0};
    status = sw_buffer_print(&longer, "%s%s%s", path, path[0] && name[0] ? " " : "", name);
    if (!status && json_is_object(item)) {
      status = write_metrics(item, longer.data, left, b);
    } else if (!status && json_is_number(item) && (*left)-- > 0) {
      status = sw_buffer_print(b, "| ") || add_plain(b, longer.data) ||
               (json_is_integer(item) ? sw_buffer_print(b, " | %lld |\n", (long long)json_integer_value(item))
                                      : sw_buffer_print(b, " | %.4f |\n", json_real_value(item)));
    }
    sw_buffer_close(&longer);
    if (status) break;
  }
  return status ? -1 : 0;
}

static int write_data(const json_t *list, const char *role, sw_buffer *b) {
  size_t i;
  const json_t *item;
  int status = 0;
  json_array_foreach(list, i, item) {
    const char *file = sw_json_string(item, "file"), *digest = sw_json_string(item, "sha256");
    if (status || !file) continue;
    status = sw_buffer_print(b, "| %s | ", role) || add_plain(b, base_name(file)) ||
             sw_buffer_print(b, " | %lld | %.12s |\n", (long long)json_integer_value(json_object_get(item, "rows")),
                             digest ? digest : "");
  }
  return status;
}

static int write_ancestor(const json_t *entry, sw_buffer *b) {
  const json_t *source = json_object_get(entry, "source"), *item;
  const char *hash = sw_json_string(entry, "content_sha256"), *kind = sw_json_string(entry, "kind"),
             *created = sw_json_string(entry, "created"), *name = sw_json_string(source, "name");
  long long rows = 0;
  char hub[256];
  size_t i;
  json_array_foreach(json_object_get(entry, "data"), i, item) rows += json_integer_value(json_object_get(item, "rows"));
  int status = sw_buffer_print(b, "1. `%.12s` %s, %s", hash ? hash : "?", kind ? kind : "", created ? created : "");
  if (!status && name)
    status = sw_buffer_print(b, ", from ") || add_plain(b, hub_source(source, hub) ? name : base_name(name));
  if (!status && rows) status = sw_buffer_print(b, ", trained on %lld rows", rows);
  return status || sw_buffer_print(b, "\n") ? -1 : 0;
}

static int write_lineage(const sw_checkpoint *c, sw_buffer *b) {
  size_t i;
  const json_t *entry;
  json_t *own = sw_checkpoint_entry(c);
  int status = own ? sw_buffer_print(
                         b, "\n## Where it comes from\n\nOldest first; a hash is that of a checkpoint's content.\n\n")
                   : -1;
  json_array_foreach(c->lineage, i, entry) {
    if (!status) status = write_ancestor(entry, b);
  }
  if (!status) status = write_ancestor(own, b);
  json_decref(own);
  return status;
}

static int write_use(const sw_checkpoint *c, const sw_head *head, const char *name, int with_checkpoint, sw_buffer *b) {
  int status = sw_buffer_print(b, "\n## How to load it\n");
  if (!status && sw_encoder_is_known(c->config)) {
    const char *type = sw_json_string(c->config, "model_type");
    const int mlm = !head && (sw_tensors_find(&c->weights, "cls.predictions.bias") ||
                              sw_tensors_find(&c->weights, "vocab_projector.bias"));
    const char *class = head ? "AutoModelForTokenClassification" : mlm ? "AutoModelForMaskedLM" : "AutoModel";
    status = sw_buffer_print(b,
                             "\nA %s model, with transformers:\n\n```python\nfrom transformers import %s, "
                             "AutoTokenizer\n\ntokenizer = AutoTokenizer.from_pretrained(\"%s\")\n"
                             "model = %s.from_pretrained(\"%s\")\n```\n",
                             type ? type : "BERT", class, name, class, name);
    if (!status && !head && sw_json_string(json_object_get(c->config, "skillwatch"), "pooling"))
      status = sw_buffer_print(b,
                               "\nAs a sentence encoder:\n\n```python\nfrom sentence_transformers import "
                               "SentenceTransformer\n\nmodel = SentenceTransformer(\"%s\")\n```\n",
                               name);
  }
  if (!status)
    status = sw_buffer_print(
        b, "\nWith Skillwatch%s:\n\n```\nskillwatch pull %s -o model.h5\n```\n",
        with_checkpoint ? " (the checkpoint itself is in `" SW_HUB_CHECKPOINT "`, with all heads and its lineage)" : "",
        name);
  return status;
}

int sw_card_write(const sw_checkpoint *c, const sw_head *head, const char *name, int with_checkpoint, sw_buffer *b) {
  const json_t *run = json_object_get(c->training, "run"), *metrics = json_object_get(c->training, "metrics");
  const char *task = sw_json_string(c->training, "task");
  int left = MAX_METRICS;
  int status = write_header(c, head, b) || sw_buffer_print(b, "\n# ") || add_plain(b, base_name(name)) ||
               sw_buffer_print(b, "\n\nMade with Skillwatch %s%s%s; content SHA-256 `%s`.\n", c->tool_version,
                               task ? ", task " : "", task ? task : "", c->content_sha256) ||
               write_heads(c, head, b);
  if (!status && json_object_size(metrics))
    status = sw_buffer_print(b, "\n## Scores\n\n| metric | value |\n| --- | --- |\n") ||
             write_metrics(metrics, "", &left, b);
  if (!status && json_array_size(json_object_get(run, "data")))
    status = sw_buffer_print(b, "\n## Data\n\n| for | file | rows | SHA-256 |\n| --- | --- | --- | --- |\n") ||
             write_data(json_object_get(run, "data"), "training", b) ||
             write_data(json_object_get(run, "dev"), "choosing the best", b);
  return status || write_lineage(c, b) || write_use(c, head, name, with_checkpoint, b) ? -1 : 0;
}

json_t *sw_card_origin(const sw_checkpoint *c, const sw_head *head, const char *weights, int with_checkpoint) {
  json_t *origin = json_pack("{s:s, s:i, s:s, s:s, s:s*, s:s*, s:s*}", "format", "skillwatch", "version", 1, "kind",
                             c->kind, "content_sha256", c->content_sha256, "head", head ? head->name : NULL,
                             "weights_sha256", weights, "checkpoint", with_checkpoint ? SW_HUB_CHECKPOINT : NULL);
  if (!origin) sw_fail("out of memory, or a name of the checkpoint is not valid UTF-8");
  return origin;
}
