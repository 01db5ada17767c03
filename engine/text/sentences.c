/* Sentences: the text is cut into blocks (a wrapped paragraph, a list item, a heading), and ICU finds the sentences of
 * each. words.h states the rules. */
#include "base/error.h"
#include "engine/text/unicode.h"
#include "engine/text/words.h"

#include <string.h>
#include <strings.h>
#include <uchar.h>
#include <unicode/ubrk.h>
#include <unicode/uchar.h>
#include <unicode/utext.h>

/* A wrapped line is hardly ever shorter or longer than this, in code points. */
enum { WRAP_MIN = 40, WRAP_MAX = 120 };

typedef struct {
  const uint8_t *start, *end;
} piece;

/* --- characters; the text is known to be UTF-8 */

static uint32_t first_char(piece p) {
  uint32_t c = 0;
  if (p.start < p.end) sw_utf8_decode(p.start, p.end, &c);
  return c;
}

static const uint8_t *previous(piece p) {
  const uint8_t *q = p.end;
  while (q > p.start && (*--q & 0xC0) == 0x80) {
  }
  return q;
}

static uint32_t last_char(piece p) {
  return first_char((piece){previous(p), p.end});
}

static piece after(piece p, uint32_t c) {
  uint8_t bytes[4];
  return (piece){p.start + sw_utf8_encode(c, bytes), p.end};
}

static int is_space(uint32_t c) {
  return (sw_char_class(c) & SW_CHAR_SPACE) != 0;
}
static int is_digit(uint32_t c) {
  return c >= '0' && c <= '9';
}
static int is_line_end(uint32_t c) {
  return (c >= '\n' && c <= '\r') || c == 0x85 || c == 0x2028 || c == 0x2029;
}
static int is_one_of(uint32_t c, const char32_t *set) {
  for (; *set; set++)
    if (*set == c) return 1;
  return 0;
}

static piece trim_start(piece p) {
  while (p.start < p.end && is_space(first_char(p))) p = after(p, first_char(p));
  return p;
}
static piece trim_end(piece p) {
  while (p.start < p.end && is_space(last_char(p))) p.end = previous(p);
  return p;
}
static piece trim(piece p) {
  return trim_end(trim_start(p));
}

/* --- words that end in a full stop */

/* Never the end of a sentence. */
static const char *const abbreviations[] = {
    "e.g", "i.e", "eg",  "ie",  "mr",  "mrs", "ms",  "dr",  "prof", "vs",  "approx", "incl", "esp", "dept", "fig", "cf",
    "viz", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sept", "oct", "nov",    "dec",  "mt",  "gov",  "hon"};
/* The end of one only where a usual first word of a sentence follows. */
static const char *const may_end[] = {"inc",  "ltd", "co",   "corp", "llc", "plc", "bros", "sr", "jr",
                                      "ph.d", "yr",  "yrs",  "hr",   "hrs", "min", "max",  "st", "ave",
                                      "blvd", "rd",  "univ", "al",   "est", "exp", "ext"};
static const char *const starters[] = {
    "a",     "about", "all",        "an",   "and",  "any",   "applicants", "apply", "are",    "as",   "at",
    "but",   "by",    "candidates", "for",  "from", "he",    "how",        "i",     "if",     "in",   "it",
    "its",   "join",  "must",       "no",   "not",  "on",    "or",         "our",   "please", "she",  "the",
    "their", "there", "these",      "they", "this", "those", "to",         "we",    "what",   "when", "where",
    "while", "who",   "why",        "will", "with", "you",   "your"};

static int is_same_word(piece a, piece b) {
  return a.end - a.start == b.end - b.start && !memcmp(a.start, b.start, (size_t)(a.end - a.start));
}

#define IS_WORD_IN(p, list) is_word_in(p, list, sizeof(list) / sizeof(list)[0])
static int is_word_in(piece p, const char *const *list, size_t count) {
  size_t bytes = (size_t)(p.end - p.start);
  for (size_t i = 0; i < count; i++)
    if (strlen(list[i]) == bytes && !strncasecmp(list[i], (const char *)p.start, bytes)) return 1;
  return 0;
}

static piece first_word(piece p) {
  const uint8_t *q = p.start;
  while (q < p.end && !is_space(*q < 0x80 ? *q : 'x') && *q != ',' && *q != '\'') q++;
  return (piece){p.start, q};
}

static int is_ascii_letter(uint8_t c) {
  return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/* "MS" and "CO" end a sentence as any word does; "Ms" and "Co" do not. */
static int is_upper_case(piece word) {
  const uint8_t *q = word.start;
  while (q < word.end && *q >= 'A' && *q <= 'Z') q++;
  return q == word.end && word.end - word.start > 1;
}

/* One letter before every full stop: "U.S". */
static int is_initialism(piece word) {
  for (const uint8_t *q = word.start; q < word.end; q++)
    if ((*q == '.') != ((q - word.start) % 2 == 1)) return 0;
  return word.end - word.start >= 3;
}

/* Is the full stop that ends `sentence` a part of its last word, not the end of a sentence, seeing what follows? */
static int is_abbreviation(piece sentence, piece next) {
  if (last_char(sentence) != '.') return 0;
  piece word = {sentence.end - 1, sentence.end - 1};
  while (word.start > sentence.start && (is_ascii_letter(word.start[-1]) || word.start[-1] == '.')) word.start--;
  if (word.start == word.end) return 0;
  if (word.start > sentence.start && !is_space(word.start[-1]) && word.start[-1] != '(' && word.start[-1] != '/' &&
      word.start[-1] != '"')
    return 0;
  if (is_upper_case(word)) return 0;
  if (IS_WORD_IN(word, abbreviations)) return 1;
  static const char *const number[] = {"no", "nos"};
  if (IS_WORD_IN(word, number)) return is_digit(first_char(next));
  if (IS_WORD_IN(word, may_end) || is_initialism(word)) return !IS_WORD_IN(first_word(next), starters);
  if (word.end - word.start != 1 || !u_isupper(*word.start)) return 0;
  /* "J. Smith" and "George W. Bush", but not "Python and R. Experience" */
  piece before = trim_end((piece){sentence.start, word.start});
  const uint8_t *start = before.end;
  if (before.start == before.end) return 1;
  while (start > before.start && is_ascii_letter(start[-1])) start--;
  return start < before.end && u_isupper(*start) && !IS_WORD_IN(first_word(next), starters);
}

/* --- lines and list items */

static const char32_t bullets[] = U"•●▪‣◦■►➢➤○✓✔❖·";   /* wherever a line begins with one */
static const char32_t inline_bullets[] = U"•●▪‣◦■►➢➤"; /* within a line, too */
static const char32_t dashes[] = U"-*+–—o";            /* only before white space */

/* The bullet or number that begins a line, as bytes; 0 when there is none. */
static size_t measure_marker(piece line) {
  uint32_t c = first_char(line);
  piece rest = line.start < line.end ? after(line, c) : line;
  if (is_one_of(c, bullets)) return (size_t)(rest.start - line.start);
  if (!is_one_of(c, dashes)) {
    int has_parenthesis = c == '(';
    const uint8_t *q = line.start + has_parenthesis, *digits = q;
    while (q < line.end && is_digit(*q)) q++;
    int is_number = q > digits && q - digits <= 3;
    if (q == digits && q < line.end && is_ascii_letter(*q)) q++; /* a) */
    if (q == digits || q == line.end || !(*q == ')' || (*q == '.' && is_number && !has_parenthesis))) return 0;
    rest.start = q + 1;
  }
  return rest.start == rest.end || is_space(first_char(rest)) ? (size_t)(rest.start - line.start) : 0;
}

static int is_only_marker(piece p) {
  p = trim(p);
  size_t marker = measure_marker(p);
  return marker && marker == (size_t)(p.end - p.start);
}

static int ends_sentence(piece line, piece next) {
  piece p = line;
  while (p.start < p.end && is_one_of(last_char(p), U"\"')]”’»")) p.end = previous(p);
  return is_one_of(last_char(p), U".!?:;…。！？：；") && !is_abbreviation(line, next);
}

static size_t count_chars(piece p) {
  return sw_count_code_points((const char *)p.start, (size_t)(p.end - p.start));
}

/* Words that no sentence ends with, words that few end with, and words that none begins with; all in lower case only,
 * for headings are like "Who We Are Looking For". */
static const char *const needs_more[] = {"a", "an", "of", "our", "the", "their", "with", "your"};
static const char *const wants_more[] = {"and", "as", "at", "by", "for", "from", "in", "on", "or", "to"};
static const char *const goes_on[] = {"and",  "are", "as",   "at",    "by",    "for",  "from", "has",
                                      "have", "in",  "is",   "of",    "on",    "or",   "per",  "that",
                                      "to",   "was", "were", "which", "while", "will", "with"};

/* Does the sentence of a line go on in the next one? Both are trimmed, neither is empty; `width` is the paragraph's
 * longest line. */
static int is_continued(piece line, piece next, size_t width) {
  if (is_only_marker(line)) return 1;
  if (measure_marker(next) || ends_sentence(line, next)) return 0;
  piece first = first_word(next), last = {line.end, line.end};
  while (last.start > line.start && is_ascii_letter(last.start[-1])) last.start--;
  int is_lower = u_islower((UChar32)first_char(next)), ends_lower = last.start < last.end && u_islower(*last.start);
  if (ends_lower && IS_WORD_IN(last, needs_more)) return 1;
  if (is_lower && IS_WORD_IN(first, goes_on) && !is_same_word(first, first_word(line))) return 1;
  if (width < WRAP_MIN || width > WRAP_MAX || count_chars(line) + 1 + count_chars(first) <= width) return 0;
  return is_lower || is_one_of(last_char(line), U",-–/&") || (ends_lower && IS_WORD_IN(last, wants_more));
}

/* --- sentences of a block */

typedef struct {
  const uint8_t *text;
  UBreakIterator *breaks;
  sw_spans *out;
  uint32_t byte, index; /* a place in the text and its code point */
} splitter;

static int put(splitter *s, piece p) {
  p = trim(p);
  if (p.start == p.end) return 0;
  sw_span span = {.byte_start = (uint32_t)(p.start - s->text), .byte_end = (uint32_t)(p.end - s->text)};
  span.start = s->index + (uint32_t)count_chars((piece){s->text + s->byte, p.start});
  span.end = span.start + (uint32_t)count_chars(p);
  s->byte = span.byte_end;
  s->index = span.end;
  return sw_spans_append(s->out, span);
}

/* Is a break that ICU sees after `sentence` (from where the last one ended) none? */
static int is_false_break(piece sentence, piece rest) {
  piece trimmed = trim_end(sentence);
  for (piece p = {trimmed.end, sentence.end}; p.start < p.end; p = after(p, first_char(p)))
    if (is_line_end(first_char(p))) return 1; /* a line of the block: is_continued has spoken */
  if (is_only_marker(trimmed)) return 1;
  piece next = trim_start(rest);
  if (is_abbreviation(trimmed, next)) return 1;
  if (trimmed.end < sentence.end) return 0;
  if (u_islower((UChar32)first_char(rest)) || is_one_of(first_char(rest), U",;:)]"))
    return 1;                                        /* …/page?id=1 and "etc.;" */
  piece before = {trimmed.start, previous(trimmed)}; /* .NET */
  return last_char(trimmed) == '.' && u_isalpha((UChar32)first_char(rest)) &&
         (before.start == before.end || is_space(last_char(before)) || is_one_of(last_char(before), U"([/,"));
}

static int split_block(splitter *s, piece block) {
  UErrorCode status = U_ZERO_ERROR;
  UText source = UTEXT_INITIALIZER;
  utext_openUTF8(&source, (const char *)block.start, block.end - block.start, &status);
  ubrk_setUText(s->breaks, &source, &status);
  const uint8_t *start = block.start;
  int failed = 0;
  for (int32_t at; U_SUCCESS(status) && !failed && (at = ubrk_next(s->breaks)) != UBRK_DONE;) {
    const uint8_t *end = block.start + at;
    if (end < block.end && is_false_break((piece){start, end}, (piece){end, block.end})) continue;
    failed = put(s, (piece){start, end});
    start = end;
  }
  utext_close(&source);
  if (U_FAILURE(status)) return sw_fail("ICU cannot split sentences: %s", u_errorName(status));
  return failed;
}

/* A block, without the bullets in the middle of its lines. */
static int split_items(splitter *s, piece block) {
  const uint8_t *start = block.start;
  int after_space = 0;
  for (piece p = trim_start(block); p.start < p.end;) {
    uint32_t c = first_char(p);
    if (after_space && is_one_of(c, inline_bullets) && !is_only_marker((piece){start, p.start})) {
      if (split_block(s, (piece){start, p.start})) return -1;
      start = p.start;
    }
    after_space = is_space(c);
    p = after(p, c);
  }
  return split_block(s, (piece){start, block.end});
}

static piece read_line(const uint8_t *start, const uint8_t *end) {
  piece line = {start, start};
  while (line.end < end) {
    uint32_t c = first_char((piece){line.end, end});
    if (is_line_end(c)) break;
    line.end = after((piece){line.end, end}, c).start;
  }
  return line;
}

static const uint8_t *skip_line_end(const uint8_t *p, const uint8_t *end) {
  if (p == end) return p;
  if (end - p > 1 && p[0] == '\r' && p[1] == '\n') return p + 2;
  return after((piece){p, end}, first_char((piece){p, end})).start;
}

/* Where the lines from `start` to the next blank one end, and the longest of them. */
static const uint8_t *measure_paragraph(const uint8_t *start, const uint8_t *end, size_t *width) {
  const uint8_t *p = start;
  *width = 0;
  while (p < end) {
    piece line = read_line(p, end), trimmed = trim(line);
    if (trimmed.start == trimmed.end) break;
    size_t chars = count_chars(trimmed);
    if (chars > *width) *width = chars;
    p = skip_line_end(line.end, end);
  }
  return p;
}

static int split_text(splitter *s, const uint8_t *p, const uint8_t *end) {
  while (p < end) {
    size_t width;
    const uint8_t *paragraph_end = measure_paragraph(p, end, &width);
    if (paragraph_end == p) { /* a blank line */
      p = skip_line_end(read_line(p, end).end, end);
      continue;
    }
    piece block = read_line(p, paragraph_end), line = trim(block);
    while ((p = skip_line_end(block.end, paragraph_end)) < paragraph_end) {
      piece next = read_line(p, paragraph_end), trimmed = trim(next);
      if (!is_continued(line, trimmed, width)) {
        if (split_items(s, block)) return -1;
        block.start = p;
      }
      block.end = next.end;
      line = trimmed;
    }
    if (split_items(s, block)) return -1;
  }
  return 0;
}

int sw_split_sentences(const char *text, size_t bytes, sw_spans *out) {
  out->count = 0;
  if (bytes > INT32_MAX) return sw_fail("a text of %zu bytes is too long to split: cut it", bytes);
  if (sw_check_utf8(text, bytes)) return -1;
  UErrorCode status = U_ZERO_ERROR;
  splitter s = {.text = (const uint8_t *)text, .out = out, .breaks = ubrk_open(UBRK_SENTENCE, "en", NULL, 0, &status)};
  if (U_FAILURE(status))
    return sw_fail("ICU has no sentence breaks (%s): install its data package", u_errorName(status));
  int failed = split_text(&s, s.text, s.text + bytes);
  ubrk_close(s.breaks);
  return failed;
}
