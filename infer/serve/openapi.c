/* /openapi.json: OpenAPI 3.1, made of the tables of routes and fields and of the models, so that it says what the server does. */
#include "base/error.h"
#include "engine/store/json.h"
#include "infer/serve/server.h"

#include <stdlib.h>
#include <string.h>

/* A JSON value of a literal text. */
static json_t *of_text(const char *text) { return json_loads(text, JSON_DECODE_ANY, NULL); }

#define TEXT "{\"type\":\"string\",\"pattern\":\"^[^\\\\u0000]+$\"}" /* JSON can write NUL, which no text has */
static const char text_schema[] = TEXT;
static const char texts_schema[] = "{\"type\":\"array\",\"minItems\":1,\"items\":" TEXT "}";

static int can_answer(const sw_served *s, const sw_route *r) {
  int some = r->use == SW_USE_PLAIN || (r->use == SW_USE_PLACE && s->map);
  for (size_t i = 0; i < s->num_corpora; i++) some |= r->use == SW_USE_SEARCH && s->corpora[i];
  return some && sw_served_can(s, r->job);
}

/* The names of the models that can answer; *vocabulary: the largest, *dimensions: those there are. */
static json_t *names_of(sw_models *m, const sw_route *r, int *vocabulary, json_t *dimensions) {
  json_t *names = json_array();
  *vocabulary = 1;
  for (size_t i = 0; i < m->count; i++) {
    sw_served *s = sw_models_at(m, i);
    if (can_answer(s, r)) {
      const sw_model_config *c = &s->session.model->config;
      size_t k = 0;
      while (k < json_array_size(dimensions) && json_integer_value(json_array_get(dimensions, k)) != c->hidden_size) k++;
      if (k == json_array_size(dimensions)) json_array_append_new(dimensions, json_integer(c->hidden_size));
      if (c->vocab_size > *vocabulary) *vocabulary = c->vocab_size;
      json_array_append_new(names, json_string(s->name));
    }
    sw_served_release(s);
  }
  return names;
}

static json_t *input_schema(int vocabulary) {
  json_t *ids = json_pack("{s:s,s:i,s:{s:s,s:i,s:i}}", "type", "array", "minItems", 1, "items", "type", "integer", "minimum", 0, "maximum", vocabulary - 1);
  return json_pack("{s:[o,o,O,{s:s,s:i,s:o}]}", "anyOf", of_text(text_schema), of_text(texts_schema), ids, "type", "array", "minItems", 1, "items", ids);
}

static json_t *body_schema(sw_server *s, const sw_route *r) {
  int vocabulary;
  json_t *dimensions = json_array(), *names = names_of(&s->models, r, &vocabulary, dimensions), *p = json_object();
  const int f = r->fields;
  if (f & SW_FIELD_MODEL) json_object_set_new(p, "model", json_pack("{s:s,s:O}", "type", "string", "enum", names));
  if (f & SW_FIELD_INPUT) json_object_set_new(p, "input", input_schema(vocabulary));
  if (f & SW_FIELD_ENCODING) json_object_set_new(p, "encoding_format", of_text("{\"type\":\"string\",\"enum\":[\"float\",\"base64\"],\"default\":\"float\"}"));
  if (f & SW_FIELD_DIMENSIONS) json_object_set_new(p, "dimensions", json_pack("{s:s,s:O}", "type", "integer", "enum", dimensions));
  if (f & SW_FIELD_USER) json_object_set_new(p, "user", of_text("{\"type\":\"string\",\"description\":\"ignored\"}"));
  if (f & SW_FIELD_TEXTS) json_object_set_new(p, "text", of_text(text_schema)), json_object_set_new(p, "texts", of_text(texts_schema));
  if (f & SW_FIELD_K) json_object_set_new(p, "k", json_pack("{s:s,s:i,s:i}", "type", "integer", "minimum", 1, "maximum", SW_REQUEST_MOST_K));
  if (f & SW_FIELD_CORPUS) {
    json_t *corpora = json_array();
    for (size_t i = 0; i < s->models.num_corpora; i++) json_array_append_new(corpora, json_string(s->models.corpus_names[i]));
    json_object_set_new(p, "corpus", json_pack("{s:s,s:o}", "type", "string", "enum", corpora));
  }
  if (f & SW_FIELD_THRESHOLD) json_object_set_new(p, "threshold", of_text("{\"type\":\"number\",\"minimum\":0,\"maximum\":1}"));
  json_t *schema = json_pack("{s:s,s:b,s:o}", "type", "object", "additionalProperties", 0, "properties", p);
  if (f & SW_FIELD_INPUT) json_object_set_new(schema, "required", of_text("[\"input\"]"));
  else json_object_set_new(schema, "oneOf", of_text("[{\"required\":[\"text\"]},{\"required\":[\"texts\"]}]"));
  json_decref(names);
  json_decref(dimensions);
  return schema;
}

#define OBJECT(required, properties) "{\"type\":\"object\",\"required\":[" required "],\"properties\":{" properties "}}"
#define ARRAY(items) "{\"type\":\"array\",\"items\":" items "}"
#define STRING "{\"type\":\"string\"}"
#define NUMBER "{\"type\":\"number\"}"
#define COUNT "{\"type\":\"integer\",\"minimum\":0}"
#define RESULTS(item) OBJECT("\"model\",\"results\"", "\"model\":" STRING ",\"results\":" ARRAY(item))
#define LABELS RESULTS(OBJECT("\"labels\"", "\"labels\":" ARRAY(OBJECT("\"label\",\"score\"", "\"label\":" STRING ",\"score\":" NUMBER))))
#define LIST(item, more, properties) OBJECT("\"object\",\"data\"" more, "\"object\":{\"const\":\"list\"},\"data\":" ARRAY(item) properties)
#define MODEL "\"id\":" STRING ",\"object\":{\"const\":\"model\"},\"created\":{\"type\":\"integer\"},\"owned_by\":" STRING
#define MODEL_KEYS "\"id\",\"object\",\"created\",\"owned_by\""

static const struct {
  const char *path, *schema;
} answers[] = {
    {"/v1/embeddings", LIST(OBJECT("\"object\",\"index\",\"embedding\"",
                                   "\"object\":{\"const\":\"embedding\"},\"index\":" COUNT ",\"embedding\":{\"anyOf\":[" ARRAY(NUMBER) "," STRING "]}"),
                            ",\"model\",\"usage\"",
                            ",\"model\":" STRING ",\"usage\":" OBJECT("\"prompt_tokens\",\"total_tokens\"", "\"prompt_tokens\":" COUNT ",\"total_tokens\":" COUNT))},
    {"/tag", RESULTS(OBJECT("\"spans\"", "\"spans\":" ARRAY(OBJECT("\"start\",\"end\",\"text\",\"label\",\"layer\",\"score\"",
                                                                   "\"start\":" COUNT ",\"end\":" COUNT ",\"text\":" STRING ",\"label\":" STRING
                                                                   ",\"layer\":" STRING ",\"score\":" NUMBER))))},
    {"/classify", LABELS},
    {"/multilabel", LABELS},
    {"/search", RESULTS(OBJECT("\"hits\"", "\"hits\":" ARRAY(OBJECT("\"id\",\"score\"", "\"id\":" STRING ",\"score\":" NUMBER ",\"text\":" STRING))))},
    {"/place", RESULTS(OBJECT("\"x\",\"y\"", "\"x\":" NUMBER ",\"y\":" NUMBER ",\"z\":" NUMBER))},
    {"/map", OBJECT("\"rows\",\"components\",\"x\",\"y\"", "\"rows\":" COUNT ",\"components\":" COUNT ",\"x\":" ARRAY(NUMBER) ",\"y\":" ARRAY(NUMBER))},
    {"/models", LIST(OBJECT(MODEL_KEYS ",\"kind\",\"hash\",\"jobs\",\"corpora\",\"dimensions\",\"labels\"",
                            MODEL ",\"kind\":" STRING ",\"hash\":" STRING ",\"jobs\":" ARRAY(STRING) ",\"corpora\":" ARRAY(STRING) ",\"dimensions\":" COUNT ",\"labels\":" ARRAY(STRING)), "", "")},
    {"/v1/models", LIST(OBJECT(MODEL_KEYS, MODEL), "", "")},
    {"/health/live", OBJECT("\"status\"", "\"status\":{\"const\":\"live\"}")},
    {"/health/ready", OBJECT("\"status\"", "\"status\":{\"const\":\"ready\"}")},
    {"/openapi.json", "{\"type\":\"object\"}"},
};

static const char error_schema[] = OBJECT(
    "\"error\"", "\"error\":" OBJECT("\"message\",\"type\",\"param\",\"code\"", "\"message\":" STRING ",\"type\":" STRING
                                     ",\"param\":{\"type\":[\"string\",\"null\"]},\"code\":{\"type\":[\"string\",\"null\"]}"));

static json_t *success(const sw_route *r) {
  json_t *schema = NULL;
  for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
    if (!strcmp(answers[i].path, r->path)) schema = of_text(answers[i].schema);
  if (!schema) schema = of_text(STRING);
  return json_pack("{s:s,s:{s:{s:o}}}", "description", "the answer", "content", r->content_type ? r->content_type : "application/json", "schema", schema);
}

static json_t *responses(const sw_server *s, const sw_route *r) {
  static const struct {
    const char *status, *why;
    enum { ALWAYS, TOKENS, POSTS, READY } when;
  } errors[] = {
      {"400", "not what is wanted", ALWAYS},       {"401", "no token, or a wrong one", TOKENS},  {"404", "no such model", POSTS},
      {"405", "another method is wanted", ALWAYS}, {"408", "the request took too long", ALWAYS}, {"411", "no body", POSTS},
      {"413", "too large", ALWAYS},                {"415", "not JSON", POSTS},                   {"421", "meant for another host", ALWAYS},   {"422", "the model cannot do that", POSTS},
      {"429", "too many requests", ALWAYS},        {"431", "its head is too large", ALWAYS},         {"500", "failure", ALWAYS},                   {"503", "not now", ALWAYS},
      {"504", "the deadline has passed", POSTS},
  };
  json_t *all = json_pack("{s:o}", "200", success(r));
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
    if ((errors[i].when == POSTS && !r->is_post) || (errors[i].when == TOKENS && (!s->tokens.path || r->is_open))) continue;
    /* of /health/ready, 503 is an answer like the other */
    const int own = !strcmp(r->path, "/health/ready") && !strcmp(errors[i].status, "503");
    json_t *schema = own ? of_text(OBJECT("\"status\"", "\"status\":{\"const\":\"draining\"}")) : json_pack("{s:s}", "$ref", "#/components/schemas/Error");
    json_object_set_new(all, errors[i].status, json_pack("{s:s,s:{s:{s:o}}}", "description", errors[i].why, "content", "application/json", "schema", schema));
  }
  return all;
}

static int can_be_asked(sw_server *s, const sw_route *r) {
  int vocabulary;
  json_t *dimensions = json_array(), *names = names_of(&s->models, r, &vocabulary, dimensions);
  const int some = json_array_size(names) > 0;
  json_decref(names);
  json_decref(dimensions);
  return (!r->is_post && r->use == SW_USE_PLAIN) || some;
}

int sw_openapi_update(sw_server *s) {
  json_t *paths = json_object();
  for (int i = 0; i < sw_num_routes; i++) {
    const sw_route *r = &sw_routes[i];
    if (!can_be_asked(s, r)) continue; /* no model is there for it */
    json_t *operation = json_pack("{s:s,s:o}", "summary", r->summary, "responses", responses(s, r));
    if (r->is_post)
      json_object_set_new(operation, "requestBody", json_pack("{s:b,s:{s:{s:o}}}", "required", 1, "content", "application/json", "schema", body_schema(s, r)));
    if (s->tokens.path && !r->is_open) json_object_set_new(operation, "security", of_text("[{\"token\":[]}]"));
    json_object_set_new(paths, r->path, json_pack("{s:o}", r->is_post ? "post" : "get", operation));
  }
  json_t *components = json_pack("{s:{s:o}}", "schemas", "Error", of_text(error_schema));
  if (s->tokens.path) json_object_set_new(components, "securitySchemes", of_text("{\"token\":{\"type\":\"http\",\"scheme\":\"bearer\"}}"));
  json_t *all = json_pack("{s:s,s:{s:s,s:s,s:s},s:o,s:o}", "openapi", "3.1.0", "info", "title", "Skillwatch", "version", SW_VERSION, "description",
                          "Finds skills in job postings: spans, vectors, labels.", "paths", paths, "components", components);
  char *text = all ? sw_json_pretty(all) : NULL;
  if (!all) sw_fail("a model's name is not valid UTF-8");
  json_decref(all);
  if (!text) return -1;
  pthread_mutex_lock(&s->openapi_lock);
  free(s->openapi);
  s->openapi = text;
  pthread_mutex_unlock(&s->openapi_lock);
  return 0;
}
