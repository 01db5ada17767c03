/* Labelled data in every format, and what is wrong with it. */
#include "engine/data/labels.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/philox.h"
#include "base/sha256.h"
#include "tests/support/files.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static sw_labels labels;

static int read_one(const char *path) {
  sw_labels_close(&labels);
  return sw_labels_read(&path, 1, NULL, NULL, &labels);
}

/* One layer of one example as "word/TAG word/TAG". */
static const char *show(size_t example, const char *layer) {
  static char text[4096];
  const sw_example *e = &labels.examples[example];
  size_t k = 0, n = 0;
  assert_true(example < labels.num_examples);
  while (k < labels.num_layers && strcmp(labels.layers[k].name, layer)) k++;
  assert_true(k < labels.num_layers);
  text[0] = 0;
  for (size_t i = 0; i < e->num_words; i++) {
    int32_t tag = e->tags[k * e->num_words + i];
    n += (size_t)snprintf(text + n, sizeof text - n, "%s%.*s/%s", i ? " " : "",
                          (int)(e->words[i].byte_end - e->words[i].byte_start), e->text + e->words[i].byte_start,
                          tag == SW_IGNORE ? "-" : labels.layers[k].labels[tag]);
  }
  return text;
}

/* Whatever is read holds together. */
static void check_all(void) {
  for (size_t i = 0; i < labels.num_examples; i++) {
    const sw_example *e = &labels.examples[i];
    assert_true(e->num_words > 0 && e->weight > 0 && e->file < labels.num_files && e->line > 0);
    assert_int_equal(strlen(e->text), e->bytes);
    assert_int_equal(sw_check_utf8(e->text, e->bytes), 0);
    for (size_t w = 0; w < e->num_words; w++) {
      const sw_span *s = &e->words[w];
      assert_true(s->byte_start < s->byte_end && s->byte_end <= e->bytes && (!w || s->byte_start >= s[-1].byte_end));
      assert_int_equal(sw_count_code_points(e->text, s->byte_start), s->start);
      assert_int_equal(sw_count_code_points(e->text, s->byte_end), s->end);
    }
    int labelled = 0;
    for (size_t k = 0; k < labels.num_layers; k++) {
      const int32_t *tags = e->tags + k * e->num_words;
      for (size_t w = 0; w < e->num_words; w++) {
        assert_true(tags[w] == SW_IGNORE || (tags[w] >= 0 && (size_t)tags[w] < labels.layers[k].num_labels));
        assert_true((tags[w] == SW_IGNORE) == (tags[0] == SW_IGNORE));
        labelled |= tags[w] != SW_IGNORE;
        const char *name = tags[w] == SW_IGNORE ? "O" : labels.layers[k].labels[tags[w]];
        if (name[0] == 'I') { /* valid: behind a B or I of its own type */
          assert_true(w > 0);
          const char *before = labels.layers[k].labels[tags[w - 1]];
          assert_true(before[0] != 'O' && !strcmp(before + 1, name + 1));
        }
      }
    }
    assert_true(labelled);
  }
  size_t rejected = 0, rows = 0;
  for (size_t i = 0; i < labels.num_files; i++) rejected += labels.files[i].rejected, rows += labels.files[i].rows;
  assert_int_equal(rejected, labels.rejected);
  assert_int_equal(rows, labels.rejected + labels.num_examples);
}

static void tokens(void **state) {
  const char *path = test_write_text(
      "tokens.jsonl",
      "{\"tokens\": [\"G\", \"##row\", \"in\", \"C\", \"##\", \"[UNK]\"], \"tags_knowledge\": "
      "[\"B\", \"O\", \"I\", \"O\", \"I\", \"I\"]}\n\n"
      "{\"tokens\": [\"a\", \"b\"], \"tags_skill\": [\"O\", \"B\"], \"weight\": 2.5, \"idx\": 1}\r\n"
      "{\"tokens\": [\"##x\", \"na\\u00efve\", \"\\ud83d\\ude00\"], \"tags_skill\": [\"I\", \"I\", \"O\"]}");
  assert_int_equal(read_one(path), 0);
  check_all();
  assert_int_equal(labels.num_layers, 2);
  assert_string_equal(labels.layers[0].name, "knowledge");
  assert_int_equal(labels.layers[0].num_labels, 3);
  assert_string_equal(labels.layers[0].labels[2], "I");
  assert_int_equal(labels.num_examples, 3);
  /* a "##" by itself is a word; an I behind O begins an entity */
  assert_string_equal(show(0, "knowledge"), "Grow/B in/I C/O ##/B [UNK]/I");
  assert_string_equal(show(0, "skill"), "Grow/- in/- C/- ##/- [UNK]/-");
  assert_string_equal(show(1, "skill"), "a/O b/B");
  assert_true(labels.examples[1].weight == 2.5f);
  assert_int_equal(labels.examples[1].line, 3);
  assert_string_equal(labels.examples[2].text, "x na\u00efve \U0001F600");
  assert_string_equal(show(2, "skill"), "x/B na\u00efve/I \U0001F600/O");
  assert_int_equal(labels.repaired, 2);
  char hex[65];
  sw_sha256_file(path, hex);
  assert_string_equal(labels.files[0].sha256, hex);
}

static void types(void **state) {
  assert_int_equal(
      read_one(test_write_text("types.jsonl",
                               "{\"tokens\": [\"a\", \"b\", \"c\"], \"tags\": [\"B-Tool\", \"I-Area\", \"I-Area\"]}\n"
                               "{\"tokens\": [\"a\", \"b\"], \"ner_tags\": [\"I\", \"O\"]}\n"
                               "{\"tokens\": [\"a\"], \"tags_only O\": [\"O\"]}\n")),
      0);
  check_all();
  assert_int_equal(labels.num_layers, 2);
  assert_string_equal(labels.layers[0].name, "only_O");
  assert_int_equal(labels.layers[0].num_labels, 3);
  const char *const wanted[] = {"O", "B", "I", "B-Area", "I-Area", "B-Tool", "I-Tool"};
  assert_int_equal(labels.layers[1].num_labels, 7);
  for (int i = 0; i < 7; i++) assert_string_equal(labels.layers[1].labels[i], wanted[i]);
  assert_string_equal(show(0, "tags"), "a/B-Tool b/B-Area c/I-Area");
}

static void spans(void **state) {
  const char *text =
      "{\"text\": \"Kn\\u00f6w C++ and  SQL \\ud83d\\ude00.\", \"spans\": [{\"start\": 5, \"end\": 8, \"label\": "
      "\"Tool\"}, "
      "{\"start\": 12, \"end\": 17, \"label\": \"TOOL\"}, {\"start\": 0, \"end\": 17, \"label\": \"Whole Thing\"}]}\n"
      "{\"text\": \"nothing here\", \"spans\": []}\n"
      "{\"text\": \"old doccano\", \"label\": [[0, 3, \"tool\"]]}\n"
      "{\"text\": \"new doccano\", \"entities\": [{\"start_offset\": 4, \"end_offset\": 11, \"label\": \"tool\"}]}\n"
      "{\"text\": \"prodigy\", \"tokens\": [{\"text\": \"prodigy\"}], \"spans\": [{\"start\": 0, \"end\": 7, "
      "\"label\": \"tool\"}], \"answer\": "
      "\"accept\"}\n"
      "{\"text\": \"prodigy\", \"answer\": \"accept\"}\n"
      "{\"text\": \"prodigy\", \"spans\": [], \"answer\": \"reject\"}\n";
  assert_int_equal(read_one(test_write_text("spans.jsonl", text)), 0);
  check_all();
  assert_int_equal(labels.rejected, 1);
  assert_int_equal(labels.num_layers, 2);
  assert_string_equal(show(0, "tool"), "Kn\u00f6w/O C/B +/I +/I and/O SQL/B \U0001F600/O ./O");
  assert_string_equal(show(0, "whole_thing"), "Kn\u00f6w/B C/I +/I +/I and/I SQL/I \U0001F600/O ./O");
  /* a file of spans labels all its layers in every row */
  assert_string_equal(show(1, "whole_thing"), "nothing/O here/O");
  assert_string_equal(show(2, "tool"), "old/B doccano/O");
  assert_string_equal(show(3, "tool"), "new/O doccano/B");
  assert_string_equal(show(4, "tool"), "prodigy/B");
  assert_string_equal(show(5, "tool"), "prodigy/O");
}

static void label_studio(void **state) {
  const char *region = "{\"value\": {\"start\": %d, \"end\": %d, \"text\": \"%s\", \"labels\": [\"Skill\", \"Any\"]}, "
                       "\"type\": \"labels\"}";
  char one[400], two[400], text[4000];
  snprintf(one, sizeof one, region, 3, 9, "Python"); /* counts UTF-16 units: the smile is two */
  snprintf(two, sizeof two, region, 0, 3, "SQL");
  snprintf(text, sizeof text,
           " [\n{\"id\": 1, \"data\": {\"text\": \"\\ud83d\\ude00 Python now\", \"meta\": 1}, \"annotations\": "
           "[{\"was_cancelled\": true, "
           "\"result\": []}, {\"result\": [%s, {\"type\": \"relation\"}]}]},\n"
           "{\"data\": {\"text\": \"SQL now\"}, \"annotations\": [{\"result\": [%s]}]}, {\"data\": {\"text\": \"no "
           "one\"}, \"annotations\": []},\n"
           "{\"data\": {\"text\": \"SLQ now\"}, \"annotations\": [{\"result\": [%s]}]},\n"
           "{\"broken\": [1, 2, \n},\n"
           "{\"text\": \"min form\", \"label\": [{\"start\": 0, \"end\": 3, \"text\": \"min\", \"labels\": "
           "[\"Skill\"]}], \"id\": 2}\n]\n",
           one, two, two);
  assert_int_equal(read_one(test_write_text("studio", text)), 0);
  check_all();
  assert_int_equal(labels.num_examples, 3);
  assert_int_equal(labels.rejected, 3);
  assert_string_equal(show(0, "skill"), "\U0001F600/O Python/B now/O");
  assert_string_equal(show(0, "any"), "\U0001F600/O Python/B now/O");
  assert_string_equal(show(1, "skill"), "SQL/B now/O");
  assert_string_equal(show(2, "skill"), "min/B form/O");
  assert_string_equal(show(2, "any"), "min/O form/O");
  assert_int_equal(read_one(test_write_text("cut.json", "[{\"text\": \"a\", \"spans\": [[0, 1, \"x\"]]}")), -1);
  assert_non_null(strstr(sw_error(), "never closed"));
}

static void conll(void **state) {
  const char *text = "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n# a comment\n# NN I-NP I-MISC\n\n"
                     "bad NN O\n\nword NN O X\n\nlast\tone B-NP\tI-ORG\n\nlast NN O B-ORG\n[ ( O I-ORG";
  assert_int_equal(read_one(test_write_text("a.conll", text)), 0);
  check_all();
  assert_int_equal(labels.rejected, 3);
  assert_int_equal(labels.num_layers, 2);
  assert_string_equal(labels.layers[0].name, "tags");
  assert_string_equal(labels.layers[1].name, "tags2");
  assert_string_equal(show(0, "tags2"), "EU/B-ORG rejects/O");
  assert_string_equal(show(1, "tags2"), "#/B-MISC");
  assert_string_equal(show(2, "tags2"), "last/B-ORG [/I-ORG");
  assert_int_equal(labels.examples[0].line, 3);
  assert_int_equal(read_one(test_write_text("b.txt.gz", "New York\tB\nis\tO\n\nthe\tO\nCity\tB\n")), 0);
  assert_string_equal(show(0, "tags"), "New York/B is/O");
  assert_int_equal(read_one(test_write_text("c.txt", "just some text\nwithout tags here\n")), -1);
  assert_non_null(strstr(sw_error(), "no column of B, I and O tags"));
  /* more than the sample, by content under any name */
  sw_buffer big = {0};
  for (int i = 0; i < 5000; i++) sw_buffer_print(&big, "{ B\nx I\ny %s\n\n", i % 50 ? "O" : "?");
  assert_int_equal(read_one(test_write("d.zst", big.data, big.size)), 0);
  assert_int_equal(labels.num_examples, 4900);
  assert_int_equal(labels.rejected, 100);
  check_all();
  sw_buffer_close(&big);
}

/* Each bad row with what its reason must say; a good row before and behind. */
static void rejected(void **state) {
  static const struct {
    const char *row, *reason;
  } cases[] = {
      {"{\"tokens\": [\"a\", \"b\"], \"tags_x\": [\"O\"]}", "2 tokens but 1 tag in \"tags_x\""},
      {"{\"tokens\": [\"a\"], \"tags_x\": [\"X\"]}", "unknown tag \"X\" at token 1 of layer x"},
      {"{\"tokens\": [\"a\"], \"tags_x\": [\"B-\"]}", "unknown tag \"B-\""},
      {"{\"tokens\": [\"a\"], \"tags_x\": [1]}", "tag 1 of layer x is no string"},
      {"{\"tokens\": [\"a\"], \"tags_x\": \"O\"}", "\"tags_x\" is no array"},
      {"{\"tokens\": [\"a\", \"\"], \"tags_x\": [\"O\", \"O\"]}", "token 2 is empty"},
      {"{\"tokens\": [\"a\", \"\\u00a0 \"], \"tags_x\": [\"O\", \"O\"]}", "token 2 is empty"},
      {"{\"tokens\": [\"a\", 7], \"tags_x\": [\"O\", \"O\"]}", "token 2 is no string"},
      {"{\"tokens\": [], \"tags_x\": []}", "no tokens"},
      {"{\"tokens\": [\"a\"]}", "tokens without tags"},
      {"{\"tokens\": [\"a\"], \"tags_\": [\"O\"]}", "without a name"},
      {"{\"tokens\": [\"a\"], \"tags_x\": [\"O\"], \"weight\": -1}", "\"weight\""},
      {"{\"tokens\": [\"a\"], \"tags_x\": [\"O\"], \"weight\": \"2\"}", "\"weight\""},
      {"{\"tokens\": [\"a\"], \"tags_x\": [\"O\"], \"weight\": 1e-300}", "\"weight\""},
      {"{\"tokens\": [\"a\\u0000\"], \"tags_x\": [\"O\"]}", "broken JSON"},
      {"{\"tokens\": [\"a\xFF\"], \"tags_x\": [\"O\"]}", "broken JSON"},
      {"{\"tokens\": [\"a\"], ", "broken JSON"},
      {"[1, 2]", "no JSON object"},
      {"7", "broken JSON"},
      {"{\"text\": \"abc\"}", "neither"},
      {"{\"text\": \" \\n \", \"spans\": []}", "the text is empty"},
      {"{\"spans\": []}", "no \"text\""},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": 1, \"end\": 3, \"label\": \"x\"}]}",
       "does not align: it cuts the word \"abc\""},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": 0, \"end\": 5, \"label\": \"x\"}]}",
       "does not align: it cuts the word \"def\""},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": 4, \"end\": 8, \"label\": \"x\"}]}",
       "outside the text of 7 characters"},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": -1, \"end\": 3, \"label\": \"x\"}]}", "outside"},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": 3, \"end\": 3, \"label\": \"x\"}]}", "is empty"},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": 7, \"end\": 4, \"label\": \"x\"}]}", "is empty"},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": 3, \"end\": 4, \"label\": \"x\"}]}", "holds no word"},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": 0, \"end\": 7, \"label\": \"x\"}, [4, 7, \"X\"]]}", "overlaps"},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": 0.5, \"end\": 7, \"label\": \"x\"}]}", "whole numbers"},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": 9223372036854775807, \"end\": 7, \"label\": \"x\"}]}", "empty"},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": -9223372036854775807, \"end\": 9223372036854775807, \"label\": "
       "\"x\"}]}",
       "outside"},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": 0, \"end\": 3}]}", "the label of span 1 is no string"},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": 0, \"end\": 3, \"label\": \"\"}]}", "without a name"},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": 0, \"end\": 3, \"labels\": []}]}", "has no label"},
      {"{\"text\": \"abc def\", \"spans\": [3]}", "neither an object nor an array"},
      {"{\"text\": \"abc def\", \"spans\": [{\"start\": 0, \"end\": 3, \"label\": \"x\", \"text\": \"xyz\"}]}",
       "do not point at"},
      {"{\"data\": {\"text\": \"abc\"}}", "no \"annotations\""},
      {"not JSON at all", "broken JSON"},
  };
  const char *good = "{\"tokens\": [\"a\"], \"tags_x\": [\"B\"]}\n";
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[2000];
    snprintf(text, sizeof text, "%s%s\n%s", good, cases[i].row, good);
    const char *path = test_write_text("bad.jsonl", text), *aside = test_path("bad.rejected.jsonl");
    sw_labels_close(&labels);
    assert_int_equal(sw_labels_read(&path, 1, aside, NULL, &labels), 0);
    check_all();
    assert_int_equal(labels.num_examples, 2);
    assert_int_equal(labels.rejected, 1);
    char *line = test_read(aside, NULL);
    json_error_t error;
    json_t *json = json_loads(line, 0, &error);
    assert_non_null(json);
    const char *reason = json_string_value(json_object_get(json, "reason"));
    if (!strstr(reason, cases[i].reason))
      print_error("%s\n  %s\n  wanted: %s\n", cases[i].row, reason, cases[i].reason);
    assert_non_null(strstr(reason, cases[i].reason));
    assert_int_equal(json_integer_value(json_object_get(json, "line")), 2);
    assert_string_equal(json_string_value(json_object_get(json, "file")), path);
    json_decref(json);
    free(line);
  }
}

static void long_and_deep(void **state) {
  sw_buffer text = {0};
  const char *good = "{\"tokens\": [\"a\"], \"tags_x\": [\"B\"]}\n";
  sw_buffer_print(&text, "%s{\"tokens\": [\"", good);
  for (int i = 0; i < 10 << 20; i++) sw_buffer_append(&text, "y", 1);
  sw_buffer_print(&text, "\"], \"tags_x\": [\"B\"]}\n%s", good);
  for (int i = 0; i < 1 << 20; i++) sw_buffer_append(&text, "[", 1);
  sw_buffer_print(&text, "\n{\"tokens\": \"a\", \"x\": ");
  for (int i = 0; i < 100000; i++) sw_buffer_print(&text, "{\"a\": ");
  sw_buffer_append(&text, "\n\0\n", 3);
  sw_buffer_print(&text, "%s", good);
  const char *path = test_write("long.jsonl", text.data, text.size), *aside = test_path("long.rejected");
  sw_labels_close(&labels);
  assert_int_equal(sw_labels_read(&path, 1, aside, NULL, &labels), 0);
  assert_int_equal(labels.num_examples, 3);
  assert_int_equal(labels.rejected, 4);
  size_t bytes;
  char *lines = test_read(aside, &bytes);
  assert_true(bytes < 20000);
  assert_non_null(strstr(lines, "longer than 8388608 bytes"));
  free(lines);
  /* one array without an end, and one whose quote is missing */
  text.data[0] = '[';
  assert_int_equal(read_one(test_write("long.json", text.data, text.size)), -1);
  sw_buffer_close(&text);
}

static void unusable(void **state) {
  assert_int_equal(read_one(test_write_text("empty.jsonl", "")), -1);
  assert_non_null(strstr(sw_error(), "is empty"));
  assert_int_equal(read_one(test_write_text("blank", "\n \n\t\n")), -1);
  assert_non_null(strstr(sw_error(), "is empty"));
  assert_int_equal(read_one(test_write_text("none.jsonl", "{}\n{}\n")), -1);
  assert_non_null(strstr(sw_error(), "no row can be used, 2 of 2 were set aside; line 1:"));
  assert_int_equal(read_one(test_write_text("nospan.jsonl", "{\"text\": \"a\", \"spans\": []}\n")), -1);
  assert_non_null(strstr(sw_error(), "the file holds no span"));
  assert_int_equal(read_one(test_path("missing.jsonl")), -1);
  assert_non_null(strstr(sw_error(), "missing.jsonl"));
  assert_int_equal(read_one(test_path("")), -1);
  assert_int_equal(sw_labels_read(NULL, 0, NULL, NULL, &labels), -1);
  size_t n;
  char *packed = test_compress('g', "{\"tokens\": [\"a\"], \"tags_x\": [\"B\"]}\n", 36, &n);
  const char *path = test_path("cut.jsonl.gz");
  test_write_raw(path, packed, n - 6);
  free(packed);
  assert_int_equal(read_one(path), -1);
  assert_non_null(strstr(sw_error(), "truncated"));
  /* the reasons are written where nothing can be used; a folder that does not exist is a failure */
  path = test_write_text("none.jsonl", "{}\n");
  assert_int_equal(sw_labels_read(&path, 1, test_path("none.rejected"), NULL, &labels), -1);
  char *text = test_read(test_path("none.rejected"), NULL);
  assert_non_null(text);
  free(text);
  assert_int_equal(sw_labels_read(&path, 1, "/nonexistent/none.rejected", NULL, &labels), -1);
}

static void weights_and_files(void **state) {
  char first[1100], second[1100];
  snprintf(first, sizeof first, "%s:0.5",
           test_write_text("w1.jsonl", "{\"tokens\": [\"a\"], \"tags_x\": [\"B\"], \"weight\": 4}\n"));
  snprintf(second, sizeof second, "%s", test_write_text("w:2", "{\"tokens\": [\"b\"], \"tags_y\": [\"B\"]}\n"));
  const char *inputs[] = {first, second};
  sw_labels_close(&labels);
  assert_int_equal(sw_labels_read(inputs, 2, NULL, NULL, &labels), 0);
  check_all();
  assert_true(labels.examples[0].weight == 2 && labels.examples[1].weight == 1);
  assert_int_equal(labels.examples[1].file, 1);
  assert_string_equal(show(0, "y"), "a/-");
  assert_true(labels.files[0].weight == 0.5);
  assert_null(strstr(labels.files[0].path, ":0.5"));
  const char *bad[] = {":0", ":-1", ":nan", ":inf", ":1e99"};
  for (int i = 0; i < 5; i++) {
    char input[1200];
    snprintf(input, sizeof input, "%s%s", test_path("w1.jsonl"), bad[i]);
    assert_int_equal(read_one(input), -1);
    assert_non_null(strstr(sw_error(), "above 0"));
  }
}

static void fixed(void **state) {
  char *names[] = {"B-b", "O", "I-b", "B-a", "I-a"};
  sw_layer layer = {"tags", 5, names};
  sw_labels heads = {.num_layers = 1, .layers = &layer};
  const char *path = test_write_text("fixed.jsonl", "{\"tokens\": [\"x\", \"y\", \"z\"], \"tags_tags\": [\"B-a\", "
                                                    "\"I-a\", \"I-b\"], \"tags_more\": [\"O\", \"O\", \"O\"]}\n"
                                                    "{\"tokens\": [\"x\"], \"tags_tags\": [\"B-c\"]}\n"
                                                    "{\"tokens\": [\"x\"], \"tags_other\": [\"O\"]}\n");
  sw_labels_close(&labels);
  assert_int_equal(sw_labels_read(&path, 1, NULL, &heads, &labels), 0);
  check_all();
  assert_int_equal(labels.num_examples, 1);
  assert_int_equal(labels.rejected, 2);
  const int32_t wanted[] = {3, 4, 0};
  assert_memory_equal(labels.examples[0].tags, wanted, sizeof wanted);
  assert_string_equal(labels.skipped_layers, "more, other");
  names[1] = "I-c";
  sw_labels_close(&labels);
  assert_int_equal(sw_labels_read(&path, 1, NULL, &heads, &labels), -1);
}

/* Spans placed on whole words come back as tags of exactly these words. */
static void random_spans(void **state) {
  sw_random random = {test_seed("random spans"), 1, 0};
  for (int round = 0; round < 200; round++) {
    sw_buffer text = {0}, spans = {0}, wanted = {0};
    unsigned words = 1 + sw_random_below(&random, 20), point = 0, begin = 0;
    int inside = 0;
    for (unsigned w = 0; w < words; w++) {
      static const char *const pieces[] = {"word", "na\u00efve", "\u00df", "\U0001F600", "\u4e2d", "C3PO"};
      static const unsigned points[] = {4, 5, 1, 1, 1, 4};
      unsigned k = sw_random_below(&random, 6), gap = 1 + sw_random_below(&random, 3);
      int next = sw_random_below(&random, 3) ? inside : !inside,
          starts = next && (!inside || sw_random_below(&random, 3) == 0);
      if (inside && (starts || !next))
        sw_buffer_print(&spans, "%s[%u, %u, \"L\"]", spans.size ? ", " : "", begin, point);
      for (unsigned g = 0; g < gap; g++) sw_buffer_print(&text, " ");
      point += gap;
      if (starts)
        begin = point - sw_random_below(&random, gap > 1 ? 2 : 1); /* white space at the edge does not matter */
      sw_buffer_print(&text, "%s", pieces[k]);
      sw_buffer_print(&wanted, "%s%s/%s", w ? " " : "", pieces[k], starts ? "B" : next ? "I" : "O");
      point += points[k];
      inside = next;
    }
    if (inside) sw_buffer_print(&spans, "%s[%u, %u, \"L\"]", spans.size ? ", " : "", begin, point);
    char line[4000];
    snprintf(line, sizeof line, "{\"text\": \"%s\", \"label\": [%s]}\n{\"text\": \"x\", \"label\": [[0, 1, \"L\"]]}\n",
             text.data, spans.data ? spans.data : "");
    assert_int_equal(read_one(test_write_text("random.jsonl", line)), 0);
    check_all();
    assert_int_equal(labels.rejected, 0);
    assert_string_equal(show(0, "l"), wanted.data);
    sw_buffer_close(&text);
    sw_buffer_close(&spans);
    sw_buffer_close(&wanted);
  }
}

/* The real files, where they are: every row that can be used is. */
static void real_files(void **state) {
  static const struct {
    const char *path;
    size_t rows, rejected, layers;
  } files[] = {{"skillspan/train.json", 4800, 0, 2},
               {"skillspan/dev.json", 3174, 0, 2},
               {"in-demand/tags-04-01-2025.jsonl", 123, 0, 1},
               {"in-demand/data.jsonl", 35, 5, 1}}; /* five have more tokens than tags, or fewer */
  struct stat info;
  if (stat(SW_SOURCE_DIR "/../shared/data/skillspan", &info)) {
    printf("skipped: ../shared/data is missing\n");
    skip();
  }
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    char path[1024];
    snprintf(path, sizeof path, "%s/../shared/data/%s", SW_SOURCE_DIR, files[i].path);
    assert_int_equal(read_one(path), 0);
    check_all();
    assert_int_equal(labels.files[0].rows, files[i].rows);
    assert_int_equal(labels.rejected, files[i].rejected);
    assert_int_equal(labels.num_layers, files[i].layers);
    assert_int_equal(labels.layers[0].num_labels, 3);
  }
}

static int finish(void **state) {
  sw_labels_close(&labels);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tokens),        cmocka_unit_test(types),        cmocka_unit_test(spans),
      cmocka_unit_test(label_studio),  cmocka_unit_test(conll),        cmocka_unit_test(rejected),
      cmocka_unit_test(long_and_deep), cmocka_unit_test(unusable),     cmocka_unit_test(weights_and_files),
      cmocka_unit_test(fixed),         cmocka_unit_test(random_spans), cmocka_unit_test(real_files)};
  return cmocka_run_group_tests(tests, NULL, finish);
}
