#include "engine/text/unicode.h"
#include "base/error.h"

#include <pthread.h>
#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/utf16.h>

enum { CATEGORIES_UNICODE = 8, NORMALIZATION_UNICODE = 9, CASE_UNICODE = 17 }; /* unicode.h says whose */

typedef struct {
  uint32_t first, last;
} range;

static const range cjk_ranges[] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},   {0x20000, 0x2A6DF},
                                   {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};

/* Characters whose general category changed after Unicode 8. */
static const range was_punctuation[] = {{0x166D, 0x166D}, {0x111C9, 0x111C9}};
static const range was_mark[] = {{0x1734, 0x1734}};
static const range was_no_mark[] = {{0x1885, 0x1886}, {0xA9BD, 0xA9BD}, {0x111C9, 0x111C9}};

/* Lower-case mappings that came with Unicode 16 and 17: first..last go to `lower` and what follows it. */
static const struct {
  uint32_t first, last, lower;
} new_lower[] = {{0x1C89, 0x1C89, 0x1C8A},   {0xA7CB, 0xA7CB, 0x264},  {0xA7CC, 0xA7CC, 0xA7CD},
                 {0xA7CE, 0xA7CE, 0xA7CF},   {0xA7D2, 0xA7D2, 0xA7D3}, {0xA7D4, 0xA7D4, 0xA7D5},
                 {0xA7DA, 0xA7DA, 0xA7DB},   {0xA7DC, 0xA7DC, 0x19B},  {0x10D50, 0x10D65, 0x10D70},
                 {0x16EA0, 0x16EB8, 0x16EBB}};

#define IS_IN(ranges, c) is_in(ranges, sizeof(ranges) / sizeof(ranges)[0], c)
static int is_in(const range *ranges, size_t count, uint32_t c) {
  for (size_t i = 0; i < count; i++)
    if (c >= ranges[i].first && c <= ranges[i].last) return 1;
  return 0;
}

static int is_as_old_as(uint32_t c, uint8_t version) {
  UVersionInfo age;
  u_charAge((UChar32)c, age);
  return age[0] && age[0] <= version; /* 0: not assigned */
}

static const UNormalizer2 *nfd;
static UErrorCode nfd_status = U_ZERO_ERROR;
static void open_nfd(void) {
  nfd = unorm2_getNFDInstance(&nfd_status);
}

int sw_unicode_open(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, open_nfd);
  if (U_FAILURE(nfd_status))
    return sw_fail("ICU has no normalisation data (%s): install its data package", u_errorName(nfd_status));
  return 0;
}

size_t sw_char_decompose(uint32_t c, uint32_t out[SW_DECOMPOSITION_MAX]) {
  UChar units[2 * SW_DECOMPOSITION_MAX];
  UErrorCode status = nfd_status;
  int32_t length = unorm2_getDecomposition(nfd, (UChar32)c, units, 2 * SW_DECOMPOSITION_MAX, &status), i = 0;
  size_t count = 0;
  out[0] = c;
  if (length < 0 || U_FAILURE(status) || !is_as_old_as(c, NORMALIZATION_UNICODE)) return 1;
  while (i < length && count < SW_DECOMPOSITION_MAX) {
    UChar32 d;
    U16_NEXT(units, i, length, d);
    out[count++] = (uint32_t)d;
  }
  return count;
}

uint8_t sw_char_combining_class(uint32_t c) {
  return is_as_old_as(c, NORMALIZATION_UNICODE) ? u_getCombiningClass((UChar32)c) : 0;
}

size_t sw_char_lower(uint32_t c, uint32_t out[2]) {
  if (c == 0x130) { /* capital I with dot above */
    out[0] = 'i';
    out[1] = 0x307;
    return 2;
  }
  out[0] = c;
  for (size_t i = 0; i < sizeof new_lower / sizeof new_lower[0]; i++)
    if (c >= new_lower[i].first && c <= new_lower[i].last) {
      out[0] = new_lower[i].lower + (c - new_lower[i].first);
      return 1;
    }
  uint32_t lower = (uint32_t)u_tolower((UChar32)c);
  if (lower != c && is_as_old_as(c, CASE_UNICODE)) out[0] = lower;
  return 1;
}

static uint8_t find_class(uint32_t c) {
  int8_t category = u_charType((UChar32)c);
  unsigned mask = 1u << category, class = 0;
  int is_ascii_punctuation = c < 0x80 && c > ' ' && c != 0x7F && !(mask & (U_GC_L_MASK | U_GC_ND_MASK));
  if (u_isUWhiteSpace((UChar32)c)) class |= SW_CHAR_SPACE;
  if (is_ascii_punctuation || IS_IN(was_punctuation, c) || (mask & U_GC_P_MASK && is_as_old_as(c, CATEGORIES_UNICODE)))
    class |= SW_CHAR_PUNCTUATION;
  if (IS_IN(cjk_ranges, c)) class |= SW_CHAR_CJK;
  if (c == 0xFFFD || mask & (U_GC_CC_MASK | U_GC_CO_MASK) ||
      (mask & U_GC_CF_MASK && is_as_old_as(c, CATEGORIES_UNICODE)))
    class |= SW_CHAR_CONTROL;
  if (c == '\t' || c == '\n' || c == '\r') class &= ~(unsigned)SW_CHAR_CONTROL;
  if (IS_IN(was_mark, c) || (mask & U_GC_MN_MASK && !IS_IN(was_no_mark, c) && is_as_old_as(c, CATEGORIES_UNICODE)))
    class |= SW_CHAR_MARK;
  if (sw_char_combining_class(c)) class |= SW_CHAR_REORDERS;

  uint32_t other[SW_DECOMPOSITION_MAX];
  if (sw_char_decompose(c, other) > 1 || other[0] != c) class |= SW_CHAR_DECOMPOSES;
  if (sw_char_lower(c, other) > 1 || other[0] != c) class |= SW_CHAR_UPPER;
  return (uint8_t) class;
}

uint8_t sw_char_classes[SW_CODE_POINTS];
_Atomic uint8_t sw_char_pages_ready[SW_CODE_POINTS / SW_CHAR_PAGE];

void sw_char_fill_page(uint32_t page) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&lock);
  sw_unicode_open(); /* should it fail, no tokenizer opens, and only a tokenizer asks for decompositions */
  if (!atomic_load_explicit(&sw_char_pages_ready[page], memory_order_relaxed)) {
    for (uint32_t c = page * SW_CHAR_PAGE; c < (page + 1) * SW_CHAR_PAGE; c++) sw_char_classes[c] = find_class(c);
    atomic_store_explicit(&sw_char_pages_ready[page], 1, memory_order_release);
  }
  pthread_mutex_unlock(&lock);
}
