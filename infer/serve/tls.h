/* The certificate of HTTPS, which another can replace while connections go on. */
#ifndef SW_SERVE_TLS_H
#define SW_SERVE_TLS_H
#include <gnutls/abstract.h>

/* Reads both files (PEM; a certificate with those that vouch for it, and its key) and uses them for new connections; on failure the present ones stay. For one
 * thread. */
int sw_tls_load(const char *certificate, const char *key);
/* After the last connection. */
void sw_tls_close(void);
/* gnutls_certificate_retrieve_function2, which is told nothing that is the server's: hence there is one certificate a process. */
int sw_tls_choose(gnutls_session_t session, const gnutls_datum_t *authorities, int num_authorities, const gnutls_pk_algorithm_t *algorithms, int num_algorithms,
                  gnutls_pcert_st **chain, unsigned *length, gnutls_privkey_t *key);
#endif
