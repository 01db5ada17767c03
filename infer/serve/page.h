/* The page at `/`: infer/page.html, part of the program, and the policy that it is sent with. */
#ifndef SW_SERVE_PAGE_H
#define SW_SERVE_PAGE_H
#include "base/buffer.h"
#include "base/embedded.h"

SW_EMBEDDED(sw_page);

/* Appends the Content-Security-Policy of a page (CSP level 3): its own <script> and <style>, by their SHA-256, requests to where it came from, and
 * nothing else. */
int sw_page_policy(const char *page, sw_buffer *out);
#endif
