// libcurl's functions, to be found in the library when it is loaded: the runs of the program that send nothing, such as
// a `wal-fetch` of a segment that lies ready, need none of the 30 libraries that it brings, and where it is needed it
// is loaded while other threads work already. Tidemark's own binary isn't linked with it, so that a function that is
// missing here can't be called.
//
// curl_easy_setopt and curl_easy_getinfo are variadic, which Swift doesn't import: one typed function for each kind of
// argument. The caller must take the kind that the option's page names (CURLOPT_*(3), CURLINFO_*(3)).
#pragma once
#include <curl/curl.h>
#include <dlfcn.h>
#include <stddef.h>

#define CLIBCURL_FUNCTIONS(EACH) \
  EACH(curl_global_init) EACH(curl_easy_init) EACH(curl_easy_cleanup) EACH(curl_easy_reset) EACH(curl_easy_perform) \
  EACH(curl_easy_strerror) EACH(curl_slist_append) EACH(curl_slist_free_all)

/// A pointer to each function, of the type that the header gives it; to the variadic one, of no type that Swift sees.
struct clibcurl {
#define CLIBCURL_FIELD(function) __typeof__(function) *function;
  CLIBCURL_FUNCTIONS(CLIBCURL_FIELD)
#undef CLIBCURL_FIELD
  void *set;
};

/// Finds the functions in a library that dlopen(3) loaded. Returns the name of one that it lacks, or NULL.
static inline const char *clibcurl_find(void *library, struct clibcurl *functions) {
#define CLIBCURL_FIND(function) \
  if (!(functions->function = (__typeof__(functions->function))dlsym(library, #function))) return #function;
  CLIBCURL_FUNCTIONS(CLIBCURL_FIND)
#undef CLIBCURL_FIND
  return (functions->set = dlsym(library, "curl_easy_setopt")) ? NULL : "curl_easy_setopt";
}

#define CLIBCURL_SET(...) ((__typeof__(curl_easy_setopt) *)curl.set)(__VA_ARGS__)

static inline CURLcode clibcurl_set_long(struct clibcurl curl, CURL *handle, CURLoption option, long value) {
  return CLIBCURL_SET(handle, option, value);
}
static inline CURLcode clibcurl_set_offset(struct clibcurl curl, CURL *handle, CURLoption option, curl_off_t value) {
  return CLIBCURL_SET(handle, option, value);
}
static inline CURLcode clibcurl_set_string(struct clibcurl curl, CURL *handle, CURLoption option, const char *value) {
  return CLIBCURL_SET(handle, option, value);
}
static inline CURLcode clibcurl_set_list(
    struct clibcurl curl, CURL *handle, CURLoption option, struct curl_slist *value) {
  return CLIBCURL_SET(handle, option, value);
}
static inline CURLcode clibcurl_set_pointer(struct clibcurl curl, CURL *handle, CURLoption option, void *value) {
  return CLIBCURL_SET(handle, option, value);
}

typedef size_t (*clibcurl_data_function)(char *, size_t, size_t, void *);
typedef int (*clibcurl_seek_function)(void *, curl_off_t, int);
typedef int (*clibcurl_progress_function)(void *, curl_off_t, curl_off_t, curl_off_t, curl_off_t);

/// CURLOPT_WRITEFUNCTION, CURLOPT_HEADERFUNCTION or CURLOPT_READFUNCTION.
static inline CURLcode clibcurl_set_data_function(
    struct clibcurl curl, CURL *handle, CURLoption option, clibcurl_data_function function) {
  return CLIBCURL_SET(handle, option, function);
}
static inline CURLcode clibcurl_set_seek_function(
    struct clibcurl curl, CURL *handle, clibcurl_seek_function function) {
  return CLIBCURL_SET(handle, CURLOPT_SEEKFUNCTION, function);
}
static inline CURLcode clibcurl_set_progress_function(
    struct clibcurl curl, CURL *handle, clibcurl_progress_function function) {
  return CLIBCURL_SET(handle, CURLOPT_XFERINFOFUNCTION, function);
}

/// A macro whose cast isn't imported.
static inline CURLcode clibcurl_initialize(struct clibcurl curl) { return curl.curl_global_init(CURL_GLOBAL_DEFAULT); }
