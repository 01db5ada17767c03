/* How far two files of labels agree about the sentences that both have: F1 of whole spans, and Cohen's kappa of the words' tags (J. Cohen, "A coefficient
 * of agreement for nominal scales", 1960), which is 0 where they agree as often as chance would have it. */
#ifndef SW_LABEL_AUDIT_H
#define SW_LABEL_AUDIT_H

/* Prints a table, or JSON, to standard output: a row for each label of `gold`. Fails where no sentence is in both. */
int sw_label_audit(const char *gold, const char *labels, int json);
#endif
