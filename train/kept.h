/* Resumable checkpoints by number, "<stem>.step-<n>.h5" beside the output: the newest few of <stem>.last.h5, to go back to. They are hard
 * links of it as it was, so that none is written twice. */
#ifndef SW_TRAIN_KEPT_H
#define SW_TRAIN_KEPT_H
#include <stddef.h>
#include <stdint.h>

/* The steps that have one, ascending; free() *steps. */
int sw_kept_list(const char *output, int64_t **steps, size_t *count);
/* "<stem>.step-<n>.h5"; free() it. */
char *sw_kept_path(const char *output, int64_t step);
/* Makes room for `step` among `keep`: of the others the keep - 1 newest stay. */
int sw_kept_prune(const char *output, int64_t step, int keep);
/* Gives <stem>.last.h5, just written, its numbered name. 1: this file system has no links, and the caller has to write it again. */
int sw_kept_link(const char *output, const char *last_path, int64_t step);
/* Removes those of later steps than `step`. */
int sw_kept_cut(const char *output, int64_t step);
#endif
