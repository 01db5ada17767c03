/* Words, sentences and UTF-8: examples by hand, properties on real postings (where they are) and on random text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/file.h"
#include "base/philox.h"
#include "engine/text/tokenizer.h"
#include "engine/text/unicode.h"
#include "engine/text/words.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int split_function(const char *, size_t, sw_spans *);

static void check(split_function *split, const char *text, const char *const *expected) {
  sw_spans spans = {0};
  assert_int_equal(split(text, strlen(text), &spans), 0);
  size_t count = 0;
  while (expected[count]) count++;
  for (size_t i = 0; i < spans.count || i < count; i++) {
    sw_span s = i < spans.count ? spans.items[i] : (sw_span){0};
    const char *want = i < count ? expected[i] : "(nothing)";
    if (i >= spans.count || i >= count || s.byte_end - s.byte_start != strlen(want) ||
        memcmp(text + s.byte_start, want, strlen(want)))
      fail_msg("\"%s\": part %zu is \"%.*s\", expected \"%s\"", text, i, (int)(s.byte_end - s.byte_start),
               text + s.byte_start, want);
    assert_int_equal(s.start, sw_count_code_points(text, s.byte_start));
    assert_int_equal(s.end, sw_count_code_points(text, s.byte_end));
  }
  sw_spans_close(&spans);
}
#define WORDS(text, ...) check(sw_split_words, text, (const char *const[]){__VA_ARGS__, NULL})
#define SENTENCES(text, ...) check(sw_split_sentences, text, (const char *const[]){__VA_ARGS__, NULL})
#define NONE NULL

static void test_words(void **state) {
  WORDS("", NONE);
  WORDS(" \n\u00A0", NONE);
  WORDS("Hello, World!", "Hello", ",", "World", "!");
  WORDS("C++/C# e.g.", "C", "+", "+", "/", "C", "#", "e", ".", "g", ".");
  WORDS("Zürich’s naïve", "Zürich", "’", "s", "naïve");
  WORDS("a中文b", "a", "中", "文", "b");
  WORDS("a\u200Bb \u200Bc\uFEFF d", "a\u200Bb", "c", "d");
  WORDS("\u200B \x01", NONE);
  WORDS("[MASK] 🚀x", "[", "MASK", "]", "🚀x");
}

static void test_sentences(void **state) {
  SENTENCES("", NONE);
  SENTENCES(" \r\n\t\u2028 ", NONE);
  SENTENCES("We build. You use!  Why? ", "We build.", "You use!", "Why?");
  /* abbreviations and names */
  SENTENCES("Tools, e.g. Docker, i.e. Linux. Sr. Engineer at Acme Inc. in Rome.", "Tools, e.g. Docker, i.e. Linux.",
            "Sr. Engineer at Acme Inc. in Rome.");
  SENTENCES("He works at Acme Inc. We hire. The U.S. Army of the U.S. The end.", "He works at Acme Inc.", "We hire.",
            "The U.S. Army of the U.S.", "The end.");
  SENTENCES("Use Node.js, ASP.NET and .NET Core. C# or F#. Python 3.11 too.", "Use Node.js, ASP.NET and .NET Core.",
            "C# or F#.", "Python 3.11 too.");
  SENTENCES("Python and R. Experience counts.", "Python and R.", "Experience counts.");
  SENTENCES("J. Smith and George W. Bush. Jackson, MS. Apply.", "J. Smith and George W. Bush.", "Jackson, MS.",
            "Apply.");
  SENTENCES("Python, SQL, etc. Strong skills (Go, etc.); Job No. 5. No. 5 it is. We say no. It is.",
            "Python, SQL, etc.", "Strong skills (Go, etc.); Job No. 5.", "No. 5 it is.", "We say no.", "It is.");
  SENTENCES("See https://a.b/c?id=1 or www.x.org/?. Now.", "See https://a.b/c?id=1 or www.x.org/?.", "Now.");
  SENTENCES("He said “Go.” She went.", "He said “Go.”", "She went.");
  SENTENCES("我们招人。请来。", "我们招人。", "请来。");
  /* lists and headings */
  SENTENCES("Requirements\n- Python 3\n- SQL and\n  more\n* Go\n• Rust\n– Zig\n1. Build. Run\n2) Test\n(3) Ship\na) x",
            "Requirements", "- Python 3", "- SQL and", "more", "* Go", "• Rust", "– Zig", "1. Build.", "Run", "2) Test",
            "(3) Ship", "a) x");
  SENTENCES("About us:\nWe build\r\nQualifications\rPython", "About us:", "We build", "Qualifications", "Python");
  SENTENCES("Skills: • Python • SQL •Go", "Skills:", "• Python", "• SQL", "•Go");
  SENTENCES("•\nPython\n2.\nSQL\n-5 degrees\n\n•\n\nGo", "•\nPython", "2.\nSQL", "-5 degrees", "•", "Go");
  SENTENCES("one\n\ntwo", "one", "two");
  SENTENCES("Acme\nis seeking a\nPython Developer\nto join us", "Acme\nis seeking a\nPython Developer\nto join us");
  SENTENCES("to lead teams\nto build models", "to lead teams", "to build models");
  /* wrapped paragraphs, and lines that only look long */
  SENTENCES("We look for a person who knows machine learning and can\nexplain it to customers in plain words. The team "
            "is small,\n"
            "friendly and remote.\nApply soon",
            "We look for a person who knows machine learning and can\nexplain it to customers in plain words.",
            "The team is small,\nfriendly and remote.", "Apply soon");
  SENTENCES("Experience with distributed systems and databases\nKnowledge of machine learning in the cloud",
            "Experience with distributed systems and databases", "Knowledge of machine learning in the cloud");
}

static void test_refusals(void **state) {
  sw_spans spans = {0};
  assert_int_equal(sw_split_words("ab\xFF", 3, &spans), -1);
  assert_non_null(strstr(sw_error(), "byte 2"));
  assert_int_equal(sw_split_sentences("ab\xFF", 3, &spans), -1);
  assert_non_null(strstr(sw_error(), "byte 2"));
  assert_int_equal(sw_split_sentences("ab", (size_t)INT32_MAX + 1, &spans), -1);
  assert_int_equal(sw_split_words("ab", (size_t)INT32_MAX + 1, &spans), -1);
  sw_spans_close(&spans);
}

/* --- UTF-8 */

static void check_utf8(const char *text, size_t bytes, int at) {
  char padded[64];
  for (size_t before = 0; before < 18; before++) { /* at every place of a word of eight bytes */
    memset(padded, 'x', sizeof padded);
    memcpy(padded + before, text, bytes);
    int status = sw_check_utf8(padded, before + bytes + before % 9);
    assert_int_equal(status, at < 0 ? 0 : -1);
    char where[32];
    snprintf(where, sizeof where, "byte %zu ", before + (size_t)(at < 0 ? 0 : at));
    if (at >= 0 && !strstr(sw_error(), where)) fail_msg("\"%s\" does not say %s", sw_error(), where);
  }
}

static void test_utf8(void **state) {
  for (uint32_t c = 1; c < SW_CODE_POINTS; c++) {
    uint8_t bytes[4];
    uint32_t back = 0;
    size_t length = sw_utf8_encode(c, bytes);
    int is_surrogate = c >= 0xD800 && c < 0xE000;
    assert_int_equal(sw_utf8_decode(bytes, bytes + length, &back), is_surrogate ? 0 : length);
    if (is_surrogate) continue;
    assert_int_equal(back, c);
    assert_int_equal(sw_count_code_points((const char *)bytes, length), 1);
    for (size_t cut = 1; cut < length; cut++) assert_int_equal(sw_utf8_decode(bytes, bytes + cut, &back), 0);
  }
  check_utf8("a\u00E9\u4E2D\U0001F600\U0010FFFF\x01\x7F", 16, -1);
  check_utf8("a\0", 2, 1);
  check_utf8("\x80", 1, 0);
  check_utf8("\xC0\x80", 2, 0);         /* too long a form of NUL */
  check_utf8("\xC1\xBF", 2, 0);         /* and of U+007F */
  check_utf8("\xE0\x9F\xBF", 3, 0);     /* U+07FF */
  check_utf8("\xF0\x8F\xBF\xBF", 4, 0); /* U+FFFF */
  check_utf8("a\xED\xA0\x80", 4, 1);    /* a surrogate */
  check_utf8("\xF4\x90\x80\x80", 4, 0); /* U+110000 */
  check_utf8("\xF5\x80\x80\x80", 4, 0);
  check_utf8("\xFE", 1, 0);
  check_utf8("\xE4\xB8"
             "a",
             3, 0);
  check_utf8("\xF0\x9F\x98", 3, 0);
  assert_int_equal(sw_check_utf8("", 0), 0);
  assert_int_equal(sw_check_utf8("\xE4\xB8\xAD", 2), -1); /* ends within a character */
}

/* --- properties */

/* Spans are in order, apart, exact in bytes and code points, begin and end with no space; together they hold every
 * character that is of none of the `uncovered` classes. */
static void check_spans(const char *text, size_t bytes, const sw_spans *spans, unsigned uncovered) {
  const uint8_t *begin = (const uint8_t *)text, *p = begin, *end = p + bytes;
  size_t i = 0;
  for (uint32_t index = 0; p < end; index++) {
    uint32_t c = 0, at = (uint32_t)(p - begin);
    size_t length = sw_utf8_decode(p, end, &c);
    assert_true(length > 0);
    int is_space = sw_char_class(c) & SW_CHAR_SPACE;
    while (i < spans->count && spans->items[i].byte_end <= at) i++;
    int is_covered = i < spans->count && spans->items[i].byte_start <= at;
    if (!is_covered && !(sw_char_class(c) & uncovered)) fail_msg("byte %u, U+%04X, is in no span", at, c);
    if (i < spans->count && spans->items[i].byte_start == at) {
      assert_int_equal(spans->items[i].start, index);
      assert_false(is_space);
      assert_true(spans->items[i].byte_end > at && spans->items[i].byte_end <= bytes);
      assert_true(!i || spans->items[i - 1].byte_end <= at);
    }
    if (is_covered && spans->items[i].byte_end <= at + length) {
      assert_int_equal(spans->items[i].byte_end, at + length);
      assert_int_equal(spans->items[i].end, index + 1);
      assert_false(is_space);
    }
    p += length;
  }
  assert_true(!spans->count || spans->items[spans->count - 1].byte_end <= bytes);
}

/* With a vocabulary of special tokens alone every word is one [UNK]: the tokenizer's words must be those of
 * sw_split_words. */
static void check_against_tokenizer(const sw_tokenizer *t, sw_encoding *e, const char *text, size_t bytes,
                                    const sw_spans *words) {
  if (memchr(text, '[', bytes)) return; /* a special token may be written there */
  assert_int_equal(sw_tokenizer_encode(t, text, bytes, e), 0);
  assert_int_equal(e->count, words->count);
  for (size_t i = 0; i < e->count; i++) {
    assert_int_equal(e->start[i], words->items[i].start);
    assert_int_equal(e->end[i], words->items[i].end);
  }
}

typedef struct {
  sw_tokenizer *tokenizer;
  sw_encoding encoding;
  sw_spans spans;
} checker;

static void open_checker(checker *c) {
  static const char *const vocab[] = {"[UNK]", "[CLS]", "[SEP]", "[PAD]"};
  static const size_t bytes[] = {5, 5, 5, 5};
  sw_tokenizer_options options = SW_TOKENIZER_DEFAULTS;
  options.do_lower_case = 0;
  *c = (checker){0};
  assert_int_equal(sw_tokenizer_open(vocab, bytes, 4, &options, &c->tokenizer), 0);
}

static void close_checker(checker *c) {
  sw_tokenizer_close(c->tokenizer);
  sw_encoding_close(&c->encoding);
  sw_spans_close(&c->spans);
}

static void check_text(checker *c, const char *text, size_t bytes) {
  assert_int_equal(sw_split_sentences(text, bytes, &c->spans), 0);
  check_spans(text, bytes, &c->spans, SW_CHAR_SPACE);
  assert_int_equal(sw_split_words(text, bytes, &c->spans), 0);
  check_spans(text, bytes, &c->spans, SW_CHAR_SPACE | SW_CHAR_CONTROL);
  check_against_tokenizer(c->tokenizer, &c->encoding, text, bytes, &c->spans);
}

static void test_postings(void **state) {
  glob_t files;
  if (glob(SW_SOURCE_DIR "/../shared/data/in-demand/job-postings/*/*.txt", 0, NULL, &files)) {
    printf("skipped: the real postings are missing (" SW_SOURCE_DIR "/../shared/data)\n");
    skip();
  }
  checker c;
  open_checker(&c);
  sw_buffer text = {0};
  for (size_t i = 0; i < files.gl_pathc; i++) {
    sw_buffer_clear(&text);
    assert_int_equal(sw_file_read(files.gl_pathv[i], 0, &text), 0);
    check_text(&c, text.data, text.size);
    assert_true(c.spans.count > 10);
  }
  printf("%zu postings\n", files.gl_pathc);
  sw_buffer_close(&text);
  globfree(&files);
  close_checker(&c);
}

static void test_random_text(void **state) {
  static const char *const parts[] = {"a",      "B",      " ",      " ",    "\n",  "\n",       "\r\n",   ".",  ". ",
                                      "?",      "!",      "...",    "e.g.", "Sr.", "U.S.",     "-",      "- ", "•",
                                      "• ",     "1.",     "2)",     "(",    ")",   "\"",       ".NET",   "C#", ":",
                                      ";",      ",",      "the ",   "we",   "and", "é",        "\u0301", "中", "。",
                                      "\u2028", "\u00A0", "\u200B", "\t",   "\f",  "\xC2\x85", "😀",      "’"};
  uint64_t seed = getenv("SW_TEST_SEED") ? strtoull(getenv("SW_TEST_SEED"), NULL, 0) : (uint64_t)time(NULL);
  printf("seed %llu\n", (unsigned long long)seed);
  sw_random r = {seed, 1, 0};
  checker c;
  open_checker(&c);
  for (int n = 0; n < 20000; n++) {
    char text[1200];
    size_t bytes = 0, count = sw_random_below(&r, 100);
    for (size_t i = 0; i < count; i++) {
      if (sw_random_below(&r, 10)) {
        const char *part = parts[sw_random_below(&r, sizeof parts / sizeof parts[0])];
        memcpy(text + bytes, part, strlen(part));
        bytes += strlen(part);
      } else {
        uint32_t code = 1 + sw_random_below(&r, sw_random_below(&r, 2) ? 0x3000 : SW_CODE_POINTS - 1);
        if (code >= 0xD800 && code < 0xE000) continue;
        bytes += sw_utf8_encode(code, (uint8_t *)text + bytes);
      }
    }
    check_text(&c, text, bytes);
  }
  close_checker(&c);
}

/* Time grows with the text, not with its square, whatever the text. */
static void test_long_text(void **state) {
  static const char *const units[] = {".", "a.",    "A. ",  " ",  "\n", "• ",   "\u0301", "\"",
                                      "a", "e.g. ", "1.\n", "?!", "中", "- \n", "x\n"};
  checker c;
  open_checker(&c);
  size_t most = 1u << 19;
  char *text = malloc(most);
  assert_non_null(text);
  for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
    size_t length = strlen(units[i]), bytes = 0;
    for (; bytes + length <= most; bytes += length) memcpy(text + bytes, units[i], length);
    check_text(&c, text, bytes);
  }
  free(text);
  close_checker(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_words),     cmocka_unit_test(test_sentences), cmocka_unit_test(test_refusals),
      cmocka_unit_test(test_utf8),      cmocka_unit_test(test_postings),  cmocka_unit_test(test_random_text),
      cmocka_unit_test(test_long_text),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
