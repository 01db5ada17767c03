/* Taxonomies from CSV, and what texts link to by their words. */
#include "base/error.h"
#include "base/file.h"
#include "engine/space/taxonomy.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static sw_skill_keys *keys;
static int set_up(void **state) { return sw_skill_keys_open(&keys); }
static int tear_down(void **state) {
  sw_skill_keys_close(keys);
  return 0;
}

static int open_text(const char *csv, const sw_taxonomy_columns *columns, sw_taxonomy *t) {
  static const sw_taxonomy_columns found;
  char path[] = "/tmp/sw-taxonomy-XXXXXX.csv";
  const int file = mkstemps(path, 4);
  assert_true(file >= 0 && write(file, csv, strlen(csv)) == (ssize_t)strlen(csv));
  close(file);
  const int status = sw_taxonomy_open(path, columns ? columns : &found, keys, t);
  unlink(path);
  return status;
}

static void links(const sw_taxonomy *t, const char *text, sw_link_reason want, const char *label) {
  sw_link_reason reason;
  uint32_t term;
  assert_int_equal(sw_taxonomy_find(t, keys, text, strlen(text), &reason, &term), 0);
  assert_string_equal(sw_link_reasons[reason], sw_link_reasons[want]);
  if (label) assert_string_equal(t->skills[t->terms[term].skill].label, label);
}

static void reasons(void **state) {
  sw_taxonomy t;
  assert_int_equal(open_text("id,label,alternatives,parent\n"
                             "1,Kubernetes,k8s,9\n2,C++,CPP|C plus plus,9\n3,C#,,9\n4,C,,9\n5,.NET,,\n6,Node.js,Node,\n7,project management,PM,\n"
                             "8,product management,PM,\n9,programming,,\n10,ISO 9001,,\n11,JavaScript,JS,\n12,Java,,\n13,PM,,nowhere\n"
                             "14,cooking,making food,\n15,food service,making food|food making,\n",
                             NULL, &t),
                   0);
  assert_int_equal(t.num_skills, 15);
  assert_int_equal(t.rejected, 0);
  assert_int_equal(t.unknown_parents, 1);
  assert_string_equal(t.skills[0].parent, "9");
  links(&t, "Kubernetes", SW_LINK_LABEL, "Kubernetes");
  links(&t, "k8s", SW_LINK_ALTERNATIVE, "Kubernetes");
  links(&t, "K8S", SW_LINK_NORMALISED, "Kubernetes");
  links(&t, "Docker Swarm (K8s)", SW_LINK_NORMALISED, "Kubernetes");
  links(&t, "c++", SW_LINK_NORMALISED, "C++");
  links(&t, "c#", SW_LINK_NORMALISED, "C#");
  links(&t, "c", SW_LINK_NORMALISED, "C");
  links(&t, "C programming", SW_LINK_NORMALISED, "C");
  links(&t, ".Net 6", SW_LINK_NORMALISED, ".NET");
  links(&t, "net", SW_LINK_NONE, NULL);
  links(&t, "NodeJS", SW_LINK_NORMALISED, "Node.js");
  links(&t, "Java Script", SW_LINK_NORMALISED, "JavaScript");
  links(&t, "Java 17", SW_LINK_NORMALISED, "Java");
  links(&t, "managing projects", SW_LINK_NORMALISED, "project management");
  links(&t, "project manager", SW_LINK_NONE, NULL);
  links(&t, "ISO9001:2015", SW_LINK_NORMALISED, "ISO 9001");
  links(&t, "ISO 14001", SW_LINK_NONE, NULL);
  links(&t, "PM", SW_LINK_LABEL, "PM"); /* a label goes before alternatives of two others */
  links(&t, "making food", SW_LINK_AMBIGUOUS, NULL);
  links(&t, "food making", SW_LINK_ALTERNATIVE, "food service"); /* exact, although the sorted key is of both */
  links(&t, "Making Food", SW_LINK_AMBIGUOUS, NULL);
  links(&t, "", SW_LINK_NONE, NULL);
  links(&t, "\xe2\x80\xa2", SW_LINK_NONE, NULL);
  sw_taxonomy_close(&t);
}

static void columns(void **state) {
  sw_taxonomy t;
  assert_int_equal(open_text("conceptType,conceptUri,preferredLabel,altLabels,hiddenLabels\nK,http://a/1,manage staff,\"lead staff\ndirect staff\",boss\n", NULL, &t), 0);
  links(&t, "direct staff", SW_LINK_ALTERNATIVE, "manage staff");
  links(&t, "boss", SW_LINK_ALTERNATIVE, "manage staff");
  assert_string_equal(t.skills[0].id, "http://a/1");
  sw_taxonomy_close(&t);
  assert_int_equal(open_text("O*NET-SOC Code,Element ID,Element Name,Scale ID\n11,2.A.1,Speaking,IM\n11,2.A.1,Speaking,LV\n12,2.A.1,Speaking,IM\n12,2.A.2,Writing,IM\n", NULL, &t), 0);
  assert_int_equal(t.num_skills, 2);
  assert_int_equal(t.rejected, 0);
  sw_taxonomy_close(&t);
  assert_int_equal(open_text("O*NET-SOC Code,Example,Commodity Title\n11,Adobe Acrobat,Document software\n12,Adobe Acrobat,Document software\n", NULL, &t), 0);
  assert_int_equal(t.num_skills, 1);
  assert_string_equal(t.skills[0].id, "Adobe Acrobat");
  sw_taxonomy_close(&t);
  const sw_taxonomy_columns named = {.id = "key", .label = "name", .alternatives = "aka"};
  assert_int_equal(open_text("key;name;aka\n7;Rust;rustlang | oxide|\n", &named, &t), 0);
  assert_int_equal(t.num_terms, 3);
  links(&t, "oxide", SW_LINK_ALTERNATIVE, "Rust");
  sw_taxonomy_close(&t);
}

static void bad_files(void **state) {
  sw_taxonomy t;
  const sw_taxonomy_columns named = {.parent = "broader"};
  assert_int_equal(open_text("id,label\n1,A\n,B\n2,\n3,A\n1,C\n1,A\n4,caf\xc3\n5,\" E \"\n6\n", NULL, &t), 0);
  assert_int_equal(t.num_skills, 2); /* 1 and 5 */
  assert_string_equal(t.skills[1].label, "E");
  assert_int_equal(t.rejected, 6);
  sw_taxonomy_close(&t);
  assert_int_equal(open_text("id,label\n1,A\n3,A\n", NULL, &t), 0);
  assert_string_equal(t.reason, "line 3: the label A has the id 1 already");
  sw_taxonomy_close(&t);
  assert_int_equal(open_text("code,name\n1,A\n", NULL, &t), -1);
  assert_non_null(strstr(sw_error(), "--id-column; the columns are: code, name"));
  assert_int_equal(open_text("id,label\n1,A\n", &named, &t), -1);
  assert_non_null(strstr(sw_error(), "no column 'broader'"));
  assert_int_equal(open_text("id,label\n,\n", NULL, &t), -1);
  assert_non_null(strstr(sw_error(), "no usable row"));
  assert_int_equal(open_text("", NULL, &t), -1);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(reasons), cmocka_unit_test(columns), cmocka_unit_test(bad_files)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
