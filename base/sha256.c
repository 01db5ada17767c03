#include "base/sha256.h"
#include "base/error.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

sw_sha256 *sw_sha256_open(void) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  if (!context || !EVP_DigestInit_ex(context, EVP_sha256(), NULL)) {
    EVP_MD_CTX_free(context);
    sw_fail("libcrypto cannot start SHA-256");
    return NULL;
  }
  return (sw_sha256 *)context;
}

void sw_sha256_add(sw_sha256 *hash, const void *data, size_t bytes) {
  EVP_DigestUpdate((EVP_MD_CTX *)hash, data, bytes);
}

void sw_sha256_close(sw_sha256 *hash, char hex[65]) {
  unsigned char digest[32] = {0};
  EVP_DigestFinal_ex((EVP_MD_CTX *)hash, digest, NULL);
  EVP_MD_CTX_free((EVP_MD_CTX *)hash);
  for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

int sw_sha256_file(const char *path, char hex[65]) {
  FILE *file = fopen(path, "rb");
  if (!file) return sw_fail("cannot open %s: %s", path, strerror(errno));
  sw_sha256 *hash = sw_sha256_open();
  if (!hash) {
    fclose(file);
    return -1;
  }
  char block[1 << 16];
  size_t got;
  while ((got = fread(block, 1, sizeof block, file)) > 0) sw_sha256_add(hash, block, got);
  int failed = ferror(file);
  fclose(file);
  sw_sha256_close(hash, hex);
  return failed ? sw_fail("cannot read %s: %s", path, strerror(errno)) : 0;
}
