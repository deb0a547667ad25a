// A fence around libsimdjson (libsimdjson-dev, C++): one JSON text in, a flat array of tokens out. It knows JSON and
// nothing about events. No exception and no C++ type passes this header.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// One value, or one key of an object, in document order; a container is followed by what it holds.
typedef struct {
  uint64_t bits;    // integers (two's complement), the double's bits, or where the text begins in guira_json_texts
  uint32_t length;  // bytes of a text; members of an object, elements of a list
  uint32_t end;     // the token after this value and all it holds
  uint8_t kind;     // a GUIRA_JSON_... number, the raw values of Streams' JSONKind
} guira_json_token;

#define GUIRA_JSON_NULL 0
#define GUIRA_JSON_TRUE 1
#define GUIRA_JSON_FALSE 2
#define GUIRA_JSON_UNSIGNED 3
#define GUIRA_JSON_NEGATIVE 4
#define GUIRA_JSON_DOUBLE 5
#define GUIRA_JSON_TEXT 6
#define GUIRA_JSON_LIST 7
#define GUIRA_JSON_OBJECT 8

// What guira_json_parse answers.
#define GUIRA_JSON_OK 0
#define GUIRA_JSON_NOT_UTF8 1
#define GUIRA_JSON_MALFORMED 2
#define GUIRA_JSON_OUT_OF_MEMORY 3

typedef struct guira_json guira_json;

// A parser for texts of up to `limit` bytes; NULL when memory is short. Belongs to one thread at a time.
guira_json *guira_json_new(size_t limit);
void guira_json_free(guira_json *json);

// Parses `count` bytes (copied first, so they need no padding). On success the tokens and texts are valid until the next
// call; otherwise there are none and guira_json_problem says why.
int guira_json_parse(guira_json *json, const void *bytes, size_t count);

const guira_json_token *guira_json_tokens(const guira_json *json, size_t *count);
// The unescaped, valid UTF-8 of all texts; tokens point into it.
const uint8_t *guira_json_texts(const guira_json *json, size_t *count);
// Why the last parse failed, in simdjson's words; static memory.
const char *guira_json_problem(const guira_json *json);

#ifdef __cplusplus
}
#endif
