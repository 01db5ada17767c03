/* Which ways of writing a skill have a key in common, and which must not. */
#include "base/error.h"
#include "engine/text/skill_key.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

static int set_up(void **state) { return sw_skill_keys_open((sw_skill_keys **)state); }
static int tear_down(void **state) {
  sw_skill_keys_close(*state);
  return 0;
}

static int read_text(sw_skill_keys *k, sw_form_kind kind, const char *text) { return sw_skill_keys_read(k, kind, text, strlen(text)); }

/* The key of the whole text. */
static void is(sw_skill_keys *k, const char *text, sw_key_kind kind, const char *want) {
  assert_true(read_text(k, SW_FORMS_TEXT, text) > 0);
  assert_string_equal(sw_skill_key(k, 0, kind), want);
}

static void words(void **state) {
  static const char *const cases[][2] = {
      {"C++", "c++"}, {"c#", "c#"}, {"C", "c"}, {"F#", "f#"}, {".NET", ".net"}, {"ASP.NET", "asp net"}, {"Node.js", "node js"}, {"C++17", "c++ 17"}, {"C ++", "c ++"},
      {"Python 3.11", "python 3.11"}, {"CI/CD", "ci cd"}, {"R&D", "r and d"}, {"  Machine\tlearning. ", "machine learning"}, {"driver's licence", "drivers licence"},
      {"Caf\xc3\xa9", "cafe"}, {"\xef\xbc\xb0ython", "python"}, {"STRA\xc3\x9f" "E", "strasse"}, {"#hashtag", "hashtag"}, {"1 + 2", "1 2"}, {"8+", "8"},
      {"Kubernetes (K8s)", "kubernetes k8s"}, {"\xe6\x9c\xba\xe5\x99\xa8", "\xe6\x9c\xba\xe5\x99\xa8"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) is(*state, cases[i][0], SW_KEY_WORDS, cases[i][1]);
}

static void other_keys(void **state) {
  static const struct {
    sw_key_kind kind;
    const char *text, *want;
  } cases[] = {{SW_KEY_SINGULAR, "REST APIs", "rest api"}, {SW_KEY_SINGULAR, "business processes", "business process"}, {SW_KEY_SINGULAR, "technologies", "technology"},
               {SW_KEY_SINGULAR, "CSS", "css"}, {SW_KEY_SINGULAR, "visualisation", "visualization"}, {SW_KEY_SINGULAR, "Project Mgmt.", "project management"},
               {SW_KEY_JOINED, "Java Script", "javascript"}, {SW_KEY_JOINED, "C ++", "c++"}, {SW_KEY_JOINED, "Dev-Ops", "devop"},
               {SW_KEY_SORTED, "management of projects", "manag project"}, {SW_KEY_SORTED, "managing projects", "manag project"},
               {SW_KEY_SORTED, "project manager", "manager project"}, {SW_KEY_SORTED, "organisation", ""}, {SW_KEY_SORTED, "the data", ""}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) is(*state, cases[i].text, cases[i].kind, cases[i].want);
}

/* All forms' words with "|" between. */
static void forms_are(sw_skill_keys *k, sw_form_kind kind, const char *text, const char *want) {
  char all[512] = "";
  const int forms = read_text(k, kind, text);
  for (int i = 0; i < forms; i++) snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? "|" : "", sw_skill_key(k, i, SW_KEY_WORDS));
  assert_string_equal(all, want);
}

static void forms(void **state) {
  sw_skill_keys *k = *state;
  forms_are(k, SW_FORMS_TEXT, "Kubernetes (K8s)", "kubernetes k8s|kubernetes|k8s");
  forms_are(k, SW_FORMS_TERM, "search engine optimisation (SEO)", "search engine optimisation seo|search engine optimisation|seo");
  forms_are(k, SW_FORMS_TERM, "Python (computer programming)", "python computer programming|python");
  forms_are(k, SW_FORMS_TERM, "law (German)", "law german|law"); /* no abbreviation */
  forms_are(k, SW_FORMS_TERM, "ISO 9001", "iso 9001"); /* else ISO 14001 would be the same */
  forms_are(k, SW_FORMS_TEXT, "ISO 9001", "iso 9001|iso");
  forms_are(k, SW_FORMS_TEXT, "good knowledge of Python 3", "good knowledge of python 3|knowledge of python 3|python 3|python");
  assert_int_equal(sw_skill_keys_plain(k), 2);
  forms_are(k, SW_FORMS_TEXT, "knowledge management", "knowledge management");
  forms_are(k, SW_FORMS_TEXT, "HTML5", "html5|html");
  forms_are(k, SW_FORMS_TEXT, "use of HTML5", "use of html5|use of html");
  forms_are(k, SW_FORMS_TEXT, "S3", "s3");
  forms_are(k, SW_FORMS_TEXT, "React.js", "react js|react");
  forms_are(k, SW_FORMS_TEXT, "(only inside)", "only inside");
  assert_int_equal(sw_skill_keys_plain(k), 0);
}

static void no_skill(void **state) {
  char long_text[4096];
  memset(long_text, 'a', sizeof long_text - 1);
  long_text[sizeof long_text - 1] = 0;
  assert_int_equal(read_text(*state, SW_FORMS_TEXT, ""), 0);
  assert_int_equal(read_text(*state, SW_FORMS_TEXT, "\xe2\x80\xa2 - ( )"), 0);
  assert_int_equal(read_text(*state, SW_FORMS_TEXT, long_text), 0);
  for (size_t i = 1; i < sizeof long_text - 1; i += 2) long_text[i] = ' ';
  long_text[2 * SW_MOST_KEY_WORDS] = 0;
  assert_true(read_text(*state, SW_FORMS_TEXT, long_text) > 0);
  long_text[2 * SW_MOST_KEY_WORDS] = 'a';
  long_text[2 * SW_MOST_KEY_WORDS + 2] = 0;
  assert_int_equal(read_text(*state, SW_FORMS_TEXT, long_text), 0);
  assert_int_equal(read_text(*state, SW_FORMS_TEXT, "caf\xc3"), -1);
  assert_non_null(strstr(sw_error(), "not UTF-8"));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(words), cmocka_unit_test(other_keys), cmocka_unit_test(forms), cmocka_unit_test(no_skill)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
