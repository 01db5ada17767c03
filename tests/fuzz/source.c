/* Any bytes as the config of a job board and as an answer of it: no crash, keys stay hidden, and what comes of the answer's rows is fit for the files of
 * skillwatch fetch: plain texts, found again by MinHash, cut of their boilerplate. The input is the config, a line "%%", and the answer; without that
 * line it is the answer of a usual board. */
#include "engine/data/job_source.h"
#include "base/error.h"
#include "engine/data/boilerplate.h"
#include "engine/store/json.h"
#include "engine/text/html.h"
#include "engine/text/minhash.h"
#include "engine/text/words.h"
#include "tests/fuzz/memory_file.h"

#include <string.h>

enum { MOST_ROWS = 64 };
static const char secret[] = "s3cret/key\"1";

static const char usual[] =
    "{\"name\": \"board\", \"url\": \"https://a.example/{page}?k={env:BOARD_KEY}\", \"params\": {\"q\": \"{query}\"}, \"paging\": {\"by\": \"page\", \"path\": \"next\"},"
    " \"rows\": \"jobs\", \"html\": true, \"fields\": {\"id\": \"id\", \"text\": [\"text\", \"body.0.html\"], \"company\": \"company\", \"url\": \"url\"}}";

static void check(int holds) {
  if (!holds) abort();
}

static int same(const sw_buffer *a, const sw_buffer *b) { return a->size == b->size && (!a->size || !memcmp(a->data, b->data, a->size)); }

/* Of two keys the masked texts are the same: nothing of a key is in them. */
static void check_masks(const sw_job_source *s, const sw_job_ask *ask) {
  sw_buffer texts[3] = {0};
  for (int i = 0; i < 3; i++) { /* the last with the key itself */
    setenv("BOARD_KEY", i == 1 ? "another one" : secret, 1);
    const int url = sw_job_url(s, ask, i < 2, &texts[i]), body = url ? 0 : sw_job_body(s, ask, i < 2, &texts[i]);
    check((!url && !body) || sw_error()[0]);
  }
  check(same(&texts[0], &texts[1]));
  for (int i = 0; i < 3; i++) sw_buffer_close(&texts[i]);
}

/* An answer without its keys: nothing more is to be hidden, and it is JSON as it was before. */
static void mask_answer(const sw_job_source *s, const char *text, size_t bytes, sw_buffer *out) {
  sw_buffer again = {0};
  json_t *before, *after = NULL;
  json_error_t error;
  check(!sw_job_mask(s, text, bytes, 1, out) && !sw_job_mask(s, out->data ? out->data : "", out->size, 1, &again));
  check(same(out, &again));
  check(!sw_json_row(text, bytes, JSON_ALLOW_NUL, &before, &error) && !sw_json_row(again.data ? again.data : "", again.size, JSON_ALLOW_NUL, &after, &error));
  check(!before || after || json_error_code(&error) == json_error_duplicate_key); /* two keys that differed by the secret */
  json_decref(before);
  json_decref(after);
  sw_buffer_close(&again);
}

static int knows_key(const sw_job_source *s) {
  size_t i;
  const json_t *name;
  json_array_foreach(s->secrets, i, name)
    if (!strcmp(json_string_value(name), "BOARD_KEY")) return 1;
  return 0;
}

static int found(void *context, uint32_t text) { return text == *(uint32_t *)context; }

static void check_text(sw_near *near, const char *text) {
  const size_t bytes = strlen(text);
  sw_buffer again = {0};
  check(bytes && !sw_check_utf8(text, bytes) && !sw_plain_text(text, bytes, &again) && again.size == bytes && !memcmp(again.data, text, bytes));
  sw_buffer_close(&again);
  sw_shingles shingles = {0}, half = {0};
  uint32_t bands[SW_MINHASH_BANDS], number = (uint32_t)near->count;
  size_t middle = bytes / 2;
  while (((unsigned char)text[middle] & 0xC0) == 0x80) middle++;
  check(!sw_shingles_make(text, bytes, &shingles) && !sw_shingles_make(text, middle, &half));
  for (size_t i = 1; i < shingles.count; i++) check(shingles.items[i - 1] < shingles.items[i]);
  const double share = sw_jaccard(&shingles, &half);
  check(sw_jaccard(&shingles, &shingles) == 1 && share >= 0 && share <= 1 && share == sw_jaccard(&half, &shingles));
  sw_minhash(&shingles, bands);
  check(!sw_near_add(near, bands) && sw_near_find(near, bands, found, &number) == 1);
  sw_shingles_close(&shingles);
  sw_shingles_close(&half);
}

static void check_job(const json_t *job, sw_near *near) {
  const char *key, *id = sw_json_string(job, "id"), *text = sw_json_string(job, "text");
  json_t *value;
  check(id && text && strlen(text) == json_string_length(json_object_get(job, "text")) && json_is_object(json_object_get(job, "row")));
  json_object_foreach((json_t *)job, key, value) check(json_is_string(value) || !strcmp(key, "row"));
  check_text(near, text);
  /* as it will lie in a file of JSON lines */
  char *line = sw_json_canonical(job);
  json_t *again = NULL;
  json_error_t error;
  check(line && !strchr(line, '\n') && !sw_json_row(line, strlen(line), JSON_ALLOW_NUL, &again, &error) && again);
  check(!strcmp(sw_json_string(again, "id"), id) && !strcmp(sw_json_string(again, "text"), text));
  json_decref(again);
  free(line);
}

static void strip(sw_boilerplate *b, const char *company, const char *text) {
  sw_buffer out = {0};
  const uint64_t before = sw_boilerplate_cut(b);
  check(!sw_boilerplate_strip(b, company, text, &out) && out.size && out.size <= strlen(text) && !sw_check_utf8(out.data, out.size));
  check(sw_boilerplate_cut(b) > before || !strcmp(out.data, text));
  for (char *line = out.data, *end; line && *line; line = end ? end + 1 : NULL) { /* whole lines of the text, in its order */
    if ((end = strchr(line, '\n'))) *end = 0;
    while (*line && text) {
      const size_t bytes = strcspn(text, "\n");
      const int here = bytes == strlen(line) && !memcmp(line, text, bytes);
      text = text[bytes] ? text + bytes + 1 : here ? text + bytes : NULL;
      if (here) break;
    }
    check(text != NULL);
  }
  sw_buffer_close(&out);
}

static void check_boilerplate(json_t *const *jobs, size_t count) {
  sw_boilerplate *b;
  sw_buffer report = {0};
  check(!sw_boilerplate_open(2, &b));
  for (int pass = 0; pass < 2; pass++)
    for (size_t i = 0; i < count; i++) {
      const char *company = sw_json_string(jobs[i], "company"), *text = sw_json_string(jobs[i], "text");
      if (!company) company = "";
      if (pass) strip(b, company, text);
      else check(!sw_boilerplate_count(b, company, text));
    }
  check(!sw_boilerplate_report(b, &report));
  for (char *line = report.data; line && *line;) {
    const size_t bytes = strcspn(line, "\n");
    json_t *row = NULL;
    json_error_t error;
    check(!sw_json_row(line, bytes, 0, &row, &error) && row);
    json_decref(row);
    line += bytes + 1;
  }
  sw_buffer_close(&report);
  sw_boilerplate_close(b);
}

static void read_answer(const sw_job_source *s, const char *text, size_t bytes) {
  sw_buffer masked = {0}, next = {0};
  sw_job_page page;
  json_t *jobs[MOST_ROWS];
  size_t count = 0;
  sw_near near = {0};
  mask_answer(s, text, bytes, &masked);
  if (sw_job_page_read(s, masked.data ? masked.data : "", masked.size, &page)) {
    check(sw_error()[0] && !(knows_key(s) && strstr(sw_error(), secret)));
  } else {
    for (size_t i = 0; i < json_array_size(page.rows) && count < MOST_ROWS; i++) {
      char reason[256] = "";
      const int usable = sw_job_read(s, &page, i, &jobs[count], reason);
      check(usable > 0 ? jobs[count] != NULL : usable == 0 && reason[0] && !jobs[count]);
      if (usable) check_job(jobs[count++], &near);
    }
    check_boilerplate(jobs, count);
    if (page.next) check(!sw_job_unmask(s, page.next, 1, &next) || sw_error()[0]);
    while (count) json_decref(jobs[--count]);
    sw_job_page_close(&page);
  }
  sw_near_close(&near);
  sw_buffer_close(&next);
  sw_buffer_close(&masked);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const sw_job_ask ask = {.query = "Köchin & Koch", .offset = 7, .limit = 5, .page = 2};
  const char *config = usual, *line = size ? memmem(data, size, "\n%%\n", 4) : NULL;
  size_t config_bytes = sizeof usual - 1;
  sw_buffer answer = {0};
  sw_job_source source;
  if (line) {
    config = (const char *)data;
    config_bytes = (size_t)(line - config);
    data += config_bytes + 4;
    size -= config_bytes + 4;
  }
  /* what the network brings ends in a NUL, as every buffer does */
  check(!sw_buffer_append(&answer, data, size));
  if (sw_job_source_parse(config, config_bytes, "fuzz", &source)) {
    check(config != usual && sw_error()[0]);
  } else {
    check_masks(&source, &ask);
    read_answer(&source, answer.data ? answer.data : "", answer.size);
    sw_job_source_close(&source);
  }
  sw_buffer_close(&answer);
  return 0;
}
