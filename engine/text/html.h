/* HTML fragments, as job boards send them, as plain text. */
#ifndef SW_TEXT_HTML_H
#define SW_TEXT_HTML_H
#include "base/buffer.h"

/* Appends the text of `html` (UTF-8): tags go, block tags and <br> become line breaks (a blank line around paragraphs, lists and headings), <li> a
 * line that begins with "- ", table cells are separated by a tab; what is in <script>, <style> and comments goes; entities (&amp; &#8226; &#x2022;
 * and the common names) become their characters; white space is collapsed as a browser would, but kept in <pre>. A '<' that begins no tag stays
 * ("<5 years"). No white space at the ends. -1 only for want of memory or beyond out->limit. */
int sw_html_text(const char *html, size_t bytes, sw_buffer *out);
/* Plain text as a posting: "\r\n" and "\r" become "\n", spaces at line ends and at both ends of the text go, more than one blank line in a row
 * becomes one; other control characters become spaces. */
int sw_plain_text(const char *text, size_t bytes, sw_buffer *out);
#endif
