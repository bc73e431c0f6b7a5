// curl_easy_setopt and curl_easy_getinfo are variadic, which Swift doesn't import: one typed function for each kind of
// argument. The caller must take the kind that the option's page names (CURLOPT_*(3), CURLINFO_*(3)).
#pragma once
#include <curl/curl.h>

static inline CURLcode clibcurl_set_long(CURL *handle, CURLoption option, long value) {
  return curl_easy_setopt(handle, option, value);
}
static inline CURLcode clibcurl_set_offset(CURL *handle, CURLoption option, curl_off_t value) {
  return curl_easy_setopt(handle, option, value);
}
static inline CURLcode clibcurl_set_string(CURL *handle, CURLoption option, const char *value) {
  return curl_easy_setopt(handle, option, value);
}
static inline CURLcode clibcurl_set_list(CURL *handle, CURLoption option, struct curl_slist *value) {
  return curl_easy_setopt(handle, option, value);
}
static inline CURLcode clibcurl_set_pointer(CURL *handle, CURLoption option, void *value) {
  return curl_easy_setopt(handle, option, value);
}

typedef size_t (*clibcurl_data_function)(char *, size_t, size_t, void *);
typedef int (*clibcurl_seek_function)(void *, curl_off_t, int);
typedef int (*clibcurl_progress_function)(void *, curl_off_t, curl_off_t, curl_off_t, curl_off_t);

/// CURLOPT_WRITEFUNCTION, CURLOPT_HEADERFUNCTION or CURLOPT_READFUNCTION.
static inline CURLcode clibcurl_set_data_function(CURL *handle, CURLoption option, clibcurl_data_function function) {
  return curl_easy_setopt(handle, option, function);
}
static inline CURLcode clibcurl_set_seek_function(CURL *handle, clibcurl_seek_function function) {
  return curl_easy_setopt(handle, CURLOPT_SEEKFUNCTION, function);
}
static inline CURLcode clibcurl_set_progress_function(CURL *handle, clibcurl_progress_function function) {
  return curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, function);
}

static inline CURLcode clibcurl_get_long(CURL *handle, CURLINFO info, long *value) {
  return curl_easy_getinfo(handle, info, value);
}
static inline CURLcode clibcurl_get_offset(CURL *handle, CURLINFO info, curl_off_t *value) {
  return curl_easy_getinfo(handle, info, value);
}

/// A macro whose cast isn't imported.
static inline CURLcode clibcurl_initialize(void) { return curl_global_init(CURL_GLOBAL_DEFAULT); }
