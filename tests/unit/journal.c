/* The journal of a long run: cut or flipped at every byte, it keeps its whole records and nothing else. */
#include "base/error.h"
#include "engine/store/journal.h"
#include "tests/support/files.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECORDS = 5 };
static const char *const payloads[RECORDS] = {"first", "", "a third, longer record", "\1\2\3", "the last"};
static const char identity[] = "{\"model\":\"abc\"}";

static int count_up(void *context, const uint64_t counters[SW_JOURNAL_COUNTERS], const void *payload, size_t bytes) {
  uint64_t *n = context;
  assert_true(*n < RECORDS);
  assert_int_equal(bytes, strlen(payloads[*n]));
  assert_memory_equal(payload, payloads[*n], bytes);
  assert_int_equal(counters[0], *n + 1);
  ++*n;
  return 0;
}

static void append(sw_journal *j, uint64_t n) {
  const uint64_t counters[SW_JOURNAL_COUNTERS] = {n + 1, 10, 0, 1};
  assert_int_equal(sw_journal_append(j, counters, payloads[n], strlen(payloads[n])), 0);
}

static const char *fresh(const char *out) {
  char partial[600];
  snprintf(partial, sizeof partial, "%s.partial", out);
  unlink(partial);
  sw_journal j;
  assert_int_equal(sw_journal_open(out, identity, 1, &j, NULL), 0);
  for (uint64_t n = 0; n < RECORDS; n++) append(&j, n);
  sw_journal_close(&j, 0);
  return out;
}

/* Opens what is left, checks that it is the beginning of the records, completes it, and checks the whole. */
static uint64_t recover(const char *out) {
  sw_journal j;
  const char *why;
  assert_int_equal(sw_journal_open(out, identity, 1, &j, &why), 0);
  const uint64_t kept = j.records;
  assert_true(kept == 0 || !why);
  uint64_t n = 0;
  assert_int_equal(sw_journal_replay(&j, count_up, &n), 0);
  assert_int_equal(n, kept);
  assert_int_equal(j.totals[0], kept * (kept + 1) / 2);
  assert_int_equal(j.totals[1], 10 * kept);
  while (n < RECORDS) append(&j, n++);
  n = 0;
  assert_int_equal(sw_journal_replay(&j, count_up, &n), 0);
  assert_int_equal(n, RECORDS);
  sw_journal_close(&j, 0);
  assert_int_equal(sw_journal_open(out, identity, 1, &j, &why), 0);
  assert_int_equal(j.records, RECORDS);
  sw_journal_close(&j, 1);
  return kept;
}

static void test_cut_and_flipped(void **state) {
  const char *out = test_path("cut.h5");
  char partial[600];
  snprintf(partial, sizeof partial, "%s.partial", fresh(out));
  size_t bytes;
  char *whole = test_read(partial, &bytes);
  assert_non_null(whole);
  uint64_t last = 0;
  for (size_t cut = 0; cut <= bytes; cut++) {
    test_write_raw(partial, whole, cut);
    const uint64_t kept = recover(out);
    assert_true(kept >= last);
    last = kept;
  }
  assert_int_equal(last, RECORDS);
  for (size_t at = 8; at < bytes; at++) { /* the first bytes say that it is a journal at all */
    char *copy = malloc(bytes);
    memcpy(copy, whole, bytes);
    copy[at] ^= 0x10;
    test_write_raw(partial, copy, bytes);
    free(copy);
    assert_true(recover(out) < RECORDS);
  }
  free(whole);
}

static void test_who_may_use_it(void **state) {
  const char *out = fresh(test_path("who.h5"));
  char partial[600];
  snprintf(partial, sizeof partial, "%s.partial", out);
  sw_journal j, other;
  const char *why;
  /* another run that fails before its first record destroys nothing */
  assert_int_equal(sw_journal_open(out, "{\"model\":\"other\"}", 1, &j, &why), 0);
  assert_non_null(why);
  assert_int_equal(j.records, 0);
  sw_journal_close(&j, 0);
  assert_int_equal(sw_journal_open(out, identity, 1, &j, &why), 0);
  assert_null(why);
  assert_int_equal(j.records, RECORDS);
  /* one at a time */
  assert_int_not_equal(sw_journal_open(out, identity, 1, &other, &why), 0);
  assert_non_null(strstr(sw_error(), "in use"));
  sw_journal_close(&j, 0);
  /* told not to go on */
  assert_int_equal(sw_journal_open(out, identity, 0, &j, &why), 0);
  assert_int_equal(j.records, 0);
  append(&j, 0);
  sw_journal_close(&j, 0);
  assert_int_equal(sw_journal_open(out, identity, 1, &j, &why), 0);
  assert_int_equal(j.records, 1);
  sw_journal_close(&j, 1);
  assert_int_not_equal(access(partial, F_OK), 0);
  /* nothing done, nothing left behind */
  assert_int_equal(sw_journal_open(out, identity, 1, &j, &why), 0);
  sw_journal_close(&j, 0);
  assert_int_not_equal(access(partial, F_OK), 0);
  /* a file that is not ours */
  test_write_raw(partial, "notes", 5);
  assert_int_not_equal(sw_journal_open(out, identity, 1, &j, &why), 0);
  assert_int_not_equal(sw_journal_open(out, identity, 0, &j, &why), 0);
  size_t bytes;
  char *text = test_read(partial, &bytes);
  assert_string_equal(text, "notes");
  free(text);
  assert_int_not_equal(sw_journal_open("/no/such/folder/x.h5", identity, 1, &j, &why), 0);
}

static int note(void *context, const uint64_t counters[SW_JOURNAL_COUNTERS], const void *payload, size_t bytes) {
  strncat(context, payload, bytes);
  return 0;
}

/* What was finished is read as a whole or refused; several are read in turn. */
static void test_finished(void **state) {
  static const char *const texts[3][3] = {{"a", "d", "g"}, {"b", "e", ""}, {"c", "f", ""}};
  sw_journal parts[3], j;
  char path[3][700], all[64] = "";
  for (int i = 0; i < 3; i++) {
    char out[600];
    snprintf(out, sizeof out, "%s%d", test_path("part"), i);
    snprintf(path[i], sizeof path[i], "%s.done", out);
    assert_int_equal(sw_journal_open(out, identity, 1, &j, NULL), 0);
    for (int k = 0; k < 3 && texts[i][k][0]; k++)
      assert_int_equal(sw_journal_append(&j, (uint64_t[]){(uint64_t)k + 1, 0, 0, 0}, texts[i][k], 1), 0);
    assert_int_equal(sw_journal_open_finished(path[i], identity, &parts[i]), 0); /* not there yet */
    assert_int_equal(sw_journal_finish(&j, path[i]), 0);
    if (i == 1) { /* killed before it got its name: nothing is done again, nothing counted twice */
      char partial[620];
      snprintf(partial, sizeof partial, "%s.partial", out);
      assert_int_equal(rename(path[i], partial), 0);
      assert_int_equal(sw_journal_open(out, identity, 1, &j, NULL), 0);
      assert_int_equal(j.records, 2);
      assert_int_equal(j.totals[0], 3);
      assert_int_equal(sw_journal_finish(&j, path[i]), 0);
    }
    assert_int_equal(sw_journal_open_finished(path[i], "another", &parts[i]), 0);
    assert_int_equal(sw_journal_open_finished(path[i], identity, &parts[i]), 1);
    assert_int_equal(parts[i].totals[0], i ? 3 : 6);
  }
  assert_int_equal(sw_journal_replay_in_turn(parts, 3, note, all), 0);
  assert_string_equal(all, "abcdefg");
  assert_int_equal(sw_journal_replay_in_turn(parts, 2, note, all), 0);
  sw_journal swapped[2] = {parts[1], parts[0]}; /* the second has more than its turns */
  assert_int_equal(sw_journal_replay_in_turn(swapped, 2, note, all), -1);
  for (int i = 0; i < 3; i++) sw_journal_close(&parts[i], 0);
  FILE *file = fopen(path[0], "rb+");
  char bytes[600];
  const size_t size = fread(bytes, 1, sizeof bytes, file);
  fclose(file);
  for (size_t cut = 1; cut < size; cut++) { /* cut short, or with a byte that is another */
    for (int flip = 0; flip < 2; flip++) {
      file = fopen(path[0], "wb");
      fwrite(bytes, 1, flip ? size : cut, file);
      if (flip) {
        fseek(file, (long)cut, SEEK_SET);
        fputc(bytes[cut] ^ 1, file);
      }
      fclose(file);
      assert_int_equal(sw_journal_open_finished(path[0], identity, &j), -1);
    }
  }
  /* nothing was done: a part of no records */
  assert_int_equal(sw_journal_open(test_path("none"), identity, 1, &j, NULL), 0);
  assert_int_equal(sw_journal_finish(&j, path[0]), 0);
  assert_int_equal(sw_journal_open_finished(path[0], identity, &j), 1);
  assert_int_equal(j.records, 0);
  sw_journal_close(&j, 0);
}

typedef struct {
  sw_journal *journal;
  uint64_t at[RECORDS];
} places;

static int note_place(void *context, const uint64_t counters[SW_JOURNAL_COUNTERS], const void *payload, size_t bytes) {
  places *seen = context;
  seen->at[counters[0] - 1] = seen->journal->at;
  return 0;
}

/* Records are found again by their places: as they were appended, and after a replay. */
static void test_places(void **state) {
  sw_journal j;
  sw_buffer payload = {0};
  places appended = {0}, seen = {.journal = &j};
  assert_int_equal(sw_journal_open(test_path("places"), identity, 1, &j, NULL), 0);
  for (uint64_t n = 0; n < RECORDS; n++) append(&j, n), appended.at[n] = j.at;
  assert_int_equal(sw_journal_replay(&j, note_place, &seen), 0);
  for (uint64_t n = RECORDS; n--;) {
    assert_int_equal(seen.at[n], appended.at[n]);
    assert_int_equal(sw_journal_read(&j, appended.at[n], &payload), 0);
    assert_int_equal(payload.size, strlen(payloads[n]));
    assert_memory_equal(payload.data, payloads[n], payload.size);
  }
  assert_int_equal(sw_journal_read(&j, appended.at[1] + 1, &payload), -1);
  assert_int_equal(sw_journal_read(&j, j.end, &payload), -1);
  assert_int_equal(sw_journal_read(&j, 0, &payload), -1);
  sw_buffer_close(&payload);
  sw_journal_close(&j, 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_cut_and_flipped), cmocka_unit_test(test_who_may_use_it),
                                     cmocka_unit_test(test_finished), cmocka_unit_test(test_places)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
