#include "base/error.h"
#include "engine/data/rejects.h"
#include "engine/learn/ranking.h"
#include "infer/serve/server.h"

#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

enum { MAP_POINTS = 20000, BYTES_OF_TEXT = 8 /* a byte's token ids, and what is quoted of it */, TRIM_BYTES = 32 << 20, DEFAULT_K = 10 };

static int quote(sw_buffer *out, const char *text) { return sw_json_quote(out, text, strlen(text)); }
static sw_exchange *of(sw_call *call) { return (sw_exchange *)call; }

int sw_server_reserve(sw_server *s, size_t bytes) {
  const size_t most = (size_t)s->options->memory_megabytes << 20;
  if (atomic_fetch_add(&s->memory, bytes) + bytes <= most) return 0;
  atomic_fetch_sub(&s->memory, bytes);
  return -1;
}

void sw_server_give_back(sw_server *s, size_t bytes) { atomic_fetch_sub(&s->memory, bytes); }

/* --- texts to jobs --- */

static int answers_list(const sw_route *route) { return route->job == SW_SERVE_EMBED && route->use == SW_USE_PLAIN; } /* as OpenAI's API does */

/* Bytes that a text takes with its answer, at most by and large: numbers have 16 characters. */
static size_t bytes_of_answer(const sw_exchange *x) {
  const size_t hidden = (size_t)x->served->session.model->config.hidden_size;
  const size_t k = (size_t)x->request.k;
  if (x->route->use == SW_USE_SEARCH) return 256 + hidden * sizeof(float) + (k ? k : DEFAULT_K) * (x->corpus->corpus.texts ? 512 : 128);
  if (x->route->job == SW_SERVE_EMBED) return 256 + hidden * (sizeof(float) + 16);
  if (x->route->job == SW_SERVE_CLASSIFY) return 256 + 128 * (size_t)x->served->classify.k;
  if (x->route->job != SW_SERVE_MULTILABEL) return 256 + 128;
  const size_t labels = (size_t)x->served->label.labels->num_labels;
  return 256 + labels * sizeof(float) + 64 * (k && k < labels ? k : labels);
}

static int check_ids(const sw_exchange *x, sw_fault *f) {
  const int32_t size = x->served->session.model->config.vocab_size;
  for (size_t i = 0; i < x->request.count; i++)
    for (size_t k = 0; k < x->request.texts[i].num_ids; k++)
      if (x->request.texts[i].ids[k] >= size)
        return sw_fault_set(f, 422, "input", "the token id %d is not of the model's vocabulary, which ends at %d", x->request.texts[i].ids[k], size - 1);
  return 0;
}

static int reserve(sw_exchange *x, size_t bytes) {
  if (bytes > (size_t)x->server->options->memory_megabytes << 20)
    return sw_fault_set(&x->fault, 413, NULL, "the texts and their answers take %zu MB, more than this server has for them (--memory): send fewer at a time", bytes >> 20);
  if (sw_server_reserve(x->server, bytes)) return sw_fault_set(&x->fault, 429, NULL, "the server holds as much as it can: try again");
  x->reserved += bytes;
  return 0;
}

static int make_items(sw_exchange *x) {
  sw_call *c = &x->call;
  size_t wanted = x->request.count * (sizeof(sw_item) + sizeof *x->request.texts + bytes_of_answer(x));
  for (size_t i = 0; i < x->request.count; i++) wanted += BYTES_OF_TEXT * x->request.texts[i].bytes;
  if (reserve(x, wanted)) return -1;
  if (!(c->items = sw_alloc_array(x->request.count, sizeof *c->items))) {
    x->fault.status = 503;
    return -1;
  }
  c->count = x->request.count;
  for (size_t i = 0; i < c->count; i++)
    c->items[i].posting = (sw_posting){.index = i, .id = (char *)"of the request", .text = (char *)x->request.texts[i].text, .bytes = x->request.texts[i].bytes};
  return 0;
}

static int choose_model(sw_exchange *x) {
  sw_models *m = &x->server->models;
  const sw_request *r = &x->request;
  size_t corpus = 0;
  if (x->route->use == SW_USE_SEARCH) x->served = sw_models_take_corpus(m, r->corpus, &corpus, &x->fault);
  else if (x->route->use == SW_USE_PLACE) x->served = sw_models_take_map(m, &x->fault);
  else x->served = sw_models_take(m, r->model, x->route->job, &x->fault);
  if (!x->served) return -1;
  if (x->route->use == SW_USE_SEARCH) x->corpus = x->served->corpora[corpus];
  if (r->model && strcmp(r->model, x->served->name))
    return sw_fault_set(&x->fault, 422, "model", "the model '%.80s' did not make these vectors, '%s' did", r->model, x->served->name);
  return 0;
}

/* JSON takes many times what its body takes: that is reserved before it is read, and what is not needed any more is given back. */
static int read_request(sw_exchange *x) {
  const char *body = x->body.data ? x->body.data : "";
  const size_t bytes = x->body.size, cost = sw_request_cost(body, bytes);
  if (reserve(x, cost) || sw_request_read(body, bytes, x->route->fields, &x->request, &x->fault)) return -1;
  sw_buffer_close(&x->body);
  const size_t unused = x->request.ids ? cost - 2 * bytes : bytes; /* two bytes or more of a body are an id of four */
  x->reserved -= unused;
  sw_server_give_back(x->server, unused);
  return 0;
}

int sw_route_prepare(sw_call *c) {
  sw_exchange *x = of(c);
  const sw_request *r = &x->request;
  if (read_request(x)) return -1;
  if (choose_model(x)) return -1;
  const int hidden = x->served->session.model->config.hidden_size;
  if (r->dimensions && r->dimensions != hidden)
    return sw_fault_set(&x->fault, 400, "dimensions", "vectors of '%s' have %d numbers: leave 'dimensions' out", x->served->name, hidden);
  if (check_ids(x, &x->fault) || make_items(x)) return -1;
  c->lane = &x->served->lanes[x->route->job];
  return 0;
}

int sw_route_encode(sw_call *c, void *worker, size_t index, sw_pieces *pieces) {
  sw_exchange *x = of(c);
  const sw_request_text *text = &x->request.texts[index];
  const sw_pipeline_job *steps = &c->lane->steps;
  if (x->corpus) return sw_embed_encode_vector(&x->corpus->embedder, worker, &c->items[index], pieces);
  if (x->route->use == SW_USE_PLACE) return sw_embed_encode_vector(&x->served->map->embedder, worker, &c->items[index], pieces);
  if (!text->ids) return steps->encode(steps->context, worker, &c->items[index], pieces);
  const sw_embedder *e = &x->served->embedder;
  return sw_embed_encode_ids(e, worker, text->ids, text->num_ids, &c->items[index], pieces, (uint32_t)e->hidden);
}

/* --- what is said of texts --- */

/* Nine digits give every float back exactly. */
static int print_vector(const float *vector, size_t count, sw_buffer *out) {
  if (sw_buffer_reserve(out, 2 + 17 * count)) return -1;
  for (size_t i = 0; i < count; i++) {
    const int n = snprintf(out->data + out->size, 18, i ? ",%.9g" : "[%.9g", (double)vector[i]);
    out->size += (size_t)n;
  }
  return sw_buffer_append(out, "]", 1);
}

static int print_base64(const float *vector, size_t count, sw_buffer *out) {
  const size_t bytes = count * sizeof *vector;
  if (sw_buffer_append(out, "\"", 1) || sw_buffer_reserve(out, bytes / 3 * 4 + 8)) return -1;
  out->size += (size_t)EVP_EncodeBlock((unsigned char *)out->data + out->size, (const unsigned char *)vector, (int)bytes);
  return sw_buffer_append(out, "\"", 1);
}

static int finish_embeddings(sw_call *c, void *worker, size_t first, size_t count, sw_buffer *out) {
  const sw_exchange *x = of(c);
  const size_t hidden = (size_t)x->served->embedder.hidden;
  for (size_t i = first; i < first + count; i++) {
    const float *vector = c->items[i].pieces[0].result;
    if (sw_buffer_print(out, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":", i ? "," : "", i) ||
        (x->request.base64 ? print_base64 : print_vector)(vector, hidden, out) || sw_buffer_append(out, "}", 1))
      return -1;
  }
  return 0;
}

static int finish_tags(sw_call *c, void *worker, size_t first, size_t count, sw_buffer *out) {
  const sw_pipeline_job *steps = &c->lane->steps;
  for (size_t i = first; i < first + count; i++)
    if ((i && sw_buffer_append(out, ",", 1)) || steps->finish(steps->context, worker, &c->items[i], out)) return -1;
  return 0;
}

static int finish_classes(sw_call *c, void *worker, size_t first, size_t count, sw_buffer *out) {
  const sw_exchange *x = of(c);
  const sw_classify_job *job = &x->served->classify;
  const int wanted = x->request.k ? x->request.k : DEFAULT_K, k = wanted < job->k ? wanted : job->k;
  for (size_t i = first; i < first + count; i++) {
    const float *result = c->items[i].pieces[0].result;
    if (sw_buffer_print(out, "%s{\"labels\":[", i ? "," : "")) return -1;
    for (int n = 0; n < k; n++)
      if (sw_buffer_print(out, "%s{\"label\":", n ? "," : "") || quote(out, job->head->labels[(size_t)result[n]]) ||
          sw_buffer_print(out, ",\"score\":%.6g}", exp((double)result[job->k + n])))
        return -1;
    if (sw_buffer_append(out, "]}", 2)) return -1;
  }
  return 0;
}

/* The most probable first, of equal ones in the model's order; those below the threshold are left out. */
static int print_labels(const sw_label_job *job, const sw_request *r, const float *probabilities, uint32_t *order, sw_buffer *out) {
  int printed = 0;
  const int most = r->k ? r->k : job->labels->num_labels;
  sw_rank_best(probabilities, (size_t)job->labels->num_labels, (size_t)job->labels->num_labels, order);
  for (int n = 0; n < job->labels->num_labels && printed < most; n++) {
    const uint32_t label = order[n];
    if (probabilities[label] < (r->threshold >= 0 ? (float)r->threshold : job->thresholds[label])) continue;
    if (sw_buffer_print(out, "%s{\"label\":", printed ? "," : "") || quote(out, job->labels->labels[label]) ||
        sw_buffer_print(out, ",\"score\":%.9g}", (double)probabilities[label]))
      return -1;
    printed++;
  }
  return 0;
}

static int finish_labels(sw_call *c, void *worker, size_t first, size_t count, sw_buffer *out) {
  const sw_exchange *x = of(c);
  const sw_label_job *job = &x->served->label;
  uint32_t *order = sw_alloc_array((size_t)job->labels->num_labels, sizeof *order);
  int status = order ? 0 : -1;
  for (size_t i = first; i < first + count && !status; i++)
    status = sw_buffer_print(out, "%s{\"labels\":[", i ? "," : "") || print_labels(job, &x->request, c->items[i].pieces[0].result, order, out) ||
             sw_buffer_append(out, "]}", 2);
  free(order);
  return status ? -1 : 0;
}

static float *copy_vectors(const sw_call *c, size_t first, size_t count, size_t hidden) {
  float *vectors = sw_alloc_array(count, hidden * sizeof *vectors);
  for (size_t i = 0; i < count && vectors; i++) memcpy(vectors + i * hidden, c->items[first + i].pieces[0].result, hidden * sizeof *vectors);
  return vectors;
}

static int print_hits(const sw_corpus *corpus, const int64_t *index, const float *score, int k, sw_buffer *out) {
  for (int n = 0; n < k && index[n] >= 0; n++) {
    const char *text = corpus->texts ? corpus->texts[index[n]] : NULL;
    if (sw_buffer_print(out, "%s{\"id\":", n ? "," : "") || quote(out, corpus->ids[index[n]]) || sw_buffer_print(out, ",\"score\":%.9g", (double)score[n]) ||
        (text && (sw_buffer_print(out, ",\"text\":") || quote(out, text))) || sw_buffer_append(out, "}", 1))
      return -1;
  }
  return 0;
}

static int finish_search(sw_call *c, void *worker, size_t first, size_t count, sw_buffer *out) {
  const sw_exchange *x = of(c);
  const int k = x->request.k ? x->request.k : DEFAULT_K;
  float *vectors = copy_vectors(c, first, count, (size_t)x->served->embedder.hidden), *score = sw_alloc_array(count, (size_t)k * sizeof *score);
  int64_t *index = sw_alloc_array(count, (size_t)k * sizeof *index);
  int status = vectors && score && index ? sw_served_corpus_search(x->corpus, vectors, count, k, index, score) : -1;
  for (size_t i = 0; i < count && !status; i++)
    status = sw_buffer_print(out, "%s{\"hits\":[", first + i ? "," : "") ||
             print_hits(&x->corpus->corpus, index + i * (size_t)k, score + i * (size_t)k, k, out) || sw_buffer_append(out, "]}", 2);
  free(vectors), free(score), free(index);
  return status ? -1 : 0;
}

static int finish_places(sw_call *c, void *worker, size_t first, size_t count, sw_buffer *out) {
  sw_served_map *map = of(c)->served->map;
  const size_t dims = (size_t)map->umap.components;
  float *vectors = copy_vectors(c, first, count, (size_t)map->embedder.hidden), *points = sw_alloc_array(count, dims * sizeof *points);
  int status = vectors && points ? sw_served_map_place(map, vectors, count, points) : -1;
  for (size_t i = 0; i < count && !status; i++) {
    const float *p = points + i * dims;
    status = sw_buffer_print(out, "%s{\"x\":%.9g,\"y\":%.9g", first + i ? "," : "", (double)p[0], (double)p[1]) ||
             (dims > 2 && sw_buffer_print(out, ",\"z\":%.9g", (double)p[2])) || sw_buffer_append(out, "}", 1);
  }
  free(vectors), free(points);
  return status ? -1 : 0;
}

/* --- what a GET is told --- */

static int answer_models(sw_exchange *x);
static int answer_live(sw_exchange *x) { return sw_buffer_print(&x->head, "{\"status\":\"live\"}"); }

static int answer_ready(sw_exchange *x) {
  if (!atomic_load(&x->server->draining)) return sw_buffer_print(&x->head, "{\"status\":\"ready\"}");
  x->status = 503;
  return sw_buffer_print(&x->head, "{\"status\":\"draining\"}");
}

/* The map's points, enough of them for a picture: every n-th where there are more. */
static int answer_map(sw_exchange *x) {
  static const char *const axes[] = {"x", "y"};
  x->served = sw_models_take_map(&x->server->models, &x->fault);
  if (!x->served) {
    sw_route_refuse(x);
    return 0;
  }
  const sw_served_map *map = x->served->map;
  const int64_t rows = map->old.rows, step = 1 + (rows - 1) / MAP_POINTS;
  int failed = sw_buffer_print(&x->head, "{\"rows\":%lld,\"components\":%d", (long long)rows, map->umap.components);
  for (int axis = 0; axis < 2 && !failed; axis++) {
    failed = sw_buffer_print(&x->head, ",\"%s\":[", axes[axis]);
    for (int64_t i = 0; i < rows && !failed; i += step) failed = sw_buffer_print(&x->head, i ? ",%.6g" : "%.6g", (double)map->coordinates[i * map->umap.components + axis]);
    failed = failed || sw_buffer_append(&x->head, "]", 1);
  }
  return failed || sw_buffer_append(&x->head, "}", 1) ? -1 : 0;
}

static int answer_page(sw_exchange *x) { return sw_buffer_append(&x->head, sw_page, sw_page_size); }
static int answer_metrics(sw_exchange *x);

static int answer_openapi(sw_exchange *x) {
  pthread_mutex_lock(&x->server->openapi_lock);
  const int failed = sw_buffer_append(&x->head, x->server->openapi, strlen(x->server->openapi));
  pthread_mutex_unlock(&x->server->openapi_lock);
  return failed;
}

#define JOB_FIELDS (SW_FIELD_MODEL | SW_FIELD_TEXTS)
/* clang-format off */
const sw_route sw_routes[] = {
    {.path = "/v1/embeddings", .summary = "Texts, or their token ids, to vectors; as OpenAI's API", .is_post = 1, .job = SW_SERVE_EMBED,
     .fields = SW_FIELD_MODEL | SW_FIELD_INPUT | SW_FIELD_ENCODING | SW_FIELD_DIMENSIONS | SW_FIELD_USER, .finish = finish_embeddings},
    {.path = "/tag", .summary = "Skills in texts, as spans; offsets are Unicode code points", .is_post = 1, .job = SW_SERVE_TAG,
     .fields = JOB_FIELDS, .finish = finish_tags},
    {.path = "/classify", .summary = "The most probable labels of texts", .is_post = 1, .job = SW_SERVE_CLASSIFY,
     .fields = JOB_FIELDS | SW_FIELD_K, .finish = finish_classes},
    {.path = "/multilabel", .summary = "The labels of texts that are probable enough", .is_post = 1, .job = SW_SERVE_MULTILABEL,
     .fields = JOB_FIELDS | SW_FIELD_K | SW_FIELD_THRESHOLD, .finish = finish_labels},
    {.path = "/search", .summary = "The nearest of a corpus", .is_post = 1, .job = SW_SERVE_EMBED, .use = SW_USE_SEARCH,
     .fields = JOB_FIELDS | SW_FIELD_K | SW_FIELD_CORPUS, .finish = finish_search},
    {.path = "/place", .summary = "Where texts are on the map", .is_post = 1, .job = SW_SERVE_EMBED, .use = SW_USE_PLACE,
     .fields = JOB_FIELDS, .finish = finish_places},
    {.path = "/", .summary = "A page to try it on", .is_open = 1, .is_page = 1, .answer = answer_page, .content_type = "text/html; charset=utf-8"},
    {.path = "/map", .summary = "The map's points, 20,000 at most", .job = SW_SERVE_EMBED, .use = SW_USE_PLACE, .answer = answer_map},
    {.path = "/models", .summary = "The models that are served", .answer = answer_models},
    {.path = "/v1/models", .summary = "The models that are served, as OpenAI's API", .answer = answer_models},
    {.path = "/health/live", .summary = "The process runs", .is_open = 1, .answer = answer_live},
    {.path = "/health/ready", .summary = "Requests are welcome; 503 while the server is stopping", .is_open = 1, .answer = answer_ready},
    {.path = "/metrics", .summary = "Prometheus' metrics", .answer = answer_metrics, .content_type = "text/plain; version=0.0.4; charset=utf-8"},
    {.path = "/openapi.json", .summary = "This description", .is_open = 1, .answer = answer_openapi},
};
/* clang-format on */
const int sw_num_routes = sizeof sw_routes / sizeof *sw_routes;
_Static_assert(sizeof sw_routes / sizeof *sw_routes <= SW_METRIC_ROUTES, "more routes than are counted");

int sw_route_find(const char *path) {
  for (int i = 0; i < sw_num_routes; i++)
    if (!strcmp(sw_routes[i].path, path)) return i;
  return -1;
}

static int print_label(void *context, const char *label) {
  sw_buffer *out = context;
  return (out->data[out->size - 1] != '[' && sw_buffer_append(out, ",", 1)) || quote(out, label) ? -1 : 0;
}

static int print_model(const sw_served *s, int with_labels, sw_buffer *out) {
  const sw_checkpoint *c = &s->session.checkpoint;
  if (sw_buffer_print(out, "{\"id\":") || quote(out, s->name) ||
      sw_buffer_print(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"skillwatch\"", (long long)s->created))
    return -1;
  if (!with_labels) return sw_buffer_append(out, "}", 1);
  if (sw_buffer_print(out, ",\"kind\":") || quote(out, c->kind) || sw_buffer_print(out, ",\"hash\":\"%s\",\"jobs\":[", c->content_sha256)) return -1;
  for (int job = 0; job < SW_SERVE_JOBS; job++)
    if (sw_served_can(s, (sw_serve_job)job) && print_label(out, sw_serve_job_names[job])) return -1;
  size_t corpora = 0;
  for (size_t i = 0; i < s->num_corpora; i++) corpora += s->corpora[i] != NULL;
  if ((corpora && print_label(out, "search")) || (s->map && print_label(out, "place"))) return -1;
  if (sw_buffer_print(out, "],\"corpora\":[")) return -1;
  for (size_t i = 0; i < s->num_corpora; i++)
    if (s->corpora[i] && print_label(out, s->corpora[i]->name)) return -1;
  if (sw_buffer_print(out, "],\"dimensions\":%d,\"labels\":[", s->session.model->config.hidden_size)) return -1;
  for (int job = 0; job < SW_SERVE_JOBS; job++)
    if (sw_served_labels(s, (sw_serve_job)job, print_label, out)) return -1;
  return sw_buffer_append(out, "]}", 2);
}

static int answer_models(sw_exchange *x) {
  sw_models *m = &x->server->models;
  int status = sw_buffer_print(&x->head, "{\"object\":\"list\",\"data\":[");
  for (size_t i = 0; i < m->count && !status; i++) {
    sw_served *s = sw_models_at(m, i);
    status = (i && sw_buffer_append(&x->head, ",", 1)) || print_model(s, !strcmp(x->route->path, "/models"), &x->head);
    sw_served_release(s);
  }
  return status || sw_buffer_append(&x->head, "]}", 2) ? -1 : 0;
}

static int answer_metrics(sw_exchange *x) {
  sw_server *s = x->server;
  const char *names[SW_METRIC_ROUTES];
  sw_buffer *out = &x->head;
  sw_batcher_state now;
  for (int i = 0; i < sw_num_routes; i++) names[i] = sw_routes[i].path;
  sw_batcher_look(s->batcher, &now);
  if (sw_metrics_print(&s->metrics, names, sw_num_routes, out) ||
      sw_metric_print(out, "queue_requests", "gauge", "Requests that nobody has begun with.", (double)now.waiting_calls) ||
      sw_metric_print(out, "running_requests", "gauge", "Requests that are being worked at.", (double)now.running_calls) ||
      sw_metric_print(out, "queue_tokens", "gauge", "Tokens that wait for a batch.", (double)now.waiting_tokens) ||
      sw_metric_print(out, "connections", "gauge", "Open connections.", (double)atomic_load(&s->connections)) ||
      sw_metric_print(out, "held_bytes", "gauge", "Bytes of requests and answers, by estimate.", (double)atomic_load(&s->memory)) ||
      sw_metric_print(out, "unlogged_requests_total", "counter", "Requests that the access log could not take.", (double)atomic_load(&s->unlogged)) ||
      sw_metric_print(out, "reloads_total", "counter", "Models that were replaced.", (double)atomic_load(&s->models.reloads)) ||
      sw_metric_print(out, "reload_failures_total", "counter", "Models that could not be replaced.", (double)atomic_load(&s->models.failures)) ||
      sw_buffer_print(out, "# HELP skillwatch_model_info The models that are served.\n# TYPE skillwatch_model_info gauge\n"))
    return -1;
  for (size_t i = 0; i < s->models.count; i++) {
    sw_served *served = sw_models_at(&s->models, i);
    const int failed = sw_buffer_print(out, "skillwatch_model_info{model=") || quote(out, served->name) ||
                       sw_buffer_print(out, ",hash=\"%s\"} 1\n", served->session.checkpoint.content_sha256);
    sw_served_release(served);
    if (failed) return -1;
  }
  return 0;
}

/* --- answers --- */

void sw_route_refuse(sw_exchange *x) {
  const sw_fault *f = &x->fault;
  const char *type = f->status >= 500 ? "server_error" : f->status == 429 ? "rate_limit_error" : f->status == 401 ? "authentication_error" : "invalid_request_error";
  const char *message = sw_error();
  sw_buffer_clear(&x->tail);
  sw_buffer_clear(&x->head);
  x->status = f->status;
  x->content_type = "application/json";
  int failed = sw_buffer_print(&x->head, "{\"error\":{\"message\":") || sw_json_quote(&x->head, message, strlen(message)) ||
               sw_buffer_print(&x->head, ",\"type\":\"%s\",\"param\":", type);
  if (!failed) failed = f->param ? quote(&x->head, f->param) : sw_buffer_print(&x->head, "null");
  if (!failed) failed = sw_buffer_print(&x->head, ",\"code\":");
  if (!failed) failed = f->code ? quote(&x->head, f->code) : sw_buffer_print(&x->head, "null");
  if (!failed) failed = sw_buffer_print(&x->head, "}}");
  if (failed) sw_buffer_clear(&x->head); /* the status says enough */
}

void sw_route_answer(sw_exchange *x, sw_call_outcome outcome) {
  const unsigned long long tokens = x->call.tokens;
  if (outcome == SW_CALL_ANSWERED) {
    const int list = answers_list(x->route);
    x->status = 200;
    x->content_type = "application/json";
    int failed = list ? sw_buffer_print(&x->head, "{\"object\":\"list\",\"data\":[") : sw_buffer_print(&x->head, "{\"model\":") || quote(&x->head, x->served->name) || sw_buffer_print(&x->head, ",\"results\":[");
    if (!failed)
      failed = list ? sw_buffer_print(&x->tail, "],\"model\":") || quote(&x->tail, x->served->name) ||
                          sw_buffer_print(&x->tail, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}", tokens, tokens)
                    : sw_buffer_print(&x->tail, "]}");
    if (!failed) return;
    outcome = SW_CALL_BROKEN;
  }
  if (outcome == SW_CALL_LATE) {
    sw_fault_set(&x->fault, 504, NULL, "the answer was not ready in %d s, the server's limit (--timeout): try again, or send fewer texts", x->server->options->timeout);
  } else if (outcome == SW_CALL_BROKEN) {
    sw_fault_set(&x->fault, 500, NULL, "%s", x->call.error ? x->call.error : sw_error());
  } else {
    sw_fail("%s", x->call.error ? x->call.error : "out of memory");
  }
  sw_route_refuse(x);
}

void sw_exchange_clear(sw_exchange *x) {
  sw_call_clear(&x->call);
  free(x->call.items);
  sw_request_close(&x->request);
  sw_served_release(x->served);
  sw_buffer_close(&x->body);
  sw_buffer_close(&x->head);
  sw_buffer_close(&x->tail);
  sw_server_give_back(x->server, x->reserved);
  if (x->reserved > TRIM_BYTES) atomic_store(&x->server->trim, 1);
}
