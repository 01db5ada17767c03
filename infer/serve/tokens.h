/* Bearer tokens: who may ask. */
#ifndef SW_SERVE_TOKENS_H
#define SW_SERVE_TOKENS_H
#include <pthread.h>
#include <stddef.h>

typedef struct {
  const char *path; /* NULL: everybody may */
  char (*hashes)[65];
  size_t count;
  pthread_mutex_t lock;
} sw_tokens;

/* A token a line, 16 characters or more; blank lines and those that begin with # are none. Only their hashes are kept. */
int sw_tokens_open(const char *path, sw_tokens *out);
/* The file as it is now; on failure the present tokens stay. */
int sw_tokens_reload(sw_tokens *tokens);
/* `header`: of Authorization, or NULL. Takes as long for one wrong token as for another. */
int sw_tokens_allow(sw_tokens *tokens, const char *header);
void sw_tokens_close(sw_tokens *tokens);
#endif
