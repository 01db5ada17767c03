/* skillwatch show: what a checkpoint is, where it comes from, and whether it is whole. */
#include "base/buffer.h"
#include "base/error.h"
#include "base/options.h"
#include "engine/model/lda.h"
#include "engine/store/family.h"
#include "engine/store/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int64_t count_parameters(const sw_checkpoint *c) {
  int64_t n = 0;
  for (size_t i = 0; i < c->weights.count; i++) n += sw_tensor_elements(&c->weights.items[i]);
  return n;
}

/* 22713216 becomes 22,713,216 */
static const char *grouped(long long number, char text[32]) {
  char digits[24];
  int length = snprintf(digits, sizeof digits, "%lld", number), used = 0;
  for (int i = 0; i < length; i++) {
    text[used++] = digits[i];
    if ((length - 1 - i) % 3 == 0 && i + 1 < length) text[used++] = ',';
  }
  text[used] = 0;
  return text;
}

static const char *dtype_of(const sw_checkpoint *c) {
  size_t halves = 0;
  for (size_t i = 0; i < c->weights.count; i++) halves += c->weights.items[i].dtype == SW_BF16;
  return !c->weights.count ? "none" : halves == c->weights.count ? "bf16" : halves ? "fp32 and bf16" : "fp32";
}

static void row(const char *name) {
  printf("  %-14s", name);
}

static const json_t *key(const json_t *object, const char *a, const char *b) {
  const json_t *value = json_object_get(object, a);
  return value ? value : json_object_get(object, b);
}

static const char *text_of(const json_t *object, const char *name, const char *otherwise) {
  const char *text = json_string_value(json_object_get(object, name));
  return text ? text : otherwise;
}

static long long number_of(const json_t *object, const char *a, const char *b) {
  return (long long)json_number_value(key(object, a, b));
}

static void show_architecture(const sw_checkpoint *c) {
  const json_t *k = c->config;
  row("architecture");
  printf("%s", text_of(k, "model_type", "unknown"));
  if (!strcmp(text_of(k, "model_type", ""), "gru")) {
    printf(": embeddings of %lld, %lld cells, %lld words of a text", number_of(k, "embedding_size", ""), number_of(k, "hidden_size", ""),
           number_of(k, "max_position_embeddings", ""));
  } else if (!strcmp(text_of(k, "model_type", ""), "lda")) {
    const long long topics = number_of(k, "num_topics", "");
    printf(": %lld topic%s of words, alpha %.4g, eta %.4g", topics, SW_S(topics), json_number_value(json_object_get(k, "alpha")),
           json_number_value(json_object_get(k, "eta")));
  } else if (key(k, "hidden_size", "dim")) {
    const long long layers = number_of(k, "num_hidden_layers", "n_layers"), heads = number_of(k, "num_attention_heads", "n_heads");
    printf(": %lld layer%s, %lld wide, %lld head%s, feed-forward %lld, %lld positions", layers, SW_S(layers),
           number_of(k, "hidden_size", "dim"), heads, SW_S(heads), number_of(k, "intermediate_size", "hidden_dim"),
           number_of(k, "max_position_embeddings", "max_position_embeddings"));
  }
  putchar('\n');
}

static void show_tokenizer(const sw_checkpoint *c) {
  char text[32];
  row("tokenizer");
  if (!c->vocab_size) {
    puts("none");
    return;
  }
  if (sw_checkpoint_has_stems(c)) {
    const json_t *tokenizer = json_object_get(c->config, "tokenizer");
    const char *stemmer = text_of(tokenizer, "stemmer", "?");
    const int plain = !strcmp(stemmer, SW_STEM_NONE);
    printf("%s%s%s, %s of them, %zu stop words\n", plain ? "words" : "stems of words (", plain ? "" : stemmer, plain ? "" : ")", grouped((long long)c->vocab_size, text),
           json_array_size(json_object_get(tokenizer, "stop_words")));
    return;
  }
  int accents = c->tokenizer.strip_accents < 0 ? c->tokenizer.do_lower_case : c->tokenizer.strip_accents;
  printf("WordPiece, %s tokens, %s, accents %s", grouped((long long)c->vocab_size, text),
         c->tokenizer.do_lower_case ? "lower case" : "cased", accents ? "removed" : "kept");
  if (c->tokenizer.model_max_length) printf(", up to %d at once", c->tokenizer.model_max_length);
  putchar('\n');
}

static void show_heads(const sw_checkpoint *c) {
  for (size_t i = 0; i < c->num_heads; i++) {
    const sw_head *head = &c->heads[i];
    row(i ? "" : c->num_heads == 1 ? "head" : "heads");
    printf("%s (%s, %zu label%s):", head->name, head->task, head->num_labels, SW_S(head->num_labels));
    size_t shown = head->num_labels > 12 ? 10 : head->num_labels;
    for (size_t j = 0; j < shown; j++) printf("%s %s", j ? "," : "", head->labels[j]);
    if (shown < head->num_labels) printf(", ... %zu more", head->num_labels - shown);
    putchar('\n');
  }
}

/* Each topic's most probable words. */
static void show_topics(const sw_checkpoint *c, const char *path) {
  enum { WORDS = 10 };
  sw_lda_shape shape;
  const float *lambda;
  int32_t top[WORDS];
  const char *type = text_of(c->config, "model_type", "");
  if (strcmp(type, "lda") || sw_lda_of_checkpoint(c, path, &shape, &lambda)) return;
  const size_t count = shape.words < WORDS ? (size_t)shape.words : WORDS;
  for (int k = 0; k < shape.topics; k++) {
    char name[32];
    snprintf(name, sizeof name, "topic %d", k + 1);
    row(name);
    if (sw_lda_top_words(&shape, lambda, k, count, top)) return;
    for (size_t i = 0; i < count; i++) printf("%s%s", i ? " " : "", c->vocab[top[i] + 1]);
    putchar('\n');
  }
}

static void show_source(const sw_checkpoint *c) {
  const json_t *source = json_object_get(c->training, "source"), *left_out = json_object_get(source, "left_out"), *name;
  size_t i;
  if (!source) return;
  row("pulled from");
  printf("%s %s\n", text_of(source, "format", ""), text_of(source, "name", ""));
  if (!json_array_size(left_out)) return;
  row("left out");
  json_array_foreach(left_out, i, name) printf("%s%s", i ? ", " : "", json_string_value(name));
  putchar('\n');
}

/* Numbers below `value`, "micro.f1 0.7123", at most `left` lines; the ones that matter first come first as their author
 * ordered them. */
static void show_numbers(const char *title, const json_t *value, const char *path, int depth, int *left) {
  const char *name;
  json_t *item;
  json_object_foreach((json_t *)value, name, item) {
    sw_buffer longer = {0}; /* without a name: a checkpoint of 0.1 left the only label of a layer unnamed */
    if (sw_buffer_print(&longer, "%s%s%s", path, path[0] && name[0] ? "." : "", name)) {
      sw_buffer_close(&longer);
      return;
    }
    if (json_is_object(item) && depth < 4) {
      show_numbers(title, item, longer.data, depth + 1, left);
    } else if (json_is_number(item) && --*left >= 0) {
      row(title);
      if (json_is_integer(item))
        printf("%s %lld\n", longer.data, (long long)json_integer_value(item));
      else
        printf("%s %.6g\n", longer.data, json_real_value(item));
    }
    sw_buffer_close(&longer);
  }
}

static void show_data(const json_t *list) {
  size_t i;
  const json_t *file;
  char rows[32];
  json_array_foreach(list, i, file) {
    row(i ? "" : "data");
    const long long number = number_of(file, "rows", "rows");
    printf("%s, %s row%s, sha256 %.12s\n", text_of(file, "file", "?"), grouped(number, rows), SW_S(number),
           text_of(file, "sha256", "?"));
  }
}

static const json_t *data_of(const json_t *training) {
  const json_t *data = json_object_get(training, "data");
  return data ? data : json_object_get(json_object_get(training, "run"), "data");
}

/* "old.jsonl: F1 0.5101 before, 0.5033 after": what training has cost earlier test sets. */
static void show_earlier_tests(const json_t *tests) {
  const json_t *before = json_object_get(tests, "before"), *after = json_object_get(tests, "after"), *test;
  size_t i;
  json_array_foreach((json_t *)after, i, test) {
    static const char *const names[][2] = {{"mean_f1", "F1"}, {"accuracy@1", "accuracy@1"}, {"median_accuracy", "median label accuracy"}};
    size_t k = 0;
    while (k < 2 && !json_object_get(test, names[k][0])) k++;
    const json_t *old = json_object_get(json_array_get(before, i), names[k][0]), *now = json_object_get(test, names[k][0]);
    row("earlier test");
    printf("%s: %s ", text_of(test, "file", ""), names[k][1]);
    if (json_is_real(old)) printf("%.4f before, ", json_real_value(old));
    printf("%.4f after\n", json_real_value(now));
  }
}

static void show_training(const sw_checkpoint *c) {
  if (!c->training || !json_object_get(c->training, "task")) return;
  row("trained for");
  puts(text_of(c->training, "task", ""));
  show_data(data_of(c->training));
  int left = 24;
  const json_t *hyper = json_object_get(json_object_get(c->training, "run"), "hyper_parameters");
  show_numbers("setting", hyper, "", 0, &left);
  left = 24;
  show_numbers("metric", json_object_get(c->training, "metrics"), "", 0, &left);
  show_earlier_tests(json_object_get(c->training, "earlier_tests"));
}

/* --- families --- */

static void print_scores(const json_t *metrics) {
  sw_family_score scores[SW_FAMILY_SCORES];
  const int count = sw_family_scores(metrics, scores);
  for (int i = 0; i < count; i++) printf("  %s %.4f", scores[i].name, scores[i].value);
}

static void print_member(const json_t *entry) {
  size_t i;
  const json_t *file, *path, *source = json_object_get(entry, "source");
  char rows[32];
  printf("%s  %.12s  %.10s", text_of(entry, "kind", "?"), text_of(entry, "content_sha256", "?"), text_of(entry, "created", "?"));
  print_scores(json_object_get(entry, "metrics"));
  if (source) printf("  pulled from %s", text_of(source, "name", "?"));
  json_array_foreach(json_object_get(entry, "data"), i, file) {
    printf("%s%s", i ? ", " : "  from ", text_of(file, "file", "?"));
    if (!json_is_integer(json_object_get(file, "rows"))) continue;
    const long long number = number_of(file, "rows", "rows");
    printf(" (%s row%s)", grouped(number, rows), SW_S(number));
  }
  json_array_foreach(json_object_get(entry, "paths"), i, path) printf("%s%s", i ? ", " : "  <- ", json_string_value(path));
  putchar('\n');
}

/* A line each; an only child stands below its parent, several are set in. */
static void draw(const sw_family *f, int at, const char *lead, const char *margin) {
  for (;; lead = margin) {
    int children = 0, child = -1;
    printf("%s", lead);
    print_member(f->members[at].entry);
    for (int i = f->count - 1; i > at; i--)
      if (f->members[i].parent == at) {
        child = i;
        children++;
      }
    if (children == 1) {
      at = child;
      continue;
    }
    for (int i = child; i >= 0 && i < f->count && children; i++) {
      if (f->members[i].parent != at) continue;
      sw_buffer own_lead = {0}, own_margin = {0};
      children--;
      if (!sw_buffer_print(&own_lead, "%s%s", margin, children ? "|- " : "`- ") && !sw_buffer_print(&own_margin, "%s%s", margin, children ? "|  " : "   "))
        draw(f, i, own_lead.data, own_margin.data);
      sw_buffer_close(&own_lead);
      sw_buffer_close(&own_margin);
    }
    return;
  }
}

static int show_family(const sw_family *f, int as_json) {
  if (!as_json) {
    for (int i = 0; i < f->count; i++)
      if (f->members[i].parent < 0) draw(f, i, "", "");
    return 0;
  }
  json_t *all = json_array();
  for (int i = 0; i < f->count; i++) json_array_append(all, f->members[i].entry);
  char *text = sw_json_pretty(all);
  json_decref(all);
  if (!text) return -1;
  fputs(text, stdout);
  free(text);
  return 0;
}

static void show_text(const sw_checkpoint *c, const char *path, long long bytes) {
  char text[32];
  printf("%s\n", path);
  row("kind");
  printf("%s\n", c->kind);
  show_architecture(c);
  row("parameters");
  printf("%s (%s) in %zu tensors\n", grouped((long long)count_parameters(c), text), dtype_of(c), c->weights.count);
  row("file");
  printf("%s bytes, written %s by skillwatch %s\n", grouped(bytes, text), c->created, c->tool_version);
  show_tokenizer(c);
  const json_t *settings = json_object_get(c->config, "skillwatch");
  if (json_object_get(settings, "pooling")) {
    row("embedding");
    printf("%s pooling, %s, texts up to %lld tokens\n", text_of(settings, "pooling", ""),
           json_is_true(json_object_get(settings, "normalize")) ? "length 1" : "not normalised",
           number_of(settings, "max_seq_length", "max_seq_length"));
  }
  show_heads(c);
  show_topics(c, path);
  show_source(c);
  show_training(c);
  if (c->optimizer.count) {
    row("optimizer");
    printf("state of %zu tensors: training can go on from here\n", c->optimizer.count);
  }
  row("parents");
  if (c->parent_sha256[0])
    printf("%.12s, %zu in all (--lineage shows them)\n", c->parent_sha256, json_array_size(c->lineage));
  else
    puts("none");
  row("verified");
  printf("content hash and checksums match (sha256 %.16s)\n", c->content_sha256);
}

static int show_json(const sw_checkpoint *c, const char *path, long long bytes) {
  json_t *heads = json_array(), *tokenizer = NULL;
  for (size_t i = 0; i < c->num_heads; i++) {
    json_t *labels = json_array();
    for (size_t j = 0; j < c->heads[i].num_labels; j++)
      json_array_append_new(labels, json_string(c->heads[i].labels[j]));
    json_array_append_new(
        heads, json_pack("{s:s, s:s, s:o}", "name", c->heads[i].name, "task", c->heads[i].task, "labels", labels));
  }
  const sw_tokenizer_options *t = &c->tokenizer;
  if (sw_checkpoint_has_stems(c))
    tokenizer = json_pack("{s:I, s:O?}", "tokens", (json_int_t)c->vocab_size, "stemmer",
                          json_object_get(json_object_get(c->config, "tokenizer"), "stemmer"));
  else if (c->vocab_size)
    tokenizer = json_pack("{s:I, s:b, s:i, s:b, s:b, s:i, s:i}", "tokens", (json_int_t)c->vocab_size, "do_lower_case",
                          t->do_lower_case, "strip_accents", t->strip_accents, "tokenize_chinese_chars",
                          t->tokenize_chinese_chars, "clean_text", t->clean_text, "max_chars_per_word",
                          t->max_chars_per_word, "model_max_length", t->model_max_length);
  json_t *all =
      json_pack("{s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:s, s:I, s:O, s:o*, s:o, s:O*, s:O*}", "path",
                path, "kind", c->kind, "bytes", (json_int_t)bytes, "created", c->created, "tool_version",
                c->tool_version, "content_sha256", c->content_sha256, "parent_sha256", c->parent_sha256, "verified", 1,
                "parameters", (json_int_t)count_parameters(c), "tensors", (json_int_t)c->weights.count, "dtype",
                dtype_of(c), "optimizer_tensors", (json_int_t)c->optimizer.count, "config", c->config, "tokenizer",
                tokenizer, "heads", heads, "training", c->training, "lineage", c->lineage);
  if (!all) return sw_fail("%s: what it holds cannot be written as JSON", path);
  char *text = sw_json_pretty(all);
  json_decref(all);
  if (!text) return -1;
  fputs(text, stdout);
  free(text);
  return 0;
}

static int body(int argc, char **argv) {
  int as_json = 0, lineage = 0;
  const sw_option options[] = {
      {"lineage", 0, SW_OPTION_FLAG, &lineage, NULL, "the ancestors, a line each, with date, score and data; of several checkpoints the tree they span"},
      {"json", 0, SW_OPTION_FLAG, &as_json, NULL, "everything but the weights, as JSON"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch show CHECKPOINT... [options]",
      .summary =
          "Shows what checkpoints hold: architecture, parameters, tokenizer, heads, training, metrics, ancestors.\n"
          "The whole file is read and verified; one that is damaged is refused.",
      .example = "skillwatch show --lineage week1.h5 week2.h5",
      .options = options,
  };
  sw_list operands = {0};
  int status = sw_options_parse(&command, argc, argv, &operands);
  if (!status && !operands.count) status = sw_fail("a checkpoint is wanted (see skillwatch show --help)");
  if (status) {
    sw_list_close(&operands);
    return status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  }
  sw_family relatives = {0};
  for (int i = 0; i < operands.count; i++) {
    sw_checkpoint c;
    struct stat info;
    const char *path = operands.items[i];
    if (sw_checkpoint_read(path, &c) || stat(path, &info)) {
      status = sw_exit_message(SW_EXIT_FAILED);
      continue;
    }
    if (i && !as_json && !lineage) putchar('\n');
    if (lineage) {
      if (sw_family_add(&relatives, &c, path)) status = sw_exit_message(SW_EXIT_FAILED);
    } else if (as_json) {
      if (show_json(&c, path, (long long)info.st_size)) status = sw_exit_message(SW_EXIT_FAILED);
    } else {
      show_text(&c, path, (long long)info.st_size);
    }
    sw_checkpoint_close(&c);
  }
  if (lineage && show_family(&relatives, as_json)) status = sw_exit_message(SW_EXIT_FAILED);
  sw_family_close(&relatives);
  sw_list_close(&operands);
  return status;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
