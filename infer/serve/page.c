#include "infer/serve/page.h"

#include "base/error.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

/* "; script-src 'sha256-…'" of the text between <script> and </script>, which are there once. */
static int append_source(const char *page, const char *element, sw_buffer *out) {
  char opening[16], closing[16];
  snprintf(opening, sizeof opening, "<%s>", element);
  snprintf(closing, sizeof closing, "</%s>", element);
  const char *begin = strstr(page, opening), *end = begin ? strstr(begin, closing) : NULL;
  if (!end) return sw_fail("the page lacks its %s: build it anew", element);
  begin += strlen(opening);
  unsigned char hash[EVP_MAX_MD_SIZE], text[4 * EVP_MAX_MD_SIZE / 3 + 4];
  unsigned bytes = 0;
  if (!EVP_Digest(begin, (size_t)(end - begin), hash, &bytes, EVP_sha256(), NULL)) return sw_fail("OpenSSL has no SHA-256 here");
  EVP_EncodeBlock(text, hash, (int)bytes);
  return sw_buffer_print(out, "; %s-src 'sha256-%s'", element, (const char *)text);
}

int sw_page_policy(const char *page, sw_buffer *out) {
  return sw_buffer_print(out, "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
                              "require-trusted-types-for 'script'") ||
                 append_source(page, "script", out) || append_source(page, "style", out)
             ? -1
             : 0;
}
