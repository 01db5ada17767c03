/* Boilerplate: paragraphs (lines) that stand in postings of many companies, such as equal-opportunity statements. A paragraph is known by the hash of
 * its words in lower case, where the company's own name counts as one word whatever it is; those with fewer than SW_BOILERPLATE_WORDS words
 * ("Requirements") are never boilerplate. Count all postings first, then strip. */
#ifndef SW_DATA_BOILERPLATE_H
#define SW_DATA_BOILERPLATE_H
#include "base/buffer.h"
#include <stdint.h>

enum { SW_BOILERPLATE_WORDS = 8 };
typedef struct sw_boilerplate sw_boilerplate;

/* Boilerplate is what at least min_companies companies say. */
int sw_boilerplate_open(int min_companies, sw_boilerplate **out);
/* Postings without a company ("") count as one of a company without name. UTF-8; as does sw_boilerplate_strip. */
int sw_boilerplate_count(sw_boilerplate *b, const char *company, const char *text);
/* Appends the text without its boilerplate; what was cut is counted. A text that is nothing else stays as it is. */
int sw_boilerplate_strip(sw_boilerplate *b, const char *company, const char *text, sw_buffer *out);
/* Lines cut so far. */
uint64_t sw_boilerplate_cut(const sw_boilerplate *b);
/* Appends one JSON object a line for each paragraph that was cut, in the order of the first cut:
 *   {"companies": 12, "postings": 40, "cut": 9, "text": "as the first posting had it"}   (companies are counted up to min_companies) */
int sw_boilerplate_report(const sw_boilerplate *b, sw_buffer *out);
void sw_boilerplate_close(sw_boilerplate *b);
#endif
