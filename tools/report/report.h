/* What a report is made of: read from the inputs (inputs.c, space.c), worked out (skills.c), written as tables (tables.c), pictures (draw.c) and
 * one page (page.c). Time is counted in weeks from Monday to Sunday (ISO 8601), numbered from that of 1 January 1970. */
#ifndef SW_REPORT_H
#define SW_REPORT_H
#include "base/options.h"
#include "engine/data/skill_counts.h"
#include "engine/learn/trend.h"

typedef struct {
  const char *output, *title, *map, *map_3d, *clusters, *titles, *column, *id_column, *topics, *document_topics, *occupations;
  sw_list tags, checkpoints, labels;
  int min_postings, force, quiet;
} report_options;

enum { NO_WEEK = -1 };
/* The week of a date as skillwatch writes it (DD-MM-YYYY, or YYYY-MM-DD with or without a time behind it), or NO_WEEK. */
int report_week_of(const char *date);
/* "2026-01-05", its Monday. */
const char *report_week_text(int week, char text[16]);

/* Sums by week, in the order of time. */
typedef struct {
  int columns;
  size_t count, capacity;
  int *weeks;
  double *values; /* [count, columns] */
} report_weekly;
/* The week's sums, which begin at 0; NULL: no memory. Valid until the next call. */
double *report_weekly_at(report_weekly *w, int week);

/* A skill that enough postings name. */
typedef struct {
  const sw_skill_count *skill;
  double *named; /* [num_weeks] postings; in report.named */
  int tested, direction; /* -1: falls, 1: rises, 0: neither can be told from chance */
  sw_trend trend;
  double q;
} report_skill;

/* A map's points; `id`: their numbers in report.ids. */
typedef struct {
  const char *path; /* NULL: none */
  int dims;
  size_t count;
  float *at; /* [count, dims] */
  int *id;
} report_map;

/* What is known of a point, whichever map it is on. */
typedef struct {
  char *title; /* owned; NULL: none */
  int cluster, first_week, last_week; /* -1: none */
} report_point;

typedef struct {
  char *label;
  uint64_t count;
} report_count;

typedef struct {
  const char *hash, *parent, *kind, *created, *path, *data; /* borrowed from entries; "" for none */
  const char *names[2];                                     /* of its scores; NULL: none */
  double scores[2];
} report_quality;

enum { LABELLED, LABEL_SPANS, BILL_TOKENS_IN, BILL_TOKENS_OUT, BILL_COST, LABEL_COLUMNS };

typedef struct report {
  const report_options *o;
  sw_rejects rejects;
  char **notes; /* what a reader should know: sentences, owned */
  size_t num_notes;
  /* skills */
  sw_skill_counts counts;
  int first_week, num_weeks; /* of dated postings; 0: there are none */
  double *postings;          /* [num_weeks] */
  long dated;
  double *named;             /* [num_skills, num_weeks] */
  sw_trend_serial serial;    /* of the skills' weeks */
  report_skill *skills;      /* by layer; in it, the most frequent first */
  size_t num_skills, weeks_with_postings;
  /* maps */
  report_map maps[2]; /* in two and in three dimensions */
  sw_table ids;
  report_point *points; /* [ids.count] */
  size_t points_room;
  int map_first, map_weeks; /* of the postings and the points; 0: no date */
  sw_table clusters;    /* names, by number */
  uint64_t *cluster_sizes;
  /* the rest */
  int num_topics;
  char **topic_words; /* [num_topics]; NULL without --topics */
  report_weekly topic_weeks; /* [num_topics + 1]: sums of probability, and documents */
  double *topic_sums;        /* the same over all, also those without a date */
  report_count *occupations;
  size_t num_occupations;
  uint64_t occupied;         /* postings with one */
  json_t *family;            /* entries of checkpoints, borrowed by `quality` */
  report_quality *quality;
  size_t num_quality;
  report_weekly labels;      /* [LABEL_COLUMNS]: the week of the posting, and that of the bill */
  double label_sums[LABEL_COLUMNS]; /* over all, also those without a date */
} report;

/* Each reads its inputs, where they were given. */
int report_read_tags(report *r);
int report_read_maps(report *r);
int report_read_topics(report *r);
int report_read_occupations(report *r);
int report_read_quality(report *r);
int report_read_labels(report *r);
enum { REPORT_CLUSTERS = 48 }; /* six shapes in eight colours; smaller ones are drawn as one, "others" */
int report_note(report *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
void report_close(report *r);

/* Weeks, trends and their false discovery rates, over the skills of all layers. Points get the weeks of the postings or skills that they are. */
int report_find_trends(report *r);
/* Those of a layer that rise (1) or fall (-1), the surest first: by the end of the interval that is nearer to 0; 0: all that were tested, the least p first.
 * At most `room`; their number. */
size_t report_pick(const report *r, int layer, int direction, size_t room, const report_skill **out);
/* The skills that a chart over time begins with: of every layer the surest that rise and fall, in turn; where there are none the most frequent. Their number. */
enum { REPORT_LINES = 6 };
size_t report_pick_lines(const report *r, const report_skill *out[REPORT_LINES]);
const char *report_layer_name(const report *r, int layer);

int report_write_tables(const report *r, const char *folder);
int report_write_pictures(const report *r, const char *folder);
int report_write_page(const report *r, const char *folder);
/* 0 where the program was built with the charts' library. */
int report_check_page(void);
#endif
