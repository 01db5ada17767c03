/* Names for clusters of texts: the words that set each apart from the others, by class-based TF-IDF (Grootendorst, "BERTopic: neural topic modeling with
 * a class-based TF-IDF procedure", 2022): a word t of a cluster c scores tf(t, c) log(1 + A / f(t)), where tf counts it in the cluster, f in all
 * of them, and A is the mean number of words of a cluster. Stop words (stems.h) do not count. */
#ifndef SW_SPACE_NAMES_H
#define SW_SPACE_NAMES_H
#include <stddef.h>

typedef struct sw_names sw_names;

int sw_names_open(int clusters, sw_names **out);
void sw_names_close(sw_names *names);
/* Counts a text of a cluster. Fails on what is not UTF-8. */
int sw_names_add(sw_names *names, int cluster, const char *text, size_t bytes);
/* names[clusters]: the cluster's `terms` best words, " / " between them ("" without texts), to be freed one by one; of equal words the first
 * in the order of their bytes. */
int sw_names_make(const sw_names *names, int terms, char **out);
#endif
