/* HTML fragments and plain texts as postings. */
#include "engine/text/html.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

static void check_html(const char *html, const char *expected) {
  sw_buffer out = {0};
  assert_int_equal(sw_buffer_append(&out, "before", 6), 0); /* it appends */
  assert_int_equal(sw_html_text(html, strlen(html), &out), 0);
  assert_string_equal(out.data + 6, expected);
  sw_buffer_close(&out);
}

static void test_html(void **state) {
  check_html("", "");
  check_html("plain", "plain");
  check_html("  <p>One\n  line</p><p>Two</p> ", "One line\n\nTwo");
  check_html("a<br>b<br/>c<BR />\n<br>d", "a\nb\nc\n\nd");
  check_html("<ul><li>one</li><li> two <b>bold</b>er</li></ul>end", "- one\n- two bolder\n\nend");
  check_html("<ul><li></li></ul>", "");
  check_html("x<ul><li>one</li><li> </li></ul>", "x\n\n- one");
  check_html("<h2 class=\"a>b\">Title</h2>Text", "Title\n\nText");
  check_html("R&amp;D &lt;5 years&gt; &#8226; &#x2022; caf&eacute;&nbsp;bar", "R&D <5 years> \xE2\x80\xA2 \xE2\x80\xA2 caf\xC3\xA9 bar");
  check_html("&bogus; & &#xD800; &#; &#99999999;", "&bogus; & \xEF\xBF\xBD &#; \xEF\xBF\xBD");
  check_html("if a < b and <3 and a<b", "if a < b and <3 and a<b");
  check_html("<b>never closed", "never closed");
  check_html("cut <a href=\"x", "cut <a href=\"x");
  check_html("a<!-- <p>no</p> -->b<script>if (a < b) x()</script>c<style>p {}</STYLE>d", "abcd");
  check_html("a<script>never closed", "a");
  check_html("a<!-- never closed", "a");
  check_html("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc");
  check_html("<pre>one\ntwo</pre>", "one\ntwo");
  check_html("soft\xC2\xADhyphen", "softhyphen");
  check_html("bad \xFF byte", "bad \xEF\xBF\xBD byte");
}

static void check_plain(const char *text, const char *expected) {
  sw_buffer out = {0};
  assert_int_equal(sw_plain_text(text, strlen(text), &out), 0);
  assert_string_equal(out.data, expected);
  sw_buffer_close(&out);
}

static void test_plain(void **state) {
  check_plain("", "");
  check_plain(" \r\n\t", "");
  check_plain("a\r\nb\rc\n\n\n\n d  \n", "a\nb\nc\n\n d");
  check_plain("bell\a end  ", "bell  end");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_html), cmocka_unit_test(test_plain)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
