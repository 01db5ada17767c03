/* What all who talk to an MLflow server have in common: login, calls, what its answers mean, addresses of artifacts.
 * https://mlflow.org/docs/latest/rest-api.html */
#ifndef SW_STORE_MLFLOW_API_H
#define SW_STORE_MLFLOW_API_H
#include "engine/store/http_client.h"
#include <jansson.h>

/* DONE; LATER: try again; REFUSED: never this one; HOPELESS: nothing at all. Without DONE sw_error() says why. */
typedef enum { SW_MLFLOW_DONE, SW_MLFLOW_LATER, SW_MLFLOW_REFUSED, SW_MLFLOW_HOPELESS } sw_mlflow_outcome;

typedef struct {
  sw_http_client *client;
  const char *address;  /* without '/' at its end */
  char retry_after[64]; /* of the last call's answer */
} sw_mlflow_api;

/* MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; borrowed from the environment. Fails
 * where there is one and the address would send it over the network in the clear. */
int sw_mlflow_login(const char *address, sw_http_login *login);
/* What an answer means; `answer`: its JSON, or NULL. */
sw_mlflow_outcome sw_mlflow_judge(long status, const json_t *answer);
/* One call of /api/2.0/mlflow/<endpoint>: a GET, or with `post` ("POST", "PATCH", "DELETE") one of that method with
 * `body`, which is taken. *answer gets a JSON object with DONE and sometimes otherwise. */
sw_mlflow_outcome sw_mlflow_call(sw_mlflow_api *api, const char *endpoint, const char *post, json_t *body,
                                 json_t **answer);
/* 1 where the answer's error_code is `code`. */
int sw_mlflow_says(const json_t *answer, const char *code);
/* Letters, digits, a few signs and '/' stay, the others become %XX. */
int sw_mlflow_escape(sw_buffer *b, const char *text);
/* The address of the server's own proxy for the artifact `name` below `place` (mlflow-artifacts:/1/<run>/artifacts);
 * `name` NULL: `place` itself. Other stores need logins of their own: -1. */
int sw_mlflow_artifact(const sw_mlflow_api *api, const char *place, const char *name, sw_buffer *url);
/* PUT of a file there. `message` has the file and how long it may take. */
sw_mlflow_outcome sw_mlflow_put(sw_mlflow_api *api, const char *place, const char *name,
                                const sw_http_message *message);
/* A name as the server takes it: other characters become '_'; free() it. */
char *sw_mlflow_clean(const char *name);
/* Adds what `value` holds to the array `list` as {"key", "value"}, named "data/0/file", and what the object `hyper` in
 * it holds by its own names; values are cut at what the server keeps. */
int sw_mlflow_params(json_t *list, const char *prefix, const json_t *value, const json_t *hyper);
#endif
