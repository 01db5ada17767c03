#include "infer/serve/tls.h"
#include "base/error.h"
#include "base/file.h"

#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CERTIFICATES = 16, LARGEST_FILE = 1 << 20 };

typedef struct pair {
  gnutls_pcert_st chain[MOST_CERTIFICATES];
  unsigned length;
  gnutls_privkey_t key;
  struct pair *older; /* handshakes may go on with it: all are kept to the end, a few KB each */
} pair;

static _Atomic(pair *) newest;

static void close_pair(pair *p) {
  for (unsigned i = 0; i < p->length; i++) gnutls_pcert_deinit(&p->chain[i]);
  gnutls_privkey_deinit(p->key);
  free(p);
}

/* GnuTLS looks whether they belong together only where it is given both for credentials. */
static int check(const gnutls_datum_t *certificate, const gnutls_datum_t *key) {
  gnutls_certificate_credentials_t both;
  int error = gnutls_certificate_allocate_credentials(&both);
  if (error < 0) return error;
  error = gnutls_certificate_set_x509_key_mem(both, certificate, key, GNUTLS_X509_FMT_PEM);
  gnutls_certificate_free_credentials(both);
  return error;
}

static int make_pair(const gnutls_datum_t *certificate, const gnutls_datum_t *key, pair *p) {
  unsigned length = MOST_CERTIFICATES;
  int error = check(certificate, key);
  if (error >= 0) error = gnutls_pcert_list_import_x509_raw(p->chain, &length, certificate, GNUTLS_X509_FMT_PEM, 0);
  if (error >= 0) p->length = length;
  if (error >= 0) error = gnutls_privkey_init(&p->key);
  if (error >= 0) error = gnutls_privkey_import_x509_raw(p->key, key, GNUTLS_X509_FMT_PEM, NULL, 0);
  return error < 0 ? error : 0;
}

static int is_known(const pair *p) {
  const pair *now = atomic_load(&newest);
  int same = now && now->length == p->length;
  for (unsigned i = 0; same && i < p->length; i++) {
    const gnutls_datum_t *a = &now->chain[i].cert, *b = &p->chain[i].cert;
    same = a->size == b->size && !memcmp(a->data, b->data, b->size);
  }
  return same;
}

int sw_tls_load(const char *certificate, const char *key) {
  sw_buffer files[2] = {{0}};
  pair *p = sw_alloc(sizeof *p);
  if (!p) return -1;
  int status = sw_file_read(certificate, LARGEST_FILE, &files[0]) || sw_file_read(key, LARGEST_FILE, &files[1]) ? -1 : 0;
  if (!status) {
    const gnutls_datum_t data[] = {{(unsigned char *)files[0].data, (unsigned)files[0].size}, {(unsigned char *)files[1].data, (unsigned)files[1].size}};
    const int error = make_pair(&data[0], &data[1], p);
    if (error) status = sw_fail("cannot use %s with %s: a certificate and its key in PEM are wanted: %s", certificate, key, gnutls_strerror(error));
  }
  if (files[1].data) OPENSSL_cleanse(files[1].data, files[1].size);
  sw_buffer_close(&files[0]);
  sw_buffer_close(&files[1]);
  if (status || is_known(p)) {
    close_pair(p);
    return status;
  }
  p->older = atomic_load(&newest);
  atomic_store(&newest, p);
  return 0;
}

void sw_tls_close(void) {
  for (pair *p = atomic_exchange(&newest, NULL); p;) {
    pair *older = p->older;
    close_pair(p);
    p = older;
  }
}

int sw_tls_choose(gnutls_session_t session, const gnutls_datum_t *authorities, int num_authorities, const gnutls_pk_algorithm_t *algorithms, int num_algorithms,
                  gnutls_pcert_st **chain, unsigned *length, gnutls_privkey_t *key) {
  pair *p = atomic_load(&newest);
  *chain = p->chain;
  *length = p->length;
  *key = p->key;
  return 0;
}
