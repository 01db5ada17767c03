#include "engine/data/job_source.h"
#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "engine/data/window.h"
#include "engine/store/http.h"
#include "engine/store/json.h"
#include "engine/text/html.h"
#include "engine/text/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES = 1 << 20, MAX_TEXT = 1 << 20, MAX_DEPTH = 32, SHORTEST_KEY = 8 };
/* A noncharacter stands for bytes that are not UTF-8, so that the rows that held them are known. */
#define MARK "\xEF\xB7\x90"

static const char linkedin[] =
    "{\"name\": \"linkedin\", \"url\": \"https://linkedin-job-search-api.p.rapidapi.com/active-jb-7d\","
    " \"params\": {\"title_filter\": \"{query}\", \"description_type\": \"text\", \"date_filter\": \"{since}\", \"offset\": \"{offset}\", \"limit\": \"{limit}\"},"
    " \"headers\": {\"x-rapidapi-key\": \"env:RAPID_API_KEY\", \"x-rapidapi-host\": \"linkedin-job-search-api.p.rapidapi.com\"},"
    " \"paging\": {\"by\": \"offset\", \"size\": 100}, \"rows\": \"\","
    " \"fields\": {\"id\": \"id\", \"title\": \"title\", \"company\": \"organization\", \"location\": [\"locations_derived\", \"location\"],"
    "  \"posted\": \"date_posted\", \"text\": [\"description_text\", \"description\"], \"url\": \"url\", \"salary\": \"salary_raw\","
    "  \"employment\": \"employment_type\", \"seniority\": \"seniority\"},"
    " \"rate\": {\"requests\": 60, \"seconds\": 60}}";

static const struct {
  const char *name;
  unsigned bit;
} placeholders[] = {{"query", SW_ASK_QUERY}, {"since", SW_ASK_SINCE}, {"offset", SW_ASK_OFFSET},
                    {"limit", SW_ASK_LIMIT}, {"page", SW_ASK_PAGE},   {"cursor", SW_ASK_CURSOR}};

/* --- templates --- */

/* The placeholder at `p` ('{'): its bit and its end (behind '}'); 0: a '{' of the text. */
static unsigned placeholder(const char *p, const char **end, char name[64]) {
  const char *close = strchr(p, '}');
  if (!close || close - p < 2 || close - p > 64) return 0;
  memcpy(name, p + 1, (size_t)(close - p) - 1);
  name[close - p - 1] = 0;
  *end = close + 1;
  if (!strncmp(name, "env:", 4)) return SW_ASK_SECRET;
  for (size_t i = 0; i < sizeof placeholders / sizeof *placeholders; i++)
    if (!strcmp(name, placeholders[i].name)) return placeholders[i].bit;
  return 0;
}

static int add_secret(sw_job_source *s, const char *name) {
  s->uses |= SW_ASK_SECRET;
  return json_array_append_new(s->secrets, json_string(name)) ? sw_fail_memory("the name of a key") : 0;
}

/* Adds the template's placeholders to the source's; fails for words in braces that are none. */
static int scan(const char *template, const char *what, const char *key, sw_job_source *s) {
  char name[64];
  const char *end;
  for (const char *p = template; (p = strchr(p, '{')); p = end) {
    const unsigned bit = placeholder(p, &end, name);
    if (!bit)
      return sw_fail("%s: \"%s\" holds %.20s..., which is no placeholder; there are {query} {since} {offset} {limit} {page} {cursor} {env:NAME}", what, key, p);
    s->uses |= bit;
    if (bit == SW_ASK_SECRET && add_secret(s, name + 4)) return -1;
  }
  return 0;
}

static int append_encoded(sw_buffer *out, const char *text) {
  int status = 0;
  for (; *text && !status; text++) {
    const unsigned char c = (unsigned char)*text;
    const int plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("-._~", c);
    status = plain ? sw_buffer_append(out, text, 1) : sw_buffer_print(out, "%%%02X", c);
  }
  return status;
}

static const char *secret(const char *name) {
  const char *value = getenv(name);
  if (!value || !value[0]) {
    sw_fail("the environment variable %s is not set: it should hold the key for this source", name);
    return NULL;
  }
  for (const char *c = value; *c; c++)
    if ((unsigned char)*c < 0x20 || *c == 0x7f) {
      sw_fail("the environment variable %s holds a line break or another control character", name);
      return NULL;
    }
  return value;
}

const char *sw_job_header(const char *value, const char **variable) {
  *variable = strncmp(value, "env:", 4) ? NULL : value + 4;
  return *variable ? secret(*variable) : value;
}

/* 0; 1: a placeholder has no value, `out` is not to be used; -1. */
static int expand(const char *template, const sw_job_ask *ask, int masked, int encode, sw_buffer *out) {
  char name[64], number[32];
  const char *end;
  int status = 0;
  while (*template && !status) {
    const size_t plain = strcspn(template, "{");
    if (sw_buffer_append(out, template, plain)) return -1;
    template += plain;
    if (!*template) break;
    const unsigned bit = placeholder(template, &end, name);
    const char *value = bit == SW_ASK_QUERY ? ask->query : bit == SW_ASK_SINCE ? ask->since : bit == SW_ASK_CURSOR ? ask->cursor : number;
    if (bit == SW_ASK_SECRET)
      value = masked ? "***" : secret(name + 4);
    else
      snprintf(number, sizeof number, "%lld", (long long)(bit == SW_ASK_OFFSET ? ask->offset : bit == SW_ASK_LIMIT ? ask->limit : ask->page));
    if (!value) return bit == SW_ASK_SECRET ? -1 : 1;
    status = encode && strcmp(value, "***") ? append_encoded(out, value) : sw_buffer_append(out, value, strlen(value));
    template = end;
  }
  return status;
}

int sw_job_url(const sw_job_source *s, const sw_job_ask *ask, int masked, sw_buffer *out) {
  int status = expand(s->url, ask, masked, 1, out);
  if (status > 0) return sw_fail("the address of %s needs a %s: give --query or --since", s->name, s->uses & SW_ASK_QUERY && !ask->query ? "query" : "value");
  const char *key;
  json_t *value;
  char mark = strchr(s->url, '?') ? '&' : '?';
  sw_buffer one = {0};
  json_object_foreach((json_t *)s->params, key, value) {
    sw_buffer_clear(&one);
    const int missing = status ? status : expand(json_string_value(value), ask, masked, 1, &one);
    if (missing < 0) status = -1;
    if (missing) continue;
    status = sw_buffer_append(out, &mark, 1) || append_encoded(out, key) || sw_buffer_print(out, "=%s", one.data ? one.data : "");
    mark = '&';
  }
  sw_buffer_close(&one);
  return status ? -1 : 0;
}

/* The body with its placeholders filled in; a member whose placeholder has no value is left out: NULL with *missing. */
static json_t *fill(const json_t *value, const sw_job_ask *ask, int masked, int *missing) {
  *missing = 0;
  if (json_is_string(value)) {
    const char *text = json_string_value(value);
    if (!strcmp(text, "{offset}")) return json_integer(ask->offset);
    if (!strcmp(text, "{limit}")) return json_integer(ask->limit);
    if (!strcmp(text, "{page}")) return json_integer(ask->page);
    sw_buffer out = {0};
    const int status = expand(text, ask, masked, 0, &out);
    json_t *filled = status ? NULL : json_string(out.data ? out.data : "");
    *missing = status > 0;
    sw_buffer_close(&out);
    if (!filled && !status) sw_fail("what is to be sent is not UTF-8, or memory ran out");
    return filled;
  }
  if (!json_is_object(value) && !json_is_array(value)) return json_deep_copy(value);
  json_t *copy = json_is_object(value) ? json_object() : json_array(), *item;
  const char *key;
  size_t i;
  int status = copy ? 0 : -1, left_out;
  json_object_foreach((json_t *)value, key, item) {
    json_t *filled = status ? NULL : fill(item, ask, masked, &left_out);
    if (!status && !filled && !left_out) status = -1;
    if (filled && json_object_set_new(copy, key, filled)) status = -1;
  }
  json_array_foreach(value, i, item) {
    json_t *filled = status ? NULL : fill(item, ask, masked, &left_out);
    if (!status && !filled && !left_out) status = -1;
    if (filled && json_array_append_new(copy, filled)) status = -1;
  }
  if (status) json_decref(copy);
  return status ? NULL : copy;
}

int sw_job_body(const sw_job_source *s, const sw_job_ask *ask, int masked, sw_buffer *out) {
  int missing;
  if (!s->body) return 0;
  json_t *body = fill(s->body, ask, masked, &missing);
  char *text = body ? sw_json_canonical(body) : NULL;
  const int status = text ? sw_buffer_append(out, text, strlen(text)) : -1;
  json_decref(body);
  free(text);
  return status;
}

/* --- the config --- */

static int check_keys(const json_t *object, const char *const *known, const char *what, const char *where) {
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)object, key, value) {
    size_t i = 0;
    while (known[i] && strcmp(known[i], key)) i++;
    if (!known[i]) return sw_fail("%s: the key \"%.64s\"%s is not known", what, key, where);
  }
  return 0;
}

/* A member that must be an object of strings where it is there. */
static int read_texts(const json_t *config, const char *key, const char *what, const json_t **out) {
  const char *name;
  json_t *value;
  *out = json_object_get(config, key);
  if (*out && !json_is_object(*out)) return sw_fail("%s: \"%s\" should be an object of texts", what, key);
  json_object_foreach((json_t *)*out, name, value)
    if (!json_is_string(value)) return sw_fail("%s: \"%.64s\" of \"%s\" should be a text", what, name, key);
  return 0;
}

static int read_text(const json_t *object, const char *key, const char *fallback, const char *what, const char **out) {
  const json_t *value = json_object_get(object, key);
  *out = value ? json_string_value(value) : fallback;
  if (value && !*out) return sw_fail("%s: \"%s\" should be a text", what, key);
  return 0;
}

static int scan_value(const json_t *value, const char *what, const char *key, int depth, sw_job_source *s) {
  const char *name;
  json_t *item;
  size_t i;
  if (depth > MAX_DEPTH) return sw_fail("%s: \"%s\" is nested too deep", what, key);
  if (json_is_string(value)) return scan(json_string_value(value), what, key, s);
  json_object_foreach((json_t *)value, name, item)
    if (scan_value(item, what, key, depth + 1, s)) return -1;
  json_array_foreach(value, i, item)
    if (scan_value(item, what, key, depth + 1, s)) return -1;
  return 0;
}

static int read_paging(const json_t *config, const char *what, sw_job_source *s) {
  static const char *const known[] = {"by", "size", "first", "path", "until", "most", NULL};
  static const char *const names[] = {"none", "offset", "page", "cursor", "next"};
  const json_t *paging = json_object_get(config, "paging");
  const char *by, *until;
  if (paging && !json_is_object(paging)) return sw_fail("%s: \"paging\" should be an object", what);
  if (check_keys(paging, known, what, " of \"paging\"") || read_text(paging, "by", "none", what, &by) || read_text(paging, "path", NULL, what, &s->next_path) ||
      read_text(paging, "until", "short", what, &until) || sw_json_integer(paging, "size", 1, 100000, 100, what, &s->size) ||
      sw_json_integer(paging, "first", 0, 1000000, 1, what, &s->first) || sw_json_integer(paging, "most", 1, 1000000, 1000, what, &s->most))
    return -1;
  size_t i = 0;
  while (i < 5 && strcmp(by, names[i])) i++;
  if (i == 5) return sw_fail("%s: paging by \"%.32s\" is not known; use none, offset, page, cursor or next", what, by);
  if (strcmp(until, "short") && strcmp(until, "empty")) return sw_fail("%s: \"until\" should be \"short\" or \"empty\"", what);
  s->paging = (sw_paging)i;
  s->until_empty = !strcmp(until, "empty") || s->paging == SW_PAGING_CURSOR || s->paging == SW_PAGING_NEXT;
  static const unsigned needs[] = {0, SW_ASK_OFFSET, SW_ASK_PAGE, SW_ASK_CURSOR, 0};
  if ((s->uses & needs[i]) != needs[i]) return sw_fail("%s: paging by %s needs {%s} in \"url\", \"params\" or \"body\"", what, by, by);
  if (s->paging == SW_PAGING_CURSOR && !s->next_path) return sw_fail("%s: paging by cursor needs \"path\", the field that holds the next one", what);
  if (s->paging == SW_PAGING_NEXT && !strcmp(s->method, "POST")) return sw_fail("%s: paging by next is for GET", what);
  return 0;
}

static int read_fields(const json_t *config, const char *what, sw_job_source *s) {
  static const char *const reserved[] = {"date", "file", "source", "row", NULL};
  const char *key;
  json_t *value;
  s->fields = json_object_get(config, "fields");
  if (!json_is_object(s->fields) || !json_object_get(s->fields, "text"))
    return sw_fail("%s: \"fields\" should be an object that says at least where the \"text\" is", what);
  json_object_foreach((json_t *)s->fields, key, value) {
    size_t i;
    json_t *path;
    int texts = json_is_string(value) || json_array_size(value) > 0;
    json_array_foreach(value, i, path) texts = texts && json_is_string(path);
    if (!texts) return sw_fail("%s: the field \"%.64s\" should be a path or a list of paths", what, key);
    for (i = 0; reserved[i]; i++)
      if (!strcmp(key, reserved[i])) return sw_fail("%s: a field must not be called \"%s\"; the day of a posting is \"posted\"", what, key);
  }
  return 0;
}

static int read_config(sw_job_source *s, const char *what) {
  static const char *const known[] = {"name",   "url",  "params", "method", "headers", "body",    "paging",
                                      "rows",   "fields", "html",   "rate",   "timeout", "max_bytes", NULL};
  static const char *const known_rate[] = {"requests", "seconds", "per_day", NULL};
  const json_t *c = s->config, *rate = json_object_get(c, "rate");
  const char *key;
  json_t *value;
  if (!json_is_object(c)) return sw_fail("%s should be a JSON object", what);
  if (rate && !json_is_object(rate)) return sw_fail("%s: \"rate\" should be an object", what);
  if (check_keys(c, known, what, "") || check_keys(rate, known_rate, what, " of \"rate\"") || read_text(c, "name", NULL, what, &s->name) ||
      read_text(c, "url", NULL, what, &s->url) || read_text(c, "method", "GET", what, &s->method) || read_text(c, "rows", "", what, &s->rows) ||
      read_texts(c, "params", what, &s->params) || read_texts(c, "headers", what, &s->headers) || read_fields(c, what, s) ||
      sw_json_boolean(c, "html", 0, what, &s->html) || sw_json_integer(rate, "requests", 1, 1000, 0, what, &s->rate_requests) ||
      sw_json_integer(rate, "seconds", 1, 86400, 60, what, &s->rate_seconds) || sw_json_integer(rate, "per_day", 1, 100000000, 0, what, &s->per_day) ||
      sw_json_integer(c, "timeout", 1, 3600, 60, what, &s->timeout) || sw_json_integer(c, "max_bytes", 1, 1 << 28, 1 << 24, what, &s->max_bytes))
    return -1;
  if (!s->name || !s->name[0] || strlen(s->name) > 40 || s->name[strspn(s->name, "abcdefghijklmnopqrstuvwxyz0123456789-_")])
    return sw_fail("%s: \"name\" should be up to 40 of a-z 0-9 - _: it is part of file names", what);
  if (!s->url || (strncmp(s->url, "https://", 8) && strncmp(s->url, "http://", 7))) return sw_fail("%s: \"url\" should begin with https://", what);
  const size_t host = strcspn(strstr(s->url, "//") + 2, "/?#");
  if (memchr(strstr(s->url, "//") + 2, '@', host) || memchr(strstr(s->url, "//") + 2, '{', host))
    return sw_fail("%s: the host in \"url\" must hold neither a login nor a placeholder", what);
  if (strcmp(s->method, "GET") && strcmp(s->method, "POST")) return sw_fail("%s: \"method\" should be GET or POST", what);
  s->body = json_object_get(c, "body");
  if (!s->body && !strcmp(s->method, "POST")) return sw_fail("%s: \"method\": \"POST\" needs a \"body\"; it may be {}", what);
  if (s->body && strcmp(s->method, "POST")) return sw_fail("%s: \"body\" needs \"method\": \"POST\"", what);
  if (!(s->secrets = json_array())) return sw_fail_memory("the names of keys");
  if (scan(s->url, what, "url", s) || scan_value(s->params, what, "params", 0, s) || scan_value(s->body, what, "body", 0, s)) return -1;
  json_object_foreach((json_t *)s->headers, key, value) {
    const char *text = json_string_value(value);
    if (!key[0] || strpbrk(key, ": \t\r\n")) return sw_fail("%s: '%.64s' is no name of a header", what, key);
    if (!strncmp(text, "env:", 4) && add_secret(s, text + 4)) return -1;
    for (; *text; text++)
      if ((unsigned char)*text < 0x20 || *text == 0x7f) return sw_fail("%s: the header %.64s holds a line break or another control character", what, key);
  }
  return read_paging(c, what, s);
}

int sw_job_source_parse(const char *text, size_t bytes, const char *what, sw_job_source *out) {
  *out = (sw_job_source){.config = sw_json_parse(text, bytes, what)};
  const int status = out->config ? read_config(out, what) : -1;
  if (status) sw_job_source_close(out);
  return status;
}

int sw_job_source_open(const char *source, sw_job_source *out) {
  if (!strcmp(source, "linkedin")) return sw_job_source_parse(linkedin, sizeof linkedin - 1, source, out);
  sw_buffer text = {0};
  *out = (sw_job_source){0};
  int status = sw_file_read(source, CONFIG_BYTES, &text);
  if (status) sw_fail_in("'linkedin' or the file of a source is wanted");
  if (!status) status = sw_job_source_parse(text.data ? text.data : "", text.size, source, out);
  sw_buffer_close(&text);
  return status;
}

void sw_job_source_close(sw_job_source *s) {
  json_decref(s->config);
  json_decref(s->secrets);
  *s = (sw_job_source){0};
}

/* --- keys in what a server says --- */

/* Bytes at `p` (a text with a NUL behind it) that are a key of the source; 0: none. *name: its variable. */
static size_t key_at(const sw_job_source *s, const char *p, size_t shortest, const char **name) {
  size_t i;
  const json_t *item;
  json_array_foreach(s->secrets, i, item) {
    const char *key = getenv(*name = json_string_value(item));
    const size_t length = key && strlen(key) >= shortest ? sw_http_key_at(p, key) : 0;
    if (length) return length;
  }
  return 0;
}

static int holds_key(const sw_job_source *s, const char *text, size_t bytes) {
  const char *name;
  for (size_t i = 0; i < bytes; i++)
    if (key_at(s, text + i, 1, &name)) return 1;
  return 0;
}

int sw_job_mask(const sw_job_source *s, const char *text, size_t bytes, int json, sw_buffer *out) {
  const char *from = text, *end = text + bytes, *name;
  int inside = !json;
  for (const char *p = text; p < end;) {
    const size_t length = inside ? key_at(s, p, SHORTEST_KEY, &name) : 0;
    if (length) {
      if (sw_buffer_append(out, from, (size_t)(p - from)) || sw_buffer_print(out, "{env:%s}", name)) return -1;
      from = p += length;
      continue;
    }
    if (json && *p == '"') inside = !inside;
    p += json && inside && *p == '\\' && p + 1 < end ? 2 : 1;
  }
  return sw_buffer_append(out, from, (size_t)(end - from));
}

int sw_job_unmask(const sw_job_source *s, const char *text, int encode, sw_buffer *out) {
  while (*text) {
    const char *at = strstr(text, "{env:"), *close = at ? strchr(at, '}') : NULL, *found = NULL;
    if (!close) return sw_buffer_append(out, text, strlen(text));
    if (sw_buffer_append(out, text, (size_t)(at - text))) return -1;
    size_t i;
    const json_t *item;
    json_array_foreach(s->secrets, i, item) /* no other variable: it is the server that wrote this */
      if (!found && json_string_length(item) == (size_t)(close - at) - 5 && !strncmp(json_string_value(item), at + 5, json_string_length(item)))
        found = json_string_value(item);
    const char *value = found ? secret(found) : NULL;
    if (found && !value) return -1;
    text = found ? close + 1 : at + 1;
    if (!found ? sw_buffer_append(out, at, 1) : encode ? append_encoded(out, value) : sw_buffer_append(out, value, strlen(value))) return -1;
  }
  return 0;
}

/* --- pages --- */

static const json_t *look_up(const json_t *value, const char *path) {
  char key[128];
  while (value && *path) {
    const size_t length = strcspn(path, ".");
    if (length >= sizeof key) return NULL;
    memcpy(key, path, length);
    key[length] = 0;
    value = json_is_array(value) && length && !key[strspn(key, "0123456789")] ? json_array_get(value, strtoul(key, NULL, 10)) : json_object_get(value, key);
    path += length + (path[length] == '.');
  }
  return value;
}

/* A real that may stand for several integers. */
static int is_inexact(const json_t *value) { return json_is_real(value) && fabs(json_real_value(value)) >= 0x1p53; }

/* 1: appended; 0: there is nothing; -1. */
static int append_value(const json_t *value, int nested, sw_buffer *out) {
  if (!value || json_is_null(value)) return 0;
  if (json_is_string(value)) return sw_buffer_append(out, json_string_value(value), json_string_length(value)) ? -1 : json_string_length(value) > 0;
  if (json_is_array(value) && !nested) {
    size_t i;
    const json_t *item;
    const size_t start = out->size;
    json_array_foreach(value, i, item) {
      const size_t before = out->size;
      if (before > start && sw_buffer_append(out, ", ", 2)) return -1;
      const int status = append_value(item, 1, out);
      if (status < 0) return -1;
      if (!status) {
        out->size = before;
        if (out->data) out->data[before] = 0;
      }
    }
    return out->size > start;
  }
  /* one integer beyond 64 bits makes those of the whole page reals: they keep their digits */
  if (json_is_real(value) && !is_inexact(value) && json_real_value(value) == floor(json_real_value(value)))
    return sw_buffer_print(out, "%.0f", json_real_value(value)) ? -1 : 1;
  char *text = sw_json_canonical(value);
  const int status = text ? sw_buffer_append(out, text, strlen(text)) : -1;
  free(text);
  return status ? -1 : 1;
}

/* *from: the value that was found; may be NULL. */
static int append_field(const json_t *row, const json_t *paths, sw_buffer *out, const json_t **from) {
  const size_t count = json_is_string(paths) ? 1 : json_array_size(paths);
  for (size_t i = 0; i < count; i++) {
    const json_t *value = look_up(row, json_string_value(json_is_string(paths) ? paths : json_array_get(paths, i)));
    const int found = append_value(value, 0, out);
    if (from) *from = value;
    if (found) return found;
  }
  return 0;
}

/* Copies the body; what is not UTF-8 becomes MARK. */
static int clean(const char *text, size_t bytes, sw_buffer *out, uint64_t *bad) {
  const uint8_t *p = (const uint8_t *)text, *end = p + bytes, *good = p;
  int status = sw_buffer_reserve(out, bytes);
  while (p < end && !status) {
    uint32_t c;
    const size_t length = sw_utf8_decode(p, end, &c);
    if (length) {
      p += length;
      continue;
    }
    status = sw_buffer_append(out, good, (size_t)(p - good));
    if (!status && (!*bad || good != p)) status = sw_buffer_append(out, MARK, 3); /* a run of bad bytes: one mark */
    ++*bad;
    good = ++p;
  }
  return status ? -1 : sw_buffer_append(out, good, (size_t)(p - good));
}

int sw_job_page_read(const sw_job_source *s, const char *text, size_t bytes, sw_job_page *out) {
  *out = (sw_job_page){0};
  json_error_t error;
  sw_buffer copy = {0}, next = {0};
  if (bytes >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) text += 3, bytes -= 3; /* a byte order mark */
  int status = clean(text, bytes, &copy, &out->bad_bytes);
  /* an escaped NUL is the fault of one row, not of the page */
  if (!status) status = sw_json_row(copy.data, copy.size, JSON_ALLOW_NUL, &out->root, &error);
  if (!status && !out->root && json_error_code(&error) == json_error_numeric_overflow)
    status = sw_json_row(copy.data, copy.size, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &out->root, &error);
  if (!status && !out->root) {
    char found[64]; /* the beginning tells an error page from a cut answer */
    snprintf(found, sizeof found, "%.40s", copy.data);
    if (holds_key(s, copy.data, copy.size))
      status = sw_fail("the answer is not valid JSON (line %d); what it holds is not shown, as a key is in it", error.line);
    else
      status = sw_fail("the answer is not valid JSON (line %d: %.100s); it begins with '%s'", error.line, error.text, found);
  }
  sw_buffer_close(&copy);
  if (!status) {
    out->rows = look_up(out->root, s->rows);
    if (!json_is_array(out->rows))
      status = s->rows[0] ? sw_fail("the answer has no list at \"%s\": the source's \"rows\" should name where the postings are", s->rows)
                          : sw_fail("the answer is no list: the source's \"rows\" should name where the postings are");
  }
  if (!status && s->next_path) {
    const json_t *value = look_up(out->root, s->next_path);
    if (is_inexact(value)) status = sw_fail("the next page, \"%s\", is a number of 2^53 or more whose last digits are lost", s->next_path);
    if (!status && (json_is_string(value) || json_is_number(value))) status = append_value(value, 0, &next) < 0 ? -1 : 0;
    if (!status && next.size && strlen(next.data) == next.size) out->next = sw_buffer_take(&next);
  }
  sw_buffer_close(&next);
  if (status) sw_job_page_close(out);
  return status;
}

void sw_job_page_close(sw_job_page *page) {
  json_decref(page->root);
  free(page->next);
  *page = (sw_job_page){0};
}

static int set(json_t *object, const char *key, const char *text, size_t bytes) {
  return json_object_set_new(object, key, json_stringn(text, bytes)) ? sw_fail("out of memory, or the field %s is not UTF-8", key) : 0;
}

static int make_id(json_t *out, const char *text) {
  const char *url = sw_json_string(out, "url");
  char hex[65];
  if (url) return set(out, "id", url, strlen(url));
  sw_sha256 *hash = sw_sha256_open();
  if (!hash) return -1;
  sw_sha256_add(hash, text, strlen(text));
  sw_sha256_close(hash, hex);
  return set(out, "id", hex, 16);
}

/* The text as it will be written. 1; 0 with a reason; -1. */
static int read_job_text(const sw_job_source *s, const json_t *row, sw_buffer *text, char reason[256]) {
  sw_buffer raw = {0}, plain = {0};
  int status = append_field(row, json_object_get(s->fields, "text"), &raw, NULL);
  if (status == 0) snprintf(reason, 256, "it has no text");
  if (status > 0 && memchr(raw.data, 0, raw.size)) {
    snprintf(reason, 256, "its text holds a NUL character");
    status = 0;
  }
  if (status > 0 && s->html && sw_html_text(raw.data, raw.size, &plain)) status = -1;
  const sw_buffer *source = s->html ? &plain : &raw;
  if (status > 0 && sw_plain_text(source->data ? source->data : "", source->size, text)) status = -1;
  if (status > 0 && (!text->size || text->size > MAX_TEXT)) {
    snprintf(reason, 256, text->size ? "its text is longer than %d bytes" : "its text is empty", MAX_TEXT);
    status = 0;
  }
  sw_buffer_close(&raw);
  sw_buffer_close(&plain);
  return status;
}

static int check_row(const sw_job_page *page, const json_t *row, char reason[256]) {
  char *text = sw_json_canonical(row);
  if (!text) return -1;
  int status = 1;
  if (strlen(text) > SW_MAX_ROW_BYTES / 2) {
    snprintf(reason, 256, "it is longer than %d bytes", SW_MAX_ROW_BYTES / 2);
    status = 0;
  } else if (page->bad_bytes && strstr(text, MARK)) {
    snprintf(reason, 256, "it holds bytes that are not UTF-8");
    status = 0;
  }
  free(text);
  return status;
}

int sw_job_read(const sw_job_source *s, const sw_job_page *page, size_t i, json_t **out, char reason[256]) {
  const json_t *row = json_array_get(page->rows, i), *paths;
  const char *key;
  sw_buffer text = {0}, value = {0};
  *out = NULL;
  if (!json_is_object(row)) {
    snprintf(reason, 256, "it is no JSON object");
    return 0;
  }
  int status = check_row(page, row, reason);
  if (status > 0) status = read_job_text(s, row, &text, reason);
  json_t *job = status > 0 ? json_object() : NULL;
  if (status > 0 && !job) status = sw_fail_memory("a posting");
  json_object_foreach((json_t *)s->fields, key, paths) {
    if (status <= 0 || !strcmp(key, "text")) continue;
    sw_buffer_clear(&value);
    const json_t *from = NULL;
    const int found = append_field(row, paths, &value, &from);
    if (found > 0 && !strcmp(key, "id") && is_inexact(from)) {
      snprintf(reason, 256, "its id is a number of 2^53 or more whose last digits are lost");
      status = 0;
    } else if (found < 0 || (found && set(job, key, value.data, value.size))) {
      status = -1;
    }
  }
  if (status > 0 && set(job, "text", text.data, text.size)) status = -1;
  const char *id = sw_json_string(job, "id");
  if (status > 0 && id && strlen(id) != json_string_length(json_object_get(job, "id"))) {
    snprintf(reason, 256, "its id holds a NUL character");
    status = 0;
  }
  if (status > 0 && !id && make_id(job, text.data)) status = -1;
  if (status > 0 && json_object_set(job, "row", (json_t *)row)) status = sw_fail_memory("a posting");
  sw_buffer_close(&text);
  sw_buffer_close(&value);
  if (status > 0)
    *out = job;
  else
    json_decref(job);
  return status;
}
