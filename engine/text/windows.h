/* Windows over a long sequence of words, so that nothing is cut: each window holds whole words, neighbours overlap, and
 * every word's result is taken from the one window where it has most context (in tokens, on its poorer side). */
#ifndef SW_TEXT_WINDOWS_H
#define SW_TEXT_WINDOWS_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
  uint32_t first, end; /* words of the window, half-open */
  uint32_t keep_first,
      keep_end; /* words whose result comes from this window; over all windows these cover each word once, in order */
} sw_word_window;

typedef struct {
  size_t count, capacity;
  sw_word_window *items; /* owned */
} sw_word_windows;
void sw_word_windows_close(sw_word_windows *windows);

/* `tokens[i]`: tokens of word i (0 is allowed; a word of more than max_tokens counts as max_tokens, its caller cuts its
 * last sub-words). max_tokens >= 1, without special tokens. overlap in [0, 0.9]: the share of a window that the next
 * one repeats; 0: disjoint windows. No words: no windows. Replaces what `out` held. */
int sw_word_windows_make(const uint32_t *tokens, size_t words, uint32_t max_tokens, double overlap,
                         sw_word_windows *out);
#endif
