#include "engine/text/windows.h"
#include "base/error.h"

#include <stdlib.h>

void sw_word_windows_close(sw_word_windows *windows) {
  free(windows->items);
  *windows = (sw_word_windows){0};
}

static int append(sw_word_windows *windows, sw_word_window window) {
  if (windows->count == windows->capacity) {
    size_t capacity = windows->capacity ? 2 * windows->capacity : 4;
    sw_word_window *items = sw_realloc_array(windows->items, capacity, sizeof *items);
    if (!items) return -1;
    windows->items = items;
    windows->capacity = capacity;
  }
  windows->items[windows->count++] = window;
  return 0;
}

static uint32_t tokens_of(const uint32_t *tokens, size_t word, uint32_t max_tokens) {
  return tokens[word] < max_tokens ? tokens[word] : max_tokens;
}

/* The word at which the later of two overlapping windows takes over: the first of the shared words [first, end) that
 * has at least as many tokens before it in the later window as it has after it in the earlier one. */
static size_t take_over(const uint32_t *tokens, size_t first, size_t end, uint32_t max_tokens) {
  uint64_t before = 0, after = 0;
  for (size_t i = first; i < end; i++) after += tokens_of(tokens, i, max_tokens);
  for (size_t i = first; i < end; i++) {
    uint32_t own = tokens_of(tokens, i, max_tokens);
    after -= own;
    if (before >= after) return i;
    before += own;
  }
  return end;
}

int sw_word_windows_make(const uint32_t *tokens, size_t words, uint32_t max_tokens, double overlap,
                         sw_word_windows *out) {
  out->count = 0;
  if (max_tokens == 0) return sw_fail("a window must have room for one token at least");
  if (!(overlap >= 0 && overlap <= 0.9))
    return sw_fail("the overlap of windows must be from 0 to 0.9, not %g", overlap);
  if (words > UINT32_MAX) return sw_fail("a text of %zu words is too long", words);
  const uint64_t repeat = (uint64_t)(overlap * max_tokens);
  size_t first = 0;
  while (first < words) {
    size_t end = first;
    uint64_t sum = 0;
    while (end < words && sum + tokens_of(tokens, end, max_tokens) <= max_tokens)
      sum += tokens_of(tokens, end++, max_tokens);
    sw_word_window window = {(uint32_t)first, (uint32_t)end, (uint32_t)first, (uint32_t)end};
    if (out->count) {
      sw_word_window *last = &out->items[out->count - 1];
      last->keep_end = window.keep_first = (uint32_t)take_over(tokens, first, last->end, max_tokens);
    }
    if (append(out, window)) return -1;
    if (end == words) break;
    /* The next window starts as far back as the overlap allows, but after this one's start and with room for the first
     * word that this one could not hold, so that every window gets on. */
    const uint64_t room = max_tokens - tokens_of(tokens, end, max_tokens), limit = repeat < room ? repeat : room;
    size_t next = end;
    uint64_t shared = 0;
    while (next > first + 1 && shared + tokens_of(tokens, next - 1, max_tokens) <= limit)
      shared += tokens_of(tokens, --next, max_tokens);
    first = next;
  }
  return 0;
}
