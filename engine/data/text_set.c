#include "engine/data/text_set.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/sha256.h"
#include "engine/text/words.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
  const sw_text_options *options;
  sw_encoding encoding;
  sw_spans sentences;
  int32_t *sequence; /* [max_length - 2] being filled */
  int32_t filled;
} builder;

typedef struct {
  sw_text_set *set;
  size_t capacity;
  uint64_t used, room; /* tokens in set->ids */
} target;

/* Grows an array to hold `wanted` of `size` bytes. */
static int grow(void **array, uint64_t *capacity, uint64_t wanted, size_t size) {
  if (wanted <= *capacity) return 0;
  uint64_t larger = *capacity + *capacity / 2 + 4096;
  if (larger < wanted) larger = wanted;
  void *moved = sw_realloc_array(*array, larger, size);
  if (!moved) return -1;
  *array = moved;
  *capacity = larger;
  return 0;
}

static int flush(builder *b, target *t, uint64_t *bytes) {
  sw_text_set *set = t->set;
  const uint64_t n = (uint64_t)b->filled;
  if (!n) return 0;
  const size_t each = set->wide ? 4 : 2;
  *bytes += n * each + sizeof *set->lengths + sizeof *set->starts;
  if (*bytes > b->options->max_bytes)
    return sw_fail("the tokens of the text do not fit into %llu MB: give fewer postings, or allow more with --memory",
                   (unsigned long long)(b->options->max_bytes >> 20));
  if (set->count >= UINT32_MAX) return sw_fail("more than %u sequences: give fewer postings", UINT32_MAX);
  uint64_t capacity = t->capacity;
  if (grow(&set->ids, &t->room, t->used + n, each) || grow((void **)&set->starts, &capacity, set->count + 1, sizeof *set->starts)) return -1;
  if (capacity != t->capacity) {
    int32_t *lengths = sw_realloc_array(set->lengths, capacity, sizeof *lengths);
    if (!lengths) return -1;
    set->lengths = lengths;
    t->capacity = capacity;
  }
  for (uint64_t i = 0; i < n; i++)
    if (set->wide)
      ((uint32_t *)set->ids)[t->used + i] = (uint32_t)b->sequence[i];
    else
      ((uint16_t *)set->ids)[t->used + i] = (uint16_t)b->sequence[i];
  set->starts[set->count] = t->used;
  set->lengths[set->count++] = b->filled + 2;
  set->tokens += n + 2;
  set->bytes += n * each + sizeof *set->lengths + sizeof *set->starts;
  t->used += n;
  b->filled = 0;
  return 0;
}

/* One sentence's tokens into the sequence that is being filled, or the next ones. */
static int add_sentence(builder *b, target *t, const int32_t *ids, int32_t count, uint64_t *bytes) {
  const int32_t room = b->options->max_length - 2;
  if (b->filled + count > room && flush(b, t, bytes)) return -1;
  while (count) {
    int32_t take = count;
    if (take > room) {
      take = room;
      while (take > 1 && sw_tokenizer_continues(b->options->tokenizer, ids[take])) take--;
      if (sw_tokenizer_continues(b->options->tokenizer, ids[take])) take = room; /* one word that is longer than a sequence */
    }
    memcpy(b->sequence + b->filled, ids, (size_t)take * sizeof *ids);
    b->filled += take;
    ids += take;
    count -= take;
    if (count && flush(b, t, bytes)) return -1;
  }
  return 0;
}

static int add_posting(builder *b, target *t, const sw_posting *posting, uint64_t *bytes) {
  if (sw_split_sentences(posting->text, posting->bytes, &b->sentences)) return -1;
  for (size_t i = 0; i < b->sentences.count; i++) {
    const sw_span *s = &b->sentences.items[i];
    if (sw_tokenizer_encode(b->options->tokenizer, posting->text + s->byte_start, s->byte_end - s->byte_start, &b->encoding) ||
        add_sentence(b, t, b->encoding.ids, (int32_t)b->encoding.count, bytes))
      return -1;
  }
  t->set->postings++;
  return flush(b, t, bytes);
}

/* The first 64 bits of the text's SHA-256. */
static int hash_of(const sw_posting *posting, uint64_t *out) {
  char hex[65];
  sw_sha256 *hash = sw_sha256_open();
  if (!hash) return -1;
  sw_sha256_add(hash, posting->text, posting->bytes);
  sw_sha256_close(hash, hex);
  hex[16] = 0;
  *out = strtoull(hex, NULL, 16);
  return 0;
}

/* The hashes met so far: open addressing, at most half full; 0 is a free slot. */
typedef struct {
  uint64_t *slots;
  size_t capacity, count;
} hash_set;

static uint64_t *find_slot(const hash_set *set, uint64_t hash) {
  size_t i = hash & (set->capacity - 1);
  while (set->slots[i] && set->slots[i] != hash) i = (i + 1) & (set->capacity - 1);
  return &set->slots[i];
}

/* 1: it was there; 0: it is now; -1: no memory. */
static int meet(hash_set *set, uint64_t hash) {
  if (2 * set->count >= set->capacity) {
    hash_set larger = {.capacity = set->capacity ? 2 * set->capacity : 1024, .count = set->count};
    if (!(larger.slots = sw_alloc_array(larger.capacity, sizeof *larger.slots))) return -1;
    for (size_t i = 0; i < set->capacity; i++)
      if (set->slots[i]) *find_slot(&larger, set->slots[i]) = set->slots[i];
    free(set->slots);
    *set = larger;
  }
  hash += !hash;
  uint64_t *slot = find_slot(set, hash);
  if (*slot) return 1;
  *slot = hash;
  set->count++;
  return 0;
}

static int read_all(builder *b, sw_postings *postings, sw_sha256 *hash, target *out, target *held_out, sw_text_facts *facts) {
  const sw_text_options *o = b->options;
  uint64_t bytes = 0, done, total, hash_of_text;
  hash_set seen = {0};
  sw_progress bar;
  sw_posting posting;
  int status;
  sw_postings_progress(postings, &done, &total);
  sw_progress_open(&bar, o->progress ? o->progress : "", (double)total, !o->progress);
  while ((status = sw_postings_next(postings, &posting)) > 0) {
    sw_sha256_add(hash, &posting.bytes, sizeof posting.bytes); /* where each text ends */
    sw_sha256_add(hash, posting.text, posting.bytes);
    status = hash_of(&posting, &hash_of_text) ? -1 : meet(&seen, hash_of_text);
    if (!status) status = add_posting(b, (double)hash_of_text * 0x1p-64 < o->holdout ? held_out : out, &posting, &bytes);
    else if (status > 0) facts->repeated++, status = 0;
    sw_posting_close(&posting);
    if (status) break;
    sw_postings_progress(postings, &done, &total);
    sw_progress_show(&bar, (double)done, NULL);
  }
  sw_progress_close(&bar);
  free(seen.slots);
  facts->rows = sw_postings_rows(postings);
  facts->rejected = sw_postings_rejected(postings);
  if (status || out->set->count || (held_out->set && held_out->set->count)) return status;
  const char *reason = sw_postings_reason(postings, 0);
  return sw_fail("no posting can be used: %s", reason ? reason : "there is none");
}

int sw_text_set_read(const char *const *inputs, size_t count, const sw_text_options *options, sw_text_set *out, sw_text_set *held_out,
                     sw_text_facts *facts) {
  const sw_special_ids special = sw_tokenizer_special_ids(options->tokenizer);
  const sw_text_set empty = {.cls = special.cls, .sep = special.sep, .wide = sw_tokenizer_vocab_size(options->tokenizer) > 1 << 16};
  builder b = {.options = options};
  target targets[2] = {{.set = out}, {.set = held_out}};
  sw_postings *postings = NULL;
  *out = empty;
  *facts = (sw_text_facts){0};
  if (held_out) *held_out = empty;
  sw_sha256 *hash = sw_sha256_open();
  b.sequence = sw_alloc_array((size_t)options->max_length, sizeof *b.sequence);
  int status = hash && b.sequence ? 0 : -1;
  if (!status) status = sw_postings_open(inputs, count, &options->postings, &postings);
  if (!status) status = read_all(&b, postings, hash, &targets[0], &targets[1], facts);
  if (postings && sw_postings_close(postings)) status = -1;
  if (hash) sw_sha256_close(hash, facts->sha256);
  sw_encoding_close(&b.encoding);
  sw_spans_close(&b.sentences);
  free(b.sequence);
  if (status) {
    sw_text_set_close(out);
    if (held_out) sw_text_set_close(held_out);
  }
  return status;
}

void sw_text_set_close(sw_text_set *set) {
  free(set->ids);
  free(set->starts);
  free(set->lengths);
  *set = (sw_text_set){0};
}

void sw_text_set_get(const sw_text_set *set, size_t item, int32_t *out) {
  const int32_t n = set->lengths[item] - 2;
  *out++ = set->cls;
  for (int32_t i = 0; i < n; i++)
    *out++ = set->wide ? (int32_t)((const uint32_t *)set->ids)[set->starts[item] + (uint64_t)i]
                       : ((const uint16_t *)set->ids)[set->starts[item] + (uint64_t)i];
  *out = set->sep;
}
