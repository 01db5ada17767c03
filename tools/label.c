/* skillwatch label: sentences of postings, labelled by a chat model, as data for skillwatch train ner. */
#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "engine/store/config_file.h"
#include "engine/store/http.h"
#include "kernels/backend.h"
#include "tools/label/audit.h"
#include "tools/label/pick.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct {
  sw_label_options run;
  const char *base_url, *key_name, *labels, *structured, *form, *export_to, *input_format, *audit, *of, *device, *pick_by;
  int pick, threads;
  sw_pick_rule rule;
  char *rejected, *rows; /* owned */
} settings;

static int parse_labels(const char *text, sw_label_names *out) {
  while (*text) {
    const size_t n = strcspn(text, ",");
    if (!n || n > 64 || strcspn(text, " \t/<>\"\\:\n") < n || sw_check_utf8(text, n))
      return sw_fail("--labels wants names with commas between them, without spaces or any of / < > \" \\ :, as in --labels knowledge,skill");
    for (int i = 0; i < out->count; i++)
      if (strlen(out->names[i]) == n && !strncasecmp(out->names[i], text, n)) return sw_fail("--labels names %.*s twice", (int)n, text);
    if (out->count == SW_MAX_LABELS) return sw_fail("--labels names more than %d labels", SW_MAX_LABELS);
    if (!(out->names[out->count] = sw_strndup(text, n))) return -1;
    out->count++;
    text += n;
    if (*text == ',' && !*++text) return sw_fail("--labels ends in a comma");
  }
  return out->count ? 0 : sw_fail("--labels wants at least one name");
}

static int check_url(settings *s) {
  const char *url = s->base_url, *scheme = strncmp(url, "https://", 8) ? "http://" : "https://";
  size_t n = strlen(url);
  if (strncmp(url, scheme, strlen(scheme)) || !url[strlen(scheme)] || strpbrk(url, " \t\r\n?#"))
    return sw_fail("--base-url wants an address such as https://api.openai.com/v1");
  const char *host = url + strlen(scheme), *path = strchr(host, '/');
  if (memchr(host, '@', path ? (size_t)(path - host) : strlen(host))) return sw_fail("--base-url must hold no user or password; the key comes from the environment, see --key-env");
  while (n && url[n - 1] == '/') n--;
  sw_buffer all = {0};
  static const char end[] = "/chat/completions";
  const int whole = n > sizeof end && !strncmp(url + n - sizeof end + 1, end, sizeof end - 1);
  if (sw_buffer_print(&all, "%.*s%s", (int)n, url, whole ? "" : end)) {
    sw_buffer_close(&all);
    return -1;
  }
  return (s->run.url = sw_buffer_take(&all)) ? 0 : -1;
}

static int check_key(settings *s) {
  const char *key = getenv(s->key_name);
  s->run.key = key && key[0] ? key : NULL;
  s->run.ask.key_name = s->key_name;
  if (s->run.key && !sw_http_keeps_secrets(s->run.url))
    return sw_fail("the key in %s would go over the network in the clear: use https:// in --base-url, or name a variable that is not set with --key-env", s->key_name);
  for (; s->run.key && *key; key++)
    if ((unsigned char)*key <= 0x20 || *key == 0x7f) return sw_fail("the key in %s holds a space, a line break or another control character", s->key_name);
  return 0;
}

static int one_of(const char *option, const char *value, const char *const *names) {
  for (int i = 0; names[i]; i++)
    if (!strcmp(value, names[i])) return i;
  sw_buffer list = {0};
  for (int i = 0; names[i]; i++) sw_buffer_print(&list, "%s%s", i ? ", " : "", names[i]);
  sw_fail("--%s %s is not known: use one of %s", option, value, list.data ? list.data : "");
  sw_buffer_close(&list);
  return -1;
}

static int check_numbers(const sw_label_options *o) {
  const sw_ask_options *a = &o->ask;
  if (a->parallel < 1 || a->parallel > 256) return sw_fail("--parallel wants a number from 1 to 256");
  if (a->tries < 1 || a->tries > 100) return sw_fail("--tries wants a number from 1 to 100");
  if (a->seconds < 1) return sw_fail("--timeout wants a number of seconds above 0");
  if (o->prompt.votes < 1 || o->prompt.votes > 100) return sw_fail("--votes wants a number from 1 to 100");
  if (o->prompt.max_tokens < 0) return sw_fail("--max-tokens wants a number above 0, or 0 for the model's own limit");
  if (!(a->requests_per_minute >= 0) || !(a->tokens_per_minute >= 0)) return sw_fail("--requests-per-minute and --tokens-per-minute want numbers above 0");
  if (!(o->price_in >= 0) || !(o->price_out >= 0) || !(o->budget >= 0)) return sw_fail("--price-in, --price-out and --budget want numbers above 0");
  if (o->budget > 0 && !(o->price_in > 0) && !(o->price_out > 0)) return sw_fail("--budget needs the prices: --price-in and --price-out, per million tokens");
  return 0;
}

static int check_inputs(const settings *s) {
  const sw_label_options *o = &s->run;
  if (!o->inputs.count) return sw_fail("inputs are needed: files or folders of postings, or sentences (see --help)");
  for (int i = 0; i < o->inputs.count; i++)
    if (!strcmp(o->inputs.items[i], "-")) return sw_fail("the inputs are read more than once: give files or folders, not standard input");
  if (!o->output && o->dry_run) return 0;
  if (!o->output || !strcmp(o->output, "-")) return sw_fail("-o FILE is needed: the labels, and beside it what was answered before the end");
  const char *const outputs[] = {o->output, o->rejected, o->rows}, *const more[] = {o->prompt.path, o->checkpoint, s->audit};
  if (sw_check_outputs(outputs, 3, o->inputs.items, o->inputs.count)) return -1;
  for (int i = 0; i < 3; i++)
    if (more[i] && sw_check_outputs(outputs, 3, &more[i], 1)) return -1;
  return sw_check_writable(o->output);
}

static int check(settings *s) {
  static const char *const forms[] = {"spans", "tokens", NULL}, *const exports[] = {"label-studio", "doccano", NULL},
                           *const structures[] = {"schema", "object", "none", NULL},
                           *const rules[] = {"mean", "max", "sum", "margin", NULL};
  sw_label_options *o = &s->run;
  const int form = one_of("format", s->form, forms), to = s->export_to ? one_of("export", s->export_to, exports) : 0,
            structure = one_of("structured", s->structured, structures), rule = one_of("pick-by", s->pick_by, rules);
  sw_buffer rejected = {0}, rows = {0};
  if (form < 0 || to < 0 || structure < 0 || rule < 0) return -1;
  s->rule = (sw_pick_rule)rule;
  o->form = s->export_to ? SW_WRITE_LABEL_STUDIO + (sw_write_form)to : (sw_write_form)form;
  o->prompt.form = (sw_answer_form)structure;
  if (s->export_to && form) return sw_fail("--format and --export exclude each other");
  if (s->export_to && s->audit) return sw_fail("--audit and --export exclude each other: compare what people made of it, with --of");
  if (o->form == SW_WRITE_TOKENS && !o->checkpoint) return sw_fail("--format tokens needs the checkpoint whose tokenizer it is for: -m FILE");
  if (s->pick < 0) return sw_fail("--pick wants a number above 0");
  if (s->pick && !o->checkpoint) return sw_fail("--pick needs the tagger whose uncertainty counts: -m FILE");
  if (s->pick && sw_device_check(s->device, s->threads)) return -1;
  if (s->pick && !o->prompt.model && (o->dry_run || s->audit || o->form == SW_WRITE_TOKENS)) return sw_fail("--pick without --model only writes sentences down");
  if (!o->prompt.model && !s->pick) return sw_fail("which model? --model NAME, as its server calls it");
  if (o->prompt.temperature == -2) o->prompt.temperature = o->prompt.votes > 1 ? 0.7 : 0;
  if (o->output && !o->rejected) {
    if (sw_buffer_print(&rejected, "%s.rejected.jsonl", o->output)) return -1;
    o->rejected = s->rejected = sw_buffer_take(&rejected);
  }
  if (o->rejected) {
    if (sw_buffer_print(&rows, "%s.rows", o->rejected)) return -1;
    o->rows = s->rows = sw_buffer_take(&rows);
  }
  return parse_labels(s->labels, &o->labels) || check_numbers(o) || check_url(s) || check_key(s) || sw_postings_format_parse(s->input_format, &o->postings.format) ||
                 check_inputs(s)
             ? -1
             : 0;
}

static int body(int argc, char **argv) {
  const char *address = getenv("OPENAI_BASE_URL");
  settings s = {.base_url = address && address[0] ? address : "https://api.openai.com/v1", .key_name = "OPENAI_API_KEY", .labels = "knowledge,skill", .structured = "schema",
                .form = "spans", .input_format = "auto", .device = "auto", .pick_by = "mean"};
  sw_label_options *o = &s.run;
  o->prompt = (sw_prompt_options){.temperature = -2, .max_tokens = 1024, .votes = 1, .seed = -1};
  o->ask = (sw_ask_options){.parallel = 8, .tries = SW_HTTP_TRIES, .seconds = 120};
  o->resume = 1;
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o->output, "FILE", "the labels; skillwatch train ner --data FILE reads them"},
      {"model", 0, SW_OPTION_TEXT, &o->prompt.model, "NAME", "of the language model, as its server calls it (needed)"},
      {"base-url", 0, SW_OPTION_TEXT, &s.base_url, "URL", "of the server (else: OPENAI_BASE_URL, https://api.openai.com/v1)"},
      {"key-env", 0, SW_OPTION_TEXT, &s.key_name, "NAME", "environment variable that holds the key; none is sent where it is not set"},
      {"labels", 0, SW_OPTION_TEXT, &s.labels, "A,B", "what to look for; each is a layer of its own"},
      {"prompt", 0, SW_OPTION_TEXT, &o->prompt.path, "FILE", "instructions and examples (else: the program's own)"},
      {"format", 0, SW_OPTION_TEXT, &s.form, "F", "spans, or tokens: WordPieces of -m with B/I/O tags"},
      {"export", 0, SW_OPTION_TEXT, &s.export_to, "TOOL", "write what label-studio or doccano imports, for people to correct"},
      {"pick", 0, SW_OPTION_INT, &s.pick, "N", "only the N sentences that the tagger -m is least sure of; without --model they are written down; 0: all"},
      {"pick-by", 0, SW_OPTION_TEXT, &s.pick_by, "RULE", "what unsure means, of its words' tags: mean, max or sum of entropies, or margin"},
      {"checkpoint", 'm', SW_OPTION_TEXT, &o->checkpoint, "FILE", "tagger of --pick; its tokenizer makes the WordPieces of --format tokens"},
      {"device", 0, SW_OPTION_TEXT, &s.device, "D", "of --pick: auto, cpu or cuda[:N]"},
      {"threads", 0, SW_OPTION_INT, &s.threads, "N", "of --pick; 0: one a core"},
      {"sentences", 0, SW_OPTION_FLAG, &o->whole, NULL, "each text is one sentence already"},
      {"column", 0, SW_OPTION_TEXT, &o->postings.column, "NAME", "column or key of the text (else: description, text, the only one)"},
      {"id-column", 0, SW_OPTION_TEXT, &o->postings.id_column, "NAME", "column or key of the id (else: id, job_id, number)"},
      {"input-format", 0, SW_OPTION_TEXT, &s.input_format, "F", "of inputs: auto, text (a posting a file), lines, csv, jsonl"},
      {"rejected", 0, SW_OPTION_TEXT, &o->rejected, "FILE", "what could not be used (else: OUTPUT.rejected.jsonl)"},
      {"structured", 0, SW_OPTION_TEXT, &s.structured, "S", "schema, object (any JSON) or none: what the server can enforce"},
      {"temperature", 0, SW_OPTION_DOUBLE, &o->prompt.temperature, "X", "-2: 0, or 0.7 with --votes; -1: not sent"},
      {"max-tokens", 0, SW_OPTION_INT, &o->prompt.max_tokens, "N", "of an answer; 0: not sent"},
      {"extra", 0, SW_OPTION_TEXT, &o->prompt.extra, "JSON", "more keys for each request: '{\"top_p\": 0.9}'"},
      {"votes", 0, SW_OPTION_INT, &o->prompt.votes, "N", "answers a sentence; what most of them say is kept, the share is its weight"},
      {"seed", 0, SW_OPTION_INT, &o->prompt.seed, "N", "sent to the server, one more for each vote; -1: only with --votes"},
      {"parallel", 0, SW_OPTION_INT, &o->ask.parallel, "N", "requests at a time"},
      {"requests-per-minute", 0, SW_OPTION_DOUBLE, &o->ask.requests_per_minute, "N", "at most; 0: no limit"},
      {"tokens-per-minute", 0, SW_OPTION_DOUBLE, &o->ask.tokens_per_minute, "N", "at most, in and out together; 0: no limit"},
      {"tries", 0, SW_OPTION_INT, &o->ask.tries, "N", "requests for one answer before its sentence is set aside"},
      {"timeout", 0, SW_OPTION_INT, &o->ask.seconds, "S", "seconds that an answer may take"},
      {"price-in", 0, SW_OPTION_DOUBLE, &o->price_in, "X", "price of a million tokens in"},
      {"price-out", 0, SW_OPTION_DOUBLE, &o->price_out, "X", "price of a million tokens out"},
      {"budget", 0, SW_OPTION_DOUBLE, &o->budget, "X", "stop, with status 75, before more than this is spent on the output; 0: no limit"},
      {"dry-run", 'n', SW_OPTION_FLAG, &o->dry_run, NULL, "say what would be asked and what it would cost, and ask nothing"},
      {"cache", 0, SW_OPTION_TEXT, &o->cache, "FOLDER", "of answers; runs that share it pay for none twice"},
      {"resume", 0, SW_OPTION_FLAG, &o->resume, NULL, "use the answers of an interrupted run (--no-resume: ask anew)"},
      {"audit", 0, SW_OPTION_TEXT, &s.audit, "GOLD", "compare the labels with those of people, in any form train ner reads"},
      {"of", 0, SW_OPTION_TEXT, &s.of, "FILE", "with --audit: labels that are there already; nothing is asked"},
      {"quiet", 'q', SW_OPTION_FLAG, &o->quiet, NULL, "no progress, no summary"},
      {"json", 0, SW_OPTION_FLAG, &o->json, NULL, "summary as JSON, to standard output"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch label INPUTS... --model NAME -o labels.jsonl [options]",
      .summary =
          "Has a chat model find skills in sentences, at any server that speaks OpenAI's protocol, and writes labels that\n"
          "train ner reads: {\"text\", \"spans\": [{\"start\", \"end\", \"label\", \"text\"}], \"source\", \"weight\"}. INPUTS: <date>/<n>.txt\n"
          "folders, text, CSV and JSONL files, plain, .gz or .zst; postings are split into sentences. Each text that the\n"
          "model names is looked up in the sentence; what is not there is dropped and goes to OUTPUT.rejected.jsonl, with\n"
          "the reason. A sentence that comes again is asked about once. What was answered is kept in OUTPUT.partial until\n"
          "the output is whole: the same command goes on after a crash or a stop, and pays for no answer twice.\n"
          "With --audit GOLD --of LABELS: how far labels and people agree.",
      .example = "skillwatch label postings/ --model gpt-4o --price-in 2.5 --price-out 10 --budget 5 -o labels.jsonl\n"
                 "  skillwatch label postings/ --base-url http://localhost:8000/v1 --model llama --votes 3 -o labels.jsonl\n"
                 "  skillwatch label postings/ --pick 500 -m ner.h5 --model gpt-4o -o labels.jsonl\n"
                 "  skillwatch label --audit people.jsonl --of labels.jsonl",
      .options = options,
  };
  int status = sw_config_parse(&command, argc, argv, &o->inputs), code;
  if (!status && s.of && !s.audit) status = sw_fail("--of goes with --audit GOLD");
  if (!status && s.of && o->inputs.count) status = sw_fail("--of compares labels that are there, and takes no inputs");
  if (!status && s.of && s.pick) status = sw_fail("--of compares labels that are there, and picks none: leave out --pick");
  if (!status && !s.of) status = check(&s);
  if (status) {
    code = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  } else {
    code = s.pick && sw_label_pick(o, (size_t)s.pick, s.rule, s.device, s.threads) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
    if (!code && !o->prompt.model && !s.of) code = sw_label_write_picked(o) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
    else if (!code && !s.of) code = sw_label_run_all(o);
    if (!code && s.audit && !o->dry_run && sw_label_audit(s.audit, s.of ? s.of : o->output, o->json)) code = sw_exit_message(SW_EXIT_FAILED);
  }
  for (int i = 0; i < o->labels.count; i++) free(o->labels.names[i]);
  free(o->picked);
  free(o->url);
  free(s.rejected);
  free(s.rows);
  sw_list_close(&o->inputs);
  return code;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
