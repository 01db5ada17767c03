/* SHA-256 (FIPS 180-4), by OpenSSL's libcrypto. */
#ifndef SW_BASE_SHA256_H
#define SW_BASE_SHA256_H
#include <stddef.h>

typedef struct sw_sha256 sw_sha256;
sw_sha256 *sw_sha256_open(void); /* NULL on failure */
void sw_sha256_add(sw_sha256 *hash, const void *data, size_t bytes);
/* Writes 64 hexadecimal digits and a NUL, and releases `hash`. */
void sw_sha256_close(sw_sha256 *hash, char hex[65]);
/* Of a whole file. */
int sw_sha256_file(const char *path, char hex[65]);
#endif
