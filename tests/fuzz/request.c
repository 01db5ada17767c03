/* Any bytes as the body of a request, for any route: no crash; what is read is what the server relies on, what is refused is a client's fault with a message. */
#include "base/error.h"
#include "engine/text/words.h"
#include "infer/serve/request.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const int routes[] = {SW_FIELD_MODEL | SW_FIELD_INPUT | SW_FIELD_ENCODING | SW_FIELD_DIMENSIONS | SW_FIELD_USER,
                               SW_FIELD_MODEL | SW_FIELD_TEXTS | SW_FIELD_K | SW_FIELD_THRESHOLD | SW_FIELD_CORPUS};
  for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
    sw_request request;
    sw_fault fault = {0};
    if (sw_request_read((const char *)data, size, routes[i], &request, &fault)) {
      if (fault.status != 400 || !*sw_error()) abort();
    } else {
      if (request.count == 0 || request.k < 0 || request.k > SW_REQUEST_MOST_K || request.dimensions < 0) abort();
      if (!(request.threshold == -1 || (request.threshold >= 0 && request.threshold <= 1))) abort();
      for (size_t t = 0; t < request.count; t++) {
        const sw_request_text *text = &request.texts[t];
        if (!text->text == !text->ids || (text->text && (!text->bytes || strlen(text->text) != text->bytes || sw_check_utf8(text->text, text->bytes)))) abort();
        if (text->ids && !text->num_ids) abort();
        for (size_t k = 0; k < text->num_ids; k++)
          if (text->ids[k] < 0) abort();
      }
    }
    sw_request_close(&request);
  }
  return 0;
}
