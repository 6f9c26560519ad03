/* Refuses data that is too long: the guard of plugin-sdk's documentation, in C.
 *
 * Its settings are one number: {"max-bytes": 1024}.
 */
#define VIVARIUM_PLUGIN
#include "vivarium_plugin.h"

VIVARIUM_STATELESS;

static const char USAGE[] = "the settings are one number, such as max-bytes = 1024";

typedef struct { const uint8_t *at, *end; } cursor;

static void skip_space(cursor *c) {
  while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\r' || *c->at == '\t')) c->at++;
}

/* Takes what must come next, and the space before it. */
static bool take(cursor *c, const char *text) {
  skip_space(c);
  for (; *text != 0; text++, c->at++) {
    if (c->at == c->end || *c->at != (uint8_t)*text) return false;
  }
  return true;
}

/* Reads {"max-bytes": N}, and nothing else. */
static bool read_settings(size_t *max_bytes) {
  vivarium_bytes json;
  vivarium_settings(&json);
  cursor c = {json.data, json.data + json.length};
  if (!take(&c, "{") || !take(&c, "\"max-bytes\"") || !take(&c, ":")) return false;
  skip_space(&c);
  const uint8_t *digits = c.at;
  uint64_t number = 0;
  for (; c.at < c.end && *c.at >= '0' && *c.at <= '9'; c.at++) {
    number = number * 10 + (*c.at - '0');
    if (number > SIZE_MAX) return false;
  }
  *max_bytes = (size_t)number;
  bool is_number = c.at > digits;
  if (!is_number || !take(&c, "}")) return false;
  skip_space(&c);
  return c.at == c.end;
}

VIVARIUM_SETUP() {
  size_t max_bytes;
  vivarium_configured *answer = vivarium_allocate(sizeof *answer);
  *answer = (vivarium_configured){0, {NULL, 0}};
  if (!read_settings(&max_bytes)) *answer = (vivarium_configured){1, vivarium_text(USAGE)};
  return answer;
}

VIVARIUM_GUARD(call) {
  size_t max_bytes;
  /* The binding was refused if they cannot be read. */
  if (!read_settings(&max_bytes)) __builtin_trap();
  const vivarium_maybe_bytes *data = &call->operation.data;
  if (data->is_some && data->value.length > max_bytes)
    return vivarium_deny(VIVARIUM_BAD_ARGUMENTS, "the data is longer than max-bytes");
  return vivarium_allow();
}
