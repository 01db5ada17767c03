/* A taxonomy of skills, read from CSV, and the skill that a text names by its words: exactly, or by the keys of engine/text/skill_key.h.
 *
 * Columns are named, or found: ESCO's (conceptUri, preferredLabel, altLabels, hiddenLabels), O*NET's (Element ID, Element Name; or Example, of its
 * technology skills, which have no id but their name) or one's own (id, label, alternatives, parent). Alternatives stand between "|" or line breaks.
 * A row without id or label, and one that gives an id another label or a label another id, is set aside; rows of the same id and label are one. */
#ifndef SW_SPACE_TAXONOMY_H
#define SW_SPACE_TAXONOMY_H
#include "base/table.h"
#include "engine/text/skill_key.h"

typedef struct {
  const char *id, *label, *alternatives, *parent; /* NULL: found by the names above */
} sw_taxonomy_columns;

typedef struct {
  const char *id, *label, *parent; /* parent: "" where there is none */
} sw_taxonomy_skill;

typedef struct {
  char *text;     /* as it stands in the taxonomy */
  uint32_t skill;
  int is_label;
} sw_taxonomy_term;

typedef struct {
  size_t num_skills, num_terms;
  sw_taxonomy_skill *skills; /* in the order of the file */
  sw_taxonomy_term *terms;   /* labels and alternatives */
  uint64_t rejected;         /* rows set aside */
  char reason[256];          /* of the last of them */
  uint64_t unknown_parents;  /* skills whose parent is no id of the file */
  /* its own */
  size_t skill_capacity, term_capacity;
  sw_table ids, labels, parents, keys;
  struct sw_taxonomy_entry *entries; /* [keys.count] */
  size_t entry_capacity;
} sw_taxonomy;

/* Fails where the file cannot be read, lacks a column or has no usable row. */
int sw_taxonomy_open(const char *path, const sw_taxonomy_columns *columns, sw_skill_keys *keys, sw_taxonomy *out);
void sw_taxonomy_close(sw_taxonomy *taxonomy);

typedef enum { SW_LINK_NONE, SW_LINK_LABEL, SW_LINK_ALTERNATIVE, SW_LINK_NORMALISED, SW_LINK_EMBEDDING, SW_LINK_AMBIGUOUS, SW_LINK_REASONS } sw_link_reason;
/* "unlinked", "label", "alternative", "normalised", "embedding", "ambiguous" */
extern const char *const sw_link_reasons[SW_LINK_REASONS];

/* The term that a text names: SW_LINK_LABEL and SW_LINK_ALTERNATIVE where it is one, letter by letter; SW_LINK_NORMALISED by the first key that any term has,
 * a label's before an alternative's; SW_LINK_AMBIGUOUS where that key is of several skills; SW_LINK_NONE. -1: failure. */
int sw_taxonomy_find(const sw_taxonomy *taxonomy, sw_skill_keys *keys, const char *text, size_t bytes, sw_link_reason *reason, uint32_t *term);
#endif
