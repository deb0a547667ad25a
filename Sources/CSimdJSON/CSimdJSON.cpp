// Walks simdjson's document into tokens. simdjson checks the whole text (grammar, UTF-8, number ranges, depth) before the
// first token is made, so a half-valid line never yields an event.
#include "CSimdJSON.h"

#include <simdjson.h>

#include <cstring>
#include <memory>
#include <new>

using namespace simdjson;

struct guira_json {
  dom::parser parser;
  std::unique_ptr<uint8_t[]> padded;  // the text, then SIMDJSON_PADDING zero bytes
  size_t limit = 0;
  std::unique_ptr<guira_json_token[]> tokens;
  size_t token_capacity = 0;
  uint32_t token_count = 0;
  const uint8_t *texts = nullptr;
  size_t text_bytes = 0;
  const char *problem = "";
};

namespace {

// There is room: every token stands for at least one byte of the text.
inline void append(guira_json &json, uint8_t kind, uint64_t bits, uint32_t length) {
  uint32_t at = json.token_count++;
  json.tokens[at] = {bits, length, at + 1, kind};
}

void add_text(guira_json &json, std::string_view text) {
  auto begin = reinterpret_cast<const uint8_t *>(text.data());
  size_t offset = size_t(begin - json.texts);
  if (offset + text.size() > json.text_bytes) json.text_bytes = offset + text.size();
  append(json, GUIRA_JSON_TEXT, offset, uint32_t(text.size()));
}

// Recursion is bounded by the parser's depth limit.
void add(guira_json &json, dom::element element) {
  auto scalar = [&json](uint8_t kind, uint64_t bits) { append(json, kind, bits, 0); };
  switch (element.type()) {
    case dom::element_type::NULL_VALUE: scalar(GUIRA_JSON_NULL, 0); break;
    case dom::element_type::BOOL: {
      bool value = false;
      (void)element.get(value);
      scalar(value ? GUIRA_JSON_TRUE : GUIRA_JSON_FALSE, 0);
      break;
    }
    case dom::element_type::INT64: {
      int64_t value = 0;
      (void)element.get(value);
      scalar(value < 0 ? GUIRA_JSON_NEGATIVE : GUIRA_JSON_UNSIGNED, uint64_t(value));
      break;
    }
    case dom::element_type::UINT64: {
      uint64_t value = 0;
      (void)element.get(value);
      scalar(GUIRA_JSON_UNSIGNED, value);
      break;
    }
    case dom::element_type::DOUBLE: {
      double value = 0;
      (void)element.get(value);
      uint64_t bits;
      std::memcpy(&bits, &value, 8);
      scalar(GUIRA_JSON_DOUBLE, bits);
      break;
    }
    case dom::element_type::STRING: {
      std::string_view text;
      (void)element.get(text);
      add_text(json, text);
      break;
    }
    case dom::element_type::ARRAY: {
      uint32_t self = json.token_count;
      scalar(GUIRA_JSON_LIST, 0);
      uint32_t count = 0;
      dom::array list;
      (void)element.get(list);
      for (dom::element child : list) {
        add(json, child);
        ++count;
      }
      json.tokens[self].length = count;
      json.tokens[self].end = json.token_count;
      break;
    }
    case dom::element_type::OBJECT: {
      uint32_t self = json.token_count;
      scalar(GUIRA_JSON_OBJECT, 0);
      uint32_t count = 0;
      dom::object object;
      (void)element.get(object);
      for (auto field : object) {
        add_text(json, field.key);
        add(json, field.value);
        ++count;
      }
      json.tokens[self].length = count;
      json.tokens[self].end = json.token_count;
      break;
    }
  }
}

int fail(guira_json &json, error_code code) {
  json.token_count = 0;
  json.problem = error_message(code);
  if (code == UTF8_ERROR) return GUIRA_JSON_NOT_UTF8;
  return code == MEMALLOC ? GUIRA_JSON_OUT_OF_MEMORY : GUIRA_JSON_MALFORMED;
}

}  // namespace

extern "C" {

guira_json *guira_json_new(size_t limit) {
  std::unique_ptr<guira_json> json(new (std::nothrow) guira_json);
  if (!json) return nullptr;
  json->padded.reset(new (std::nothrow) uint8_t[limit + SIMDJSON_PADDING]);
  if (!json->padded) return nullptr;
  json->limit = limit;
  return json.release();
}

void guira_json_free(guira_json *json) { delete json; }

int guira_json_parse(guira_json *json, const void *bytes, size_t count) {
  json->token_count = 0;
  json->text_bytes = 0;
  if (count > json->limit) return fail(*json, CAPACITY);
  try {
    if (json->token_capacity < count + 1) {
      json->tokens.reset(new guira_json_token[count + 1]);
      json->token_capacity = count + 1;
    }
    if (count > 0) std::memcpy(json->padded.get(), bytes, count);
    std::memset(json->padded.get() + count, 0, SIMDJSON_PADDING);
    dom::element root;
    error_code code = json->parser.parse(json->padded.get(), count, false).get(root);
    if (code) return fail(*json, code);
    json->texts = json->parser.doc.string_buf.get();
    add(*json, root);
    return GUIRA_JSON_OK;
  } catch (...) {  // memory is short, or simdjson met a bug of its own: no exception passes the fence
    return fail(*json, MEMALLOC);
  }
}

const guira_json_token *guira_json_tokens(const guira_json *json, size_t *count) {
  *count = json->token_count;
  return json->tokens.get();
}

const uint8_t *guira_json_texts(const guira_json *json, size_t *count) {
  *count = json->text_bytes;
  return json->texts;
}

const char *guira_json_problem(const guira_json *json) { return json->problem; }

}
