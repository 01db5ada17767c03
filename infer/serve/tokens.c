#include "infer/serve/tokens.h"
#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SHORTEST = 16, LARGEST_FILE = 1 << 20 };

static int hash_of(const char *token, size_t bytes, char hex[65]) {
  sw_sha256 *hash = sw_sha256_open();
  if (!hash) return -1;
  sw_sha256_add(hash, token, bytes);
  sw_sha256_close(hash, hex);
  return 0;
}

static int read_tokens(const char *path, const sw_buffer *file, char (*hashes)[65], size_t *count) {
  static const char mark[] = "\xef\xbb\xbf"; /* some editors begin a file with it */
  int line = 0;
  const char *end = file->data + file->size;
  for (const char *at = file->size >= 3 && !memcmp(file->data, mark, 3) ? file->data + 3 : file->data; at < end;) {
    const size_t whole = strcspn(at, "\r\n");
    size_t bytes = whole;
    line++;
    while (bytes && (at[bytes - 1] == ' ' || at[bytes - 1] == '\t')) bytes--;
    if (at[whole] == 0 && at + whole < end) return sw_fail("%s: line %d: a NUL is there, so it is no text: write a token a line", path, line);
    if (bytes && *at != '#') {
      for (size_t i = 0; i < bytes; i++)
        if (at[i] < 0x21 || at[i] > 0x7e)
          return sw_fail("%s: line %d: character %zu is a space or not ASCII, which no token can have; make one with: openssl rand -hex 32", path, line, i + 1);
      if (bytes < SHORTEST) return sw_fail("%s: line %d: the token is shorter than %d characters; make one with: openssl rand -hex 32", path, line, SHORTEST);
      if (hash_of(at, bytes, hashes[(*count)++])) return -1;
    }
    at += whole;
    if (*at == '\r') at++;
    if (*at == '\n') at++;
  }
  return *count ? 0 : sw_fail("%s has no token; make one with: openssl rand -hex 32 > %s", path, path);
}

int sw_tokens_reload(sw_tokens *t) {
  sw_buffer file = {0};
  size_t count = 0, lines = 1;
  if (!t->path) return 0;
  int status = sw_file_read(t->path, LARGEST_FILE, &file);
  for (size_t i = 0; i < file.size; i++) lines += file.data[i] == '\n' || file.data[i] == '\r';
  char(*hashes)[65] = status ? NULL : sw_alloc_array(lines, sizeof *hashes);
  if (!hashes || read_tokens(t->path, &file, hashes, &count)) status = -1;
  if (file.data) OPENSSL_cleanse(file.data, file.size);
  sw_buffer_close(&file);
  if (!status) {
    pthread_mutex_lock(&t->lock);
    char(*old)[65] = t->hashes;
    t->hashes = hashes;
    t->count = count;
    pthread_mutex_unlock(&t->lock);
    hashes = old;
  }
  free(hashes);
  return status;
}

int sw_tokens_open(const char *path, sw_tokens *t) {
  *t = (sw_tokens){.path = path};
  pthread_mutex_init(&t->lock, NULL);
  return sw_tokens_reload(t);
}

int sw_tokens_allow(sw_tokens *t, const char *header) {
  static const char scheme[] = "Bearer ";
  char given[65];
  if (!t->path) return 1;
  if (!header || strncasecmp(header, scheme, sizeof scheme - 1)) return 0;
  const char *token = header + sizeof scheme - 1;
  if (hash_of(token, strlen(token), given)) return 0;
  int found = 0;
  pthread_mutex_lock(&t->lock);
  for (size_t i = 0; i < t->count; i++) found |= CRYPTO_memcmp(given, t->hashes[i], 64) == 0;
  pthread_mutex_unlock(&t->lock);
  return found;
}

void sw_tokens_close(sw_tokens *t) {
  free(t->hashes);
  pthread_mutex_destroy(&t->lock);
}
