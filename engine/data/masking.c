#include "engine/data/masking.h"
#include "base/error.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>

enum { STREAM_MASKING = 4, NOT_CHOSEN = -1 };

int sw_masking_open(const sw_tokenizer *tokenizer, double share, int whole_words, sw_masking *out) {
  const sw_special_ids s = sw_tokenizer_special_ids(tokenizer);
  const int32_t special[] = {s.unk, s.cls, s.sep, s.pad, s.mask};
  const size_t vocab = sw_tokenizer_vocab_size(tokenizer);
  *out = (sw_masking){.share = share, .whole_words = whole_words, .mask = s.mask, .vocab_size = (int32_t)vocab};
  if (s.mask < 0) return sw_fail("the vocabulary has no [MASK] token, which a masked language model needs");
  if (vocab <= sizeof special / sizeof *special) return sw_fail("the vocabulary has special tokens only");
  if (!(out->kinds = sw_alloc_array(vocab, 1))) return -1;
  for (size_t i = 0; i < vocab; i++)
    if (sw_tokenizer_continues(tokenizer, (int32_t)i)) out->kinds[i] = SW_TOKEN_CONTINUES;
  for (size_t i = 0; i < sizeof special / sizeof *special; i++) out->kinds[special[i]] = SW_TOKEN_SPECIAL;
  return 0;
}

void sw_masking_close(sw_masking *m) {
  free(m->kinds);
  *m = (sw_masking){0};
}

/* The token, or word, that begins at `start`: where it ends. */
static int32_t end_of(const sw_masking *m, const int32_t *ids, int32_t length, int32_t start) {
  int32_t end = start + 1;
  while (m->whole_words && end < length && m->kinds[ids[end]] == SW_TOKEN_CONTINUES) end++;
  return end;
}

static int32_t replacement(const sw_masking *m, sw_random *random, int32_t id) {
  const uint32_t action = sw_random_below(random, 10);
  if (action < 8) return m->mask;
  if (action == 9) return id;
  do id = (int32_t)sw_random_below(random, (uint32_t)m->vocab_size);
  while (m->kinds[id] == SW_TOKEN_SPECIAL);
  return id;
}

int32_t sw_mask(const sw_masking *m, uint64_t seed, uint32_t epoch, uint32_t item, int32_t *ids, int32_t length, int32_t *positions,
                int32_t *labels) {
  sw_random random = {.seed = seed, .stream = (uint64_t)STREAM_MASKING << 56 | (uint64_t)epoch << 32 | item};
  int32_t *starts = positions, units = 0, candidates = 0, chosen = 0; /* of the tokens or words: positions are found last */
  for (int32_t i = 0; i < length; i++) labels[i] = NOT_CHOSEN;
  for (int32_t i = 0, end; i < length; i = end) {
    end = end_of(m, ids, length, i);
    if (m->kinds[ids[i]] == SW_TOKEN_SPECIAL) {
      end = i + 1;
      continue;
    }
    starts[units++] = i;
    candidates += end - i;
  }
  if (!units) return 0;
  int32_t wanted = (int32_t)lrint(m->share * candidates);
  if (wanted < 1) wanted = 1;
  for (int32_t i = 0; i < units && chosen < wanted; i++) { /* Fisher-Yates, as far as it is needed */
    const int32_t k = i + (int32_t)sw_random_below(&random, (uint32_t)(units - i)), start = starts[k];
    starts[k] = starts[i];
    starts[i] = start;
    const int32_t end = end_of(m, ids, length, start);
    if (chosen + end - start > wanted) continue;
    for (int32_t t = start; t < end; t++) labels[t] = ids[t];
    chosen += end - start;
  }
  if (!chosen) /* every word is longer than the share */
    for (int32_t t = starts[0], end = end_of(m, ids, length, t); t < end; t++) labels[t] = ids[t];
  int32_t count = 0;
  for (int32_t t = 0; t < length; t++) {
    if (labels[t] == NOT_CHOSEN) continue;
    ids[t] = replacement(m, &random, ids[t]);
    positions[count] = t;
    labels[count++] = labels[t];
  }
  return count;
}
