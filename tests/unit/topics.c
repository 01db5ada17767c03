/* Documents, bags, the topic model and coherence, on what is known by hand. */
#include "base/error.h"
#include "engine/learn/coherence.h"
#include "engine/model/lda.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static const char *write_lines(const char *text) {
  static char path[64];
  snprintf(path, sizeof path, "/tmp/sw-topics-%d.txt", (int)getpid());
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  fputs(text, f);
  fclose(f);
  return path;
}

static void read_lines(const char *text, size_t words, sw_documents *d, sw_stems **stems, sw_documents_facts *facts) {
  const char *path = write_lines(text);
  const sw_documents_options o = {.stemmer = SW_STEM_NONE, .words = words, .postings = {.format = SW_POSTINGS_LINES}};
  assert_int_equal(sw_documents_read(&path, 1, &o, d, stems, facts), 0);
  unlink(path);
}

static void dictionary(void **state) {
  sw_documents d;
  sw_stems *stems;
  sw_documents_facts facts;
  read_lines("Zebra zebras and the Zebra\n\nzebra lion tiger lion\nlion bear\nbear\n", 0, &d, &stems, &facts);
  assert_int_equal(d.count, 4);
  assert_int_equal(facts.rows, 5);
  assert_int_equal(facts.rejected, 1); /* the blank line */
  const char **vocab;
  size_t count;
  assert_int_equal(sw_documents_filter(&d, stems, 2, 0.5, 2, &vocab, &count), 0); /* zebra, lion and bear stand in two of four documents */
  assert_int_equal(count, 3);
  assert_string_equal(vocab[0], "[UNK]");
  assert_string_equal(vocab[1], "bear");
  assert_string_equal(vocab[2], "lion");
  static const int32_t ids[] = {0, 0, 0, 0, 2, 0, 2, 2, 1, 1};
  assert_int_equal(d.starts[4], 10);
  assert_memory_equal(d.ids, ids, sizeof ids);
  free(vocab);
  sw_bags bags;
  assert_int_equal(sw_bags_make(&d, (uint32_t[]){2, 1, 0}, 3, &bags), 0);
  assert_memory_equal(bags.starts, ((int64_t[]){0, 2, 3, 3}), 4 * sizeof(int64_t));
  assert_memory_equal(bags.words, ((int32_t[]){0, 1, 1}), 3 * sizeof(int32_t));
  assert_true(bags.counts[0] == 1 && bags.counts[2] == 2 && bags.tokens == 4 && bags.longest == 2);
  sw_bags_close(&bags);
  assert_int_equal(sw_documents_filter(&d, stems, 9, 1, 5, &vocab, &count), -1);
  assert_non_null(strstr(sw_error(), "--no-below"));
  sw_documents_close(&d);
  sw_stems_close(stems);
}

static void pieces_and_holdout(void **state) {
  sw_documents d;
  sw_stems *stems;
  sw_documents_facts facts;
  read_lines("a1 zebra lion bear tiger wolf\nzebra\n", 2, &d, &stems, &facts);
  assert_int_equal(d.count, 4); /* 2 + 2 + 1 words, 1: "a" is a function word */
  assert_int_equal(d.starts[3], 5);
  sw_documents_close(&d);
  sw_stems_close(stems);
  char text[4000] = "";
  for (int i = 0; i < 200; i++) sprintf(text + strlen(text), "zebra %c%c\n", 'b' + i % 20, 'b' + i / 20);
  const char *path = write_lines(text);
  const sw_documents_options o = {.stemmer = "english", .holdout = 0.25, .postings = {.format = SW_POSTINGS_LINES}};
  assert_int_equal(sw_documents_read(&path, 1, &o, &d, &stems, &facts), 0);
  assert_in_range(d.num_held_out, 25, 80);
  sw_documents_close(&d);
  sw_stems_close(stems);
  const sw_documents_options klingon = {.stemmer = "klingon"};
  assert_int_equal(sw_documents_read(&path, 1, &klingon, &d, &stems, &facts), -1);
  sw_documents_close(&d);
  sw_stems_close(stems);
  unlink(path);
}

/* Six documents of 30 words: the first three about words 0 to 4, the others about 5 to 9. */
static sw_bags two_topics(void) {
  sw_bags b = {.documents = 6, .longest = 5, .tokens = 180};
  b.starts = malloc(7 * sizeof *b.starts);
  b.words = malloc(30 * sizeof *b.words);
  b.counts = malloc(30 * sizeof *b.counts);
  for (int i = 0; i < 30; i++) b.words[i] = i % 5 + (i < 15 ? 0 : 5), b.counts[i] = 6;
  for (int i = 0; i < 7; i++) b.starts[i] = 5 * i;
  return b;
}

static void learns(sw_device *device, int threads, uint64_t seed, float *lambda, float *gamma, double *bound) {
  const sw_lda_shape shape = {.topics = 2, .words = 10, .alpha = 0.5, .eta = 0.5, .tolerance = 1e-3, .iterations = 50};
  sw_stream stream;
  sw_lda lda;
  sw_lda_room room;
  sw_bags b = two_topics();
  assert_int_equal(sw_stream_open(device, threads, &stream), 0);
  assert_int_equal(sw_lda_open(&stream, &shape, NULL, seed, &lda), 0);
  assert_int_equal(sw_lda_room_open(&lda, &stream, 6, 30, 5, 1, &room), 0);
  for (int step = 0; step < 20; step++) assert_int_equal(sw_lda_learn(&room, &b, 0, 6, pow(1 + step, -0.5), 6), 0);
  assert_int_equal(sw_lda_get(&lda, lambda), 0);
  assert_int_equal(sw_lda_infer(&room, &b, 0, 6, gamma), 0);
  assert_int_equal(sw_lda_bound(&shape, lambda, &b, gamma, 6, threads, bound), 0);
  float alone[2];
  assert_int_equal(sw_lda_infer(&room, &b, 4, 1, alone), 0);
  assert_memory_equal(alone, gamma + 8, sizeof alone);
  assert_int_equal(sw_lda_infer(&room, &b, 0, 7 - 1, gamma), 0);
  sw_lda_room_close(&room);
  sw_lda_close(&lda);
  sw_bags_close(&b);
}

static void finds_topics(void **state) {
  sw_device *device;
  assert_int_equal(sw_device_open("cpu", &device), 0);
  float lambda[20], again[20], gamma[12], gamma_again[12];
  double bound, bound_again;
  learns(device, 1, 3, lambda, gamma, &bound);
  learns(device, 2, 3, again, gamma_again, &bound_again);
  assert_memory_equal(lambda, again, sizeof lambda);
  assert_memory_equal(gamma, gamma_again, sizeof gamma);
  assert_true(bound == bound_again);
  const int first = gamma[0] > gamma[1] ? 0 : 1; /* the topic of the first documents */
  for (int d = 0; d < 6; d++) assert_true(gamma[2 * d + (d < 3 ? first : 1 - first)] > 29);
  for (int w = 0; w < 10; w++) {
    const int topic = w < 5 ? first : 1 - first;
    assert_true(fabsf(lambda[topic * 10 + w] - 18.5f) < 0.2f && lambda[(1 - topic) * 10 + w] < 0.7f);
  }
  /* a word of two equal topics of five words each costs about log 5, and what the weights cost besides */
  assert_true(bound < -log(5) && bound > -log(5) - 0.5);
  int32_t top[5];
  const sw_lda_shape shape = {.topics = 2, .words = 10};
  assert_int_equal(sw_lda_top_words(&shape, lambda, first, 5, top), 0);
  for (int i = 0; i < 5; i++) assert_in_range(top[i], 0, 4);
  assert_int_equal(sw_lda_top_words(&shape, (float[20]){1, 3, 2, 3}, 0, 3, top), 0);
  assert_memory_equal(top, ((int32_t[]){1, 3, 2}), 3 * sizeof *top);
  learns(device, 1, 4, again, gamma_again, &bound_again);
  assert_memory_not_equal(lambda, again, sizeof lambda);
  lambda[7] = NAN;
  sw_stream stream;
  sw_lda lda;
  const sw_lda_shape whole = {.topics = 2, .words = 10, .alpha = 0.5, .eta = 0.5, .tolerance = 1e-3, .iterations = 50};
  assert_int_equal(sw_stream_open(device, 1, &stream), 0);
  assert_int_equal(sw_lda_open(&stream, &whole, lambda, 0, &lda), -1);
  assert_non_null(strstr(sw_error(), "topic 1 has the weight nan for word 7"));
  sw_device_close(device);
}

/* Three documents of words 1, 2, 3 (0: others). */
static void coherence(void **state) {
  size_t starts[] = {0, 3, 15, 17, 18};
  int32_t ids[] = {1, 2, 0, /**/ 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, /**/ 3, 3, /**/ 2};
  uint8_t held_out[] = {0, 0, 0, 1};
  const sw_documents d = {.count = 4, .starts = starts, .ids = ids, .held_out = held_out};
  double u_mass[3], c_npmi[3];
  assert_int_equal(sw_coherence(&d, (int32_t[]){1, 2, 3, 1}, 2, 2, u_mass, c_npmi), 0);
  assert_true(fabs(u_mass[0] - log((2 / 3.0 + 1e-12) / (2 / 3.0))) < 1e-12); /* 1 and 2 stand together in two documents */
  assert_true(fabs(u_mass[1] - log(1e-12 / (1 / 3.0))) < 1e-9);
  assert_true(fabs(u_mass[2] - (u_mass[0] + u_mass[1]) / 2) < 1e-12);
  /* windows: 1, 3 and 1. The second document's hold {1}, {2}, {1, 2} */
  const double both = 2 / 5.0 + 1e-12, p1 = 3 / 5.0, p2 = 3 / 5.0;
  assert_true(fabs(c_npmi[0] - log(both / (p1 * p2)) / -log(both)) < 1e-9);
  assert_true(fabs(c_npmi[1] - log(1e-12 / (p1 / 5)) / -log(1e-12)) < 1e-9);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(dictionary), cmocka_unit_test(pieces_and_holdout), cmocka_unit_test(finds_topics),
                                     cmocka_unit_test(coherence)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
