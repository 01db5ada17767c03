#include "engine/text/skill_key.h"
#include "base/error.h"

#include <libstemmer.h>
#include <stdlib.h>
#include <string.h>
#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/ustring.h>

enum { MOST_CHARACTERS = 4096, MOST_WORDS = 4 * SW_MOST_KEY_WORDS };

typedef struct {
  int first, end; /* of the words */
} form;

struct sw_skill_keys {
  struct sb_stemmer *stemmer;
  const UNormalizer2 *decompose, *fold;
  UChar source[MOST_CHARACTERS], folded[MOST_CHARACTERS], apart[MOST_CHARACTERS];
  char *words[MOST_WORDS]; /* in text: those of the whole, of what is outside of parentheses, of what is inside, and with another last one */
  int num_words;
  sw_buffer text, key, word;
  form forms[SW_MOST_FORMS];
  int num_forms, plain;
};

/* --- lists --- */

static int in_list(const char *word, const char *const *list) {
  for (; *list; list++)
    if (!strcmp(word, *list)) return 1;
  return 0;
}

/* Said of a skill before its name: how well. */
static const char *const degrees[] = {"strong", "excellent", "good", "great", "basic", "advanced", "solid", "proven", "fluent", "proficient", "experienced",
                                      "skilled", "familiar", "modern", "very", "a", "an", "the", "in", "with", "of", "using", NULL};
/* The same where "of", "in", "with" or "to" follows. */
static const char *const nouns_of_degree[] = {"knowledge", "understanding", "experience", "expertise", "proficiency", "familiarity", "ability", "skill",
                                              "skills", "command", NULL};
static const char *const links[] = {"of", "in", "with", "to", NULL};
/* Said behind its name: what kind of thing it is. */
static const char *const kinds[] = {"skill", "skills", "knowledge", "experience", "expertise", "ability", "abilities", "proficiency", "certificate",
                                    "certification", "programming", "language", "framework", "library", "platform", "tool", "tools", "technique",
                                    "techniques", "method", "methods", "methodology", "methodologies", "principle", "principles", "practice",
                                    "practices", "concept", "concepts", "js", NULL};
static const char *const function_words[] = {"a", "an", "the", "of", "for", "in", "on", "to", "with", "and", "at", "by", "from", "or", "your", "own", NULL};
static const struct {
  const char *from, *to;
} short_forms[] = {{"mgmt", "management"}, {"mgt", "management"}, {"dev", "development"}, {"admin", "administration"}, {"ms", "microsoft"},
                   /* British endings, and "analysis" with its verb */
                   {"programme", "program"}, {NULL, NULL}},
  endings[] = {{"isation", "ization"}, {"isations", "izations"}, {"ise", "ize"}, {"ises", "izes"}, {"ised", "ized"}, {"ising", "izing"}, {"our", "or"},
               {"ours", "ors"}, {"ysis", "ys"}, {"yses", "ys"}, {"yse", "ys"}, {"yze", "ys"}, {"ysing", "ys"}, {"yzing", "ys"}, {"tre", "ter"},
               {"elling", "eling"}, {"elled", "eled"}, {"ence", "ense"}, {NULL, NULL}};

/* --- words --- */

static int is_latin_mark(UChar32 c) { return c >= 0x300 && c < 0x370; }

/* Folds `text` into k->apart; the number of UTF-16 units, or -1 with the message, or -2 where it is too long to name a skill. */
static int32_t fold(sw_skill_keys *k, const char *text, size_t bytes) {
  UErrorCode error = U_ZERO_ERROR;
  int32_t n = 0;
  if (bytes > MOST_CHARACTERS / 2) return -2;
  u_strFromUTF8(k->source, MOST_CHARACTERS, &n, text, (int32_t)bytes, &error);
  if (U_FAILURE(error)) return sw_fail("a skill's text is not UTF-8");
  n = unorm2_normalize(k->fold, k->source, n, k->folded, MOST_CHARACTERS, &error);
  if (U_SUCCESS(error)) n = unorm2_normalize(k->decompose, k->folded, n, k->apart, MOST_CHARACTERS, &error);
  return error == U_BUFFER_OVERFLOW_ERROR ? -2 : U_FAILURE(error) ? sw_fail("ICU cannot normalise a text: %s", u_errorName(error)) : n;
}

static int put_character(sw_buffer *out, UChar32 c) {
  char utf8[4];
  int32_t n = 0;
  UBool bad = 0;
  U8_APPEND((uint8_t *)utf8, n, 4, c, bad);
  return bad ? 0 : sw_buffer_append(out, utf8, (size_t)n);
}

/* What stays between letters and digits: see skill_key.h. `open`: the character before is part of a word; `letter`: the last word has one. */
static int is_kept(UChar32 c, UChar32 before, UChar32 after, int open, int letter) {
  if (c == '+' || c == '#') return before == c ? open : letter && (u_isalnum(before) || (before == ' ' && after == c)); /* "C ++", too */
  if (c != '.') return 0;
  return u_isdigit(before) ? u_isdigit(after) || after == 'x' : !u_isalnum(before) && before != '.' && u_isalpha(after);
}

/* Appends the words of units [begin, end) of k->apart to k->text, each ended by NUL, leaving out what is in parentheses. 1: too many words. */
static int split(sw_skill_keys *k, int32_t begin, int32_t end, int without_parentheses, form *out) {
  int depth = 0, open = 0, letter = 0;
  UChar32 before = ' ';
  *out = (form){k->num_words, k->num_words};
  for (int32_t i = begin; i < end;) {
    UChar32 c, after = ' ';
    U16_NEXT(k->apart, i, end, c);
    if (i < end) U16_GET(k->apart, begin, i, end, after);
    if (is_latin_mark(c) || c == '\'' || c == 0x2019) continue;
    depth += c == '(';
    const int hidden = without_parentheses && depth > 0;
    if (c == ')' && depth) depth--;
    const int word = u_isalnum(c) || (U_GET_GC_MASK(c) & U_GC_M_MASK), sign = is_kept(c, before, after, open, letter);
    const int begins = (word && (!open || before == '+' || before == '#')) || (sign && !open) || c == '&';
    if (hidden || !(word || sign || c == '&')) {
      if (open && sw_buffer_append(&k->text, "", 1)) return -1;
      open = 0;
    } else {
      if (begins) {
        if (open && sw_buffer_append(&k->text, "", 1)) return -1;
        if (out->end - out->first == SW_MOST_KEY_WORDS) return 1;
        k->words[k->num_words++] = NULL; /* set by place_words */
        out->end++;
        letter = 0;
      }
      letter |= u_isalpha(c);
      if (c == '&' ? sw_buffer_append(&k->text, "and", 4) : put_character(&k->text, c)) return -1;
      open = c != '&';
    }
    before = hidden ? ' ' : c;
  }
  return open ? sw_buffer_append(&k->text, "", 1) : 0;
}

/* Where each word begins, once k->text does not move any more. */
static void place_words(sw_skill_keys *k) {
  char *at = k->text.data;
  for (int i = 0; i < k->num_words; i++, at += strlen(at) + 1) k->words[i] = at;
}

/* --- forms --- */

static int same_words(const sw_skill_keys *k, form a, form b) {
  if (a.end - a.first != b.end - b.first) return 0;
  for (int i = 0; i < a.end - a.first; i++)
    if (strcmp(k->words[a.first + i], k->words[b.first + i])) return 0;
  return 1;
}

/* The form's number, which is an earlier one's where that has the same words; -1 where there is no room or no word. */
static int add_form(sw_skill_keys *k, form f) {
  for (int i = 0; i < k->num_forms; i++)
    if (same_words(k, k->forms[i], f)) return i;
  if (f.end == f.first || k->num_forms == SW_MOST_FORMS) return -1;
  k->forms[k->num_forms] = f;
  return k->num_forms++;
}

static int is_version(const char *word) {
  word += *word == 'v';
  if (!(*word >= '0' && *word <= '9')) return 0;
  for (; *word; word++)
    if (!(*word >= '0' && *word <= '9') && *word != '.' && *word != 'x') return 0;
  return 1;
}

/* "html5": the word's length without the digits, where three letters or more are left, otherwise 0. */
static size_t without_digits(const char *word) {
  size_t n = strlen(word);
  while (n && word[n - 1] >= '0' && word[n - 1] <= '9') n--;
  return word[n] && n >= 3 && word[n - 1] != '.' ? n : 0;
}

/* Versions and words that say how well or what kind of thing are taken off, one at a time. */
static int trim(sw_skill_keys *k, form f) {
  while (f.end - f.first > 1) {
    const char *first = k->words[f.first], *second = k->words[f.first + 1];
    if (in_list(first, degrees)) f.first++;
    else if (in_list(first, nouns_of_degree) && in_list(second, links)) f.first += f.end - f.first > 2 ? 2 : 1;
    else break;
    add_form(k, f);
  }
  const int plain = add_form(k, f);
  k->plain = plain < 0 ? 0 : plain;
  while (f.end - f.first > 1) {
    const char *last = k->words[f.end - 1];
    if (!is_version(last) && !in_list(last, kinds)) break;
    f.end--;
    add_form(k, f);
  }
  const char *last = f.end > f.first ? k->words[f.end - 1] : "";
  const size_t left = without_digits(last);
  if (!left) return 0;
  const int first = k->num_words;
  for (int i = f.first; i < f.end - 1; i++) k->words[k->num_words++] = k->words[i];
  char *copy = k->text.data + k->text.size; /* there is room for it: the text does not move */
  if (sw_buffer_append(&k->text, last, left) || sw_buffer_append(&k->text, "", 1)) return -1;
  k->words[k->num_words++] = copy;
  add_form(k, (form){first, k->num_words});
  return 0;
}

/* "SEO", "K8s", "LLMs": one short word with a capital, at least half of it capitals and digits. */
static int is_abbreviation(const char *text, size_t bytes) {
  size_t capitals = 0, digits = 0;
  for (size_t i = 0; i < bytes; i++) {
    if (text[i] == ' ') return 0;
    capitals += text[i] >= 'A' && text[i] <= 'Z';
    digits += text[i] >= '0' && text[i] <= '9';
  }
  return capitals && 2 * (capitals + digits) >= bytes && bytes <= 8;
}

int sw_skill_keys_read(sw_skill_keys *k, sw_form_kind kind, const char *text, size_t bytes) {
  form whole, outside, inside = {0, 0};
  k->num_words = k->num_forms = k->plain = 0;
  sw_buffer_clear(&k->text);
  int32_t n = fold(k, text, bytes), open = 0, close = 0;
  if (n < 0) return n == -2 ? 0 : -1;
  int status = split(k, 0, n, 0, &whole);
  if (!status) status = split(k, 0, n, 1, &outside);
  while (open < n && k->apart[open] != '(') open++;
  for (close = open; close < n && k->apart[close] != ')';) close++;
  const char *bracket = memchr(text, '(', bytes), *end = bracket ? memchr(bracket, ')', (size_t)(text + bytes - bracket)) : NULL;
  const int wanted = close < n && (kind == SW_FORMS_TEXT || (end && is_abbreviation(bracket + 1, (size_t)(end - bracket) - 1)));
  if (!status && wanted) status = split(k, open + 1, close, 0, &inside);
  if (!status) status = sw_buffer_reserve(&k->text, k->text.size + 1); /* for trim's copy */
  if (status) return status < 0 ? -1 : 0;
  place_words(k);
  add_form(k, whole);
  k->plain = add_form(k, outside);
  if (k->plain < 0) k->plain = 0;
  if (kind == SW_FORMS_TEXT && trim(k, outside.end > outside.first ? outside : whole)) return -1;
  if (wanted) add_form(k, inside);
  return k->num_forms;
}

int sw_skill_keys_plain(const sw_skill_keys *k) { return k->plain; }

/* --- keys --- */

static int ends_in(const char *word, size_t bytes, const char *ending) {
  const size_t n = strlen(ending);
  return bytes >= n + 2 && !memcmp(word + bytes - n, ending, n);
}

/* k->word: in American spelling, short forms written out unless words are joined: "Dev-Ops" is "DevOps". */
static int spell(sw_skill_keys *k, const char *word, int joined) {
  const size_t bytes = strlen(word);
  sw_buffer_clear(&k->word);
  for (int i = 0; short_forms[i].from && !joined; i++)
    if (!strcmp(word, short_forms[i].from)) return sw_buffer_append(&k->word, short_forms[i].to, strlen(short_forms[i].to));
  for (int i = 0; endings[i].from; i++)
    if (ends_in(word, bytes, endings[i].from))
      return sw_buffer_append(&k->word, word, bytes - strlen(endings[i].from)) || sw_buffer_append(&k->word, endings[i].to, strlen(endings[i].to)) ? -1 : 0;
  return sw_buffer_append(&k->word, word, bytes);
}

/* Harman, "How effective is suffixing?", 1991: the S stemmer, and "boxes", "processes". */
static void make_singular(sw_buffer *word) {
  char *w = word->data;
  const size_t n = word->size;
  if (n < 4 || w[n - 1] != 's' || strchr("us'", w[n - 2])) return;
  if (n > 4 && !memcmp(w + n - 3, "ies", 3)) {
    w[n - 3] = 'y';
    word->size -= 2;
  } else if (n > 5 && (!memcmp(w + n - 4, "sses", 4) || !memcmp(w + n - 4, "ches", 4) || !memcmp(w + n - 4, "shes", 4) || !memcmp(w + n - 3, "xes", 3)))
    word->size -= 2;
  else
    word->size--;
  w[word->size] = 0;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int sort_key(sw_skill_keys *k, form f) {
  char *stems[SW_MOST_KEY_WORDS];
  int count = 0, status = 0;
  for (int i = f.first; i < f.end && !status; i++) {
    if (in_list(k->words[i], function_words)) continue;
    if (spell(k, k->words[i], 0)) status = -1;
    if (status) break;
    make_singular(&k->word);
    const char *w = k->word.data;
    const size_t n = k->word.size;
    const int person = n > 4 && (!memcmp(w + n - 2, "er", 2) || !memcmp(w + n - 2, "or", 2) || !memcmp(w + n - 3, "ist", 3));
    const char *stem = person ? w : (const char *)sb_stemmer_stem(k->stemmer, (const sb_symbol *)w, (int)n);
    if (!stem) status = sw_fail_memory("libstemmer wanted some");
    else if (!(stems[count] = sw_strdup(stem))) status = -1;
    else count++;
  }
  if (!status && count > 1) {
    qsort(stems, (size_t)count, sizeof *stems, by_bytes);
    for (int i = 0; i < count && !status; i++) status = sw_buffer_print(&k->key, "%s%s", i ? " " : "", stems[i]);
  }
  while (count) free(stems[--count]);
  return status;
}

const char *sw_skill_key(sw_skill_keys *k, int number, sw_key_kind kind) {
  const form f = k->forms[number];
  sw_buffer_clear(&k->key);
  if (sw_buffer_append(&k->key, "", 0)) return NULL;
  if (kind == SW_KEY_SORTED) return sort_key(k, f) ? NULL : k->key.size ? k->key.data : "";
  for (int i = f.first; i < f.end; i++) {
    if (i > f.first && kind != SW_KEY_JOINED && sw_buffer_append(&k->key, " ", 1)) return NULL;
    if (kind == SW_KEY_WORDS) {
      if (sw_buffer_append(&k->key, k->words[i], strlen(k->words[i]))) return NULL;
      continue;
    }
    if (spell(k, k->words[i], kind == SW_KEY_JOINED)) return NULL;
    if (i + 1 == f.end && kind == SW_KEY_SINGULAR) make_singular(&k->word);
    if (sw_buffer_append(&k->key, k->word.data, k->word.size)) return NULL;
  }
  if (kind == SW_KEY_JOINED) make_singular(&k->key);
  return k->key.data;
}

/* --- */

void sw_skill_keys_close(sw_skill_keys *k) {
  if (!k) return;
  if (k->stemmer) sb_stemmer_delete(k->stemmer);
  sw_buffer_close(&k->text);
  sw_buffer_close(&k->key);
  sw_buffer_close(&k->word);
  free(k);
}

int sw_skill_keys_open(sw_skill_keys **out) {
  UErrorCode error = U_ZERO_ERROR;
  *out = NULL;
  sw_skill_keys *k = sw_alloc(sizeof *k);
  if (!k) return -1;
  k->stemmer = sb_stemmer_new("english", "UTF_8");
  k->fold = unorm2_getNFKCCasefoldInstance(&error);
  k->decompose = unorm2_getNFDInstance(&error);
  if (!k->stemmer || U_FAILURE(error)) {
    sw_skill_keys_close(k);
    return sw_fail("%s", U_FAILURE(error) ? "ICU's normalisation data cannot be had" : "libstemmer has no stemmer 'english'");
  }
  *out = k;
  return 0;
}
