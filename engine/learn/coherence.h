/* How well a topic's top words go together in documents (Röder, Both, Hinneburg, "Exploring the Space of Topic Coherence Measures", 2015),
 * as gensim's CoherenceModel computes it:
 *
 *   u_mass  mean over pairs of top words, the rarer rank first, of log((D(v, w) / D + e) / (D(w) / D)), D(...) counting documents
 *           (Mimno et al., 2011)
 *   c_npmi  mean over pairs of log((P(v, w) + e) / (P(v) P(w))) / -log(P(v, w) + e), P(...) being the part of all windows of 10 words, moved on by one
 *           word at a time, that hold the words; a shorter document is one window; documents without any topic's top word do not count
 *           (Bouma, 2009)
 *
 * e is 1e-12. A pair of which a word never occurs counts as 0. */
#ifndef SW_LEARN_COHERENCE_H
#define SW_LEARN_COHERENCE_H
#include "engine/data/documents.h"

enum { SW_COHERENCE_WINDOW = 10 };

/* top [topics][n]: ids of the documents (counted from 1), each topic's distinct, best first. Counts the documents that are not held out. u_mass and
 * c_npmi: [topics], the mean over the topics behind them: [topics + 1]. */
int sw_coherence(const sw_documents *documents, const int32_t *top, size_t topics, size_t n, double *u_mass, double *c_npmi);
#endif
