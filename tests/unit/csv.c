/* The CSV parser: quoting, line ends, bad rows and how reading goes on after them; the line window below it. */
#include "base/error.h"
#include "base/philox.h"
#include "base/sha256.h"
#include "engine/data/csv.h"
#include "tests/support/files.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads a whole file: its records as "a|b|c", its set-aside rows as "!". */
static char *read_all(const char *path, char delimiter, size_t limit, const char *rejected) {
  sw_csv csv;
  sw_rejects rejects;
  sw_buffer out = {0}, text = {0};
  uint64_t line, last = 1;
  int status;
  assert_int_equal(sw_rejects_open(&rejects, rejected), 0);
  if (sw_csv_open(&csv, path, delimiter, limit)) {
    sw_rejects_close(&rejects);
    return NULL;
  }
  while ((status = sw_csv_next(&csv, &rejects, &line)) > 0) {
    if (status == 2) {
      assert_int_equal(sw_buffer_print(&out, "!\n"), 0);
      continue;
    }
    assert_true(line > last || (line == last && !out.size));
    last = line;
    for (size_t i = 0; i < csv.num_columns; i++) {
      assert_int_equal(sw_csv_field_text(&csv.fields[i], &text), 0);
      assert_int_equal(sw_buffer_print(&out, "%s%s", i ? "|" : "", text.data ? text.data : ""), 0);
    }
    assert_int_equal(sw_buffer_print(&out, "@%llu\n", (unsigned long long)line), 0);
  }
  assert_int_equal(status, 0);
  assert_int_equal(sw_rejects_commit(&rejects), 0);
  sw_rejects_close(&rejects);
  sw_csv_close(&csv);
  sw_buffer_close(&text);
  return sw_buffer_take(&out);
}

static void expect(const char *input, const char *wanted) {
  static int number;
  char name[32];
  snprintf(name, sizeof name, "case-%d.csv", number++);
  char *got = read_all(test_write_text(name, input), 0, 0, NULL);
  assert_non_null(got);
  if (strcmp(got, wanted)) print_error("input:\n%s\n", input);
  assert_string_equal(got, wanted);
  free(got);
}

static void quoting(void **state) {
  expect("a,b\n1,2\n", "1|2@2\n");
  expect("a,b\r\n1,2\r\n3,4", "1|2@2\n3|4@3\n");
  expect("\xEF\xBB\xBF"
         "a,b\n1,2\n",
         "1|2@2\n");
  expect("a,b\n\"x, \"\"y\"\"\",\"\"\n\"\"\"\",z\n", "x, \"y\"|@2\n\"|z@3\n");
  expect("a,b\n\"one\ntwo\r\nthree\",2\n4,5\n", "one\ntwo\r\nthree|2@2\n4|5@5\n");
  expect("a,b\n5\" pipe,in\"side\n", "5\" pipe|in\"side@2\n"); /* as Python and pandas read it */
  expect("a,b\n\n1,2\n\r\n\n3,4\n\n", "1|2@3\n3|4@6\n");
  expect("a\n\"\"\nx\n\ny\n", "@2\nx@3\ny@5\n");
  expect("a;b\n1;2\n", "1|2@2\n");
  expect("a\tb\n1\t2,3\n", "1|2,3@2\n");
  expect("a,b\n,\n\"\",\"\"", "|@2\n|@3\n");
  expect("\n\na,b\n1,2\n", "1|2@4\n");
  expect("a,b\n\"1\",\"2\"\r", "1|2@2\n");
}

static void bad_rows(void **state) {
  expect("a,b,c\n1,2,3\n1,2\n1,2,3,4\n4,5,6\n", "1|2|3@2\n!\n!\n4|5|6@5\n");
  /* a quote that is never closed costs its own row only */
  expect("a,b,c\n1,2,3\n2,\"stray,3\n3,x,y\n4,\"fine, it is\",z\n", "1|2|3@2\n!\n3|x|y@4\n4|fine, it is|z@5\n");
  expect("a,b,c\n1,\"stray\n2,x,y\n3,x,y\n", "!\n2|x|y@3\n3|x|y@4\n");
  /* quotes inside that were not doubled, over several lines: one row is given up, its other lines make no sense */
  expect("a,b,c\n1,\"he said \"hi\" to\nall, and\nleft\",x\n2,p,q\n", "!\n2|p|q@5\n");
  /* swallowed rows are found again where the count is wrong, too */
  expect("a,b,c\n1,\"stray,x\n2,p,q\n3,p,\"q\"\n4,p,q\n", "!\n2|p|q@3\n3|p|q@4\n4|p|q@5\n");
  /* a whole record with a wrong count is one row */
  expect("a,b,c\n1,\"two\nlines\"\n2,p,q\n", "!\n2|p|q@4\n");
  expect("a,b\n1,\"two\nli,nes\",3\n2,p\n", "!\n2|p@4\n");
  expect("a,b\n1,\"x", "!\n");
  expect("a,b\n1,\"x\"y,\n", "!\n");
}

static void rejected_file(void **state) {
  const char *path = test_write_text("rows.csv", "a,b,c\n1,\"st\xFFray\n2,x,y\nshort\n");
  char *rejected = strdup(test_path("rows.rejected.jsonl"));
  free(read_all(path, 0, 0, rejected));
  char *text = test_read(rejected, NULL);
  char wanted[2048];
  snprintf(wanted, sizeof wanted,
           "{\"file\": \"%s\", \"line\": 2, \"reason\": \"stray quote: a quote is never closed\", \"row\": "
           "\"1,\\\"st\\\\xffray\"}\n"
           "{\"file\": \"%s\", \"line\": 4, \"reason\": \"1 column, 3 were expected\", \"row\": \"short\"}\n",
           path, path);
  assert_string_equal(text, wanted);
  free(text);
  /* nothing to set aside: the file of the run before goes away */
  free(read_all(test_write_text("rows.csv", "a,b,c\n1,2,3\n"), 0, 0, rejected));
  assert_null(test_read(rejected, NULL));
  free(rejected);
}

static void headers(void **state) {
  assert_null(read_all(test_write_text("empty.csv", ""), 0, 0, NULL));
  assert_non_null(strstr(sw_error(), "is empty"));
  assert_null(read_all(test_write_text("blank.csv", "\n\r\n\n"), 0, 0, NULL));
  assert_non_null(strstr(sw_error(), "is empty"));
  assert_null(read_all(test_write_text("open.csv", "a,\"b\n1,2\n"), 0, 0, NULL));
  assert_non_null(strstr(sw_error(), "column names"));
  assert_null(read_all(test_write("wide.csv",
                                  "\xFF\xFE"
                                  "a\0,\0",
                                  6),
                       0, 0, NULL));
  assert_non_null(strstr(sw_error(), "UTF-16"));
  assert_null(read_all(test_path("none.csv"), 0, 0, NULL));
  assert_null(read_all(test_path(""), 0, 0, NULL));
  assert_non_null(strstr(sw_error(), "folder"));
  char *text = read_all(test_write_text("only.csv", "a,b"), 0, 0, NULL);
  assert_string_equal(text, "");
  free(text);
}

/* Rows longer than the limit are set aside and what follows is read, wherever block borders fall. */
static void long_rows(void **state) {
  sw_buffer file = {0};
  char *big = malloc(3 << 20);
  memset(big, 'x', 3 << 20);
  for (int quoted = 0; quoted < 2; quoted++) {
    sw_buffer_clear(&file);
    sw_buffer_print(&file, "a,b\n1,%s", quoted ? "\"" : "");
    sw_buffer_append(&file, big, 3 << 20);
    sw_buffer_print(&file, "%s\n2,ok\n3,\"never closed\n4,ok\n", quoted ? "\"" : "");
    sw_buffer_append(&file, big, 3 << 20);
    sw_buffer_print(&file, "\n5,ok\n");
    char *got = read_all(test_write("long.csv", file.data, file.size), 0, 1 << 20, NULL);
    assert_string_equal(got, "!\n2|ok@3\n!\n4|ok@5\n!\n5|ok@7\n");
    free(got);
  }
  free(big);
  sw_buffer_close(&file);
}

static void append_field(sw_buffer *file, const char *text, sw_random *random) {
  int quote = strpbrk(text, ",\"\n\r") != NULL || sw_random_below(random, 3) == 0;
  if (quote) sw_buffer_print(file, "\"");
  for (const char *c = text; *c; c++) sw_buffer_print(file, "%c%s", *c, quote && *c == '"' ? "\"" : "");
  if (quote) sw_buffer_print(file, "\"");
}

/* Whatever fields are written, the same come back, also across blocks and through compression. */
static void round_trip(void **state) {
  sw_random random = {test_seed("csv round trip"), 1, 0};
  for (int round = 0; round < 60; round++) {
    sw_buffer file = {0}, wanted = {0};
    unsigned columns = 1 + sw_random_below(&random, 6), rows = 1 + sw_random_below(&random, round == 0 ? 60000 : 60);
    const char *end = sw_random_below(&random, 2) ? "\r\n" : "\n";
    uint64_t line = 2;
    for (unsigned c = 0; c < columns; c++) sw_buffer_print(&file, "%sc%u", c ? "," : "", c);
    sw_buffer_print(&file, "%s", end);
    for (unsigned r = 0; r < rows; r++) {
      uint64_t start = line;
      size_t before = file.size;
      for (unsigned c = 0; c < columns; c++) {
        char text[64];
        unsigned n = sw_random_below(&random, sizeof text);
        for (unsigned i = 0; i < n; i++) text[i] = "ab ,\"\n\rx"[sw_random_below(&random, 8)];
        text[n] = 0;
        if (columns == 1 && !n) strcpy(text, "x");
        for (unsigned i = 0; text[i]; i++) line += text[i] == '\n';
        if (c) sw_buffer_print(&file, ",");
        append_field(&file, text, &random);
        sw_buffer_print(&wanted, "%s%s", c ? "|" : "", text);
      }
      assert_true(file.size > before);
      sw_buffer_print(&file, "%s", end);
      sw_buffer_print(&wanted, "@%llu\n", (unsigned long long)start);
      line++;
    }
    const char *names[] = {"round.csv", "round.csv.gz", "round.csv.zst"};
    char *got = read_all(test_write(names[round % 3], file.data, file.size), ',', 0, NULL);
    assert_string_equal(got, wanted.data);
    free(got);
    sw_buffer_close(&file);
    sw_buffer_close(&wanted);
  }
}

/* A stray quote anywhere: rows that lie clear of it are never lost, and nothing is made up. */
static void stray_quotes(void **state) {
  sw_random random = {test_seed("stray quotes"), 2, 0};
  for (int round = 0; round < 400; round++) {
    sw_buffer file = {0};
    size_t starts[41];
    sw_buffer_print(&file, "id,title,text,n\n");
    for (unsigned r = 0; r < 40; r++) {
      starts[r] = file.size;
      if (sw_random_below(&random, 2))
        sw_buffer_print(&file, "%u,t%u,\"text %u\nsecond, \"\"line\"\"\n\",%u\n", r, r, r, r);
      else
        sw_buffer_print(&file, "%u,t%u,plain %u,%u\n", r, r, r, r);
    }
    starts[40] = file.size;
    unsigned hit = sw_random_below(&random, 40);
    size_t at = starts[hit] + sw_random_below(&random, (uint32_t)(starts[hit + 1] - starts[hit]));
    sw_buffer_append(&file, "", 1);
    memmove(file.data + at + 1, file.data + at, file.size - 1 - at);
    file.data[at] = '"';
    sw_csv csv;
    sw_rejects rejects;
    uint64_t line;
    int status, seen[40] = {0};
    assert_int_equal(sw_rejects_open(&rejects, NULL), 0);
    assert_int_equal(sw_csv_open(&csv, test_write("stray.csv", file.data, file.size), 0, 0), 0);
    while ((status = sw_csv_next(&csv, &rejects, &line)) > 0) {
      if (status != 1 || csv.fields[0].bytes > 2) continue;
      char *end;
      unsigned long id = strtoul(csv.fields[0].data, &end, 10);
      if (end != csv.fields[0].data && id < 40) seen[id]++;
    }
    assert_int_equal(status, 0);
    unsigned lost = 0;
    for (unsigned r = 0; r < 40; r++) {
      assert_true(seen[r] <= 1);
      if (seen[r]) continue;
      lost++;
      if (r != hit) assert_true(r > hit ? r - hit <= 2 : hit - r <= 1);
    }
    assert_true(lost <= 3);
    sw_csv_close(&csv);
    sw_rejects_close(&rejects);
    sw_buffer_close(&file);
  }
}

static void newlines(void **state) {
  sw_random random = {test_seed("newlines"), 3, 0};
  static char text[20000];
  for (int round = 0; round < 200; round++) {
    size_t n = sw_random_below(&random, sizeof text), count = 0;
    for (size_t i = 0; i < n; i++) {
      text[i] = sw_random_below(&random, round % 5 + 1) ? 'a' : '\n';
      count += text[i] == '\n';
    }
    assert_int_equal(sw_count_newlines(text, n), count);
  }
}

static void lines(void **state) {
  sw_window w;
  const char *row;
  size_t bytes;
  uint64_t line;
  sw_buffer file = {0};
  sw_buffer_print(&file, "one\r\n\nthree\n");
  for (int i = 0; i < 3000000; i++) sw_buffer_append(&file, "y", 1);
  sw_buffer_print(&file, "\nlast");
  for (int kind = 0; kind < 3; kind++) {
    const char *names[] = {"lines", "lines.gz", "lines.zst"};
    assert_int_equal(sw_window_open(&w, test_write(names[kind], file.data, file.size), 1), 0);
    assert_int_equal(sw_window_line(&w, 100, &row, &bytes, &line), SW_ROW);
    assert_int_equal(bytes, 3);
    assert_int_equal(sw_window_line(&w, 100, &row, &bytes, &line), SW_ROW);
    assert_int_equal(bytes, 0);
    assert_int_equal(sw_window_line(&w, 100, &row, &bytes, &line), SW_ROW);
    assert_memory_equal(row, "three", 5);
    assert_int_equal(sw_window_line(&w, 100, &row, &bytes, &line), SW_ROW_LONG);
    assert_int_equal(line, 4);
    assert_true(bytes >= 2048 && row[0] == 'y' && row[bytes - 1] == 'y');
    assert_int_equal(sw_window_line(&w, 100, &row, &bytes, &line), SW_ROW);
    assert_int_equal(line, 5);
    assert_memory_equal(row, "last", 4);
    assert_int_equal(sw_window_line(&w, 100, &row, &bytes, &line), 0);
    sw_window_close(&w);
  }
  sw_buffer_close(&file);
}

/* Reads everything through the stream: bytes, or -1. */
static long drain(const char *path, char hex[65]) {
  sw_byte_stream *s;
  static char block[70000];
  long total = 0;
  ssize_t got;
  if (sw_byte_stream_open(path, 1, &s)) return -1;
  while ((got = sw_byte_stream_read(s, block, sizeof block)) > 0) total += got;
  if (got == 0) assert_int_equal(sw_byte_stream_sha256(s, hex), 0);
  if (got == 0) assert_int_equal(sw_byte_stream_done(s), sw_byte_stream_size(s));
  sw_byte_stream_close(s);
  return got < 0 ? -1 : total;
}

static void streams(void **state) {
  static char text[300000];
  sw_random random = {test_seed("streams"), 4, 0};
  for (size_t i = 0; i < sizeof text; i++) text[i] = (char)('a' + sw_random_below(&random, 26));
  for (int k = 0; k < 2; k++) {
    char kind = "gz"[k], hex[65], wanted[65];
    size_t n, m;
    char *one = test_compress(kind, text, sizeof text, &n), *two = test_compress(kind, text, 1000, &m),
         *both = malloc(n + m + 3);
    const char *path = test_path(k ? "s.zst" : "s.gz");
    memcpy(both, one, n);
    memcpy(both + n, two, m);
    test_write_raw(path, both, n + m); /* several members or frames */
    assert_int_equal(drain(path, hex), sizeof text + 1000);
    sw_sha256_file(path, wanted);
    assert_string_equal(hex, wanted);
    if (kind == 'g') { /* padded with zeros, as tapes do */
      memset(both + n + m, 0, 3);
      test_write_raw(path, both, n + m + 3);
      assert_int_equal(drain(path, hex), sizeof text + 1000);
    }
    memcpy(both + n + m, "abc", 3);
    test_write_raw(path, both, n + m + 3);
    assert_int_equal(drain(path, hex), -1);
    for (size_t cut = 5; cut < n; cut += n / 17) {
      test_write_raw(path, both, cut);
      assert_int_equal(drain(path, hex), -1);
      assert_non_null(strstr(sw_error(), "truncated"));
    }
    both[n / 2] ^= 0x40;
    both[n / 2 + 1] ^= 0x15;
    test_write_raw(path, both, n);
    if (kind == 'g') assert_int_equal(drain(path, hex), -1); /* Zstandard frames carry no checksum by default */
    test_write_raw(path, text, 100);
    assert_int_equal(drain(path, hex), -1);
    assert_non_null(strstr(sw_error(), "name says so"));
    free(one), free(two), free(both);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(quoting),       cmocka_unit_test(bad_rows),
                                     cmocka_unit_test(rejected_file), cmocka_unit_test(headers),
                                     cmocka_unit_test(long_rows),     cmocka_unit_test(round_trip),
                                     cmocka_unit_test(stray_quotes),  cmocka_unit_test(newlines),
                                     cmocka_unit_test(lines),         cmocka_unit_test(streams)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
