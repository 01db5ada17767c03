/* Tokenizes texts for the parity test and for speed comparisons.
 *
 * tool-tokenize VOCAB.txt RECORDS OUT [--cased] [--accents 0|1] [--no-clean] [--no-cjk] [--max-chars N]
 *
 *     RECORDS: a uint32 length and that many bytes, again and again.
 *     OUT: for each record a uint32 count, and count int32 each of ids, starts and ends (native byte order).
 *
 * tool-tokenize VOCAB.txt RECORDS --bench SECONDS [--lines] [--cased]
 *
 *     Tokens/s and MB/s of one thread; with --lines RECORDS is a text file and each line a text. */
#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "base/progress.h"
#include "engine/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const char **text;
  size_t *bytes, count, capacity;
} texts;

static int add(texts *t, const char *text, size_t bytes) {
  if (t->count == t->capacity) {
    size_t capacity = t->capacity * 2 + 1024;
    const char **larger = sw_realloc_array(t->text, capacity, sizeof *larger);
    if (!larger) return -1;
    t->text = larger;
    size_t *longer = sw_realloc_array(t->bytes, capacity, sizeof *longer);
    if (!longer) return -1;
    t->bytes = longer;
    t->capacity = capacity;
  }
  t->text[t->count] = text;
  t->bytes[t->count++] = bytes;
  return 0;
}

static int split_lines(const sw_buffer *file, texts *out) {
  for (const char *p = file->data, *end = p + file->size; p < end;) {
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    if (!stop) stop = end;
    if (add(out, p, (size_t)(stop - p))) return -1;
    p = stop + 1;
  }
  return 0;
}

static int split_records(const sw_buffer *file, texts *out) {
  for (const char *p = file->data, *end = p + file->size; p < end;) {
    uint32_t bytes = 0;
    if (end - p >= 4) memcpy(&bytes, p, 4);
    if (end - p < 4 || bytes > (size_t)(end - p - 4)) return sw_fail("record %zu is cut off", out->count);
    if (add(out, p + 4, bytes)) return -1;
    p += 4 + bytes;
  }
  return 0;
}

static int encode_all(const sw_tokenizer *tokenizer, const texts *in, FILE *file) {
  sw_encoding e = {0};
  int status = 0;
  for (size_t i = 0; i < in->count && !status; i++) {
    status = sw_tokenizer_encode(tokenizer, in->text[i], in->bytes[i], &e);
    uint32_t count = (uint32_t)e.count;
    if (!status && (fwrite(&count, 4, 1, file) != 1 || fwrite(e.ids, 4, count, file) != count ||
                    fwrite(e.start, 4, count, file) != count || fwrite(e.end, 4, count, file) != count))
      status = sw_fail("cannot write the output");
  }
  sw_encoding_close(&e);
  return status;
}

static int bench(const sw_tokenizer *tokenizer, const texts *in, double seconds) {
  sw_encoding e = {0};
  size_t tokens = 0, bytes = 0, rounds = 0;
  double start = sw_clock(), spent;
  do {
    for (size_t i = 0; i < in->count; i++) {
      if (sw_tokenizer_encode(tokenizer, in->text[i], in->bytes[i], &e)) return -1;
      tokens += e.count;
      bytes += in->bytes[i];
    }
    rounds++;
    spent = sw_clock() - start;
  } while (spent < seconds);
  printf("skillwatch: %zu tokens x %zu, %.2f Mtok/s %.2f MB/s\n", tokens / rounds, rounds, (double)tokens / spent / 1e6,
         (double)bytes / spent / 1e6);
  sw_encoding_close(&e);
  return 0;
}

int main(int argc, char **argv) {
  int cased = 0, no_clean = 0, no_cjk = 0, lines = 0;
  double seconds = 0;
  sw_tokenizer_options o = SW_TOKENIZER_DEFAULTS;
  const sw_option options[] = {
      {"cased", 0, SW_OPTION_FLAG, &cased, NULL, "keep upper case"},
      {"accents", 0, SW_OPTION_INT, &o.strip_accents, "0|1", "strip accents (by default as case)"},
      {"no-clean", 0, SW_OPTION_FLAG, &no_clean, NULL, "keep control characters"},
      {"no-cjk", 0, SW_OPTION_FLAG, &no_cjk, NULL, "keep ideographs together"},
      {"max-chars", 0, SW_OPTION_INT, &o.max_chars_per_word, "N", "longest word"},
      {"bench", 0, SW_OPTION_DOUBLE, &seconds, "SECONDS", "measure for so long"},
      {"lines", 0, SW_OPTION_FLAG, &lines, NULL, "each line is a text"},
      {0}};
  const sw_command command = {"tool-tokenize VOCAB.txt RECORDS [OUT] [options]", "Tokenizes texts.", NULL, options};
  sw_list operands = {0};
  int parsed = sw_options_parse(&command, argc, argv, &operands);
  if (parsed > 0) return 0;
  if (parsed || operands.count != (seconds > 0 ? 2 : 3)) {
    fprintf(stderr, "tool-tokenize: %s\n", parsed ? sw_error() : "wrong number of arguments");
    return 2;
  }
  o.do_lower_case = !cased;
  o.clean_text = !no_clean;
  o.tokenize_chinese_chars = !no_cjk;

  sw_buffer vocab_file = {0}, file = {0};
  texts vocab = {0}, in = {0};
  sw_tokenizer *tokenizer = NULL;
  int status = sw_file_read(operands.items[0], 0, &vocab_file) || split_lines(&vocab_file, &vocab) ||
               sw_file_read(operands.items[1], 0, &file) || (lines ? split_lines : split_records)(&file, &in) ||
               sw_tokenizer_open(vocab.text, vocab.bytes, vocab.count, &o, &tokenizer);
  if (!status && seconds > 0) status = bench(tokenizer, &in, seconds);
  if (!status && !(seconds > 0)) {
    FILE *out = fopen(operands.items[2], "wb");
    status = !out ? sw_fail("cannot write %s", operands.items[2]) : encode_all(tokenizer, &in, out);
    if (out && fclose(out) && !status) status = sw_fail("cannot write %s", operands.items[2]);
  }
  if (status) fprintf(stderr, "tool-tokenize: %s\n", sw_error());
  sw_tokenizer_close(tokenizer);
  free(vocab.text), free(vocab.bytes), free(in.text), free(in.bytes);
  sw_buffer_close(&vocab_file), sw_buffer_close(&file);
  sw_list_close(&operands);
  return status ? 1 : 0;
}
