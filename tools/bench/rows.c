/* Rows of results, for people and machines, and the shapes they are measured at. */
#include "tools/bench/bench.h"
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>

static const sw_bench_shape real[] = {{"MiniLM", 384, 1536, 12, 6, 30522, 512}, {"BERT-base", 768, 3072, 12, 12, 30522, 512}};
static const sw_bench_shape tiny[] = {{"tiny", 32, 64, 2, 1, 97, 24}};

void sw_bench_init(sw_bench *bench, const sw_stream *stream, int quick, int sequences, const sw_list *only, int print, json_t *rows) {
  *bench = (sw_bench){.stream = *stream, .quick = quick, .only = only, .print = print, .rows = rows};
  if (quick) {
    bench->sequences = 2;
    bench->lengths[0] = 12;
    bench->lengths[1] = 20;
    bench->samples = 1;
    bench->spread = 1;
    bench->shapes = tiny;
    bench->num_shapes = 1;
    bench->largest = 64;
  } else {
    bench->sequences = sequences;
    bench->lengths[0] = 128;
    bench->lengths[1] = 512;
    bench->samples = SW_BENCH_SAMPLES;
    bench->sample_seconds = 0.02;
    bench->spread = (size_t)256 << 20;
    bench->shapes = real;
    bench->num_shapes = 2;
    bench->largest = 8192;
  }
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void print_row(const sw_bench *bench, const sw_bench_row *r, double median, double of_copy, double of_peak) {
  static int headed;
  char value[32], gb[16] = "", tflop[16] = "", copy[16] = "", peak[16] = "";
  if (!headed++)
    printf("%-23s %-9s %-40s %-5s %9s %9s %9s %9s %6s %6s\n", "", "", "", "", "ms, min", "median", "GB/s", "TFLOP/s", "% copy", "% peak");
  if (r->bytes > 0) snprintf(gb, sizeof gb, "%.1f", r->bytes / median * 1e-9);
  if (r->macs > 0) snprintf(tflop, sizeof tflop, "%.3f", 2 * r->macs / median * 1e-12);
  if (of_copy > 0) snprintf(copy, sizeof copy, "%.1f", of_copy);
  if (of_peak > 0) snprintf(peak, sizeof peak, "%.1f", of_peak);
  snprintf(value, sizeof value, r->unit ? "  %.0f %s" : "", r->per_call / median, r->unit);
  printf("%-23s %-9s %-40s %-5s %9.4f %9.4f %9s %9s %6s %6s%s\n", r->what, r->model, r->shape, sw_dtype_name(r->dtype), r->seconds[0] * 1e3,
         median * 1e3, gb, tflop, copy, peak, value);
  fflush(stdout);
}

int sw_bench_add(sw_bench *bench, const sw_bench_row *r) {
  qsort(r->seconds, (size_t)r->samples, sizeof *r->seconds, ascending);
  const double median = (r->seconds[(r->samples - 1) / 2] + r->seconds[r->samples / 2]) / 2;
  if (!(r->seconds[0] > 0)) return sw_fail("%s was too short to be timed", r->what);
  const double of_copy = bench->copy > 0 ? 100 * r->bytes / median / bench->copy : 0;
  const double of_peak = bench->peak[r->dtype] > 0 ? 100 * r->macs / median / bench->peak[r->dtype] : 0;
  json_t *row = json_pack("{s:s, s:s, s:s, s:s, s:s, s:f, s:s, s:f, s:f, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f}", "what", r->what, "model",
                          r->model, "shape", r->shape, "dtype", sw_dtype_name(r->dtype), "device", bench->stream.device->name, "value",
                          r->unit ? r->per_call / median : median * 1e3, "unit", r->unit ? r->unit : "ms", "ms_min", r->seconds[0] * 1e3,
                          "ms_median", median * 1e3, "samples", r->samples, "calls", (int)r->calls, "bytes", r->bytes, "multiply_adds", r->macs,
                          "gb_per_second", r->bytes / median * 1e-9, "tflop_per_second", 2 * r->macs / median * 1e-12, "percent_of_copy",
                          of_copy, "percent_of_peak", of_peak);
  if (!row || json_array_append_new(bench->rows, row)) return sw_fail_memory("keeping results");
  if (bench->print) print_row(bench, r, median, of_copy, of_peak);
  return 0;
}
