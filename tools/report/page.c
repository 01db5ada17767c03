/* The page: one file with the charts' library, our script, and the data as JSON in it. What comes from postings is escaped twice over: in HTML as
 * entities, in the JSON every "<" as \u003c, so that no text of theirs can end a script; and the page's policy allows our two scripts only, by
 * their hashes, and no request at all. */
#include "base/embedded.h"
#include "base/error.h"
#include "base/sha256.h"
#include "tools/report/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

SW_EMBEDDED(report_html);
SW_EMBEDDED(report_css);
SW_EMBEDDED(report_js);
#ifdef SW_HAVE_PLOTLY
SW_EMBEDDED(report_plotly);
#else
static const char report_plotly[] = "";
static const size_t report_plotly_size = 0;
#endif

enum { NAMED_SKILLS = 6, LONGEST_TITLE = 160, MOST_OCCUPATIONS = 25 };

int report_check_page(void) {
  if (report_plotly_size) return 0;
  return sw_fail("this skillwatch-report was built without plotly.js, which draws the page: run tools/setup, then configure and build again (or -DSW_PLOTLY=plotly.min.js)");
}

/* --- HTML --- */

static int put(sw_buffer *out, const char *text) { return sw_buffer_append(out, text, strlen(text)); }

static int escape(sw_buffer *out, const char *text) {
  for (; *text; text++) {
    const char *as = *text == '<' ? "&lt;" : *text == '>' ? "&gt;" : *text == '&' ? "&amp;" : *text == '"' ? "&quot;" : *text == '\'' ? "&#39;" : NULL;
    if (as ? put(out, as) : sw_buffer_append(out, text, 1)) return -1;
  }
  return 0;
}

static int paragraph(sw_buffer *out, const char *text) { return put(out, "<p>") || escape(out, text) || put(out, "</p>\n"); }

static void odds(double slope, char text[24]) { isinf(slope) ? snprintf(text, 24, slope > 0 ? "no bound" : "0") : snprintf(text, 24, "%.3g", exp(slope)); }

static int list_skills(const report *r, int layer, int direction, sw_buffer *out) {
  const report_skill *best[NAMED_SKILLS];
  const size_t count = report_pick(r, layer, direction, NAMED_SKILLS, best);
  size_t all = 0;
  for (size_t i = 0; i < r->num_skills; i++) all += r->skills[i].skill->layer == layer && r->skills[i].direction == direction;
  int status = sw_buffer_print(out, "<h4>%s (%zu)</h4>\n<ul class=\"%s\">\n", direction > 0 ? "Rising" : "Falling", all, direction > 0 ? "up" : "down");
  for (size_t i = 0; i < count && !status; i++) {
    const sw_trend *t = &best[i]->trend;
    char slope[24], low[24], high[24];
    odds(t->slope, slope), odds(t->range.low, low), odds(t->range.high, high);
    status = put(out, "<li><b>") || escape(out, best[i]->skill->name) ||
             sw_buffer_print(out, "</b> from %.1f %% of postings to %.1f %%<span class=\"fine\"> odds × %s a week, 95 %% interval %s to %s</span></li>\n", 100 * t->first,
                             100 * t->last, slope, low, high);
  }
  return status || (all > count && sw_buffer_print(out, "<li class=\"fine\">%zu more in skills.csv</li>\n", all - count)) || put(out, "</ul>\n") ? -1 : 0;
}

static int write_layer(const report *r, int layer, sw_buffer *out) {
  size_t tested = 0, rising = 0, falling = 0, scattered = 0, skills = 0;
  for (size_t i = 0; i < r->num_skills; i++) {
    const report_skill *s = &r->skills[i];
    if (s->skill->layer != layer) continue;
    skills++;
    tested += (size_t)s->tested, rising += s->direction > 0, falling += s->direction < 0, scattered += s->tested && s->trend.dispersion > 1;
  }
  if (!skills) return 0;
  if (put(out, "<section class=\"layer\"><h3>") || escape(out, report_layer_name(r, layer)) || put(out, "</h3>\n")) return -1;
  if (tested && sw_buffer_print(out, "<p>%zu skill%s tested; in %zu of them weeks scatter more than chance, which the intervals take into account.</p>\n", tested,
                                tested == 1 ? " was" : "s were", scattered))
    return -1;
  if (tested && !rising && !falling && put(out, "<p>None rises or falls by more than chance explains.</p>\n")) return -1;
  if ((rising && list_skills(r, layer, 1, out)) || (falling && list_skills(r, layer, -1, out))) return -1;
  return put(out, "</section>\n");
}

/* What a reader wants first, in words. */
static int write_words(const report *r, sw_buffer *out) {
  char line[512], first[16], last[16];
  if (r->o->tags.count && r->num_weeks) {
    snprintf(line, sizeof line, "%ld posting%s from the week of %s to that of %s: %zu week%s with postings.", r->dated, SW_S(r->dated), report_week_text(r->first_week, first),
             report_week_text(r->first_week + r->num_weeks - 1, last), r->weeks_with_postings, SW_S(r->weeks_with_postings));
    if (paragraph(out, line)) return -1;
  }
  const long undated = r->counts.postings - r->dated;
  if (undated) {
    snprintf(line, sizeof line, "%ld posting%s no date: counted as a whole, not by week.", undated, undated == 1 ? " has" : "s have");
    if (paragraph(out, line)) return -1;
  }
  if (r->o->tags.count && r->weeks_with_postings < 8) {
    snprintf(line, sizeof line, r->weeks_with_postings < 3 ? "Fewer than three weeks: no trend can be tested." :
             "Only %zu weeks: intervals are wide, and only large changes can be told from chance.", r->weeks_with_postings);
    if (put(out, "<p class=\"caution\">") || escape(out, line) || put(out, "</p>\n")) return -1;
  }
  if (r->serial.inflation > 1.005) {
    if (r->serial.correlation > 0)
      snprintf(line, sizeof line, "Weeks that follow each other are alike (correlation %.2f of what scatters more than chance): intervals of trends are %.2f times as wide.",
               r->serial.correlation, sqrt(r->serial.inflation));
    else snprintf(line, sizeof line, "Weeks scatter more than chance, and those with many postings no less: intervals of trends are %.2f times as wide.", sqrt(r->serial.inflation));
    if (paragraph(out, line)) return -1;
  }
  if (put(out, "<div class=\"layers\">\n")) return -1;
  for (size_t layer = 0; layer < r->counts.layers.count; layer++)
    if (write_layer(r, (int)layer, out)) return -1;
  if (put(out, "</div>\n")) return -1;
  if (r->o->tags.count) {
    snprintf(line, sizeof line, "%zu of %d skills are named by at least %d posting%s and shown; skills that fewer name are left out.", r->num_skills, r->counts.count, r->o->min_postings,
             SW_S(r->o->min_postings));
    if (paragraph(out, line)) return -1;
  }
  for (size_t i = 0; i < r->num_notes; i++)
    if (paragraph(out, r->notes[i])) return -1;
  return 0;
}

/* --- JSON --- */

static int quote(sw_buffer *out, const char *text, size_t longest) {
  size_t bytes = strlen(text);
  const int cut = bytes > longest;
  if (cut)
    for (bytes = longest; bytes && ((unsigned char)text[bytes] & 0xc0) == 0x80;) bytes--;
  sw_buffer whole = {0};
  const int status = sw_buffer_append(&whole, text, bytes) || (cut && put(&whole, "…")) || sw_json_quote(out, whole.data ? whole.data : "", whole.size);
  sw_buffer_close(&whole);
  return status;
}

static int number(sw_buffer *out, double value) { return isfinite(value) ? sw_buffer_print(out, "%.7g", value) : put(out, "null"); }

static int numbers(sw_buffer *out, const double *values, size_t count) {
  for (size_t i = 0; i < count; i++)
    if ((i && put(out, ",")) || number(out, values[i])) return -1;
  return 0;
}

/* "name":"base64 of little-endian values", */
static int packed(sw_buffer *out, const char *name, const void *data, size_t bytes) {
  return sw_buffer_print(out, "\"%s\":\"", name) || sw_buffer_base64(out, data, bytes) || put(out, "\",");
}

static int write_skills(const report *r, sw_buffer *out) {
  char date[16];
  if (put(out, "\"layers\":[")) return -1;
  for (size_t i = 0; i < r->counts.layers.count; i++)
    if ((i && put(out, ",")) || quote(out, report_layer_name(r, (int)i), SIZE_MAX)) return -1;
  if (put(out, "],\"weeks\":[")) return -1;
  for (int w = 0; w < r->num_weeks; w++)
    if (sw_buffer_print(out, "%s\"%s\"", w ? "," : "", report_week_text(r->first_week + w, date))) return -1;
  if (put(out, "],\"postings\":[") || numbers(out, r->postings, (size_t)r->num_weeks) || put(out, "],\"skills\":[")) return -1;
  for (size_t i = 0; i < r->num_skills; i++) {
    const report_skill *s = &r->skills[i];
    const sw_trend *t = &s->trend;
    if (put(out, i ? ",\n{\"n\":" : "{\"n\":") || quote(out, s->skill->name, LONGEST_TITLE) || sw_buffer_print(out, ",\"l\":%d,\"t\":%d,\"c\":[", s->skill->layer, s->skill->total) ||
        numbers(out, s->named, (size_t)r->num_weeks) || put(out, "]"))
      return -1;
    const double of_trend[] = {t->slope, t->range.low, t->range.high, t->p, s->q, t->dispersion, t->first, t->last};
    if (s->tested && (put(out, ",\"b\":[") || numbers(out, of_trend, sizeof of_trend / sizeof *of_trend) || sw_buffer_print(out, "],\"d\":%d", s->direction))) return -1;
    if (s->tested && isinf(t->slope) && sw_buffer_print(out, ",\"e\":%d", t->slope > 0 ? 1 : -1)) return -1; /* without end, to this side */
    if (put(out, "}")) return -1;
  }
  const report_skill *lines[REPORT_LINES];
  const size_t count = report_pick_lines(r, lines);
  if (put(out, "],\"lines\":[")) return -1;
  for (size_t i = 0; i < count; i++)
    if (sw_buffer_print(out, "%s%td", i ? "," : "", lines[i] - r->skills)) return -1;
  return put(out, "],");
}

static int write_points(const report *r, sw_buffer *out) {
  const size_t count = r->ids.count;
  char date[16];
  int16_t *small = sw_alloc_array(3 * count + 1, sizeof *small); /* 1,000 clusters and 5,200 weeks at most */
  int status = small ? 0 : -1;
  for (size_t i = 0; i < count && !status; i++) {
    const report_point *p = &r->points[i];
    const int from = p->first_week == NO_WEEK ? -1 : p->first_week - r->map_first, to = p->last_week == NO_WEEK ? -1 : p->last_week - r->map_first;
    small[i] = (int16_t)p->cluster, small[count + i] = (int16_t)from, small[2 * count + i] = (int16_t)to;
  }
  if (!status)
    status = put(out, "\"points\":{") || packed(out, "cluster", small, 2 * count) || packed(out, "from", small + count, 2 * count) ||
             packed(out, "to", small + 2 * count, 2 * count) || put(out, "\"title\":[");
  free(small);
  for (size_t i = 0; i < count && !status; i++)
    status = (i && put(out, ",")) || quote(out, r->points[i].title ? r->points[i].title : r->ids.keys[i], LONGEST_TITLE);
  if (status || put(out, "]},\"clusters\":[")) return -1;
  for (size_t k = 0; k < r->clusters.count; k++)
    if (put(out, k ? ",[" : "[") || quote(out, r->clusters.keys[k], LONGEST_TITLE) || sw_buffer_print(out, ",%llu]", (unsigned long long)r->cluster_sizes[k])) return -1;
  if (put(out, "],\"mapWeeks\":[")) return -1;
  for (int w = 0; w < r->map_weeks; w++)
    if (sw_buffer_print(out, "%s\"%s\"", w ? "," : "", report_week_text(r->map_first + w, date))) return -1;
  if (sw_buffer_print(out, "],\"mostClusters\":%d,\"maps\":{", (int)REPORT_CLUSTERS)) return -1;
  for (int m = 0, any = 0; m < 2; m++) {
    const report_map *map = &r->maps[m];
    if (!map->count) continue;
    if (sw_buffer_print(out, "%s\"%d\":{", any++ ? "," : "", map->dims) || packed(out, "at", map->at, map->count * (size_t)map->dims * sizeof *map->at) ||
        packed(out, "id", map->id, map->count * sizeof *map->id) || sw_buffer_print(out, "\"n\":%zu}", map->count))
      return -1;
  }
  return put(out, "},");
}

static int write_topics(const report *r, sw_buffer *out) {
  const size_t topics = (size_t)r->num_topics;
  const double documents = topics ? r->topic_sums[topics] : 0;
  char date[16];
  if (put(out, "\"topics\":[")) return -1;
  for (size_t k = 0; k < topics; k++)
    if (put(out, k ? ",[" : "[") || quote(out, r->topic_words[k], SIZE_MAX) || put(out, ",") || number(out, documents > 0 ? r->topic_sums[k] / documents : NAN) || put(out, "]"))
      return -1;
  if (put(out, "],\"topicWeeks\":[")) return -1;
  for (size_t w = 0; w < r->topic_weeks.count; w++) {
    const double *sums = r->topic_weeks.values + w * (topics + 1);
    if (sw_buffer_print(out, "%s[\"%s\"", w ? "," : "", report_week_text(r->topic_weeks.weeks[w], date))) return -1;
    for (size_t k = 0; k < topics; k++)
      if (put(out, ",") || number(out, sums[k] / sums[topics])) return -1;
    if (put(out, "]")) return -1;
  }
  return put(out, "],");
}

static int write_rest(const report *r, sw_buffer *out) {
  char date[16];
  if (put(out, "\"occupations\":[")) return -1;
  for (size_t i = 0; i < r->num_occupations && i < MOST_OCCUPATIONS; i++) {
    const double count = (double)r->occupations[i].count, total = (double)r->occupied;
    const sw_interval range = sw_wilson(count, total, 0.95);
    if (put(out, i ? ",[" : "[") || quote(out, r->occupations[i].label, LONGEST_TITLE) || put(out, ",") ||
        numbers(out, (double[]){count, count / total, range.low, range.high}, 4) || put(out, "]"))
      return -1;
  }
  if (sw_buffer_print(out, "],\"allOccupations\":%zu,\"quality\":[", r->num_occupations)) return -1;
  for (size_t i = 0; i < r->num_quality; i++) {
    const report_quality *q = &r->quality[i];
    const char *const texts[] = {q->created, q->kind, q->hash, q->parent, q->path, q->data};
    if (put(out, i ? ",[" : "[")) return -1;
    for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
      if (quote(out, texts[k], LONGEST_TITLE) || put(out, ",")) return -1;
    for (int k = 0; k < 2; k++)
      if ((k && put(out, ",")) || (q->names[k] ? sw_buffer_print(out, "[\"%s\",", q->names[k]) || number(out, q->scores[k]) || put(out, "]") : put(out, "null"))) return -1;
    if (put(out, "]")) return -1;
  }
  if (put(out, "],\"labels\":[")) return -1;
  for (size_t w = 0; w < r->labels.count; w++)
    if (sw_buffer_print(out, "%s[\"%s\",", w ? "," : "", report_week_text(r->labels.weeks[w], date)) ||
        numbers(out, r->labels.values + w * LABEL_COLUMNS, LABEL_COLUMNS) || put(out, "]"))
      return -1;
  return put(out, "],\"labelSums\":[") || numbers(out, r->label_sums, LABEL_COLUMNS) || put(out, "]") ? -1 : 0;
}

/* The whole as it stands in the script element. */
static int write_data(const report *r, sw_buffer *out) {
  sw_buffer json = {0};
  int status = put(&json, "{") || write_skills(r, &json) || write_points(r, &json) || write_topics(r, &json) || write_rest(r, &json) || put(&json, "}");
  for (const char *at = json.data; at && *at && !status;) {
    const size_t plain = strcspn(at, "<");
    status = sw_buffer_append(out, at, plain) || (at[plain] && put(out, "\\u003c"));
    at += plain + (at[plain] != 0);
  }
  sw_buffer_close(&json);
  return status ? -1 : 0;
}

/* --- the page --- */

/* 'sha256-...' as Content Security Policy has it. */
static int allow(sw_buffer *out, const char *script, size_t bytes) {
  char hex[65];
  unsigned char digest[32];
  sw_sha256 *hash = sw_sha256_open();
  if (!hash) return -1;
  sw_sha256_add(hash, script, bytes);
  sw_sha256_close(hash, hex);
  for (size_t i = 0; i < sizeof digest; i++) digest[i] = (unsigned char)strtoul((const char[]){hex[2 * i], hex[2 * i + 1], 0}, NULL, 16);
  return put(out, "'sha256-") || sw_buffer_base64(out, digest, sizeof digest) || put(out, "'");
}

static int fill(const report *r, const char *name, size_t bytes, sw_buffer *out) {
  const char *known[] = {"TITLE", "CSS", "POLICY", "WORDS", "DATA", "PLOTLY", "JS", "VERSION"};
  size_t k = 0;
  while (k < sizeof known / sizeof *known && (strlen(known[k]) != bytes || strncmp(known[k], name, bytes))) k++;
  switch (k) {
  case 0: return escape(out, r->o->title);
  case 1: return sw_buffer_append(out, report_css, report_css_size);
  case 2: return allow(out, report_plotly, report_plotly_size) || put(out, " ") || allow(out, report_js, report_js_size);
  case 3: return write_words(r, out);
  case 4: return write_data(r, out);
  case 5: return sw_buffer_append(out, report_plotly, report_plotly_size);
  case 6: return sw_buffer_append(out, report_js, report_js_size);
  case 7: return put(out, "skillwatch " SW_VERSION);
  }
  return sw_fail("the page's template has no place '%.*s'", (int)bytes, name);
}

int report_write_page(const report *r, const char *folder) {
  sw_buffer page = {0};
  int status = 0;
  for (const char *at = report_html; *at && !status;) { /* {{NAME}} stands for what fill() puts there */
    const char *open = strstr(at, "{{"), *close = open ? strstr(open, "}}") : NULL;
    status = sw_buffer_append(&page, at, close ? (size_t)(open - at) : strlen(at));
    if (!close) break;
    if (!status) status = fill(r, open + 2, (size_t)(close - open - 2), &page);
    at = close + 2;
  }
  if (!status) status = sw_file_write(folder, "index.html", page.data, page.size);
  sw_buffer_close(&page);
  return status ? -1 : 0;
}
