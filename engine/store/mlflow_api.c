#include "engine/store/mlflow_api.h"
#include "base/error.h"
#include "engine/store/http.h"
#include "engine/store/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  ANSWER = 1 << 20,
  SECONDS = 10, /* bytes of an answer; a call may take */
  KEY = 250,
  VALUE = 500, /* bytes it keeps of a name and a parameter */
};

static void read_login(sw_http_login *login) {
  *login = (sw_http_login){.user = getenv("MLFLOW_TRACKING_USERNAME"),
                           .password = getenv("MLFLOW_TRACKING_PASSWORD"),
                           .token = getenv("MLFLOW_TRACKING_TOKEN")};
  if (login->user && login->user[0])
    login->token = NULL;
  else
    login->user = NULL;
  if (login->token && !login->token[0]) login->token = NULL;
}

int sw_mlflow_login(const char *address, sw_http_login *login) {
  read_login(login);
  if ((login->user || login->token) && !sw_http_keeps_secrets(address))
    return sw_fail("MLflow at %s: the login in %s would go over the network in the clear; use https or unset it", address,
                   login->user ? "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" : "MLFLOW_TRACKING_TOKEN");
  return 0;
}

int sw_mlflow_escape(sw_buffer *b, const char *text) {
  int status = 0;
  for (; *text && !status; text++) {
    const unsigned char c = (unsigned char)*text;
    const int plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("-._~/", c);
    status = plain ? sw_buffer_append(b, text, 1) : sw_buffer_print(b, "%%%02X", c);
  }
  return status;
}

/* Some servers repeat what they were sent. */
static int shows_login(const char *text) {
  sw_http_login login;
  read_login(&login);
  const char *secret = login.user ? login.password : login.token;
  return text && secret && secret[0] && strstr(text, secret);
}

sw_mlflow_outcome sw_mlflow_judge(long status, const json_t *answer) {
  const char *code = sw_json_string(answer, "error_code"), *text = sw_json_string(answer, "message");
  if (status >= 200 && status < 300) return SW_MLFLOW_DONE;
  if (status == 401 || status == 403)
    sw_fail("it denies access (HTTP %ld): set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD",
            status);
  else if (status >= 300 && status < 400)
    sw_fail("it redirects (HTTP %ld), which is not followed: give the address it really has", status);
  else if (code && !shows_login(code))
    sw_fail("it answers %s: %.200s", code, text && !shows_login(text) ? text : "");
  else
    sw_fail("it answers with HTTP status %ld", status);
  return status < 400 || status == 401 || status == 403    ? SW_MLFLOW_HOPELESS
         : status == 408 || status == 429 || status >= 500 ? SW_MLFLOW_LATER
                                                           : SW_MLFLOW_REFUSED;
}

static int send_it(sw_mlflow_api *api, const sw_http_message *message, long *status, sw_buffer *text) {
  sw_http_wanted wanted = {.name = "Retry-After"};
  sw_http_message m = *message;
  m.wanted = &wanted;
  m.num_wanted = 1;
  const int failed = sw_http_client_send(api->client, &m, status, text);
  snprintf(api->retry_after, sizeof api->retry_after, "%.63s", wanted.value);
  return failed;
}

sw_mlflow_outcome sw_mlflow_call(sw_mlflow_api *api, const char *endpoint, const char *post, json_t *body,
                                 json_t **answer) {
  sw_buffer url = {0}, text = {.limit = ANSWER};
  char *json = body ? sw_json_canonical(body) : NULL;
  const int complete = !sw_buffer_print(&url, "%s/api/2.0/mlflow/%s", api->address, endpoint) && (json || !post);
  long status = 0;
  sw_mlflow_outcome result = SW_MLFLOW_LATER;
  *answer = NULL;
  if (post && !body) { /* a name that is no UTF-8 */
    sw_buffer_close(&url);
    sw_fail("%s: what is to be sent cannot be written as JSON", endpoint);
    return SW_MLFLOW_REFUSED;
  }
  const sw_http_message message = {.method = post ? post : "GET", .url = url.data, .json = json, .seconds = SECONDS};
  if (complete && !send_it(api, &message, &status, &text)) {
    *answer = sw_json_parse(text.data, text.size, "the answer");
    result = sw_mlflow_judge(status, *answer);
    if (result == SW_MLFLOW_DONE && !*answer) {
      sw_fail("it answers with something that is no JSON: is it an MLflow tracking server?");
      result = SW_MLFLOW_HOPELESS;
    }
  }
  json_decref(body);
  free(json);
  sw_buffer_close(&url);
  sw_buffer_close(&text);
  return result;
}

int sw_mlflow_says(const json_t *answer, const char *code) {
  const char *text = sw_json_string(answer, "error_code");
  return text && !strcmp(text, code);
}

int sw_mlflow_artifact(const sw_mlflow_api *api, const char *place, const char *name, sw_buffer *url) {
  if (strncmp(place, "mlflow-artifacts:/", 18) || (place[18] == '/' && place[19] != '/'))
    return sw_fail("it keeps files at '%.60s', which only its own client can reach", place);
  for (place += 18; *place == '/';) place++;
  int status =
      sw_buffer_print(url, "%s/api/2.0/mlflow-artifacts/artifacts/", api->address) || sw_mlflow_escape(url, place);
  if (!status && name) status = sw_buffer_append(url, "/", 1) || sw_mlflow_escape(url, name);
  return status ? -1 : 0;
}

sw_mlflow_outcome sw_mlflow_put(sw_mlflow_api *api, const char *place, const char *name,
                                const sw_http_message *message) {
  sw_buffer url = {0}, text = {.limit = ANSWER};
  long status = 0;
  sw_mlflow_outcome result = SW_MLFLOW_LATER;
  if (sw_mlflow_artifact(api, place, name, &url)) {
    sw_buffer_close(&url);
    return SW_MLFLOW_REFUSED;
  }
  sw_http_message m = *message;
  m.method = "PUT";
  m.url = url.data;
  if (!send_it(api, &m, &status, &text)) {
    json_t *answer = sw_json_parse(text.data, text.size, "the answer");
    result = sw_mlflow_judge(status, answer);
    json_decref(answer);
  } else if (!sw_http_client_code(api->client)) {
    result = SW_MLFLOW_REFUSED; /* the file cannot be read */
  }
  sw_buffer_close(&url);
  sw_buffer_close(&text);
  return result;
}

char *sw_mlflow_clean(const char *name) {
  char *clean = sw_strndup(name, strnlen(name, KEY));
  for (char *c = clean; c && *c; c++)
    if (!((*c >= '0' && *c <= '9') || (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z') || strchr("_-./ ", *c)))
      *c = '_';
  return clean;
}

static int add_param(json_t *list, const char *name, const json_t *value) {
  char *text = json_is_string(value) ? sw_strdup(json_string_value(value)) : sw_json_canonical(value),
       *key = sw_mlflow_clean(name);
  size_t length = text ? strlen(text) : 0;
  if (length > VALUE)
    for (length = VALUE; length && ((unsigned char)text[length] & 0xc0) == 0x80;)
      length--; /* not in the middle of a character */
  int status =
      text && key ? json_array_append_new(list, json_pack("{s:s, s:s%}", "key", key, "value", text, length)) : -1;
  free(text);
  free(key);
  return status;
}

int sw_mlflow_params(json_t *list, const char *prefix, const json_t *value, const json_t *hyper) {
  const char *key;
  json_t *item;
  size_t i;
  int status = 0;
  sw_buffer name = {0};
  json_object_foreach((json_t *)value, key, item) {
    sw_buffer_clear(&name);
    if (!prefix[0] && item == hyper)
      status = sw_mlflow_params(list, "", item, NULL);
    else
      status = sw_buffer_print(&name, "%s%s%s",
                               prefix[0]                     ? prefix
                               : json_object_get(hyper, key) ? "run"
                                                             : "",
                               prefix[0] || json_object_get(hyper, key) ? "/" : "", key) ||
               sw_mlflow_params(list, name.data, item, NULL);
    if (status) break;
  }
  json_array_foreach(value, i, item) {
    sw_buffer_clear(&name);
    if (!status) status = sw_buffer_print(&name, "%s/%zu", prefix, i) || sw_mlflow_params(list, name.data, item, NULL);
  }
  if (!json_is_object(value) && !json_is_array(value) && !json_is_null(value)) status = add_param(list, prefix, value);
  sw_buffer_close(&name);
  return status ? -1 : 0;
}
