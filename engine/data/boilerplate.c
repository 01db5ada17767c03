#include "engine/data/boilerplate.h"
#include "base/error.h"
#include "base/table.h"
#include "engine/data/rejects.h"
#include "engine/text/minhash.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NAME = 16 }; /* words of a company's name */

typedef struct {
  uint64_t *companies; /* [num_companies] distinct, min_companies at most */
  uint32_t num_companies, postings, cut;
  char *text; /* as first cut */
} paragraph;

struct sw_boilerplate {
  uint32_t min_companies;
  sw_table hashes; /* of paragraphs, in hexadecimal */
  paragraph *items; /* [capacity] */
  size_t capacity;
  size_t *order, num_cut, cut_capacity; /* numbers of the paragraphs that were cut */
  uint64_t lines;
};

typedef struct {
  uint64_t words[MOST_NAME], hash;
  size_t count;
} name;

int sw_boilerplate_open(int min_companies, sw_boilerplate **out) {
  if (!(*out = sw_alloc(sizeof **out))) return -1;
  (*out)->min_companies = (uint32_t)min_companies;
  return 0;
}

static int read_name(const char *company, name *out) {
  const uint8_t *at = (const uint8_t *)company, *end = at + strlen(company);
  *out = (name){0};
  int status = 0;
  while (out->count < MOST_NAME && (status = sw_next_word(&at, end, &out->words[out->count])) > 0)
    out->hash = sw_mix_hash(out->hash, out->words[out->count++]);
  return status < 0 ? -1 : 0;
}

/* 1 with *hash; 0 for a line that is too short to be boilerplate. */
static int hash_line(const char *line, size_t bytes, const name *company, uint64_t *hash) {
  const uint8_t *at = (const uint8_t *)line, *end = at + bytes;
  uint64_t word, recent[MOST_NAME], result = 0;
  size_t words = 0, matched = 0;
  int status;
  /* words that may begin the company's name are held back until it is clear whether they are */
  while ((status = sw_next_word(&at, end, &word)) > 0) {
    words++;
    if (company->count && word == company->words[matched]) {
      recent[matched++] = word;
      if (matched < company->count) continue;
      result = sw_mix_hash(result, 2); /* no word's: those are odd */
      matched = 0;
      continue;
    }
    for (size_t i = 0; i < matched; i++) result = sw_mix_hash(result, recent[i]);
    matched = 0;
    if (company->count > 1 && word == company->words[0])
      recent[matched++] = word;
    else
      result = sw_mix_hash(result, word);
  }
  for (size_t i = 0; i < matched; i++) result = sw_mix_hash(result, recent[i]);
  *hash = result;
  return status < 0 ? -1 : words >= SW_BOILERPLATE_WORDS;
}

static void make_key(uint64_t hash, char key[17]) { snprintf(key, 17, "%016" PRIx64, hash); }

static int count_line(sw_boilerplate *b, uint64_t hash, uint64_t company) {
  char key[17];
  make_key(hash, key);
  if (b->hashes.count == b->capacity) {
    const size_t capacity = b->capacity ? 2 * b->capacity : 256;
    paragraph *items = sw_realloc_array(b->items, capacity, sizeof *items);
    if (!items) return -1;
    memset(items + b->capacity, 0, (capacity - b->capacity) * sizeof *items);
    b->items = items;
    b->capacity = capacity;
  }
  const int64_t number = sw_table_add(&b->hashes, key);
  if (number < 0) return -1;
  paragraph *p = &b->items[number];
  p->postings++;
  if (p->num_companies == b->min_companies) return 0;
  for (uint32_t i = 0; i < p->num_companies; i++)
    if (p->companies[i] == company) return 0;
  uint64_t *companies = sw_realloc_array(p->companies, p->num_companies + 1, sizeof *companies);
  if (!companies) return -1;
  p->companies = companies;
  companies[p->num_companies++] = company;
  return 0;
}

int sw_boilerplate_count(sw_boilerplate *b, const char *company, const char *text) {
  name who;
  uint64_t hash;
  if (read_name(company, &who)) return -1;
  for (const char *line = text; *line;) {
    const size_t bytes = strcspn(line, "\n");
    const int status = hash_line(line, bytes, &who, &hash);
    if (status < 0 || (status && count_line(b, hash, who.hash))) return -1;
    line += bytes + (line[bytes] == '\n');
  }
  return 0;
}

static int note_cut(sw_boilerplate *b, size_t number, const char *line, size_t bytes) {
  paragraph *p = &b->items[number];
  b->lines++;
  if (p->cut++) return 0;
  if (b->num_cut == b->cut_capacity) {
    const size_t capacity = b->cut_capacity ? 2 * b->cut_capacity : 64;
    size_t *order = sw_realloc_array(b->order, capacity, sizeof *order);
    if (!order) return -1;
    b->order = order;
    b->cut_capacity = capacity;
  }
  b->order[b->num_cut++] = number;
  return (p->text = sw_strndup(line, bytes)) ? 0 : -1;
}

/* The number of the line's paragraph where it is boilerplate, otherwise -1; -2: failure. */
static int64_t find_line(const sw_boilerplate *b, const char *line, size_t bytes, const name *who) {
  uint64_t hash;
  char key[17];
  const int status = hash_line(line, bytes, who, &hash);
  if (status <= 0) return status - 1;
  make_key(hash, key);
  const int64_t number = sw_table_find(&b->hashes, key);
  return number >= 0 && b->items[number].num_companies >= b->min_companies ? number : -1;
}

int sw_boilerplate_strip(sw_boilerplate *b, const char *company, const char *text, sw_buffer *out) {
  name who;
  const size_t start = out->size;
  int kept = 0, status = read_name(company, &who) || sw_buffer_reserve(out, 0) ? -1 : 0;
  for (const char *line = text; *line && !status && !kept;) { /* is there anything else? */
    const size_t bytes = strcspn(line, "\n");
    const int64_t number = find_line(b, line, bytes, &who);
    if (number == -2) status = -1;
    kept = number == -1 && strspn(line, " \t\r") < bytes;
    line += bytes + (line[bytes] == '\n');
  }
  if (status) return -1;
  if (!kept) return sw_buffer_append(out, text, strlen(text));
  for (const char *line = text; *line && !status;) {
    const size_t bytes = strcspn(line, "\n");
    const int64_t number = find_line(b, line, bytes, &who);
    const int blank = bytes == 0, after_blank = out->size == start || (out->size >= start + 2 && !memcmp(out->data + out->size - 2, "\n\n", 2));
    if (number >= 0)
      status = note_cut(b, (size_t)number, line, bytes);
    else if (!(blank && after_blank)) /* what stood around a paragraph that went leaves one blank line */
      status = sw_buffer_append(out, line, bytes) || sw_buffer_append(out, "\n", line[bytes] == '\n') ? -1 : 0;
    line += bytes + (line[bytes] == '\n');
  }
  while (out->size > start && out->data[out->size - 1] == '\n') out->data[--out->size] = 0;
  return status;
}

uint64_t sw_boilerplate_cut(const sw_boilerplate *b) { return b->lines; }

int sw_boilerplate_report(const sw_boilerplate *b, sw_buffer *out) {
  int status = 0;
  for (size_t i = 0; i < b->num_cut && !status; i++) {
    const paragraph *p = &b->items[b->order[i]];
    status = sw_buffer_print(out, "{\"companies\": %u, \"postings\": %u, \"cut\": %u, \"text\": ", p->num_companies, p->postings, p->cut) ||
             sw_json_quote(out, p->text, strlen(p->text)) || sw_buffer_append(out, "}\n", 2);
  }
  return status ? -1 : 0;
}

void sw_boilerplate_close(sw_boilerplate *b) {
  if (!b) return;
  for (size_t i = 0; i < b->hashes.count; i++) {
    free(b->items[i].companies);
    free(b->items[i].text);
  }
  sw_table_close(&b->hashes);
  free(b->items);
  free(b->order);
  free(b);
}
