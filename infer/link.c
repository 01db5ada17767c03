/* skillwatch infer link: tagged spans to the skills of a taxonomy. */
#include "base/error.h"
#include "base/file.h"
#include "engine/data/csv.h"
#include "engine/data/rows.h"
#include "engine/space/leaders.h"
#include "engine/space/taxonomy.h"
#include "engine/store/config_file.h"
#include "engine/store/json.h"
#include "infer/corpus.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1024, NEIGHBOURS = 32, FEWEST_BYTES = 3 };

typedef struct {
  sw_infer_options infer;
  const char *taxonomy, *candidates;
  sw_taxonomy_columns columns;
  double threshold, margin, similarity;
  int exact_only;
} link_options;

/* A text that spans have, letter by letter. */
typedef struct {
  uint64_t spans;
  sw_link_reason reason;
  uint32_t term; /* of the taxonomy, where there is a link */
  float score;
  int64_t query; /* where there is none after the keys; -1: it is too long for a skill, or has no letter or digit */
} text_facts;

/* Unlinked texts with the same key: they are embedded, and go into the candidates, as one. */
typedef struct {
  char *plain; /* what is embedded */
  uint64_t spans;
  uint32_t first_text; /* the most frequent of them */
  int64_t leader;
  int64_t nearest; /* a term, or -1 */
  float score;     /* its cosine */
  sw_link_reason reason;
  uint32_t term;
} query;

typedef struct {
  sw_infer_session session;
  const link_options *options;
  sw_skill_keys *keys;
  sw_taxonomy taxonomy;
  sw_table texts;
  text_facts *facts; /* [texts.count] */
  size_t fact_capacity;
  uint32_t *order; /* [texts.count] the most frequent first */
  sw_table query_keys;
  query *queries; /* [query_keys.count] */
  uint64_t postings, spans, linked[SW_LINK_REASONS]; /* spans by reason */
} link_job;

/* --- the tags --- */

/* What is done with each row: returns 0, -1, or 1 where `reason` says why the row is set aside. */
typedef int (*row_visitor)(link_job *job, json_t *row, void *context, char reason[160]);

/* 0 where the row is a tagged posting. */
static int check_row(const json_t *row, char reason[160]) {
  const json_t *spans = json_object_get(row, "spans");
  if (!json_is_array(spans)) return snprintf(reason, 160, "no tagged posting: \"spans\" is missing or no array"), 1;
  for (size_t i = 0; i < json_array_size(spans); i++)
    if (!sw_json_string(json_array_get(spans, i), "text")) return snprintf(reason, 160, "span %zu has no \"text\"", i + 1), 1;
  return 0;
}

static int read_tags(link_job *job, const char *path, row_visitor visit, void *context, int keep_rejects) {
  sw_window window;
  sw_rows rows;
  const char *text;
  size_t bytes;
  uint64_t line;
  int status;
  if (sw_window_open(&window, path, 0) || sw_rows_open(&rows, window, path, 0)) return -1;
  while ((status = sw_rows_next(&rows, &text, &bytes, &line)) > 0) {
    char reason[160] = "the row is longer than 8 MiB";
    json_t *row = NULL;
    json_error_t error;
    int aside = status == SW_ROW_LONG;
    if (!aside && (status = sw_json_row(text, bytes, JSON_REJECT_DUPLICATES, &row, &error)) < 0) break;
    if (!aside && !row) aside = 1, snprintf(reason, sizeof reason, "no JSON: %.120s", error.text);
    if (!aside) aside = check_row(row, reason);
    if (!aside) aside = visit(job, row, context, reason);
    json_decref(row);
    status = aside < 0 || (aside && keep_rejects && sw_rejects_add(&job->session.rejects, path, line, reason, text, bytes)) ? -1 : 0;
    if (status) break;
  }
  sw_rows_close(&rows);
  return status;
}

/* A span's text without white space around it. */
static char *span_text(const json_t *span) {
  const char *text = sw_json_string(span, "text");
  size_t n = strlen(text);
  while (n && isspace((unsigned char)text[n - 1])) n--;
  while (n && isspace((unsigned char)*text)) text++, n--;
  return sw_strndup(text, n);
}

static int count_row(link_job *job, json_t *row, void *context, char reason[160]) {
  const json_t *spans = json_object_get(row, "spans");
  for (size_t i = 0; i < json_array_size(spans); i++) {
    char *text = span_text(json_array_get(spans, i));
    const int64_t at = text ? sw_table_add(&job->texts, text) : -1;
    free(text);
    if (at < 0) return -1;
    if (job->texts.count > job->fact_capacity) {
      const size_t larger = 2 * job->fact_capacity + 1024;
      text_facts *facts = sw_realloc_array(job->facts, larger, sizeof *facts);
      if (!facts) return -1;
      memset(facts + job->fact_capacity, 0, (larger - job->fact_capacity) * sizeof *facts);
      job->facts = facts;
      job->fact_capacity = larger;
    }
    job->facts[at].spans++;
    job->spans++;
  }
  job->postings++;
  return 0;
}

static json_t *describe(const link_job *job, const text_facts *f) {
  if (f->reason == SW_LINK_NONE || f->reason == SW_LINK_AMBIGUOUS) return json_null();
  const sw_taxonomy_term *term = &job->taxonomy.terms[f->term];
  const sw_taxonomy_skill *skill = &job->taxonomy.skills[term->skill];
  return json_pack("{s:s, s:s, s:s*, s:s, s:f, s:s}", "id", skill->id, "label", skill->label, "parent", *skill->parent ? skill->parent : NULL, "reason",
                   sw_link_reasons[f->reason], "score", round((double)f->score * 1e6) / 1e6, "matched", term->text);
}

static int write_row(link_job *job, json_t *row, void *context, char reason[160]) {
  FILE *out = context;
  json_t *spans = json_object_get(row, "spans");
  for (size_t i = 0; i < json_array_size(spans); i++) {
    json_t *span = json_array_get(spans, i);
    char *text = span_text(span);
    if (!text) return -1;
    const int64_t at = sw_table_find(&job->texts, text);
    free(text);
    if (at < 0) return sw_fail("the tags changed while they were read: try again");
    if (json_object_set_new(span, "skill", describe(job, &job->facts[at]))) return sw_fail_memory("a span's skill");
    job->linked[job->facts[at].reason]++;
  }
  /* numbers of up to 15 digits come out as they were read */
  return json_dumpf(row, out, JSON_REAL_PRECISION(15)) || putc('\n', out) == EOF ? sw_fail("cannot write the linked tags") : 0;
}

/* --- links by key --- */

static const link_job *job_being_sorted;
static int by_frequency(const void *a, const void *b) {
  const uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
  const uint64_t x = job_being_sorted->facts[i].spans, y = job_being_sorted->facts[k].spans;
  return x != y ? (x < y ? 1 : -1) : strcmp(job_being_sorted->texts.keys[i], job_being_sorted->texts.keys[k]);
}

/* Puts an unlinked text to those with the same key. */
static int add_query(link_job *job, uint32_t text) {
  const char *words = job->texts.keys[text], *key;
  text_facts *f = &job->facts[text];
  const size_t before = job->query_keys.count;
  f->query = -1;
  const int forms = sw_skill_keys_read(job->keys, SW_FORMS_TEXT, words, strlen(words));
  if (forms <= 0) return forms;
  const int plain = sw_skill_keys_plain(job->keys);
  if (!(key = sw_skill_key(job->keys, plain, SW_KEY_JOINED)) || (f->query = sw_table_add(&job->query_keys, key)) < 0) return -1;
  query *q = &job->queries[f->query];
  if (job->query_keys.count > before) {
    *q = (query){.first_text = text, .leader = f->query, .nearest = -1, .reason = f->reason};
    if (!(key = sw_skill_key(job->keys, plain, SW_KEY_WORDS)) || !(q->plain = sw_strdup(key))) return -1;
  }
  q->spans += f->spans;
  return 0;
}

static int link_by_key(link_job *job) {
  const size_t count = job->texts.count;
  if (!(job->order = sw_alloc_array(count + 1, sizeof *job->order)) || !(job->queries = sw_alloc_array(count + 1, sizeof *job->queries))) return -1;
  for (size_t i = 0; i < count; i++) {
    job->order[i] = (uint32_t)i;
    text_facts *f = &job->facts[i];
    if (sw_taxonomy_find(&job->taxonomy, job->keys, job->texts.keys[i], strlen(job->texts.keys[i]), &f->reason, &f->term)) return -1;
    f->score = f->reason == SW_LINK_NONE || f->reason == SW_LINK_AMBIGUOUS ? 0 : 1;
  }
  job_being_sorted = job;
  if (count) qsort(job->order, count, sizeof *job->order, by_frequency);
  for (size_t i = 0; i < count; i++) {
    const text_facts *f = &job->facts[job->order[i]];
    if ((f->reason == SW_LINK_NONE || f->reason == SW_LINK_AMBIGUOUS) && add_query(job, job->order[i])) return -1;
  }
  return 0;
}

/* --- links by meaning --- */

static int has_digit(const char *word, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    if (isdigit((unsigned char)word[i])) return 1;
  return 0;
}

/* Each word of `a` that has a digit is one of `b`: an encoder takes ISO 14001 for ISO 9001. */
static int has_numbers_of(const char *b, const char *a) {
  for (size_t n; *a; a += n + (a[n] == ' ')) {
    int found = !has_digit(a, n = strcspn(a, " "));
    const char *at = b;
    for (size_t k; *at && !found; at += k + (at[k] == ' ')) found = (k = strcspn(at, " ")) == n && !memcmp(a, at, n);
    if (!found) return 0;
  }
  return 1;
}

/* Terms as they are embedded: those with the same words once. */
typedef struct {
  sw_table words;
  uint32_t *term; /* [words.count] the first that has them, a label before an alternative */
} term_texts;

static int collect_terms(link_job *job, term_texts *out) {
  const sw_taxonomy *t = &job->taxonomy;
  if (!(out->term = sw_alloc_array(t->num_terms, sizeof *out->term))) return -1;
  for (int labels = 1; labels >= 0; labels--)
    for (size_t i = 0; i < t->num_terms; i++) {
      if (t->terms[i].is_label != labels) continue;
      const int forms = sw_skill_keys_read(job->keys, SW_FORMS_TERM, t->terms[i].text, strlen(t->terms[i].text));
      const char *words = forms > 0 ? sw_skill_key(job->keys, sw_skill_keys_plain(job->keys), SW_KEY_WORDS) : "";
      if (forms < 0 || !words) return -1;
      if (strlen(words) < FEWEST_BYTES) continue; /* "R" says nothing to an encoder */
      const size_t before = out->words.count;
      const int64_t at = sw_table_add(&out->words, words);
      if (at < 0) return -1;
      if (out->words.count > before) out->term[at] = (uint32_t)i;
    }
  return 0;
}

/* The nearest terms of a query, the best first. */
static void choose(link_job *job, query *q, const term_texts *terms, const int64_t *index, const float *score) {
  const sw_taxonomy_term *all = job->taxonomy.terms;
  int best = -1, n = 0;
  double rival = -1;
  if (index[0] < 0) return;
  q->nearest = terms->term[index[0]];
  q->score = score[0];
  for (; n < NEIGHBOURS && index[n] >= 0; n++) {
    const char *words = terms->words.keys[index[n]];
    if (!has_numbers_of(words, q->plain) || !has_numbers_of(q->plain, words)) continue;
    if (best < 0) best = n;
    else if (all[terms->term[index[n]]].skill != all[terms->term[index[best]]].skill) break;
  }
  if (best < 0 || q->reason == SW_LINK_AMBIGUOUS || strlen(q->plain) < FEWEST_BYTES) return;
  if (n < NEIGHBOURS && index[n] >= 0) rival = (double)score[n];
  else if (n == NEIGHBOURS) rival = (double)score[n - 1]; /* of another skill no term is nearer than that */
  if ((double)score[best] < job->options->threshold || (double)score[best] - rival < job->options->margin) return;
  q->reason = SW_LINK_EMBEDDING;
  q->term = terms->term[index[best]];
  q->score = score[best];
}

static int find_nearest(link_job *job, sw_stream *stream, const sw_corpus *queries, sw_corpus *corpus, const term_texts *terms) {
  sw_search *search = NULL;
  int64_t *index = sw_alloc_array(BLOCK, NEIGHBOURS * sizeof *index);
  float *score = sw_alloc_array(BLOCK, NEIGHBOURS * sizeof *score);
  const sw_search_corpus rows = sw_corpus_rows(corpus);
  int status = index && score ? sw_search_open(stream, corpus->hidden, NEIGHBOURS, SW_COSINE, BLOCK, &search) : -1;
  for (uint64_t first = 0; first < queries->rows && !status; first += BLOCK) {
    const uint64_t n = queries->rows - first < BLOCK ? queries->rows - first : BLOCK;
    status = sw_search_run(search, &rows, queries->vectors + first * (uint64_t)queries->hidden, (int64_t)n, -1, index, score);
    for (uint64_t i = 0; i < n && !status; i++) choose(job, &job->queries[first + i], terms, index + i * NEIGHBOURS, score + i * NEIGHBOURS);
  }
  sw_search_close(search);
  free(index);
  free(score);
  return status;
}

/* Groups what is still unlinked; queries are the most frequent text's first, but a group's spans count together. */
static int group(link_job *job, sw_stream *stream, const sw_corpus *vectors) {
  const size_t count = job->query_keys.count, hidden = (size_t)vectors->hidden;
  uint32_t *unlinked = sw_alloc_array(count + 1, sizeof *unlinked);
  int64_t *leader = sw_alloc_array(count + 1, sizeof *leader), rows = 0;
  float *packed = vectors->vectors; /* moved up in place: they are needed no more */
  int status = unlinked && leader ? 0 : -1;
  for (size_t i = 0; i < count && !status; i++) {
    if (job->queries[i].reason == SW_LINK_EMBEDDING) continue;
    memmove(packed + (size_t)rows * hidden, packed + i * hidden, hidden * sizeof *packed);
    unlinked[rows++] = (uint32_t)i;
  }
  if (!status) status = sw_leaders_run(stream, packed, rows, vectors->hidden, job->options->similarity, leader);
  for (int64_t i = 0; i < rows && !status; i++) job->queries[unlinked[i]].leader = unlinked[leader[i]];
  free(unlinked);
  free(leader);
  return status;
}

static int link_by_meaning(link_job *job) {
  const size_t count = job->query_keys.count;
  const char **texts = sw_alloc_array(count + 1, sizeof *texts);
  term_texts terms = {0};
  sw_corpus queries = {0}, corpus = {0};
  sw_stream stream;
  int status = texts && !sw_stream_open(job->session.device, job->options->infer.threads, &stream) ? collect_terms(job, &terms) : -1;
  for (size_t i = 0; i < count && !status; i++) texts[i] = job->queries[i].plain;
  if (!status && !terms.words.count) status = sw_fail("%s: every label is shorter than %d letters; use --exact-only", job->options->taxonomy, FEWEST_BYTES);
  if (!status) status = sw_corpus_embed_texts(&job->session, (const char *const *)terms.words.keys, terms.words.count, &corpus);
  if (!status) status = sw_corpus_embed_texts(&job->session, texts, count, &queries);
  if (!status) status = find_nearest(job, &stream, &queries, &corpus, &terms);
  if (!status) status = job->options->candidates ? group(job, &stream, &queries) : 0;
  for (size_t i = 0; i < job->texts.count && !status; i++) {
    text_facts *f = &job->facts[i];
    if ((f->reason != SW_LINK_NONE && f->reason != SW_LINK_AMBIGUOUS) || f->query < 0) continue;
    const query *q = &job->queries[f->query];
    if (q->reason != SW_LINK_EMBEDDING || f->reason == SW_LINK_AMBIGUOUS) continue;
    f->reason = q->reason;
    f->term = q->term;
    f->score = q->score;
  }
  sw_corpus_close(&queries);
  sw_corpus_close(&corpus);
  sw_table_close(&terms.words);
  free(terms.term);
  free(texts);
  return status;
}

/* --- candidates --- */

typedef struct {
  uint64_t spans;
  int64_t leader;
  uint32_t rank; /* of its most frequent text */
  sw_buffer members;
} candidate;

static int by_spans(const void *a, const void *b) {
  const candidate *x = a, *y = b;
  if (x->spans != y->spans) return x->spans < y->spans ? 1 : -1;
  return (x->rank > y->rank) - (x->rank < y->rank);
}

static int write_candidate(const link_job *job, const candidate *c, FILE *out, sw_buffer *line) {
  const query *q = &job->queries[c->leader];
  const sw_taxonomy_term *near = q->nearest >= 0 ? &job->taxonomy.terms[q->nearest] : NULL;
  const char *label = job->texts.keys[job->order[c->rank]], *id = near ? job->taxonomy.skills[near->skill].id : "",
             *nearest = near ? job->taxonomy.skills[near->skill].label : "";
  sw_buffer_clear(line);
  if (sw_csv_quote(line, label, strlen(label)) || sw_buffer_print(line, ",%llu,", (unsigned long long)c->spans) ||
      sw_csv_quote(line, c->members.data, c->members.size) || sw_buffer_print(line, ",%s,", sw_link_reasons[q->reason]) || sw_csv_quote(line, id, strlen(id)) ||
      sw_buffer_append(line, ",", 1) || sw_csv_quote(line, nearest, strlen(nearest)) || (near && sw_buffer_print(line, ",%.6g\r\n", (double)q->score)) ||
      (!near && sw_buffer_append(line, ",\r\n", 3)))
    return -1;
  return fwrite(line->data, line->size, 1, out) == 1 ? 0 : sw_fail("cannot write %s", job->options->candidates);
}

/* A leader's texts, the most frequent first, with "|" between. */
static int write_candidates(const link_job *job, FILE *out) {
  const size_t count = job->query_keys.count;
  candidate *all = sw_alloc_array(count + 1, sizeof *all);
  sw_buffer line = {0};
  int status = all ? 0 : -1;
  for (size_t i = 0; i < job->texts.count && !status; i++) {
    const text_facts *f = &job->facts[job->order[i]];
    if ((f->reason != SW_LINK_NONE && f->reason != SW_LINK_AMBIGUOUS) || f->query < 0) continue;
    const int64_t leader = job->queries[f->query].leader;
    candidate *c = &all[leader];
    const char *text = job->texts.keys[job->order[i]];
    if (!c->spans) c->rank = (uint32_t)i;
    c->leader = leader;
    c->spans += f->spans;
    status = (c->members.size && sw_buffer_append(&c->members, "|", 1)) || sw_buffer_append(&c->members, text, strlen(text)) ? -1 : 0;
  }
  if (!status) qsort(all, count, sizeof *all, by_spans);
  if (!status && fputs("label,spans,members,reason,nearest_id,nearest_label,nearest_score\r\n", out) < 0)
    status = sw_fail("cannot write %s", job->options->candidates);
  for (size_t i = 0; i < count && !status && all[i].spans; i++) status = write_candidate(job, &all[i], out, &line);
  for (size_t i = 0; i < count && all; i++) sw_buffer_close(&all[i].members);
  free(all);
  sw_buffer_close(&line);
  return status;
}

/* --- the command --- */

static void report(const link_job *job) {
  const link_options *o = job->options;
  const unsigned long long unlinked = job->linked[SW_LINK_NONE] + job->linked[SW_LINK_AMBIGUOUS];
  if (!o->infer.quiet) {
    fprintf(stderr, "link: %llu of %llu span%s in %llu posting%s linked, %zu distinct text%s", (unsigned long long)job->spans - unlinked,
            (unsigned long long)job->spans, SW_S(job->spans), (unsigned long long)job->postings, SW_S(job->postings), job->texts.count, SW_S(job->texts.count));
    for (int i = SW_LINK_LABEL; i < SW_LINK_REASONS; i++)
      fprintf(stderr, "%s%llu %s", i == SW_LINK_LABEL ? ": " : ", ", (unsigned long long)job->linked[i], sw_link_reasons[i]);
    fprintf(stderr, ", %llu unlinked\n", (unsigned long long)job->linked[SW_LINK_NONE]);
    if (job->session.rejects.count)
      fprintf(stderr, "skillwatch: %llu row%s set aside (%s)\n", (unsigned long long)job->session.rejects.count, SW_S(job->session.rejects.count), job->session.rejects.reason);
  }
  if (!o->infer.json) return;
  FILE *out = job->session.to_stdout ? stderr : stdout;
  fprintf(out, "{\"postings\": %llu, \"spans\": %llu, \"texts\": %zu, \"rejected\": %llu", (unsigned long long)job->postings, (unsigned long long)job->spans,
          job->texts.count, (unsigned long long)job->session.rejects.count);
  for (int i = 0; i < SW_LINK_REASONS; i++) fprintf(out, ", \"%s\": %llu", sw_link_reasons[i], (unsigned long long)job->linked[i]);
  fprintf(out, "}\n");
}

/* The candidates, if they are wanted, come before the linked tags: whoever sees those sees all of a run. */
static int write_all(link_job *job, const sw_list *inputs) {
  const link_options *o = job->options;
  sw_output linked, candidates = {0};
  int status = sw_output_open(&linked, o->infer.output);
  for (int i = 0; i < inputs->count && !status; i++) status = read_tags(job, inputs->items[i], write_row, linked.file, 1);
  if (!status && o->candidates) status = sw_output_open(&candidates, o->candidates) || write_candidates(job, candidates.file) ? -1 : 0;
  if (!status) status = sw_rejects_commit(&job->session.rejects);
  if (!status && o->candidates) status = sw_output_commit(&candidates);
  if (!status) status = sw_output_commit(&linked);
  sw_output_abandon(&candidates);
  sw_output_abandon(&linked);
  return status;
}

static int link_tags(link_job *job, const sw_list *inputs) {
  const link_options *o = job->options;
  sw_taxonomy *t = &job->taxonomy;
  int status = sw_infer_open(&job->session, "link", &o->infer, inputs) || sw_skill_keys_open(&job->keys) ||
                       sw_taxonomy_open(o->taxonomy, &o->columns, job->keys, t)
                   ? -1
                   : 0;
  if (!status && !o->infer.quiet) {
    fprintf(stderr, "link: %zu skill%s, %zu labels and alternatives\n", t->num_skills, SW_S(t->num_skills), t->num_terms);
    if (t->rejected) fprintf(stderr, "skillwatch: %s: %llu row%s set aside (%s)\n", o->taxonomy, (unsigned long long)t->rejected, SW_S(t->rejected), t->reason);
    if (t->unknown_parents)
      fprintf(stderr, "skillwatch: %s: %llu skill%s with a parent that is no id of the taxonomy\n", o->taxonomy, (unsigned long long)t->unknown_parents,
              SW_S(t->unknown_parents));
  }
  for (int i = 0; i < inputs->count && !status; i++) status = read_tags(job, inputs->items[i], count_row, NULL, 0);
  if (!status && !job->postings)
    status = sw_fail("%s has no tagged posting: JSON lines with \"spans\" are wanted, as skillwatch infer tag -o tags.jsonl writes them", inputs->items[0]);
  if (!status) status = link_by_key(job);
  if (!status && !o->exact_only && job->query_keys.count) status = link_by_meaning(job);
  if (!status) status = write_all(job, inputs);
  if (!status) report(job);
  for (size_t i = 0; i < job->query_keys.count; i++) free(job->queries[i].plain);
  free(job->queries);
  free(job->facts);
  free(job->order);
  sw_table_close(&job->texts);
  sw_table_close(&job->query_keys);
  sw_taxonomy_close(t);
  sw_skill_keys_close(job->keys);
  sw_infer_close(&job->session);
  return status;
}

static int check(link_options *o, const sw_list *inputs) {
  if (!o->taxonomy) return sw_fail("a taxonomy is needed: --taxonomy FILE, a CSV with id, label, alternatives and parent (see --help)");
  if (!o->infer.model && !o->exact_only) return sw_fail("a checkpoint is needed: -m FILE; or --exact-only, to link by words alone");
  o->infer.model_optional = o->exact_only;
  if (sw_infer_check(&o->infer, inputs)) return -1;
  for (int i = 0; i < inputs->count; i++)
    if (!strcmp(inputs->items[i], "-")) return sw_fail("the tags are read twice, and standard input can be read once: give a file");
  if (sw_infer_check_outputs(o->infer.output, o->infer.rejected, o->candidates, (const char *const[]){o->taxonomy, o->infer.model}, 2) ||
      sw_check_output(o->candidates, inputs->items, inputs->count))
    return -1;
  if (o->candidates && !strcmp(o->candidates, "-")) return sw_fail("--candidates -: a file of its own is wanted");
  if (o->candidates && sw_check_writable(o->candidates)) return -1;
  if (strcmp(o->infer.output, "-") && !sw_infer_ends_in(o->infer.output, ".jsonl")) return sw_fail("-o %s: the name must end in .jsonl", o->infer.output);
  if (!(o->threshold >= -1 && o->threshold <= 1)) return sw_fail("--threshold is a cosine: from -1 to 1");
  if (!(o->similarity >= -1 && o->similarity <= 1)) return sw_fail("--similarity is a cosine: from -1 to 1");
  if (!(o->margin >= 0 && o->margin <= 2)) return sw_fail("--margin is a difference of cosines: from 0 to 2");
  return 0;
}

int sw_infer_link(int argc, char **argv) {
  link_options o = {.infer = SW_INFER_DEFAULTS, .threshold = 0.75, .margin = 0.1, .similarity = 0.7};
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o.infer.output, "FILE", "linked.jsonl, or - (to stdout)"},
      {"taxonomy", 't', SW_OPTION_TEXT, &o.taxonomy, "FILE", "CSV or TSV: ESCO's, O*NET's, or with columns id, label, alternatives, parent"},
      {"candidates", 0, SW_OPTION_TEXT, &o.candidates, "FILE", "unlinked skills in groups: CSV of label, spans, members, reason and the nearest skill"},
      {"threshold", 0, SW_OPTION_DOUBLE, &o.threshold, "X", "least cosine of a link by meaning"},
      {"margin", 0, SW_OPTION_DOUBLE, &o.margin, "X", "by which it must be nearer than any other skill"},
      {"similarity", 0, SW_OPTION_DOUBLE, &o.similarity, "X", "least cosine of a candidate's members to the first of them"},
      {"exact-only", 0, SW_OPTION_FLAG, &o.exact_only, NULL, "link by words alone: needs no checkpoint"},
      {"id-column", 0, SW_OPTION_TEXT, &o.columns.id, "NAME", "of the taxonomy"},
      {"label-column", 0, SW_OPTION_TEXT, &o.columns.label, "NAME", "of the taxonomy"},
      {"alternatives-column", 0, SW_OPTION_TEXT, &o.columns.alternatives, "NAME", "of the taxonomy: other names, with | or line breaks between"},
      {"parent-column", 0, SW_OPTION_TEXT, &o.columns.parent, "NAME", "of the taxonomy: the id of the broader skill"},
      {"model", 'm', SW_OPTION_TEXT, &o.infer.model, "FILE", "checkpoint of a sentence encoder"},
      {"rejected", 0, SW_OPTION_TEXT, &o.infer.rejected, "FILE", "unusable rows go here (else: OUTPUT.rejected.jsonl)"},
      {"device", 0, SW_OPTION_TEXT, &o.infer.device, "D", "auto, cpu or cuda[:N]"},
      {"dtype", 0, SW_OPTION_TEXT, &o.infer.dtype, "T", "fp32 or bf16 (else: fp32 on the CPU)"},
      {"threads", 0, SW_OPTION_INT, &o.infer.threads, "N", "worker threads; 0: one a core. Changes no result"},
      {"batch-tokens", 0, SW_OPTION_INT, &o.infer.batch_tokens, "N", "tokens of a batch. Changes no result"},
      {"quiet", 'q', SW_OPTION_FLAG, &o.infer.quiet, NULL, "no progress and no summary"},
      {"json", 0, SW_OPTION_FLAG, &o.infer.json, NULL, "summary as JSON, to stdout (stderr with -o -)"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch infer link -m CHECKPOINT --taxonomy FILE TAGS.jsonl [...] [options]",
      .summary = "Links tagged spans to the skills of a taxonomy. TAGS: JSON lines that infer tag wrote, plain, .gz or .zst. Every span gets\n"
                 "  \"skill\": {\"id\", \"label\", \"parent\", \"reason\", \"score\", \"matched\"}, or null where it is none of them.\n"
                 "reason: label or alternative (letter by letter), normalised (case, plural, punctuation, spelling, order of words, versions and words such\n"
                 "as \"knowledge of\" aside) or embedding (cosine of the encoder's vectors, with numbers in both the same); score: that cosine, otherwise 1;\n"
                 "matched: the label or alternative. A name that several skills share links to none of them, but to a label before an alternative.\n"
                 "Distinct texts are kept in memory.",
      .example = "skillwatch infer link -m base.h5 --taxonomy skills.csv tags.jsonl -o linked.jsonl --candidates candidates.csv",
      .options = options,
  };
  sw_list inputs = {0};
  int status = sw_config_parse(&command, argc, argv, &inputs);
  if (!status) status = check(&o, &inputs);
  link_job job = {.options = &o};
  if (status)
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  else
    status = link_tags(&job, &inputs) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
  sw_list_close(&inputs);
  return status;
}
