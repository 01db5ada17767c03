#include "infer/serve/models.h"
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *const sw_serve_job_names[SW_SERVE_JOBS] = {"embed", "tag", "classify", "multilabel"};

int sw_served_can(const sw_served *s, sw_serve_job job) { return s->lanes[job].workers != NULL; }

static int has_head(const sw_model *m, const char *task) {
  for (size_t h = 0; h < m->num_heads; h++)
    if (!strcmp(m->heads[h].task, task)) return 1;
  return 0;
}

static int open_lane(sw_served *s, sw_serve_job job, const sw_pipeline_job *steps, void *context, int threads) {
  sw_pipeline_job own = *steps;
  own.context = context;
  return sw_lane_open(&s->lanes[job], &own, s->session.runs.batch_tokens, s->session.runs.max_batch, threads, s->session.runs.shared ? 1 : threads);
}

static int open_jobs(sw_served *s, const sw_models_options *o) {
  static const sw_pipeline_job embed = {.open_worker = sw_embed_open_worker, .close_worker = sw_embed_close_worker, .encode = sw_embed_encode_vector,
                                        .run = sw_embed_run_vectors};
  const sw_model *model = s->session.model;
  sw_infer_session *session = &s->session;
  if (session->tokenizer) {
    if (sw_embedder_open(&s->embedder, &session->runs, session->tokenizer, o->prefix, -1)) return sw_fail_in("%s", s->path);
    if (open_lane(s, SW_SERVE_EMBED, &embed, &s->embedder, o->threads)) return -1;
  }
  if (has_head(model, "token")) {
    s->tag = (sw_tag_job){.session = session, .format = SW_TAGS_SPANS, .overlap = SW_WINDOW_OVERLAP};
    if (sw_tag_open(&s->tag) || open_lane(s, SW_SERVE_TAG, &sw_tag_steps, &s->tag, o->threads)) return -1;
  }
  if (has_head(model, "sequence")) {
    s->classify = (sw_classify_job){.session = session, .k = SW_REQUEST_MOST_K};
    if (sw_classify_open_head(&s->classify, NULL) || open_lane(s, SW_SERVE_CLASSIFY, &sw_classify_steps, &s->classify, o->threads)) return -1;
  }
  if (has_head(model, "multilabel")) {
    s->label = (sw_label_job){.session = session};
    if (sw_label_open_head(&s->label, -1) || open_lane(s, SW_SERVE_MULTILABEL, &sw_label_steps, &s->label, o->threads)) return -1;
  }
  return 0;
}

static void close_served(sw_served *s) {
  pthread_mutex_lock(&sw_serve_files);
  for (size_t i = 0; i < s->num_corpora; i++) sw_served_corpus_close(s->corpora[i]);
  sw_served_map_close(s->map);
  pthread_mutex_unlock(&sw_serve_files);
  free(s->corpora);
  for (int job = 0; job < SW_SERVE_JOBS; job++) sw_lane_close(&s->lanes[job]);
  sw_tag_close(&s->tag);
  free(s->label.thresholds);
  sw_infer_close(&s->session);
  free(s);
}

void sw_served_release(sw_served *s) {
  if (!s || atomic_fetch_sub(&s->references, 1) != 1) return;
  pthread_mutex_lock(&s->owner->lock);
  s->next = s->owner->gone;
  s->owner->gone = s;
  pthread_mutex_unlock(&s->owner->lock);
}

static void free_gone(sw_models *m) {
  pthread_mutex_lock(&m->lock);
  sw_served *gone = m->gone;
  m->gone = NULL;
  pthread_mutex_unlock(&m->lock);
  while (gone) {
    sw_served *next = gone->next;
    close_served(gone);
    gone = next;
  }
}

/* The corpora and the map that this model made. */
static int open_vectors(sw_served *s, const sw_models *m) {
  if (!(s->corpora = sw_alloc_array(m->num_corpora + 1, sizeof *s->corpora))) return -1;
  s->num_corpora = m->num_corpora;
  for (size_t i = 0; i < m->num_corpora && sw_served_can(s, SW_SERVE_EMBED); i++) {
    const int ours = sw_corpora_match(m->corpus_paths[i], &s->session);
    if (ours < 0 || (ours && sw_served_corpus_open(&s->session, m->corpus_names[i], m->corpus_paths[i], m->options.texts, &m->options.reading, &s->corpora[i]))) return -1;
  }
  const int ours = m->options.map && sw_served_can(s, SW_SERVE_EMBED) ? sw_corpora_match(m->options.map, &s->session) : 0;
  return ours < 0 || (ours && sw_served_map_open(&s->session, m->options.map, &s->map)) ? -1 : 0;
}

static int open_served(sw_models *m, size_t index, sw_served **out) {
  const char *name = m->names[index], *path = m->paths[index];
  const sw_models_options *o = &m->options;
  sw_served *s = sw_alloc(sizeof *s);
  if (!s) return -1;
  struct tm when = {0};
  s->name = name;
  s->path = path;
  s->owner = m;
  s->options = o->common;
  s->options.model = path;
  s->options.output = "-";
  atomic_init(&s->references, 1);
  pthread_mutex_lock(&sw_serve_files);
  const int failed = sw_infer_open_stems(&s->session, "serve", &s->options, &(sw_list){0}) || open_jobs(s, o) || open_vectors(s, m);
  pthread_mutex_unlock(&sw_serve_files);
  if (failed) {
    close_served(s);
    return -1;
  }
  if (strptime(s->session.checkpoint.created, "%Y-%m-%dT%H:%M:%S", &when)) s->created = (int64_t)timegm(&when);
  *out = s;
  return 0;
}

/* --- labels --- */

/* Of a job's, whether one before it is the same. */
typedef struct {
  int (*each)(void *context, const char *label);
  void *context;
  const char **seen;
  size_t count;
} label_list;

static int list_label(label_list *list, const char *label) {
  for (size_t i = 0; i < list->count; i++)
    if (!strcmp(list->seen[i], label)) return 0;
  list->seen[list->count++] = label;
  return list->each(list->context, label);
}

static int each_tag(const sw_served *s, int (*each)(void *context, const char *label), void *context) {
  label_list list = {.each = each, .context = context};
  int status = (list.seen = sw_alloc_array((size_t)s->tag.total_labels + s->tag.num_layers, sizeof *list.seen)) ? 0 : -1;
  for (size_t i = 0; i < s->tag.num_layers && !status; i++) {
    const sw_tag_layer *layer = &s->tag.layers[i];
    for (size_t t = 0; t < layer->rules.num_types && !status; t++) status = list_label(&list, layer->rules.types[t][0] ? layer->rules.types[t] : layer->name);
  }
  free(list.seen);
  return status;
}

int sw_served_labels(const sw_served *s, sw_serve_job job, int (*each)(void *context, const char *label), void *context) {
  if (!sw_served_can(s, job) || job == SW_SERVE_EMBED) return 0;
  if (job == SW_SERVE_TAG) return each_tag(s, each, context);
  const sw_model_head *head = job == SW_SERVE_CLASSIFY ? s->classify.head : s->label.labels;
  for (int i = 0; i < head->num_labels; i++)
    if (each(context, head->labels[i])) return -1;
  return 0;
}

/* --- all of them --- */

static int look(const char *path, sw_file_state *out) {
  struct stat info;
  if (stat(path, &info)) return sw_fail("cannot read %s: %s", path, strerror(errno));
  *out = (sw_file_state){info.st_dev, info.st_ino, info.st_size, info.st_mtim};
  return 0;
}

static int is_same(const sw_file_state *a, const sw_file_state *b) {
  return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes && a->changed.tv_sec == b->changed.tv_sec &&
         a->changed.tv_nsec == b->changed.tv_nsec;
}

static size_t num_files(const sw_models *m) { return m->count + m->num_corpora + (m->options.map != NULL); }

static const char *file_at(const sw_models *m, size_t i) {
  return i < m->count ? m->paths[i] : i < m->count + m->num_corpora ? m->corpus_paths[i - m->count] : m->options.map;
}

/* "path" or "name=path" */
static int name_file(const char *spec, char **name, char **path) {
  const char *equals = strchr(spec, '='), *slash = strchr(spec, '/');
  if (equals && (!slash || equals < slash)) {
    *name = sw_strndup(spec, (size_t)(equals - spec));
    *path = sw_strdup(equals + 1);
  } else {
    const char *file = strrchr(spec, '/') ? strrchr(spec, '/') + 1 : spec;
    *name = sw_strndup(file, strcspn(file, "."));
    *path = sw_strdup(spec);
  }
  if (!*name || !*path) return -1;
  return **name && **path ? 0 : sw_fail("%s: a name and a file are wanted, as in skills=ner.h5", spec);
}

/* Names and paths [count], owned by the caller also after a failure. */
static int name_files(const sw_list *specs, char ***names, char ***paths, size_t *count) {
  const size_t wanted = specs ? (size_t)specs->count : 0;
  char **n = *names = sw_alloc_array(wanted + 1, sizeof *n), **p = *paths = sw_alloc_array(wanted + 1, sizeof *p);
  if (!n || !p) return -1;
  for (size_t i = 0; i < wanted; i++) {
    ++*count;
    if (name_file(specs->items[i], &n[i], &p[i])) return -1;
    for (size_t k = 0; k < i; k++)
      if (!strcmp(n[k], n[i])) return sw_fail("two files are called '%s': give them names, as in one=%s and two=%s", n[i], p[k], p[i]);
  }
  return 0;
}

static void free_names(char **names, char **paths, size_t count) {
  for (size_t i = 0; i < count; i++) {
    free(names[i]);
    free(paths[i]);
  }
  free(names);
  free(paths);
}

/* Everything to search in must have been made by one of the models. */
static int check_vectors(const sw_models *m) {
  static const char why[] = "%s was made with another model than those that are served: make it anew with skillwatch infer embed";
  int map = !m->options.map;
  for (size_t i = 0; i < m->num_corpora; i++) {
    int found = 0;
    for (size_t k = 0; k < m->count; k++) found |= m->items[k]->corpora[i] != NULL;
    if (!found) return sw_fail(why, m->corpus_paths[i]);
  }
  for (size_t k = 0; k < m->count; k++) map |= m->items[k]->map != NULL;
  return map ? 0 : sw_fail(why, m->options.map);
}

int sw_models_open(const sw_list *specs, const sw_models_options *o, sw_models *m) {
  const size_t count = (size_t)specs->count;
  *m = (sw_models){.options = *o};
  pthread_mutex_init(&m->lock, NULL);
  m->items = sw_alloc_array(count + 1, sizeof *m->items);
  m->stale = sw_alloc(count + 1);
  if (!m->items || !m->stale || name_files(specs, &m->names, &m->paths, &m->count) ||
      name_files(o->corpora, &m->corpus_names, &m->corpus_paths, &m->num_corpora))
    return -1;
  const size_t files = num_files(m);
  if (!(m->states = sw_alloc_array(files + 1, sizeof *m->states))) return -1;
  for (size_t i = 0; i < files; i++)
    if (look(file_at(m, i), &m->states[i])) return -1;
  for (size_t i = 0; i < count; i++)
    if (open_served(m, i, &m->items[i])) return -1;
  return check_vectors(m);
}

void sw_models_close(sw_models *m) {
  for (size_t i = 0; i < m->count; i++) sw_served_release(m->items[i]);
  free_gone(m);
  free_names(m->names, m->paths, m->count);
  free_names(m->corpus_names, m->corpus_paths, m->num_corpora);
  free(m->items), free(m->states), free(m->stale);
  pthread_mutex_destroy(&m->lock);
}

sw_served *sw_models_at(sw_models *m, size_t index) {
  pthread_mutex_lock(&m->lock);
  sw_served *s = m->items[index];
  atomic_fetch_add(&s->references, 1);
  pthread_mutex_unlock(&m->lock);
  return s;
}

sw_served *sw_models_take(sw_models *m, const char *name, sw_serve_job job, sw_fault *f) {
  for (size_t i = 0; i < m->count; i++) {
    if (name && strcmp(m->names[i], name)) continue;
    sw_served *s = sw_models_at(m, i);
    if (sw_served_can(s, job)) return s;
    sw_served_release(s);
    if (name) {
      sw_fault_set(f, 422, "model", "the model '%.80s' cannot %s; /models lists what each can do", name, sw_serve_job_names[job]);
      return NULL;
    }
  }
  if (name) {
    sw_fault_set(f, 404, "model", "the model '%.80s' is not served here; /models lists those that are", name);
    f->code = "model_not_found";
  } else {
    sw_fault_set(f, 422, NULL, "no model that can %s is served here; /models lists what there is", sw_serve_job_names[job]);
  }
  return NULL;
}

sw_served *sw_models_take_corpus(sw_models *m, const char *name, size_t *corpus, sw_fault *f) {
  for (size_t k = 0; k < m->num_corpora; k++)
    for (size_t i = 0; i < m->count && (!name || !strcmp(m->corpus_names[k], name)); i++) {
      sw_served *s = sw_models_at(m, i);
      *corpus = k;
      if (s->corpora[k]) return s;
      sw_served_release(s);
    }
  if (name) sw_fault_set(f, 404, "corpus", "the corpus '%.80s' is not served here", name);
  else sw_fault_set(f, 422, NULL, "no corpus is served here (--corpus)");
  return NULL;
}

sw_served *sw_models_take_map(sw_models *m, sw_fault *f) {
  for (size_t i = 0; i < m->count; i++) {
    sw_served *s = sw_models_at(m, i);
    if (s->map) return s;
    sw_served_release(s);
  }
  sw_fault_set(f, 422, NULL, "no map is served here (--map)");
  return NULL;
}

/* --- another file --- */

static int replace(sw_models *m, size_t i, int *same) {
  sw_served *old = m->items[i], *new = NULL; /* only this function changes items */
  if (open_served(m, i, &new)) return -1;
  int status = 0;
  for (int job = 0; job < SW_SERVE_JOBS && !status; job++)
    if (sw_served_can(old, (sw_serve_job)job) && !sw_served_can(new, (sw_serve_job)job))
      status = sw_fail("%s: the new checkpoint cannot %s, the present one can", m->paths[i], sw_serve_job_names[job]);
  for (size_t k = 0; k < m->num_corpora && !status; k++)
    if (old->corpora[k] && !new->corpora[k]) status = sw_fail("%s: %s was made with the present checkpoint: embed it anew with the new one", m->paths[i], m->corpus_paths[k]);
  if (!status && old->map && !new->map) status = sw_fail("%s: %s was made with the present checkpoint: make it anew with the new one", m->paths[i], m->options.map);
  *same = !m->stale[i] && !strcmp(old->session.checkpoint.content_sha256, new->session.checkpoint.content_sha256);
  if (!status && !*same) {
    pthread_mutex_lock(&m->lock);
    m->items[i] = new;
    pthread_mutex_unlock(&m->lock);
    new = old;
  }
  sw_served_release(new);
  return status;
}

/* Looks at a file; 1: it is another one. One that is gone, perhaps between two renames, is none: what is in memory is as good as before. */
static int has_changed(sw_models *m, size_t i) {
  sw_file_state now;
  if (look(file_at(m, i), &now) || is_same(&now, &m->states[i])) return 0;
  m->states[i] = now;
  return 1;
}

int sw_models_reload(sw_models *m, int force) {
  int vectors = 0, swapped = 0;
  for (size_t i = m->count; i < num_files(m); i++) vectors |= has_changed(m, i);
  for (size_t i = 0; i < m->count; i++) {
    const int with_vectors = vectors && sw_served_can(m->items[i], SW_SERVE_EMBED);
    int same = 0;
    m->stale[i] |= (char)with_vectors;
    if (!has_changed(m, i) && !with_vectors && !force) continue;
    if (replace(m, i, &same)) {
      atomic_fetch_add(&m->failures, 1);
      fprintf(stderr, "skillwatch: the model '%s' stays as it is: %s\n", m->names[i], sw_error());
      continue;
    }
    m->stale[i] = 0;
    if (same) continue;
    swapped++;
    atomic_fetch_add(&m->reloads, 1);
    fprintf(stderr, "skillwatch: the model '%s' is now %.12s (%s)\n", m->names[i], m->items[i]->session.checkpoint.content_sha256, m->paths[i]);
  }
  free_gone(m);
  return swapped;
}
