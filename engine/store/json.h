/* JSON from outside, by jansson: parsed with one-line errors, read with checked types, written in one canonical form.
 */
#ifndef SW_STORE_JSON_H
#define SW_STORE_JSON_H
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* Parses a whole text; duplicate keys are refused; an integer beyond 64 bits (Hugging Face writes 1e30 as one) makes
 * every number of the text a real. NULL on failure, with `what` and the line in the message. */
json_t *sw_json_parse(const char *text, size_t bytes, const char *what);
/* The same of a file of at most `limit` bytes. */
json_t *sw_json_read(const char *path, size_t limit);
/* Parses one row of many, where a bad one is set aside: 0 with *out, which is NULL where the row is not valid JSON and
 * `error` says why; -1 where memory ran out, which is no fault of the row. */
int sw_json_row(const char *text, size_t bytes, size_t flags, json_t **out, json_error_t *error);
/* Sorted keys, no spaces, UTF-8, as few digits as give every real number back exactly; free() it, NULL on failure. */
char *sw_json_canonical(const json_t *value);
/* The same, indented by two spaces with a line break at the end: for files that people read. */
char *sw_json_pretty(const json_t *value);

/* A whole number (also one written as 2.0) of `object`; an absent or null key gives `fallback`. Fails outside [low,
 * high] and on another type, naming `what` and the key. */
int sw_json_integer(const json_t *object, const char *key, int64_t low, int64_t high, int64_t fallback,
                    const char *what, int64_t *out);
/* true/false; an absent or null key gives `fallback`. */
int sw_json_boolean(const json_t *object, const char *key, int fallback, const char *what, int *out);
/* A string of `object`, or NULL when the key is absent or no string. Borrowed. */
const char *sw_json_string(const json_t *object, const char *key);
#endif
