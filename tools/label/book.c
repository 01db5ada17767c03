#include "tools/label/book.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/store/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of an entry's `at`; places in the journal are larger and smaller than these. */
static const uint64_t EMPTY = 0, UNKNOWN = 1, UNDER_WAY = 2, BEFORE = 3, AGAIN = 4, ASIDE = (uint64_t)1 << 63;
/* A record: the key's 64 digits, what it is, the text. */
enum { KEY = 64, ANSWER = 'A', REASON = 'R', COST = 'C', CACHED_LIMIT = SW_MAX_ANSWER + (1 << 16) };

static void key_of(const char hex[65], uint64_t key[2]) {
  char half[17] = "";
  for (int i = 0; i < 2; i++) {
    memcpy(half, hex + 16 * i, 16);
    key[i] = strtoull(half, NULL, 16);
  }
}

/* The entry of the key, or the empty slot where it belongs. */
static struct sw_book_entry *slot_of(struct sw_book_entry *entries, size_t num_slots, const uint64_t key[2]) {
  size_t i = key[0] & (num_slots - 1);
  while (entries[i].at != EMPTY && (entries[i].key[0] != key[0] || entries[i].key[1] != key[1])) i = (i + 1) & (num_slots - 1);
  return &entries[i];
}

static int grow(sw_book *b) {
  const size_t num_slots = b->num_slots ? 2 * b->num_slots : 1024;
  struct sw_book_entry *entries = sw_alloc_array(num_slots, sizeof *entries);
  if (!entries) return -1;
  for (size_t i = 0; i < b->num_slots; i++)
    if (b->entries[i].at != EMPTY) *slot_of(entries, num_slots, b->entries[i].key) = b->entries[i];
  free(b->entries);
  b->entries = entries;
  b->num_slots = num_slots;
  return 0;
}

static int set(sw_book *b, const char hex[65], uint64_t at) {
  uint64_t key[2];
  key_of(hex, key);
  if (2 * (b->count + 1) > b->num_slots && grow(b)) return -1;
  struct sw_book_entry *entry = slot_of(b->entries, b->num_slots, key);
  b->count += entry->at == EMPTY;
  *entry = (struct sw_book_entry){{key[0], key[1]}, at};
  return 0;
}

static uint64_t get(const sw_book *b, const char hex[65]) {
  uint64_t key[2];
  key_of(hex, key);
  return b->num_slots ? slot_of(b->entries, b->num_slots, key)->at : EMPTY;
}

sw_book_state sw_book_find(const sw_book *b, const char key[65]) {
  const uint64_t at = get(b, key);
  if (at & ASIDE) return SW_BOOK_SET_ASIDE;
  if (at > AGAIN) return SW_BOOK_ANSWERED;
  return at == UNDER_WAY ? SW_BOOK_UNDER_WAY : at == BEFORE ? SW_BOOK_BEFORE : at == AGAIN ? SW_BOOK_AGAIN : SW_BOOK_UNKNOWN;
}

int sw_book_mark(sw_book *b, const char key[65], sw_book_state state) { return set(b, key, state == SW_BOOK_UNDER_WAY ? UNDER_WAY : state == SW_BOOK_AGAIN ? AGAIN : UNKNOWN); }

static void count(sw_book *b, const uint64_t counters[SW_JOURNAL_COUNTERS]) {
  b->answered += counters[0];
  b->tokens_in += counters[1];
  b->tokens_out += counters[2];
  b->cached += counters[3];
}

static int append(sw_book *b, const char key[65], char kind, const char *text, size_t bytes, const uint64_t counters[SW_JOURNAL_COUNTERS]) {
  sw_buffer record = {0};
  int status = sw_buffer_append(&record, key, KEY) || sw_buffer_append(&record, &kind, 1) || sw_buffer_append(&record, text, bytes) ||
               sw_journal_append(&b->journal, counters, record.data, record.size);
  sw_buffer_close(&record);
  if (status) return -1;
  count(b, counters);
  return kind == COST ? 0 : set(b, key, b->journal.at | (kind == REASON ? ASIDE : 0));
}

/* <cache>/ab/cdef....json; `folder`: <cache>/ab. */
static char *cache_path(const sw_book *b, const char key[65], int folder) {
  sw_buffer path = {0};
  if (sw_buffer_print(&path, folder ? "%s/%.2s" : "%s/%.2s/%.62s.json", b->cache, key, key + 2)) {
    sw_buffer_close(&path);
    return NULL;
  }
  return sw_buffer_take(&path);
}

static int save(const sw_book *b, const char key[65], const sw_reply *reply) {
  char *folder = cache_path(b, key, 1), *path = cache_path(b, key, 0), *text = NULL;
  json_t *row = json_pack("{s:s%,s:I,s:I}", "answer", reply->text, reply->bytes, "prompt_tokens", (json_int_t)reply->tokens_in, "completion_tokens",
                          (json_int_t)reply->tokens_out);
  sw_output output = {0};
  int status = folder && path && row && (text = sw_json_canonical(row)) ? 0 : -1;
  if (!status) status = sw_make_folders(folder) || sw_output_open(&output, path) ? -1 : 0;
  if (!status) {
    fprintf(output.file, "%s\n", text);
    status = sw_output_commit(&output);
  }
  json_decref(row);
  free(text);
  free(folder);
  free(path);
  return status;
}

int sw_book_put(sw_book *b, const char key[65], const sw_reply *reply) {
  const uint64_t counters[SW_JOURNAL_COUNTERS] = {reply->text != NULL, reply->tokens_in, reply->tokens_out, 0};
  b->estimated += (uint64_t)(reply->estimated && reply->tokens_in);
  if (!reply->text) return append(b, key, reply->final ? REASON : COST, reply->reason, strlen(reply->reason), counters);
  if (append(b, key, ANSWER, reply->text, reply->bytes, counters)) return -1;
  return b->cache ? save(b, key, reply) : 0;
}

int sw_book_is_cached(const sw_book *b, const char key[65]) {
  char *path = b->cache ? cache_path(b, key, 0) : NULL;
  const int is = path && sw_exists(path);
  free(path);
  return is;
}

/* What an earlier run set aside is asked again. */
static int replay(void *context, const uint64_t counters[SW_JOURNAL_COUNTERS], const void *payload, size_t bytes) {
  sw_book *b = context;
  char key[65] = "";
  if (bytes <= KEY) return sw_fail("%s holds a record that is no answer; remove it", b->journal.path);
  memcpy(key, payload, KEY);
  count(b, counters);
  const char kind = ((const char *)payload)[KEY];
  if (kind == ANSWER && counters[0] && b->cache && !sw_book_is_cached(b, key)) { /* a kill came between journal and cache */
    const sw_reply reply = {.text = (char *)payload + KEY + 1, .bytes = bytes - KEY - 1, .tokens_in = counters[1], .tokens_out = counters[2]};
    if (save(b, key, &reply)) return -1;
  }
  return kind == COST ? 0 : set(b, key, kind == ANSWER ? b->journal.at : BEFORE);
}

int sw_book_open(const char *output, const char *cache, int resume, sw_book *b) {
  *b = (sw_book){.journal = {.file = -1}, .cache = cache};
  if (!output) return 0;
  return sw_journal_open(output, "skillwatch label, answers by key, 1", resume, &b->journal, NULL) || sw_journal_replay(&b->journal, replay, b) ? -1 : 0;
}

int sw_book_fetch(sw_book *b, const char key[65]) {
  char *path = b->cache ? cache_path(b, key, 0) : NULL;
  if (!path) return b->cache ? -1 : 0;
  json_t *row = sw_exists(path) ? sw_json_read(path, CACHED_LIMIT) : NULL; /* a damaged one is asked for again and replaced */
  free(path);
  if (!row && sw_error_is_memory()) return -1;
  const json_t *answer = json_object_get(row, "answer");
  const uint64_t counters[SW_JOURNAL_COUNTERS] = {0, 0, 0, 1};
  int status = 0;
  if (json_is_string(answer)) status = append(b, key, ANSWER, json_string_value(answer), json_string_length(answer), counters) ? -1 : 1;
  json_decref(row);
  return status;
}

int sw_book_read(sw_book *b, const char key[65], sw_buffer *out) {
  if (sw_journal_read(&b->journal, get(b, key) & ~ASIDE, out)) return -1;
  memmove(out->data, out->data + KEY + 1, out->size - KEY - 1);
  out->data[out->size -= KEY + 1] = 0;
  return 0;
}

void sw_book_close(sw_book *b, int done) {
  sw_journal_close(&b->journal, done);
  free(b->entries);
  *b = (sw_book){.journal = {.file = -1}};
}
