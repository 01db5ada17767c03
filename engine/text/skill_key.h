/* Keys that unify how a skill is written: texts with the same key name the same skill.
 *
 * A text becomes words: NFKC, case folding and without Latin accents (Unicode Standard Annex 15); what is neither letter nor digit separates,
 * but "+" and "#" behind a letter ("c++", "c#"), a point before one that stands free (".net") and a point within a number ("3.11") stay,
 * and "&" is "and". Four keys of the same words, each looser than the one before:
 *   SW_KEY_WORDS     the words, with a space between
 *   SW_KEY_SINGULAR  British endings as American ones ("-isation"), common short forms written out ("mgmt"), the last word in the singular
 *   SW_KEY_JOINED    the same without spaces, and short forms as they are: "Java Script" is "JavaScript"
 *   SW_KEY_SORTED    two or more words without "of", "the" ..., as stems (Snowball's "english"), sorted: "management of projects" is
 *                    "project management"; who does a thing ("manager") is not the doing of it. "" for one word: that is too little to stem. */
#ifndef SW_TEXT_SKILL_KEY_H
#define SW_TEXT_SKILL_KEY_H
#include "base/buffer.h"
#include <stddef.h>

typedef enum { SW_KEY_WORDS, SW_KEY_SINGULAR, SW_KEY_JOINED, SW_KEY_SORTED, SW_KEYS } sw_key_kind;

/* What a text may mean, the whole of it first:
 *   of a taxonomy's term   without what is in parentheses; of "search engine optimisation (SEO)" the "SEO", too
 *   of a text in postings  moreover without what says how well or which one: "good knowledge of", "skills", versions ("Python 3.11", "HTML5",
 *                          "v2"), "framework", "library" and the like; and what is in parentheses */
typedef enum { SW_FORMS_TERM, SW_FORMS_TEXT } sw_form_kind;

enum { SW_MOST_FORMS = 12, SW_MOST_KEY_WORDS = 32 };

/* Keeps a stemmer's state: one a thread. */
typedef struct sw_skill_keys sw_skill_keys;
int sw_skill_keys_open(sw_skill_keys **out);
void sw_skill_keys_close(sw_skill_keys *keys);

/* Reads a text: the number of its forms; 0 where it has no letter or digit, or more than SW_MOST_KEY_WORDS words; -1 on failure (what is not UTF-8). */
int sw_skill_keys_read(sw_skill_keys *keys, sw_form_kind kind, const char *text, size_t bytes);
/* A key of form `form`; valid until the next call. NULL on failure. */
const char *sw_skill_key(sw_skill_keys *keys, int form, sw_key_kind kind);
/* The form that is compared by meaning: without parentheses and what says how well. */
int sw_skill_keys_plain(const sw_skill_keys *keys);
#endif
