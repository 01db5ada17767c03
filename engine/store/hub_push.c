#include "engine/store/hub_push.h"
#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "engine/store/card.h"
#include "engine/store/encoder.h"
#include "engine/store/http.h"
#include "engine/store/http_retry.h"
#include "engine/store/hub.h"
#include "engine/store/huggingface.h"
#include "engine/store/json.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  MAX_FILES = 64,
  SAMPLE = 512, /* files of a push; bytes of each that the Hub looks at */
  ANSWER = 32 << 20,
  MAX_REGULAR = 64 << 20, /* bytes of an answer; of all files that are sent inside the commit */
  SECONDS = 60,
  COMMIT_SECONDS = 300,
  FILE_SECONDS = 60, /* a request may take; a file without progress */
  MAX_PARTS = 10000,
  RENEWALS = 3, /* of a large file; how often addresses that are too old are asked for anew */
};

typedef struct {
  char name[64]; /* in the repository */
  char *path;
  uint64_t bytes;
  char sha256[65], blob[41]; /* of the content; what git calls it */
  int large, ignored, same;  /* by LFS; by .gitignore; the branch has it already */
} file;

typedef struct {
  sw_hub hub;
  const sw_hub_push_options *o;
  sw_hub_pushed *out;
  char *folder; /* of the export and the uploads' states */
  file files[MAX_FILES];
  size_t count;
  char head[65];              /* the branch's commit */
  json_t *present;            /* array: what the branch has, {"rfilename"} */
  sw_http_retry api, storage; /* the Hub, with the token; others, without */
  sw_http_client *clients[2];
  atomic_int stop;
  atomic_ullong moved;
  sw_progress progress;
  double sent, total;
} push;

/* --- files */

static int add_file(push *p, const char *name, const char *path) {
  struct stat info;
  file *f = &p->files[p->count];
  if (p->count == MAX_FILES || strlen(name) >= sizeof f->name)
    return sw_fail("more than %d files, or the name %.64s is too long", MAX_FILES, name);
  if (stat(path, &info)) return sw_fail("cannot open %s: %s", path, strerror(errno));
  if (!(f->path = sw_strdup(path))) return -1;
  p->count++;
  f->bytes = (uint64_t)info.st_size;
  strcpy(f->name, name);
  return sw_sha256_file(path, f->sha256);
}

static int compare_names(const void *a, const void *b) {
  return strcmp(((const file *)a)->name, ((const file *)b)->name);
}

/* All files below `folder`; the empty folder of sentence-transformers' Normalize needs none. */
static int add_folder(push *p, const char *folder, const char *prefix) {
  DIR *dir = opendir(folder);
  int status = dir ? 0 : sw_fail("cannot read %s: %s", folder, strerror(errno));
  for (struct dirent *entry; dir && !status && (entry = readdir(dir));) {
    if (entry->d_name[0] == '.') continue;
    sw_buffer name = {0};
    char *path = sw_path_join(folder, entry->d_name);
    status = path ? sw_buffer_print(&name, "%s%s", prefix, entry->d_name) : -1;
    if (!status && !sw_is_folder(path))
      status = add_file(p, name.data, path);
    else if (!status)
      status = sw_buffer_print(&name, "/") || add_folder(p, path, name.data);
    sw_buffer_close(&name);
    free(path);
  }
  if (dir) closedir(dir);
  return status ? -1 : 0;
}

/* The model's folder: export, card and origin. */
static int make_files(push *p, const sw_checkpoint *c, const sw_head *head, const char *folder) {
  const int known = sw_encoder_is_known(c->config);
  if (!known && !p->o->with_checkpoint)
    return sw_fail("transformers has no model of this kind (%s): with --with-checkpoint the checkpoint itself is sent, "
                   "for skillwatch pull",
                   c->kind);
  char digest[65] = "", *weights = sw_path_join(folder, SW_HUB_WEIGHTS);
  sw_buffer card = {0};
  int status = !weights || (known ? sw_export_folder(c, head, folder, 1) || sw_sha256_file(weights, digest)
                                  : sw_make_folders(folder));
  json_t *origin = status ? NULL : sw_card_origin(c, head, digest[0] ? digest : NULL, p->o->with_checkpoint);
  char *text = origin ? sw_json_pretty(origin) : NULL;
  status = status || !text || sw_file_write(folder, SW_HUB_ORIGIN, text, strlen(text)) ||
           sw_card_write(c, head, p->hub.id, p->o->with_checkpoint, &card) ||
           sw_file_write(folder, "README.md", card.data, card.size) || add_folder(p, folder, "") ||
           (p->o->with_checkpoint && add_file(p, SW_HUB_CHECKPOINT, p->o->checkpoint));
  sw_buffer_close(&card);
  json_decref(origin);
  free(text);
  free(weights);
  if (!status) qsort(p->files, p->count, sizeof *p->files, compare_names);
  return status ? -1 : 0;
}

/* --- asking the Hub */

/* What the Hub says is wrong: one line, without what it should not know or repeat. */
static int refuse(push *p, long status, const sw_buffer *answer) {
  const char *said = p->api.headers[SW_RETRY_MESSAGE].value;
  json_t *json =
      answer->size ? json_loadb(answer->data, answer->size, 0, NULL) : NULL; /* an error page may be anything */
  if (!said[0] && sw_json_string(json, "error")) said = sw_json_string(json, "error");
  char text[201];
  snprintf(text, sizeof text, "%.200s", strstr(said, p->hub.token) ? "" : said);
  for (char *c = text; *c; c++)
    if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = ' ';
  json_decref(json);
  const char *dash = text[0] ? ": " : "";
  if (status == 401 || status == 403)
    return sw_fail("%s: the Hub denies access (HTTP %ld%s%s): HF_TOKEN must be a token that may write to %.*s",
                   p->hub.id, status, dash, text, (int)strcspn(p->hub.id, "/"), p->hub.id);
  if (status >= 300 && status < 400)
    return sw_fail(
        "%s: the Hub redirects (HTTP %ld), which is not followed: was the model renamed? Give the name it has now",
        p->hub.id, status);
  if (status == 409 || status == 412)
    return sw_fail("%s: somebody else changed %s meanwhile (HTTP %ld%s%s): nothing was changed, run the command again "
                   "to put this on top of it",
                   p->hub.id, p->hub.revision, status, dash, text);
  return sw_fail("%s: the Hub answers with HTTP status %ld%s%s", p->hub.id, status, dash, text);
}

static int is_good(long status) {
  return status >= 200 && status < 300;
}

/* One call. `body` (its reference is taken; NULL: a GET) is sent as JSON. 0: an answer, whatever its status; *answer, a
 * JSON object, is NULL where it is none. */
static int call(push *p, const char *url, const char *type, json_t *body, long *status, json_t **answer,
                sw_buffer *text) {
  char *json = body ? json_dumps(body, JSON_COMPACT) : NULL;
  const sw_http_header headers[] = {{"Accept", type ? type : "application/json"}};
  const sw_http_message message = {.method = body ? "POST" : "GET",
                                   .url = url,
                                   .json = json,
                                   .type = type,
                                   .seconds = SECONDS,
                                   .headers = headers,
                                   .num_headers = 1};
  *answer = NULL;
  text->limit = ANSWER;
  p->api.name = p->hub.id;
  int failed = body && !json ? sw_fail("out of memory") : sw_http_retry_send(&p->api, &message, status, text);
  free(json);
  json_decref(body);
  if (!failed && is_good(*status)) {
    *answer = sw_json_parse(text->data ? text->data : "", text->size, "the answer");
    if (!json_is_object(*answer)) {
      json_decref(*answer);
      *answer = NULL;
      failed = sw_fail("%s: the Hub answers with something that is no JSON object: is HF_ENDPOINT right?", p->hub.id);
    }
  }
  return failed;
}

/* The branch's commit and files. 0; 1: there is no such repository; 2: no such branch; -1. */
static int look(push *p) {
  sw_buffer url = {0}, text = {0};
  json_t *answer = NULL;
  long status = 0;
  int result = sw_hub_url(&p->hub, "api/models/", "/revision/", p->hub.revision, &url) ||
                       call(p, url.data, NULL, NULL, &status, &answer, &text)
                   ? -1
                   : 0;
  const char *sha = sw_json_string(answer, "sha"), *code = p->api.headers[SW_RETRY_CODE].value;
  if (!result && status == 404) {
    result = strcmp(code, "RevisionNotFound") ? 1 : 2;
  } else if (!result && !is_good(status)) {
    result = refuse(p, status, &text);
  } else if (!result && (!sha || strlen(sha) != 40 || strspn(sha, "0123456789abcdef") != 40)) {
    result =
        sw_fail("%s: the Hub does not say which commit %s is at: is HF_ENDPOINT right?", p->hub.id, p->hub.revision);
  } else if (!result && p->o->private && !json_is_true(json_object_get(answer, "private"))) {
    result = sw_fail(
        "%s is public, and --private was asked for: nothing was sent; change it on its page, or leave --private out",
        p->hub.id);
  } else if (!result) {
    snprintf(p->head, sizeof p->head, "%s", sha);
    json_decref(p->present);
    p->present = json_incref(json_object_get(answer, "siblings"));
  }
  json_decref(answer);
  sw_buffer_close(&url);
  sw_buffer_close(&text);
  return result;
}

static int create(push *p) {
  const char *slash = strchr(p->hub.id, '/');
  sw_buffer url = {0}, text = {0};
  sw_hub nameless = p->hub;
  nameless.id[0] = 0;
  json_t *answer = NULL, *body = json_pack("{s:s, s:s, s:s%}", "type", "model", "name", slash + 1, "organization",
                                           p->hub.id, (size_t)(slash - p->hub.id));
  if (body && p->o->private) { /* the newer name and the older one: what a server does not know must not make the model
                                  public */
    json_object_set_new(body, "visibility", json_string("private"));
    json_object_set_new(body, "private", json_true());
  }
  long status = 0;
  int failed = sw_hub_url(&nameless, "api/repos/create", "", NULL, &url) ||
               call(p, url.data, NULL, body, &status, &answer, &text);
  if (!failed && !is_good(status) && status != 409) failed = refuse(p, status, &text); /* 409: somebody was faster */
  if (!failed && !p->o->quiet) fprintf(stderr, "%s: made\n", p->hub.id);
  json_decref(answer);
  sw_buffer_close(&url);
  sw_buffer_close(&text);
  return failed;
}

static int create_branch(push *p) {
  sw_buffer url = {0}, text = {0};
  json_t *answer = NULL;
  long status = 0;
  int failed = sw_hub_url(&p->hub, "api/models/", "/branch/", p->hub.revision, &url) ||
               call(p, url.data, NULL, json_object(), &status, &answer, &text);
  if (!failed && !is_good(status) && status != 409) failed = refuse(p, status, &text);
  json_decref(answer);
  sw_buffer_close(&url);
  sw_buffer_close(&text);
  return failed;
}

/* Makes what is missing, and knows the branch's commit at its end. */
static int prepare(push *p) {
  int found = look(p);
  if (found == 1) {
    if (create(p)) return -1;
    found = look(p);
  }
  if (found == 2) {
    if (create_branch(p)) return -1;
    found = look(p);
  }
  return found > 0
             ? sw_fail(
                   "%s: the Hub does not show %s, which is there or was made now: may the token in HF_TOKEN read it?",
                   p->hub.id, found == 1 ? "it" : p->hub.revision)
             : found;
}

/* SHA-1 of "blob <bytes>\0" and the content. */
static int git_name(const char *data, size_t bytes, char hex[41]) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  char begin[32];
  const int length = snprintf(begin, sizeof begin, "blob %zu", bytes) + 1;
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  const int good = context && EVP_DigestInit_ex(context, EVP_sha1(), NULL) &&
                   EVP_DigestUpdate(context, begin, (size_t)length) && EVP_DigestUpdate(context, data, bytes) &&
                   EVP_DigestFinal_ex(context, digest, NULL);
  EVP_MD_CTX_free(context);
  for (int i = 0; good && i < 20; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
  return good ? 0 : sw_fail("libcrypto cannot compute SHA-1");
}

static json_t *describe(const file *f) {
  sw_buffer sample = {0};
  unsigned char begin[SAMPLE];
  FILE *input = fopen(f->path, "rbe");
  const size_t got = input ? fread(begin, 1, sizeof begin, input) : 0;
  if (input) fclose(input);
  json_t *row = input && !sw_buffer_base64(&sample, begin, got)
                    ? json_pack("{s:s, s:s, s:I}", "path", f->name, "sample", sample.data ? sample.data : "", "size",
                                (json_int_t)f->bytes)
                    : NULL;
  if (!input) sw_fail("cannot open %s: %s", f->path, strerror(errno));
  sw_buffer_close(&sample);
  return row;
}

/* What the Hub says of one file: how it goes, and whether the branch has it. */
static int learn(push *p, file *f, const json_t *row) {
  const char *mode = sw_json_string(row, "uploadMode"), *oid = sw_json_string(row, "oid");
  if (!mode || (strcmp(mode, "lfs") && strcmp(mode, "regular")))
    return sw_fail("%s: the Hub does not say how it wants %s", p->hub.id, f->name);
  f->large = !strcmp(mode, "lfs") && f->bytes; /* an empty file cannot go by LFS */
  f->ignored = json_is_true(json_object_get(row, "shouldIgnore"));
  sw_buffer content = {0};
  int status = 0;
  if (!f->large) {
    status = sw_file_read(f->path, MAX_REGULAR, &content) ||
                     git_name(content.data ? content.data : "", content.size, f->blob)
                 ? -1
                 : 0;
    sw_buffer_close(&content);
  }
  f->same = oid && !strcmp(oid, f->large ? f->sha256 : f->blob);
  return status;
}

static int preupload(push *p) {
  sw_buffer url = {0}, text = {0};
  json_t *list = json_array(), *answer = NULL;
  long status = 0;
  int failed = sw_hub_url(&p->hub, "api/models/", "/preupload/", p->hub.revision, &url);
  for (size_t i = 0; i < p->count && !failed; i++) failed = json_array_append_new(list, describe(&p->files[i]));
  if (!failed) failed = call(p, url.data, NULL, json_pack("{s:O}", "files", list), &status, &answer, &text);
  if (!failed && !is_good(status)) failed = refuse(p, status, &text);
  for (size_t i = 0; i < p->count && !failed; i++) {
    const json_t *row, *found = NULL;
    size_t k;
    json_array_foreach(json_object_get(answer, "files"), k, row) {
      const char *name = sw_json_string(row, "path");
      if (name && !strcmp(name, p->files[i].name)) found = row;
    }
    failed = learn(p, &p->files[i], found);
  }
  json_decref(list);
  json_decref(answer);
  sw_buffer_close(&url);
  sw_buffer_close(&text);
  return failed ? -1 : 0;
}

/* Files that an earlier push wrote and this one does not: a modules.json of another model would be read. Others' files
 * stay. */
static int is_stale(const push *p, const char *name) {
  static const char *const ours[] = {"config.json",
                                     "vocab.txt",
                                     "tokenizer.json",
                                     "tokenizer_config.json",
                                     "special_tokens_map.json",
                                     SW_HUB_WEIGHTS,
                                     "modules.json",
                                     "sentence_bert_config.json",
                                     "1_Pooling/config.json",
                                     SW_HUB_CHECKPOINT};
  for (size_t i = 0; i < p->count; i++)
    if (!strcmp(p->files[i].name, name)) return 0;
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (!strcmp(ours[i], name)) return 1;
  return 0;
}

/* How many files a commit would change. */
static size_t count_changes(const push *p) {
  size_t n = 0, i;
  const json_t *item;
  for (i = 0; i < p->count; i++) n += !p->files[i].same && !p->files[i].ignored;
  json_array_foreach(p->present, i, item) {
    const char *name = sw_json_string(item, "rfilename");
    n += name && is_stale(p, name);
  }
  return n;
}

/* --- large files */

/* The one who is asked for `url`: the Hub, with the token, or anybody else, without. Addresses of a Hub behind https
 * must be https, too. */
static sw_http_retry *whom(push *p, const char *url) {
  char *checked = url[0] ? sw_http_redirect(p->hub.endpoint, url) : (sw_fail("it is empty"), NULL);
  if (!checked) {
    sw_fail_in("%s: the address to upload to", p->hub.id);
    return NULL;
  }
  free(checked);
  return sw_http_same_origin(p->hub.endpoint, url) ? &p->api : &p->storage;
}

/* A signed address that is too old, or an upload that is no longer known. */
static int is_expired(long status) {
  return status == 401 || status == 403 || status == 404 || status == 410;
}

/* 0; 1: the address is too old; -1. */
static int judge(push *p, const file *f, long status) {
  if (is_good(status)) return 0;
  if (is_expired(status)) return 1;
  return sw_fail("%s: %s: the storage answers with HTTP status %ld", p->hub.id, f->name, status);
}

enum { MAX_HEADERS = 32 };

/* The headers that an action asks for; their number. */
static size_t headers_of(const json_t *action, sw_http_header list[MAX_HEADERS]) {
  size_t n = 0;
  const char *name;
  json_t *value;
  json_object_foreach(json_object_get(action, "header"), name, value) if (json_is_string(value) && n < MAX_HEADERS &&
                                                                          strcasecmp(name, "Content-Length") &&
                                                                          strcasecmp(name, "Transfer-Encoding"))
      list[n++] = (sw_http_header){name, json_string_value(value)};
  return n;
}

static int upload_whole(push *p, file *f, const json_t *action) {
  const char *url = sw_json_string(action, "href");
  sw_http_header headers[MAX_HEADERS];
  sw_buffer text = {.limit = ANSWER};
  long status = 0;
  sw_http_retry *to = whom(p, url);
  if (!to) return -1;
  to->name = f->name;
  const sw_http_message message = {.method = "PUT",
                                   .url = url,
                                   .file = f->path,
                                   .seconds = FILE_SECONDS,
                                   .headers = headers,
                                   .num_headers = headers_of(action, headers),
                                   .progress = &p->progress,
                                   .done = p->sent};
  int result = sw_http_retry_send(to, &message, &status, &text) ? -1 : judge(p, f, status);
  sw_buffer_close(&text);
  return result;
}

/* What is known of an upload by parts: {"action": the Hub's, "etags": {"1": ...}}, kept below the cache with the right
 * to read it for its owner only: the addresses are signed. */
static char *state_path(const push *p, const file *f) {
  char hex[65];
  sw_sha256 *hash = sw_sha256_open();
  sw_buffer name = {0};
  if (!hash) return NULL;
  sw_sha256_add(hash, p->hub.endpoint, strlen(p->hub.endpoint) + 1);
  sw_sha256_add(hash, p->hub.id, strlen(p->hub.id) + 1);
  sw_sha256_add(hash, f->sha256, 64);
  sw_sha256_close(hash, hex);
  if (sw_buffer_print(&name, "%s/%.32s.json", p->folder, hex)) return NULL;
  return sw_buffer_take(&name);
}

static uint64_t part_size(const json_t *action) {
  const json_t *size = json_object_get(json_object_get(action, "header"), "chunk_size");
  const char *text = json_string_value(size);
  const long long value = text ? strtoll(text, NULL, 10) : (long long)json_integer_value(size);
  return value > 0 ? (uint64_t)value : 0;
}

/* The address of part `n` (from 1), written "1", "01" or "00001". */
static const char *part_url(const json_t *action, size_t n) {
  const char *name;
  json_t *value;
  json_object_foreach(json_object_get(action, "header"), name,
                      value) if (isdigit((unsigned char)name[0]) && !name[strspn(name, "0123456789")] &&
                                 strtoull(name, NULL, 10) == n) return json_string_value(value);
  return NULL;
}

static size_t count_parts(const json_t *action) {
  size_t n = 0;
  const char *name;
  json_t *value;
  json_object_foreach(json_object_get(action, "header"), name, value) n += name[0] && !name[strspn(name, "0123456789")];
  return n;
}

static int save_state(const char *path, const json_t *state) {
  char *text = sw_json_pretty(state);
  sw_output output = {0};
  int status = text ? sw_output_open(&output, path) : -1;
  if (!status && fchmod(fileno(output.file), 0600)) status = sw_fail("cannot write %s: %s", path, strerror(errno));
  if (!status && (fputs(text, output.file) < 0 || sw_output_commit(&output))) status = -1;
  sw_output_abandon(&output);
  free(text);
  return status;
}

/* Tells the storage that all parts are there. */
static int complete(push *p, file *f, const json_t *action, const json_t *etags, size_t parts) {
  const char *url = sw_json_string(action, "href");
  json_t *list = json_array(), *body;
  sw_buffer text = {.limit = ANSWER};
  long status = 0;
  for (size_t i = 1; i <= parts; i++) {
    char key[24];
    snprintf(key, sizeof key, "%zu", i);
    json_array_append_new(list,
                          json_pack("{s:I, s:s}", "partNumber", (json_int_t)i, "etag", sw_json_string(etags, key)));
  }
  body = json_pack("{s:s, s:o}", "oid", f->sha256, "parts", list);
  char *json = body ? json_dumps(body, JSON_COMPACT) : NULL;
  const sw_http_header headers[] = {{"Accept", "application/vnd.git-lfs+json"}};
  const sw_http_message message = {.method = "POST",
                                   .url = url,
                                   .json = json,
                                   .type = "application/vnd.git-lfs+json",
                                   .seconds = COMMIT_SECONDS,
                                   .headers = headers,
                                   .num_headers = 1};
  sw_http_retry *to = json ? whom(p, url) : NULL;
  if (to) to->name = f->name;
  int result = !json                                                     ? sw_fail("out of memory")
               : !to || sw_http_retry_send(to, &message, &status, &text) ? -1
                                                                         : judge(p, f, status);
  json_decref(body);
  free(json);
  sw_buffer_close(&text);
  return result;
}

/* Sends the parts that `state` lacks, and remembers each. */
static int send_parts(push *p, file *f, json_t *state, const char *path) {
  const json_t *action = json_object_get(state, "action");
  json_t *etags = json_object_get(state, "etags");
  const uint64_t size = part_size(action);
  const size_t parts = (size_t)((f->bytes + size - 1) / size);
  const double before = p->sent;
  sw_buffer text = {.limit = ANSWER};
  int result = 0;
  for (size_t i = 1; i <= parts && !result; i++) {
    char key[24];
    long status = 0;
    snprintf(key, sizeof key, "%zu", i);
    const uint64_t from = (i - 1) * size, bytes = f->bytes - from < size ? f->bytes - from : size;
    if (!sw_json_string(etags, key)) {
      const char *url = part_url(action, i);
      sw_http_retry *to = whom(p, url);
      if (to) to->name = f->name;
      const sw_http_message message = {.method = "PUT",
                                       .url = url,
                                       .file = f->path,
                                       .from = from,
                                       .bytes = bytes,
                                       .seconds = FILE_SECONDS,
                                       .progress = &p->progress,
                                       .done = p->sent};
      result = !to || sw_http_retry_send(to, &message, &status, &text) ? -1 : judge(p, f, status);
      if (!result && !to->headers[SW_RETRY_ETAG].value[0])
        result = sw_fail("%s: %s: the storage gives part %zu no ETag", p->hub.id, f->name, i);
      if (!result) p->out->bytes += bytes;
      if (!result &&
          (json_object_set_new(etags, key, json_string(to->headers[SW_RETRY_ETAG].value)) || save_state(path, state)))
        result = -1;
    }
    p->sent += (double)bytes;
  }
  sw_buffer_close(&text);
  p->sent = before;
  return result ? result : complete(p, f, action, etags, parts);
}

/* 1 where the action has an address for each part of the file, and for nothing else. */
static int is_cut_rightly(const json_t *action, const file *f) {
  const uint64_t size = part_size(action), parts = size ? (f->bytes + size - 1) / size : 0;
  if (!parts || parts > MAX_PARTS || count_parts(action) != parts || !sw_json_string(action, "href")) return 0;
  for (size_t i = 1; i <= parts; i++)
    if (!part_url(action, i)) return 0;
  return 1;
}

/* What an earlier run left, or a beginning. */
static json_t *find_state(const push *p, const file *f, const char *path, const json_t *action) {
  json_t *state = sw_exists(path) ? sw_json_read(path, ANSWER) : NULL;
  const size_t sent = json_object_size(json_object_get(state, "etags"));
  if (sent && is_cut_rightly(json_object_get(state, "action"), f)) {
    if (!p->o->quiet)
      fprintf(stderr, "%s: %zu of %zu parts are there already\n", f->name, sent,
              count_parts(json_object_get(state, "action")));
    return state;
  }
  json_decref(state);
  state = json_pack("{s:O, s:{}}", "action", action, "etags");
  if (!state) sw_fail("out of memory");
  return state;
}

static int upload_parts(push *p, file *f, const json_t *action) {
  if (!is_cut_rightly(action, f))
    return sw_fail("%s: %s: the Hub's answer does not cut it into parts rightly", p->hub.id, f->name);
  char *path = state_path(p, f);
  json_t *state = path ? find_state(p, f, path, action) : NULL;
  const int result = state ? send_parts(p, f, state, path) : -1;
  /* only where a connection failed is there something to go on with */
  if (path && (result >= 0 || !(p->api.temporary || p->storage.temporary))) unlink(path);
  json_decref(state);
  free(path);
  return result;
}

/* Forgets an upload that was completed by a run that did not live to know. */
static int forget_state(const push *p, const file *f) {
  char *path = state_path(p, f);
  if (path) unlink(path);
  free(path);
  return path ? 0 : -1;
}

/* The Hub looks whether the storage has it. */
static int verify(push *p, file *f, const json_t *action) {
  const char *url = sw_json_string(action, "href");
  sw_http_header headers[MAX_HEADERS];
  sw_buffer text = {.limit = ANSWER}, body = {0};
  long status = 0;
  sw_http_retry *to = whom(p, url);
  if (to) to->name = f->name;
  int result =
      !to || sw_buffer_print(&body, "{\"oid\":\"%s\",\"size\":%llu}", f->sha256, (unsigned long long)f->bytes) ? -1 : 0;
  const sw_http_message message = {.method = "POST",
                                   .url = url,
                                   .json = body.data,
                                   .seconds = SECONDS,
                                   .headers = headers,
                                   .num_headers = headers_of(action, headers)};
  if (!result) result = sw_http_retry_send(to, &message, &status, &text);
  if (!result && !is_good(status))
    result = sw_fail("%s: %s: what arrived is not what was sent, says the Hub (HTTP %ld); run the command again",
                     p->hub.id, f->name, status);
  sw_buffer_close(&text);
  sw_buffer_close(&body);
  return result;
}

/* What the Hub says of one large file. 0; 1: its addresses are too old already; -1. */
static int upload_one(push *p, file *f, const json_t *row) {
  const json_t *failure = json_object_get(row, "error"), *actions = json_object_get(row, "actions"),
               *upload = json_object_get(actions, "upload"), *check = json_object_get(actions, "verify");
  if (!row) return sw_fail("%s: the Hub does not say where %s goes", p->hub.id, f->name);
  if (failure) {
    const char *said = sw_json_string(failure, "message");
    return sw_fail("%s: the Hub refuses %s: %lld %.200s", p->hub.id, f->name,
                   (long long)json_integer_value(json_object_get(failure, "code")),
                   said && !strstr(said, p->hub.token) ? said : "");
  }
  if (!upload) return forget_state(p, f); /* the Hub has it already */
  if (!sw_json_string(upload, "href") || (check && !sw_json_string(check, "href")))
    return sw_fail("%s: the Hub gives no address for %s", p->hub.id, f->name);
  const int by_parts = json_object_get(json_object_get(upload, "header"), "chunk_size") != NULL;
  int result = by_parts ? upload_parts(p, f, upload) : upload_whole(p, f, upload);
  if (!result && !by_parts) p->out->bytes += f->bytes;
  return result || !check ? result : verify(p, f, check);
}

/* Asks where the large files that the branch lacks go, and sends those that the Hub does not have. */
static int upload_all(push *p) {
  char wanted[MAX_FILES];
  size_t left = 0;
  for (size_t i = 0; i < p->count; i++) {
    wanted[i] = p->files[i].large && !p->files[i].same && !p->files[i].ignored;
    left += (size_t)wanted[i];
    p->total += wanted[i] ? (double)p->files[i].bytes : 0;
  }
  sw_progress_open(&p->progress, "upload", p->total, p->o->quiet);
  int failed = 0;
  for (int round = 0; left && !failed; round++) {
    json_t *objects = json_array(), *answer = NULL;
    sw_buffer url = {0}, text = {0};
    long status = 0;
    if (round > RENEWALS)
      failed =
          sw_fail("%s: the storage denies access to the addresses that the Hub gives; is this machine's clock right?",
                  p->hub.id);
    for (size_t i = 0; i < p->count && !failed; i++)
      if (wanted[i])
        failed = json_array_append_new(
            objects, json_pack("{s:s, s:I}", "oid", p->files[i].sha256, "size", (json_int_t)p->files[i].bytes));
    if (!failed)
      failed = sw_hub_url(&p->hub, "", ".git/info/lfs/objects/batch", NULL, &url) ||
               call(p, url.data, "application/vnd.git-lfs+json",
                    json_pack("{s:s, s:[s, s], s:O, s:s, s:{s:s}}", "operation", "upload", "transfers", "basic",
                              "multipart", "objects", objects, "hash_algo", "sha256", "ref", "name", p->hub.revision),
                    &status, &answer, &text);
    if (!failed && !is_good(status)) failed = refuse(p, status, &text);
    const char *transfer = sw_json_string(answer, "transfer");
    if (!failed && transfer && strcmp(transfer, "basic") && strcmp(transfer, "multipart"))
      failed = sw_fail("%s: the Hub wants the transfer '%.40s', which it was not offered", p->hub.id, transfer);
    for (size_t i = 0; i < p->count && !failed; i++) {
      const json_t *row, *found = NULL;
      size_t k;
      if (!wanted[i]) continue;
      json_array_foreach(json_object_get(answer, "objects"), k, row) {
        const char *oid = sw_json_string(row, "oid");
        if (oid && !strcmp(oid, p->files[i].sha256)) found = row;
      }
      const int result = upload_one(p, &p->files[i], found);
      failed = result < 0;
      if (result) continue; /* too old: once more, with new addresses */
      wanted[i] = 0;
      left--;
      p->sent += (double)p->files[i].bytes;
    }
    json_decref(objects);
    json_decref(answer);
    sw_buffer_close(&url);
    sw_buffer_close(&text);
  }
  sw_progress_close(&p->progress);
  return failed ? -1 : 0;
}

/* --- the commit */

/* One line of it; takes the reference. */
static int add_line(sw_buffer *b, const char *key, json_t *value) {
  json_t *line = json_pack("{s:s, s:o}", "key", key, "value", value);
  char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
  int status = text ? sw_buffer_print(b, "%s\n", text) : sw_fail("out of memory, or a text is not valid UTF-8");
  free(text);
  json_decref(line);
  return status;
}

static int add_content(sw_buffer *b, const file *f) {
  sw_buffer content = {0}, base64 = {0};
  int status = sw_file_read(f->path, MAX_REGULAR, &content) ||
               sw_buffer_base64(&base64, content.data ? content.data : "", content.size) ||
               add_line(b, "file",
                        json_pack("{s:s, s:s, s:s}", "path", f->name, "encoding", "base64", "content",
                                  base64.data ? base64.data : ""));
  sw_buffer_close(&content);
  sw_buffer_close(&base64);
  return status ? -1 : 0;
}

static int make_commit(const push *p, const char *title, sw_buffer *b) {
  size_t i;
  const json_t *item;
  int status =
      add_line(b, "header", json_pack("{s:s, s:s, s:s}", "summary", title, "description", "", "parentCommit", p->head));
  for (i = 0; i < p->count && !status; i++) {
    const file *f = &p->files[i];
    if (f->same || f->ignored) continue;
    status = f->large ? add_line(b, "lfsFile",
                                 json_pack("{s:s, s:s, s:s, s:I}", "path", f->name, "algo", "sha256", "oid", f->sha256,
                                           "size", (json_int_t)f->bytes))
                      : add_content(b, f);
  }
  json_array_foreach(p->present, i, item) {
    const char *name = sw_json_string(item, "rfilename");
    if (!status && name && is_stale(p, name)) status = add_line(b, "deletedFile", json_pack("{s:s}", "path", name));
  }
  return status;
}

/* The answer to a commit may be lost, and the commit made: 1 where the branch has all of it. */
static int is_made(push *p) {
  const int found = look(p);
  if (found) return found > 0 ? 0 : -1;
  return preupload(p) ? -1 : !count_changes(p);
}

static int commit(push *p, const sw_checkpoint *c) {
  sw_buffer url = {0}, body = {.limit = 2 * (size_t)MAX_REGULAR}, text = {.limit = ANSWER}, title = {0};
  long status = 0;
  p->out->files = count_changes(p);
  int failed =
      (p->o->message ? sw_buffer_print(&title, "%s", p->o->message)
                     : sw_buffer_print(&title, "Skillwatch checkpoint %.12s (%s)", c->content_sha256, c->kind)) ||
      sw_hub_url(&p->hub, "api/models/", "/commit/", p->hub.revision, &url) || make_commit(p, title.data, &body);
  const sw_http_message message = {
      .method = "POST", .url = url.data, .json = body.data, .type = "application/x-ndjson", .seconds = COMMIT_SECONDS};
  sw_http_retry to = {.client = p->api.client, .name = p->hub.id, .quiet = p->o->quiet};
  int made = 0;
  while (!failed && !made) {
    const int again = sw_http_retry_once(&to, &message, &status, &text);
    failed = again < 0;
    p->api.temporary |= to.temporary;
    if (failed || (!again && status != 409 && status != 412)) break;
    made = is_made(
        p); /* by us, though we did not hear of it: libcurl, too, sends again where a kept connection has died */
    if (made < 0) failed = 1;
    if (!again) break;
  }
  if (!failed && !made) {
    memcpy(p->api.headers, to.headers, sizeof to.headers); /* for refuse() */
    json_t *answer = is_good(status) ? sw_json_parse(text.data ? text.data : "", text.size, "the answer") : NULL;
    const char *oid = sw_json_string(answer, "commitOid");
    if (!is_good(status))
      failed = refuse(p, status, &text);
    else if (oid)
      snprintf(p->head, sizeof p->head, "%s", oid);
    else
      failed =
          sw_fail("%s: the Hub took the commit, and does not say which it is: look at the model's page", p->hub.id);
    json_decref(answer);
  }
  sw_buffer_close(&url);
  sw_buffer_close(&body);
  sw_buffer_close(&text);
  sw_buffer_close(&title);
  return failed ? -1 : 0;
}

static int run(push *p, const sw_checkpoint *c, const sw_head *head, const char *folder) {
  const sw_http_login login = {.token = p->hub.token}, none = {0};
  if (sw_http_client_open(&login, &p->stop, &p->moved, &p->clients[0]) ||
      sw_http_client_open(&none, &p->stop, &p->moved, &p->clients[1]))
    return -1;
  p->api = (sw_http_retry){.client = p->clients[0], .name = p->hub.id, .quiet = p->o->quiet};
  p->storage = (sw_http_retry){.client = p->clients[1], .quiet = p->o->quiet};
  if (make_files(p, c, head, folder) || prepare(p) || preupload(p)) return -1;
  if (!count_changes(p)) {
    p->out->unchanged = 1;
    return 0;
  }
  return upload_all(p) || commit(p, c) ? -1 : 0;
}

int sw_hub_push(const sw_checkpoint *c, const sw_head *head, const sw_hub_push_options *o, sw_hub_pushed *out) {
  *out = (sw_hub_pushed){0};
  push *p = sw_alloc(sizeof *p);
  if (!p) return -1;
  p->o = o;
  p->out = out;
  sw_buffer id = {0}, address = {0};
  int status = sw_buffer_print(&id, "%s%s%s", o->id, o->branch ? "@" : "", o->branch ? o->branch : "") ||
                       sw_hub_read(id.data, &p->hub)
                   ? -1
                   : 0;
  if (!status && sw_hub_is_offline()) status = sw_fail("HF_HUB_OFFLINE is set, which forbids to ask the Hub; unset it");
  if (!status && !p->hub.token)
    status =
        sw_fail("HF_TOKEN is not set: pushing needs a token that may write to %.*s (the Hub: Settings, Access Tokens)",
                (int)strcspn(p->hub.id, "/"), p->hub.id);
  sw_cache_room room = {0};
  if (!status) status = (p->folder = sw_cache_push(o->cache)) && !sw_cache_open(o->cache, &room) ? 0 : -1;
  if (!status && !(status = run(p, c, head, room.model))) {
    snprintf(out->commit, sizeof out->commit, "%s", p->head);
    snprintf(out->branch, sizeof out->branch, "%s", p->hub.revision);
    if (!sw_hub_url(&p->hub, "", "", NULL, &address)) snprintf(out->address, sizeof out->address, "%s", address.data);
  }
  out->temporary = p->api.temporary || p->storage.temporary;
  sw_cache_close(&room);
  for (size_t i = 0; i < p->count; i++) free(p->files[i].path);
  for (int i = 0; i < 2; i++) sw_http_client_close(p->clients[i]);
  json_decref(p->present);
  free(p->folder);
  free(p);
  sw_buffer_close(&id);
  sw_buffer_close(&address);
  return status;
}
