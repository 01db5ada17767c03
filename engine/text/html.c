#include "engine/text/html.h"
#include "engine/text/unicode.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  sw_buffer *out;
  size_t start;    /* of our text in `out` */
  int breaks;      /* line breaks that are owed before the next character: 0, 1 or 2 */
  int space;       /* a space is owed */
  int bullet;      /* "- " is owed */
  int pre;         /* depth of <pre> */
} writer;

static const struct {
  const char *name;
  uint32_t c;
} entities[] = {
    {"amp", '&'},      {"lt", '<'},       {"gt", '>'},       {"quot", '"'},     {"apos", '\''},    {"nbsp", 0xA0},    {"bull", 0x2022},
    {"middot", 0xB7},  {"ndash", 0x2013}, {"mdash", 0x2014}, {"lsquo", 0x2018}, {"rsquo", 0x2019}, {"sbquo", 0x201A}, {"ldquo", 0x201C},
    {"rdquo", 0x201D}, {"bdquo", 0x201E}, {"hellip", 0x2026}, {"copy", 0xA9},   {"reg", 0xAE},     {"trade", 0x2122}, {"euro", 0x20AC},
    {"pound", 0xA3},   {"yen", 0xA5},     {"cent", 0xA2},    {"sect", 0xA7},    {"deg", 0xB0},     {"plusmn", 0xB1},  {"times", 0xD7},
    {"divide", 0xF7},  {"frac12", 0xBD},  {"laquo", 0xAB},   {"raquo", 0xBB},   {"agrave", 0xE0},  {"aacute", 0xE1},  {"acirc", 0xE2},
    {"atilde", 0xE3},  {"auml", 0xE4},    {"aring", 0xE5},   {"aelig", 0xE6},   {"ccedil", 0xE7},  {"egrave", 0xE8},  {"eacute", 0xE9},
    {"ecirc", 0xEA},   {"euml", 0xEB},    {"igrave", 0xEC},  {"iacute", 0xED},  {"icirc", 0xEE},   {"iuml", 0xEF},    {"ntilde", 0xF1},
    {"ograve", 0xF2},  {"oacute", 0xF3},  {"ocirc", 0xF4},   {"otilde", 0xF5},  {"ouml", 0xF6},    {"oslash", 0xF8},  {"ugrave", 0xF9},
    {"uacute", 0xFA},  {"ucirc", 0xFB},   {"uuml", 0xFC},    {"szlig", 0xDF},   {"Auml", 0xC4},    {"Ouml", 0xD6},    {"Uuml", 0xDC},
    {"Eacute", 0xC9},  {"Agrave", 0xC0},  {"Ccedil", 0xC7},  {"Aring", 0xC5},   {"Oslash", 0xD8},  {"AElig", 0xC6},   {"Ntilde", 0xD1},
    {"rarr", 0x2192},  {"larr", 0x2190},  {"check", 0x2713}, {"ensp", 0x2002},  {"emsp", 0x2003},  {"thinsp", 0x2009}, {"zwnj", 0x200C},
    {"zwj", 0x200D},   {"shy", 0xAD},     {"para", 0xB6},    {"micro", 0xB5},   {"sup2", 0xB2},    {"sup3", 0xB3},    {"frac14", 0xBC},
};

/* Blocks and how many line breaks stand around them. */
static const struct {
  const char *name;
  int breaks;
} blocks[] = {{"p", 2},       {"div", 1},     {"br", 1},     {"ul", 2},      {"ol", 2},         {"li", 1},      {"tr", 1},  {"table", 2},  {"h1", 2},
              {"h2", 2},      {"h3", 2},      {"h4", 2},     {"h5", 2},      {"h6", 2},         {"section", 2}, {"hr", 2},  {"pre", 2},    {"dl", 2},
              {"dt", 1},      {"dd", 1},      {"article", 2}, {"header", 2}, {"blockquote", 2}, {"footer", 2},  {"main", 2}, {"title", 2}, {"body", 2}};

static int put(writer *w, const char *bytes, size_t count) {
  if (w->out->size == w->start) w->breaks = w->space = 0;
  int status = 0;
  if (w->breaks)
    status = sw_buffer_append(w->out, "\n\n", (size_t)w->breaks);
  else if (w->space)
    status = sw_buffer_append(w->out, " ", 1);
  if (!status && w->bullet) status = sw_buffer_append(w->out, "- ", 2);
  w->breaks = w->space = w->bullet = 0;
  return status || sw_buffer_append(w->out, bytes, count) ? -1 : 0;
}

static int is_blank(uint32_t c) { return c <= ' ' || c == 0x7F || c == 0xA0; }

/* Text between tags, entities already resolved. */
static int put_character(writer *w, uint32_t c) {
  uint8_t utf8[4];
  if (w->pre && (c == '\n' || c == '\t')) {
    if (c == '\n' && w->out->size > w->start) w->breaks = w->breaks < 2 ? w->breaks + 1 : 2;
    else w->space = 1;
    return 0;
  }
  if (is_blank(c)) {
    w->space = 1;
    return 0;
  }
  if (c == 0xAD || c == 0x200B || c == 0xFEFF) return 0; /* marks of where a word may be broken */
  return put(w, (const char *)utf8, sw_utf8_encode(c, utf8));
}

/* The entity at `p` ('&'): its bytes, or 0 where it is none. */
static size_t read_entity(const char *p, const char *end, uint32_t *c) {
  const char *semicolon = memchr(p, ';', (size_t)(end - p) < 12 ? (size_t)(end - p) : 12);
  if (!semicolon || semicolon - p < 2) return 0;
  char name[12];
  const size_t length = (size_t)(semicolon - p) - 1;
  memcpy(name, p + 1, length);
  name[length] = 0;
  if (name[0] == '#') {
    const int hex = name[1] == 'x' || name[1] == 'X';
    const char *digits = name + 1 + hex;
    if (!digits[0] || digits[strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789")]) return 0;
    const unsigned long value = strtoul(digits, NULL, hex ? 16 : 10);
    *c = value == 0 || value >= SW_CODE_POINTS || (value >= 0xD800 && value < 0xE000) ? 0xFFFD : (uint32_t)value;
    return length + 2;
  }
  for (size_t i = 0; i < sizeof entities / sizeof *entities; i++)
    if (!strcmp(name, entities[i].name)) return *c = entities[i].c, length + 2;
  return 0;
}

static int is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* The end ('>' included) of the tag at `p` ('<'), quotes respected; NULL where none begins here. */
static const char *tag_end(const char *p, const char *end) {
  const char *at = p + 1;
  if (at < end && *at == '/') at++;
  if (at == end || !(is_letter(*at) || (at == p + 1 && (*at == '!' || *at == '?')))) return NULL;
  for (char quote = 0; at < end; at++) {
    if (quote ? *at == quote : *at == '"' || *at == '\'') quote = quote ? 0 : *at;
    if (!quote && *at == '>') return at + 1;
    if (!quote && *at == '<') return NULL; /* never closed */
  }
  return NULL;
}

/* Behind the "</name" + '>' that ends raw text, or `end`. */
static const char *skip_raw(const char *p, const char *end, const char *name) {
  const size_t length = strlen(name);
  for (; p < end && (p = memchr(p, '<', (size_t)(end - p))); p++)
    if ((size_t)(end - p) > length + 1 && p[1] == '/' && !strncasecmp(p + 2, name, length)) {
      const char *close = memchr(p, '>', (size_t)(end - p));
      return close ? close + 1 : end;
    }
  return end;
}

static void on_tag(writer *w, const char *name, int closing) {
  if (!strcmp(name, "pre")) w->pre = closing ? (w->pre ? w->pre - 1 : 0) : w->pre + 1;
  if ((!strcmp(name, "td") || !strcmp(name, "th")) && closing) w->space = 1;
  int breaks = 0;
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks && !breaks; i++)
    if (!strcmp(name, blocks[i].name)) breaks = blocks[i].breaks;
  if (!strcmp(name, "br") && w->breaks == 1) breaks = 2; /* two of them are a blank line */
  if (breaks > w->breaks) w->breaks = breaks;
  if (!strcmp(name, "li")) w->bullet = !closing;
}

int sw_html_text(const char *html, size_t bytes, sw_buffer *out) {
  const char *p = html, *end = html + bytes;
  writer w = {.out = out, .start = out->size};
  int status = sw_buffer_reserve(out, 0);
  while (p < end && !status) {
    uint32_t c = 0;
    size_t length;
    const char *close;
    if (*p == '<' && end - p >= 4 && !memcmp(p, "<!--", 4)) {
      close = memmem(p + 4, (size_t)(end - p) - 4, "-->", 3);
      p = close ? close + 3 : end;
    } else if (*p == '<' && (close = tag_end(p, end))) {
      char name[16];
      const int closing = p[1] == '/';
      size_t n = 0;
      for (const char *at = p + 1 + closing; n < sizeof name - 1 && (is_letter(*at) || (*at >= '0' && *at <= '9')); at++)
        name[n++] = (char)(*at | (is_letter(*at) ? 0x20 : 0));
      name[n] = 0;
      p = close;
      if (!closing && (!strcmp(name, "script") || !strcmp(name, "style")))
        p = skip_raw(p, end, name);
      else
        on_tag(&w, name, closing);
    } else if (*p == '&' && (length = read_entity(p, end, &c))) {
      status = put_character(&w, c);
      p += length;
    } else {
      length = sw_utf8_decode((const uint8_t *)p, (const uint8_t *)end, &c);
      status = put_character(&w, length ? c : 0xFFFD);
      p += length ? length : 1;
    }
  }
  return status;
}

int sw_plain_text(const char *text, size_t bytes, sw_buffer *out) {
  const size_t start = out->size;
  size_t breaks = 0, spaces = 0; /* owed; spaces at the beginning of a line are kept */
  int status = sw_buffer_reserve(out, 0);
  for (size_t i = 0; i < bytes && !status; i++) {
    const unsigned char c = (unsigned char)text[i];
    if (c == '\r' && i + 1 < bytes && text[i + 1] == '\n') continue;
    if (c == '\n' || c == '\r') {
      breaks++;
      spaces = 0;
    } else if (c <= ' ' || c == 0x7F) {
      spaces++;
    } else {
      if (out->size > start && breaks) status = sw_buffer_append(out, "\n\n", breaks < 2 ? 1 : 2);
      for (; spaces && !status && out->size > start; spaces--) status = sw_buffer_append(out, " ", 1);
      breaks = spaces = 0;
      if (!status) status = sw_buffer_append(out, text + i, 1);
    }
  }
  return status;
}
