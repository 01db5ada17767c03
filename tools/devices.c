/* skillwatch devices: what --device can name here, and why what it cannot name is not usable. */
#include "base/error.h"
#include "base/options.h"
#include "engine/store/json.h"
#include "kernels/module.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One row of the table; `why` is NULL for a device that can be used. Takes over `details`. */
static int add(json_t *rows, const char *device, const char *name, const char *why, json_t *details) {
  json_t *row = json_pack("{s:s, s:b, s:s*, s:s*}", "device", device, "usable", !why, "name", name, "why", why);
  const int failed = !row || !details || json_object_update(row, details);
  json_decref(details);
  if (failed) json_decref(row);
  return failed || json_array_append_new(rows, row) ? sw_fail_memory("listing devices") : 0;
}

/* A line of /proc/meminfo in bytes; 0 where the system does not say. */
static json_int_t memory(const char *line) {
  long long kilobytes = 0;
  char text[128];
  const size_t length = strlen(line);
  FILE *f = fopen("/proc/meminfo", "r");
  while (f && fgets(text, sizeof text, f))
    if (!strncmp(text, line, length)) kilobytes = atoll(text + length);
  if (f) fclose(f);
  return (json_int_t)kilobytes * 1024;
}

static int add_cpu(json_t *rows) {
  sw_device *device;
  sw_stream stream;
  if (sw_device_open("cpu", &device)) return add(rows, "cpu", NULL, sw_error(), json_object());
  int status = sw_stream_open(device, 0, &stream);
  if (!status)
    status = add(rows, "cpu", device->name, NULL,
                 json_pack("{s:i, s:I, s:I}", "cores", stream.threads, "memory", memory("MemTotal:"), "memory_free", memory("MemAvailable:")));
  sw_device_close(device);
  return status;
}

/* Opens the device, so that what is called usable is. */
static int add_module_device(json_t *rows, const sw_module *module, int index) {
  char name[64];
  sw_device_info info;
  sw_device *device = NULL;
  snprintf(name, sizeof name, "%s:%d", module->backend, index);
  if (module->describe(index, &info)) return add(rows, name, NULL, sw_error(), json_object());
  char capability[32];
  snprintf(capability, sizeof capability, "%d.%d", info.major, info.minor);
  json_t *details = json_pack("{s:s, s:i, s:I, s:I, s:s}", "compute_capability", capability, "multiprocessors", info.multiprocessors, "memory",
                              (json_int_t)info.memory, "memory_free", (json_int_t)info.memory_free, "built_with", module->built_with);
  const int failed = module->open(index, &device);
  const int status = add(rows, name, info.name, failed ? sw_error() : NULL, details);
  sw_device_close(device);
  return status;
}

static int add_backend(json_t *rows, const char *backend) {
  const sw_module *module = sw_module_open(backend);
  const int count = module ? module->count() : -1;
  if (count < 0) return add(rows, backend, NULL, sw_error(), json_object());
  if (!count) return add(rows, backend, NULL, "there is no device", json_object());
  for (int i = 0; i < count; i++)
    if (add_module_device(rows, module, i)) return -1;
  return 0;
}

static double gib(const json_t *row, const char *key) { return (double)json_integer_value(json_object_get(row, key)) / (1 << 30); }

static void print_row(const json_t *row) {
  const char *name = sw_json_string(row, "name"), *why = sw_json_string(row, "why"), *capability = sw_json_string(row, "compute_capability");
  printf("%-10s ", sw_json_string(row, "device"));
  if (name) {
    printf("%s, ", name);
    if (capability)
      printf("compute capability %s, %lld multiprocessors, ", capability, json_integer_value(json_object_get(row, "multiprocessors")));
    else
      printf("%lld core%s, ", json_integer_value(json_object_get(row, "cores")), SW_S(json_integer_value(json_object_get(row, "cores"))));
    printf("%.1f GiB of memory, %.1f free", gib(row, "memory"), gib(row, "memory_free"));
  }
  if (why) printf("%scannot be used: %s", name ? "; " : "", why);
  putchar('\n');
}

/* Does --device `asked` mean this row? "cuda" means all of CUDA's, and a row "cuda" says that none of them can be used. */
static int is_asked(const char *device, const char *asked) {
  size_t n = 0;
  while (device[n] && device[n] == asked[n]) n++;
  return !strcmp(asked, "auto") || ((!device[n] || device[n] == ':') && (!asked[n] || asked[n] == ':') && (!device[n] || !asked[n]));
}

static int list(const char *asked, int as_json) {
  char backend[32], *text = NULL;
  int usable = 0, status = -1;
  json_t *all = json_array(), *rows = json_array(), *row;
  size_t i;
  snprintf(backend, sizeof backend, "%.*s", (int)strcspn(asked, ":"), strncmp(asked, "cuda", 4) ? "cuda" : asked);
  if (!all || !rows) sw_fail_memory("listing devices");
  if (!all || !rows || add_cpu(all) || add_backend(all, backend)) goto done;
  json_array_foreach(all, i, row) {
    if (!is_asked(sw_json_string(row, "device"), asked)) continue;
    if (json_array_append(rows, row)) {
      sw_fail_memory("listing devices");
      goto done;
    }
    usable |= json_is_true(json_object_get(row, "usable"));
    if (!as_json) print_row(row);
  }
  if (as_json) {
    if (!(text = sw_json_pretty(rows))) goto done;
    fputs(text, stdout);
  }
  status = usable ? 0 : sw_fail("--device %s: cannot be used here; skillwatch devices lists what can", asked);
done:
  free(text);
  json_decref(rows);
  json_decref(all);
  return status;
}

static int body(int argc, char **argv) {
  const char *device = "auto";
  int as_json = 0;
  const sw_option options[] = {
      {"device", 0, SW_OPTION_TEXT, &device, "NAME", "only cpu or cuda[:N]; a failure where it cannot be used (auto: all)"},
      {"json", 0, SW_OPTION_FLAG, &as_json, NULL, "print JSON"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch devices [options]",
      .summary = "Lists what --device can name on this machine: the CPU and the GPUs. Where a GPU cannot be used it says why.",
      .example = "skillwatch devices --json",
      .options = options,
  };
  sw_list operands = {0};
  int status = sw_options_parse(&command, argc, argv, &operands);
  if (!status && operands.count) status = sw_fail("'%s' was not expected (see --help)", operands.items[0]);
  if (!status) status = sw_device_check(device, 0);
  sw_list_close(&operands);
  if (status) return status < 0 ? sw_exit_message(SW_EXIT_USAGE) : SW_EXIT_DONE;
  return list(device, as_json) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
