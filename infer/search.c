/* skillwatch infer search: for each text, or vector, the nearest of a corpus. */
#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "engine/data/csv.h"
#include "engine/store/config_file.h"
#include "infer/corpus.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
  sw_embedder embedder; /* of queries that are texts; first: the pipeline's */
  sw_infer_session session;
  sw_corpus corpus;
  sw_finder finder;
  int csv, k, exclude_self;
  sw_similarity similarity;
  uint64_t next; /* the next query's number */
  sw_buffer record;
} search_job;

static int put(sw_buffer *out, const char *text) { return sw_buffer_append(out, text, strlen(text)); }
static int quote(sw_buffer *out, const char *text) { return sw_json_quote(out, text, strlen(text)); }

static int print_query(search_job *job, const char *id, const int64_t *index, const float *score) {
  sw_buffer *out = &job->record;
  const sw_corpus *c = &job->corpus;
  if (!job->csv && (put(out, "{\"id\": ") || quote(out, id) || put(out, ", \"matches\": ["))) return -1;
  for (int n = 0; n < job->k && index[n] >= 0; n++) {
    const char *found = c->ids[index[n]], *text = c->texts ? c->texts[index[n]] : NULL;
    const int failed = job->csv ? sw_csv_quote(out, id, strlen(id)) || sw_buffer_print(out, ",%d,", n + 1) || sw_csv_quote(out, found, strlen(found)) ||
                                      sw_buffer_print(out, ",%.9g,", (double)score[n]) || (text && sw_csv_quote(out, text, strlen(text))) || put(out, "\r\n")
                                : put(out, n ? ", {\"id\": " : "{\"id\": ") || quote(out, found) || sw_buffer_print(out, ", \"score\": %.9g", (double)score[n]) ||
                                      (text && (put(out, ", \"text\": ") || quote(out, text))) || put(out, "}");
    if (failed) return -1;
  }
  return job->csv ? 0 : put(out, "]}\n");
}

static int64_t next_skip(const search_job *job) { return job->exclude_self ? (int64_t)job->next : -1; }

/* --- queries that are texts --- */

static int print_item(void *context, const sw_posting *posting, const int64_t *index, const float *score) {
  return print_query(context, posting->id, index, score);
}

static int write_chunk(void *context, const sw_item *items, size_t count, const sw_buffer *output, const sw_pipeline_counts *counts) {
  search_job *job = context;
  sw_buffer_clear(&job->record);
  if (sw_finder_items(&job->session, &job->finder, items, count, next_skip(job), print_item, job)) return -1;
  job->next += count;
  return sw_infer_put(&job->session, counts, job->record.data, job->record.size);
}

/* --- queries that are vectors --- */

/* One block of them, as a record of the results. */
static int search_block(search_job *job, sw_usable *queries, uint64_t first, uint64_t rows, char **ids) {
  const size_t k = (size_t)job->k;
  const sw_pipeline_counts counts = {.rows = rows};
  int status = sw_usable_read(queries, (int64_t)first, (int64_t)rows, job->finder.vectors, ids) || sw_finder_run(&job->session, &job->finder, rows, next_skip(job)) ? -1 : 0;
  sw_buffer_clear(&job->record);
  for (uint64_t i = 0; i < rows; i++) {
    if (!status) status = print_query(job, ids[i], job->finder.index + i * k, job->finder.score + i * k);
    free(ids[i]);
  }
  job->next += rows;
  return status ? -1 : sw_infer_put(&job->session, &counts, job->record.data, job->record.size);
}

static int search_store(search_job *job, sw_usable *queries, sw_pipeline_counts *counts, uint64_t *rejected) {
  const uint64_t all = (uint64_t)queries->rows;
  char *ids[SW_FINDER_BLOCK];
  sw_progress progress;
  int status = 0;
  *rejected = job->session.rejects.count;
  sw_progress_open(&progress, "search", (double)all, job->session.options->quiet);
  for (counts->rows = job->session.before.rows; counts->rows < all && !status;) {
    const uint64_t rows = all - counts->rows < SW_FINDER_BLOCK ? all - counts->rows : SW_FINDER_BLOCK;
    status = search_block(job, queries, counts->rows, rows, ids);
    counts->rows += rows;
    sw_progress_show(&progress, (double)counts->rows, NULL);
  }
  sw_progress_close(&progress);
  return status || sw_rejects_commit(&job->session.rejects) ? -1 : 0;
}

/* --- the command --- */

typedef struct {
  sw_infer_options infer;
  const char *corpus, *corpus_column, *corpus_format, *prefix, *corpus_prefix, *metric;
  int csv, k, exclude_self;
} search_options;

static int open_corpus(search_job *job, const search_options *o) {
  const int own = o->corpus_column != NULL;
  const sw_postings_options reading = {.column = own ? o->corpus_column : o->infer.column, .id_column = own ? NULL : o->infer.id_column,
                                       .column_option = "corpus-column"};
  return sw_corpus_open(&job->session, o->corpus, &reading, o->corpus_format, o->corpus_prefix, &job->corpus);
}

static int open_finder(search_job *job, const search_options *o) {
  const sw_search_corpus rows = sw_corpus_rows(&job->corpus);
  if ((uint64_t)o->k > job->corpus.rows && !o->infer.quiet)
    fprintf(stderr, "skillwatch: %s has %llu row%s: all of them are given, not %d\n", o->corpus, (unsigned long long)job->corpus.rows,
            SW_S(job->corpus.rows), o->k);
  return sw_finder_open(&job->session, &rows, job->corpus.hidden, o->k, job->similarity, &job->finder);
}

/* Queries that are vectors: of the model that embeds the corpus, or of the corpus's. */
static int open_queries(search_job *job, const search_options *o, const char *path, sw_usable *queries) {
  const sw_vectors *corpus = &job->corpus.store.file;
  return sw_corpus_open_store(&job->session, path, o->exclude_self, queries) ||
                 (corpus->handle && sw_vectors_check_origin(path, &queries->file, o->corpus, corpus, 0))
             ? -1
             : 0;
}

static int search(search_job *job, const search_options *o, const sw_list *inputs) {
  const char *head = job->csv ? "query,rank,id,score,text\r\n" : "";
  const int vectors = sw_corpus_is_store(inputs->items[0]);
  sw_infer_session *s = &job->session;
  sw_usable queries = {0};
  sw_pipeline_counts counts = {0};
  uint64_t rejected = 0;
  int status = sw_infer_open(s, "search", &o->infer, inputs);
  if (!status) status = open_corpus(job, o) || open_finder(job, o) ? -1 : 0;
  if (!status && vectors)
    status = open_queries(job, o, inputs->items[0], &queries);
  else if (!status)
    status = sw_embedder_open(&job->embedder, &s->runs, s->tokenizer, o->prefix, -1);
  if (!status) {
    json_t *settings = json_pack("{s:o, s:s?, s:s, s:s, s:s, s:b, s:i, s:b}", "corpus", sw_corpus_identity(o->corpus), "corpus_column", o->corpus_column,
                                 "prefix", o->prefix, "corpus_prefix", o->corpus_prefix, "metric", o->metric, "csv", job->csv, "k", o->k, "exclude_self",
                                 o->exclude_self);
    status = settings ? sw_infer_open_output(s, settings) : sw_fail("an option is not valid UTF-8");
  }
  job->next = s->before.rows;
  if (!status && s->to_stdout && fputs(head, stdout) < 0) status = sw_fail("cannot write to standard output");
  sw_pipeline_job pipeline = {.context = job, .open_worker = sw_embed_open_worker, .close_worker = sw_embed_close_worker,
                              .encode = sw_embed_encode_vector, .run = sw_embed_run_vectors, .write = write_chunk};
  if (!status) status = vectors ? search_store(job, &queries, &counts, &rejected) : sw_infer_run(s, &pipeline, &counts, &rejected);
  if (!status && (vectors ? !s->to_stdout : s->publishes)) status = sw_infer_publish(s, head);
  if (!status) sw_infer_report(s, &counts, rejected);
  sw_finder_close(&job->finder);
  sw_corpus_close(&job->corpus);
  sw_usable_close(&queries);
  sw_buffer_close(&job->record);
  sw_infer_close(s);
  return status;
}

static int same_file(const char *a, const char *b) {
  struct stat x, y;
  return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int check(search_options *o, const sw_list *inputs) {
  int vectors = 0;
  for (int i = 0; i < inputs->count; i++) vectors += sw_corpus_is_store(inputs->items[i]);
  if (!o->corpus) return sw_fail("a corpus is needed: --corpus FILE, texts or vectors (.h5, .npy; see --help)");
  o->infer.model_optional = vectors && sw_corpus_is_store(o->corpus);
  if (sw_infer_check(&o->infer, inputs) || sw_infer_check_outputs(o->infer.output, o->infer.rejected, NULL, &o->corpus, 1)) return -1;
  if (vectors && inputs->count > 1) return sw_fail("queries are texts, or one file of vectors");
  if (!strcmp(o->corpus, "-") || sw_is_folder(o->corpus)) return sw_fail("--corpus %s: a file is wanted", o->corpus);
  if (o->k < 1 || o->k > SW_MOST_NEIGHBOURS) return sw_fail("-k must be from 1 to %d", SW_MOST_NEIGHBOURS);
  if (o->exclude_self && (inputs->count > 1 || !same_file(inputs->items[0], o->corpus) || o->corpus_column))
    return sw_fail("--exclude-self is for queries that are the corpus: the same file, and no --corpus-column");
  o->csv |= sw_infer_ends_in(o->infer.output, ".csv");
  if (strcmp(o->infer.output, "-") && !o->csv && !sw_infer_ends_in(o->infer.output, ".jsonl"))
    return sw_fail("-o %s: the name must end in .csv or .jsonl", o->infer.output);
  int shard, shards;
  if (sw_shards_parse(o->infer.shard, &shard, &shards)) return -1;
  if (shards > 1 && (vectors || o->exclude_self)) return sw_fail("queries that are vectors, and --exclude-self, go with one process only: leave out --shard, or mpirun");
  o->corpus_format = o->corpus_column ? "auto" : o->infer.format; /* before it becomes that of queries in a text file */
  if (vectors) return 0;
  sw_postings_format format;
  if (sw_corpus_format(inputs->items, (size_t)inputs->count, o->infer.format, &format)) return -1;
  if (format == SW_POSTINGS_LINES) o->infer.format = "lines";
  return 0;
}

int sw_infer_search(int argc, char **argv) {
  search_options o = {.infer = SW_INFER_DEFAULTS, .prefix = "", .corpus_prefix = "", .metric = "cosine", .k = 10};
  search_job job = {0};
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o.infer.output, "FILE", "found.csv, found.jsonl or - (JSON lines to stdout)"},
      {"corpus", 'c', SW_OPTION_TEXT, &o.corpus, "FILE", "what is searched: texts, or vectors that infer embed made (.h5, .npy)"},
      {"corpus-column", 0, SW_OPTION_TEXT, &o.corpus_column, "NAME", "column or key of its texts (else: that of --column)"},
      {"corpus-prefix", 0, SW_OPTION_TEXT, &o.corpus_prefix, "TEXT", "put before every text of the corpus"},
      {"prefix", 0, SW_OPTION_TEXT, &o.prefix, "TEXT", "put before every query"},
      {"top", 'k', SW_OPTION_INT, &o.k, "N", "of the corpus for each query, the most similar first"},
      {"metric", 0, SW_OPTION_TEXT, &o.metric, "NAME", "cosine, or euclidean: the distance, the smallest first"},
      {"exclude-self", 0, SW_OPTION_FLAG, &o.exclude_self, NULL, "where the queries are the corpus: no row is its own neighbour"},
      {"csv", 0, SW_OPTION_FLAG, &o.csv, NULL, "one match a row: query, rank, id, score, text"},
      SW_INFER_COMMON_OPTIONS(o.infer),
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch infer search -m CHECKPOINT --corpus FILE QUERIES... [options]",
      .summary = "Finds the most similar rows of a corpus, exactly. QUERIES: " SW_INFER_INPUTS
                 "Text files (.txt) are read line by line unless --format text says otherwise; or one file of vectors (.h5, .npy), which, with a\n"
                 "corpus of vectors, needs no -m. One JSON object a query, in input order:\n"
                 "  {\"id\", \"matches\": [{\"id\", \"score\", \"text\"}]}\n"
                 "Of equal scores the first in the corpus comes first. \"text\" is the beginning of it, 200 characters; files of vectors know none.\n"
                 "A corpus of texts is kept in memory with its vectors; one of vectors may be of any size.\n"
                 "The output appears when all is done; until then the work is kept in OUTPUT.partial, and an interrupted run goes on from there.",
      .example = "skillwatch infer search -m base.h5 --corpus occupations.tsv --column Title queries.txt -k 10",
      .options = options,
  };
  sw_list inputs = {0};
  int status = sw_config_parse(&command, argc, argv, &inputs);
  if (!status) status = check(&o, &inputs);
  if (!status) status = sw_similarity_parse(o.metric, &job.similarity);
  job.csv = o.csv;
  job.k = o.k;
  job.exclude_self = o.exclude_self;
  if (status)
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  else
    status = search(&job, &o, &inputs) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
  sw_list_close(&inputs);
  return status;
}
