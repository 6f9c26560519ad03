/* What a plugin in C sees: package vivarium:plugin@0.1.0, by the canonical ABI.
 *
 * The layouts below are those of the ABI, which for these types are those that C gives them on wasm32. What each
 * of it means is said in wit/. Freestanding: no C library is needed.
 *
 * In one file of the plugin, and only there:
 *
 *     #define VIVARIUM_PLUGIN
 *     #include "vivarium_plugin.h"
 *
 * which also defines memory and the functions of the C library that compilers call by themselves. Then
 * define what you export, for instance
 *
 *     VIVARIUM_GUARD(call) { ... return vivarium_allow(); }
 *
 * Invariants:
 * - All that a call is given, and all that it asks for, lies in memory that is free again after the call.
 * - So nothing is left of it for the next one, and a plugin that has no variables of its own that it changes
 *   is stateless: VIVARIUM_STATELESS says so.
 */
#ifndef VIVARIUM_PLUGIN_H
#define VIVARIUM_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

_Static_assert(sizeof(void *) == 4, "this is for wasm32");

/* Bytes, or text in UTF-8 without a 0 at the end. */
typedef struct { const uint8_t *data; size_t length; } vivarium_bytes;
typedef struct { bool is_some; vivarium_bytes value; } vivarium_maybe_bytes;

typedef struct { vivarium_bytes name; vivarium_bytes value; } vivarium_attribute;
typedef struct { const vivarium_attribute *data; size_t length; } vivarium_attributes;

typedef struct { uint32_t perms; vivarium_bytes scheme; vivarium_bytes id; } vivarium_acl_entry;
typedef struct { const vivarium_acl_entry *data; size_t length; } vivarium_acl;

typedef struct {
  int64_t czxid, mzxid, pzxid, ctime, mtime;
  int32_t version, cversion, aversion;
  int64_t ephemeral_owner;
  uint32_t data_length, num_children;
} vivarium_stat;
typedef struct { bool is_some; vivarium_stat value; } vivarium_maybe_stat;

typedef struct { vivarium_maybe_bytes data; vivarium_stat stat; } vivarium_node;
typedef struct { bool is_some; vivarium_node value; } vivarium_maybe_node;

/* Numbers of ZooKeeper's protocol. */
enum { VIVARIUM_CREATE = 1, VIVARIUM_DELETE = 2, VIVARIUM_SET_DATA = 5, VIVARIUM_SET_ACL = 7 };
enum {
  VIVARIUM_BAD_ARGUMENTS = -8,
  VIVARIUM_NO_AUTH = -102,
  VIVARIUM_QUOTA_EXCEEDED = -125,
  VIVARIUM_THROTTLED = -127,
};

typedef struct {
  uint16_t op;
  vivarium_bytes path;
  vivarium_maybe_bytes data;
  vivarium_acl acl;
  uint16_t mode;
  int64_t ttl_ms;
  int32_t version;
  vivarium_attributes attrs;
} vivarium_operation;

typedef struct {
  uint16_t cause;
  uint32_t index, operations;
  vivarium_maybe_stat before;
  vivarium_attributes attrs;
} vivarium_circumstances;

/* What a guard is asked: guard.judge. */
typedef struct {
  vivarium_operation operation;
  vivarium_circumstances circumstances;
} vivarium_guard_call;

/* What it answers. */
typedef struct { uint8_t is_denied; int32_t code; vivarium_bytes reason; } vivarium_verdict;

/* What an observer is told: observer.observe. */
typedef struct {
  uint16_t op, cause;
  vivarium_bytes path;
  uint16_t mode;
  int64_t ttl_ms;
  vivarium_maybe_bytes data;
  vivarium_maybe_stat before, after;
  vivarium_attributes attrs;
} vivarium_change;

/* What setup.configure answers. */
typedef struct { uint8_t is_refused; vivarium_bytes why; } vivarium_configured;

#define VIVARIUM_IMPORT(interface, name) \
  __attribute__((import_module("vivarium:plugin/" interface "@0.1.0"), import_name(name)))

/* Each that gives more than a number writes it to the last argument. */
VIVARIUM_IMPORT("tree", "get")
void vivarium_tree_get(const char *path, size_t length, vivarium_maybe_node *node);
VIVARIUM_IMPORT("tree", "exists")
void vivarium_tree_exists(const char *path, size_t length, vivarium_maybe_stat *stat);
VIVARIUM_IMPORT("store", "get")
void vivarium_store_get(const void *key, size_t length, vivarium_maybe_bytes *value);
VIVARIUM_IMPORT("store", "put")
void vivarium_store_put(const void *key, size_t key_length, const void *value, size_t length);
VIVARIUM_IMPORT("store", "delete")
void vivarium_store_delete(const void *key, size_t length);
VIVARIUM_IMPORT("store", "add")
int64_t vivarium_store_add(const void *key, size_t length, int64_t delta);
VIVARIUM_IMPORT("context", "settings")
void vivarium_settings(vivarium_bytes *json);
VIVARIUM_IMPORT("context", "time-ms")
int64_t vivarium_time_ms(void);
VIVARIUM_IMPORT("context", "session")
int64_t vivarium_session(void);
VIVARIUM_IMPORT("log", "line")
void vivarium_log(const char *text, size_t length);

/* Memory until the end of the call. */
void *vivarium_allocate(size_t bytes);

static inline vivarium_bytes vivarium_text(const char *text) {
  size_t length = 0;
  while (text[length] != 0) length++;
  return (vivarium_bytes){(const uint8_t *)text, length};
}

static inline const vivarium_verdict *vivarium_allow(void) {
  static const vivarium_verdict allow = {0, 0, {NULL, 0}};
  return &allow;
}

static inline const vivarium_verdict *vivarium_deny(int32_t code, const char *reason) {
  vivarium_verdict *verdict = vivarium_allocate(sizeof *verdict);
  *verdict = (vivarium_verdict){1, code, vivarium_text(reason)};
  return verdict;
}

/* The exports. The function after a call that gives something frees all of it. */
#define VIVARIUM_EXPORT(name) __attribute__((export_name("vivarium:plugin/" name)))
#define VIVARIUM_POST(name) __attribute__((export_name("cabi_post_vivarium:plugin/" name)))

#define VIVARIUM_GUARD(call)                                                            \
  VIVARIUM_POST("guard@0.1.0#judge")                                                    \
  void vivarium_after_judge(const vivarium_verdict *verdict) {                          \
    (void)verdict;                                                                      \
    vivarium_free_all();                                                                \
  }                                                                                     \
  VIVARIUM_EXPORT("guard@0.1.0#judge")                                                  \
  const vivarium_verdict *vivarium_judge(const vivarium_guard_call *call)

#define VIVARIUM_SETUP()                                                                \
  VIVARIUM_POST("setup@0.1.0#configure")                                                \
  void vivarium_after_configure(const vivarium_configured *configured) {                \
    (void)configured;                                                                   \
    vivarium_free_all();                                                                \
  }                                                                                     \
  VIVARIUM_EXPORT("setup@0.1.0#configure")                                              \
  const vivarium_configured *vivarium_configure(void)

#define VIVARIUM_STATELESS                                                              \
  __asm__(".section \".custom_section.vivarium:plugin\",\"\",@\n.ascii \"stateless \"\n")

#ifdef VIVARIUM_PLUGIN

extern uint8_t __heap_base;
static uint8_t *vivarium_next;

static void vivarium_free_all(void) { vivarium_next = NULL; }

static void *vivarium_take(size_t align, size_t bytes) {
  const size_t page = 65536;
  if (vivarium_next == NULL) vivarium_next = &__heap_base;
  uintptr_t start = ((uintptr_t)vivarium_next + align - 1) & ~(uintptr_t)(align - 1);
  uintptr_t end = start + bytes;
  uintptr_t there = __builtin_wasm_memory_size(0) * page;
  if (end < start) __builtin_trap();
  if (end > there && __builtin_wasm_memory_grow(0, (end - there + page - 1) / page) == (size_t)-1)
    __builtin_trap();
  vivarium_next = (uint8_t *)end;
  return (void *)start;
}

void *vivarium_allocate(size_t bytes) { return vivarium_take(16, bytes); }

/* The compiler calls these of its own accord. */
void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
  uint8_t *t = to;
  const uint8_t *f = from;
  while (bytes-- > 0) *t++ = *f++;
  return to;
}

void *memset(void *to, int value, size_t bytes) {
  uint8_t *t = to;
  while (bytes-- > 0) *t++ = (uint8_t)value;
  return to;
}

/* Where the server puts what it gives. */
__attribute__((export_name("cabi_realloc")))
void *cabi_realloc(void *old, size_t old_bytes, size_t align, size_t bytes) {
  void *block = vivarium_take(align, bytes);
  if (old != NULL) memcpy(block, old, old_bytes < bytes ? old_bytes : bytes);
  return block;
}

#endif
#endif
