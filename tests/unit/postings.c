/* Postings from every kind of source: order, ids, dates, what is set aside, what is a failure. */
#include "engine/data/postings.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/philox.h"
#include "engine/data/rejects.h"
#include "engine/data/sources.h"
#include "tests/support/files.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* "index id date text" lines; NULL on failure. */
static char *read_all(const char *const *inputs, size_t count, const sw_postings_options *options, uint64_t *rejected) {
  sw_postings *postings;
  sw_posting p;
  sw_buffer out = {0};
  int status;
  uint64_t done, total, last_index = 0;
  if (sw_postings_open(inputs, count, options, &postings)) return NULL;
  while ((status = sw_postings_next(postings, &p)) == 1) {
    assert_int_equal(strlen(p.text), p.bytes);
    assert_true(!out.size || p.index > last_index);
    last_index = p.index;
    assert_int_equal(
        sw_buffer_print(&out, "%llu %s %s %.40s\n", (unsigned long long)p.index, p.id, *p.date ? p.date : "-", p.text),
        0);
    sw_posting_close(&p);
  }
  assert_null(p.text);
  if (status == 0) {
    sw_postings_progress(postings, &done, &total);
    assert_true(total == 0 || done == total);
    assert_int_equal(sw_postings_next(postings, &p), 0);
  } else {
    assert_int_equal(sw_postings_next(postings, &p), -1);
  }
  if (rejected) *rejected = sw_postings_rejected(postings);
  char message[2048];
  snprintf(message, sizeof message, "%s", sw_error());
  assert_int_equal(sw_postings_close(postings), 0);
  if (status == 0) return sw_buffer_take(&out);
  sw_buffer_close(&out);
  sw_fail("%s", message);
  return NULL;
}

static void expect(const char *path, const sw_postings_options *options, const char *wanted, uint64_t wanted_rejected) {
  uint64_t rejected = 0;
  char *got = read_all(&path, 1, options, &rejected);
  if (!got) print_error("%s\n", sw_error());
  assert_non_null(got);
  assert_string_equal(got, wanted);
  assert_int_equal(rejected, wanted_rejected);
  free(got);
}

static void refuse(const char *path, const sw_postings_options *options, const char *message) {
  char *got = read_all(&path, 1, options, NULL);
  assert_null(got);
  if (!strstr(sw_error(), message)) print_error("%s\n  wanted: %s\n", sw_error(), message);
  assert_non_null(strstr(sw_error(), message));
}

static void folders(void **state) {
  const char *names[] = {"tree/10-01-2025/2.txt",         "tree/10-01-2025/10.txt",
                         "tree/10-01-2025/1.txt.gz",      "tree/09-02-2025/1.txt",
                         "tree/2024-12-31/3.txt",         "tree/zoo/a.txt",
                         "tree/zoo/10-01-2025/x.txt.zst", "tree/b.txt",
                         "tree/10-01-2025/.hidden.txt",   "tree/10-01-2025/notes.md",
                         "tree/10-01-2025/rows.jsonl"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *text = strstr(names[i], "jsonl") ? "{\"id\": 7, \"text\": \"row\"}\n" : names[i] + 5;
    test_write_text(names[i], text);
  }
  const char *root = test_path("tree");
  char slashed[1200];
  snprintf(slashed, sizeof slashed, "%s//", root);
  const char *wanted = "0 2024-12-31/3 2024-12-31 2024-12-31/3.txt\n"
                       "1 10-01-2025/1 10-01-2025 10-01-2025/1.txt.gz\n"
                       "2 10-01-2025/2 10-01-2025 10-01-2025/2.txt\n"
                       "3 10-01-2025/10 10-01-2025 10-01-2025/10.txt\n"
                       "4 7 10-01-2025 row\n"
                       "5 09-02-2025/1 09-02-2025 09-02-2025/1.txt\n"
                       "6 b - b.txt\n"
                       "7 zoo/10-01-2025/x 10-01-2025 zoo/10-01-2025/x.txt.zst\n"
                       "8 zoo/a - zoo/a.txt\n";
  expect(root, NULL, wanted, 0);
  expect(slashed, NULL, wanted, 0);
  /* a link back up does not go round for ever */
  assert_int_equal(symlink("..", test_path("tree/zoo/up")), 0);
  expect(root, NULL, wanted, 0);
  expect(test_path("tree/09-02-2025"), NULL, "0 09-02-2025/1 09-02-2025 09-02-2025/1.txt\n", 0);
  expect(test_path("tree/09-02-2025/1.txt"), NULL, "0 09-02-2025/1 09-02-2025 09-02-2025/1.txt\n", 0);
  expect(test_path("tree/b.txt"), NULL, "0 b - b.txt\n", 0);
  sw_postings_options jsonl = {.format = SW_POSTINGS_JSONL};
  expect(root, &jsonl, "0 7 10-01-2025 row\n", 0);
  /* files as they are given */
  char first[1100], second[1100];
  snprintf(first, sizeof first, "%s", test_path("tree/zoo/a.txt"));
  snprintf(second, sizeof second, "%s", test_path("tree/2024-12-31"));
  const char *inputs[] = {first, second, first};
  char *got = read_all(inputs, 3, NULL, NULL);
  assert_string_equal(got, "0 a - zoo/a.txt\n1 2024-12-31/3 2024-12-31 2024-12-31/3.txt\n2 a - zoo/a.txt\n");
  free(got);
  sw_postings_options csv = {.format = SW_POSTINGS_CSV};
  refuse(root, &csv, "holds no .csv or .tsv file");
  refuse(test_path("nowhere.csv"), NULL, "cannot open");
  test_write_text("bare/readme.md", "x");
  refuse(test_path("bare"), NULL, "holds no .txt, .csv");
}

static void order(void **state) {
  const char *const names[] = {
      "2024-12-31", "01-01-2025", "02-01-2025", "2025-01-03", "01-02-2025", "00-01-2025", "1",  "1.txt", "01.txt", "2",
      "9a",         "10",         "10a2",       "10a10",      "31-13-2025", "a",          "a1", "a2",    "a10",    "b"};
  size_t n = sizeof names / sizeof *names;
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < n; k++) {
      int got = sw_natural_compare(names[i], names[k]);
      int mirrored = sw_natural_compare(names[k], names[i]);
      assert_true((got == 0) == (i == k) && (got < 0) == (mirrored > 0));
    }
  assert_true(sw_natural_compare("2024-12-31", "01-01-2025") < 0 && sw_natural_compare("31-01-2025", "01-02-2025") < 0);
  assert_true(sw_natural_compare("9", "10") < 0 && sw_natural_compare("a9", "a10") < 0 &&
              sw_natural_compare("99", "01-01-2025") > 0);
  /* a total order: no three names go round */
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++)
      for (size_t k = 0; k < n; k++)
        if (sw_natural_compare(names[i], names[j]) < 0 && sw_natural_compare(names[j], names[k]) < 0)
          assert_true(sw_natural_compare(names[i], names[k]) < 0);
}

static void csv(void **state) {
  const char *text = "job_id,title,description,date\r\n"
                     "11,Smith,\"makes\r\nthings, \"\"well\"\"\",2025-01-02\r\n"
                     "12,Cook,,\n"
                     "13,Nurse,\"  \n\",\n"
                     ",Pilot,flies,x\n"
                     "15,Bad,ni\xFFl,\n"
                     "short,row\n"
                     "17,Last,ends,";
  const char *names[] = {"jobs.csv", "jobs.csv.gz", "jobs.csv.zst"};
  sw_postings_options by_title = {.column = "title"}, by_both = {.column = "description", .id_column = "title"};
  for (int i = 0; i < 3; i++) {
    const char *path = test_write_text(names[i], text);
    expect(path, NULL, "0 11 2025-01-02 makes\r\nthings, \"well\"\n3 4 x flies\n6 17 - ends\n", 4);
    expect(path, &by_title, "0 11 2025-01-02 Smith\n1 12 - Cook\n2 13 - Nurse\n3 4 x Pilot\n4 15 - Bad\n6 17 - Last\n",
           1);
    expect(path, &by_both, "0 Smith 2025-01-02 makes\r\nthings, \"well\"\n3 Pilot x flies\n6 Last - ends\n", 4);
  }
  expect(test_write_text("one.csv", "Occupation\nSmith\n\nCook\n"), NULL, "0 1 - Smith\n1 2 - Cook\n", 0);
  expect(test_write_text("two.tsv", "id\tText\nx\ta, b\n"), NULL, "0 x - a, b\n", 0);
  sw_postings_options wrong = {.column = "nope"}, wrong_id = {.column = "title", .id_column = "nope"};
  refuse(test_path("jobs.csv"), &wrong, "has no column \"nope\"; there are: job_id, title, description, date. Choose one with --column");
  refuse(test_path("jobs.csv"), &wrong_id, "Choose one with --id-column");
  refuse(test_write_text("three.csv", "a,b\n1,2\n"), NULL, "has no column \"description\" or \"text\"; there are: a, b. Choose the text's with --column");
  refuse(test_write_text("empty.csv", ""), NULL, "is empty");
  sw_postings_options small = {.max_text_bytes = 4};
  expect(test_write_text("small.csv", "text\nfour\nfives\nabc\n"), &small, "0 1 - four\n2 3 - abc\n", 1);
}

static void jsonl(void **state) {
  const char *text = "\xEF\xBB\xBF{\"id\": \"a\", \"description\": \"one\", \"date\": \"d\"}\n"
                     "\n"
                     "{\"job_id\": 12, \"text\": \"two \\u00e9\"}\r\n"
                     "{\"text\": 5}\n"
                     "{\"text\": \"nul \\u0000\"}\n"
                     "{\"text\": \"half\n"
                     "\"text\"\n"
                     "{\"other\": \"only key\"}\n"
                     "{\"id\": 1.5, \"text\": \"last\"}";
  const char *wanted = "0 a d one\n1 12 - two \u00e9\n6 7 - only key\n7 8 - last\n";
  expect(test_write_text("rows.jsonl", text), NULL, wanted, 4);
  expect(test_write_text("rows.ndjson.zst", text), NULL, wanted, 4);
  expect(
      test_write_text("rows.json",
                      " [{\"text\": \"a\"},\n {\"text\": \"b\", \"x\": [1, {\"y\": \"]\"}]}, 7, {\"text\": \"c\"}]\n"),
      NULL, "0 1 - a\n1 2 - b\n3 4 - c\n", 1);
  sw_postings_options wrong = {.column = "nope"}, wrong_id = {.id_column = "nope"};
  refuse(test_path("rows.jsonl"), &wrong,
         "no row with the key \"nope\"; there are: id, description, date. Choose one with --column");
  refuse(test_path("rows.jsonl"), &wrong_id, "Choose one with --id-column");
  expect(test_write_text("none.jsonl", ""), NULL, "", 0);
}

static void text_lines(void **state) {
  sw_postings_options o = {.format = SW_POSTINGS_LINES, .max_text_bytes = 100};
  sw_buffer text = {0};
  sw_buffer_print(&text, "one\r\n\ntwo ");
  for (int i = 0; i < 200; i++) sw_buffer_append(&text, "y", 1);
  sw_buffer_append(&text, "\nn\0l\nlast", 9);
  expect(test_write("lines.txt", text.data, text.size), &o, "0 1 - one\n4 5 - last\n", 3);
  sw_buffer_close(&text);
  /* a text file is one posting, and one row where it cannot be used */
  expect(test_write_text("whole.txt", "\xEF\xBB\xBFone\ntwo\n"), NULL, "0 whole - one\ntwo\n\n", 0);
  expect(test_write_text("blank.txt", " \n\t\n"), NULL, "", 1);
  expect(test_write("utf16.txt",
                    "\xFF\xFE"
                    "a\0",
                    4),
         NULL, "", 1);
  sw_postings_options small = {.max_text_bytes = 5};
  expect(test_write_text("five.txt", "12345"), &small, "0 five - 12345\n", 0);
  expect(test_write_text("six.txt", "123456"), &small, "", 1);
}

static void damaged(void **state) {
  sw_buffer text = {0};
  sw_random random = {test_seed("damaged"), 1, 0};
  sw_buffer_print(&text, "id,text\n");
  for (int i = 0; i < 20000; i++) sw_buffer_print(&text, "%d,text %u\n", i, sw_random_u32(&random));
  for (int k = 0; k < 2; k++) {
    size_t n;
    char *packed = test_compress("gz"[k], text.data, text.size, &n);
    const char *path = test_path(k ? "cut.csv.zst" : "cut.csv.gz");
    test_write_raw(path, packed, n / 2);
    refuse(path, NULL, "truncated");
    path = test_path(k ? "cut.txt.zst" : "cut.txt.gz");
    test_write_raw(path, packed, n / 2);
    expect(path, NULL, "", 1);
    free(packed);
  }
  sw_buffer_close(&text);
  if (geteuid() != 0) { /* root may read everything */
    const char *path = test_write_text("secret.csv", "id,text\n");
    assert_int_equal(chmod(path, 0), 0);
    refuse(path, NULL, "Permission denied");
  }
}

static void set_aside_file(void **state) {
  sw_buffer text = {0};
  sw_buffer_print(&text, "{\"text\": \"");
  for (int i = 0; i < 3000; i++) sw_buffer_print(&text, "%s", i % 7 ? "\u00e9" : "\\");
  sw_buffer_append(&text, "\xF0\x9F\n\x01\0\"\n{\"text\": \"ok\"}\n", 21);
  const char *path = test_write("aside.jsonl", text.data, text.size);
  sw_postings_options o = {.rejected_path = test_path("aside.rejected.jsonl")};
  expect(path, &o, "2 3 - ok\n", 2);
  size_t bytes;
  char *lines = test_read(o.rejected_path, &bytes), *second = strchr(lines, '\n') + 1;
  assert_int_equal(bytes, strlen(lines));
  json_error_t error;
  json_t *first = json_loadb(lines, (size_t)(second - lines), 0, &error), *next = json_loads(second, 0, &error);
  assert_non_null(first);
  assert_non_null(next);
  size_t kept = json_string_length(json_object_get(first, "row"));
  assert_true(kept <= 2048 && kept >= 2045);
  assert_memory_equal(json_string_value(json_object_get(first, "row")), text.data, kept);
  assert_string_equal(json_string_value(json_object_get(next, "row")), "\x01\\x00\"");
  assert_int_equal(json_integer_value(json_object_get(next, "line")), 2);
  json_decref(first), json_decref(next);
  free(lines);
  sw_buffer_close(&text);
  /* a disk that is full or a folder that is not there is a failure, with nothing left behind */
  o.rejected_path = "/nonexistent/x.rejected.jsonl";
  refuse(path, &o, "cannot write /nonexistent/x.rejected.jsonl");
}

/* What is quoted is JSON, and valid text survives, for any bytes. */
static void any_bytes(void **state) {
  sw_random random = {test_seed("any bytes"), 2, 0};
  for (int round = 0; round < 3000; round++) {
    unsigned char data[64];
    size_t n = sw_random_below(&random, sizeof data);
    for (size_t i = 0; i < n; i++) {
      static const unsigned char often[] = {0xF0, 0x9F, 0x98, 0x80, 0xE2, 0x82, 0xAC, 0xC3,
                                            0xA9, '"',  '\\', 0xED, 0xA0, 0xC0, 0xF4, 0x90};
      data[i] = sw_random_below(&random, 3) ? often[sw_random_below(&random, sizeof often)]
                                            : (unsigned char)sw_random_u32(&random);
    }
    sw_buffer out = {0};
    json_error_t error;
    assert_int_equal(sw_json_quote(&out, data, n), 0);
    json_t *json = json_loadb(out.data, out.size, JSON_DECODE_ANY, &error);
    if (!json) print_error("%s: %s\n", error.text, out.data);
    assert_non_null(json);
    json_t *direct = json_stringn((const char *)data, n);
    if (direct && !memchr(data, 0, n)) assert_true(json_equal(json, direct));
    json_decref(json), json_decref(direct);
    sw_buffer_close(&out);
  }
}

/* Memory stays bounded, whatever the size of the input. */
static void bounded_memory(void **state) {
  const char *path = test_path("big.csv");
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  static char text[4000];
  memset(text, 'x', sizeof text - 1);
  fprintf(file, "id,text\n");
  for (int i = 0; i < 50000; i++) fprintf(file, "%d,\"%s\n\"\n", i, text);
  fclose(file); /* 200 MB */
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  sw_postings *postings;
  sw_posting p;
  assert_int_equal(sw_postings_open(&path, 1, NULL, &postings), 0);
  int rows = 0;
  while (sw_postings_next(postings, &p) == 1) rows += p.bytes == 4000, sw_posting_close(&p);
  assert_int_equal(sw_postings_close(postings), 0);
  assert_int_equal(rows, 50000);
  getrusage(RUSAGE_SELF, &after);
#ifndef __SANITIZE_ADDRESS__ /* which keeps what was freed */
  assert_true(after.ru_maxrss - before.ru_maxrss < 16 << 10);
#endif
  unlink(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(folders),        cmocka_unit_test(order),      cmocka_unit_test(csv),
      cmocka_unit_test(jsonl),          cmocka_unit_test(text_lines), cmocka_unit_test(damaged),
      cmocka_unit_test(set_aside_file), cmocka_unit_test(any_bytes),  cmocka_unit_test(bounded_memory)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
