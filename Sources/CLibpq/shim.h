// libpq's functions, to be found in the library when it is loaded: most runs of the program, those for each segment of
// WAL, need no server, and libpq brings 20 libraries along. Tidemark's own binary isn't linked with it, so that a
// function that is missing here can't be called.
//
// And the field codes of its error reports: they are character macros, which have no fixed type in Swift.
#pragma once
#include <dlfcn.h>
#include <stddef.h>
// Debian has PostgreSQL's headers in a directory of their own, others beside the rest.
#if __has_include(<postgresql/libpq-fe.h>)
#include <postgresql/libpq-fe.h>
#else
#include <libpq-fe.h>
#endif

#define CLIBPQ_FUNCTIONS(EACH) \
  EACH(PQbackendPID) EACH(PQcancel) EACH(PQclear) EACH(PQconnectPoll) EACH(PQconnectStartParams) \
  EACH(PQconnectionNeedsPassword) EACH(PQconninfoFree) EACH(PQconninfoParse) EACH(PQconsumeInput) \
  EACH(PQerrorMessage) EACH(PQfinish) EACH(PQflush) EACH(PQfname) EACH(PQfreeCancel) EACH(PQfreemem) \
  EACH(PQgetCancel) EACH(PQgetCopyData) EACH(PQgetResult) EACH(PQgetisnull) EACH(PQgetlength) EACH(PQgetvalue) \
  EACH(PQhost) EACH(PQhostaddr) EACH(PQisBusy) EACH(PQnfields) EACH(PQntuples) EACH(PQport) EACH(PQresStatus) \
  EACH(PQresultErrorField) EACH(PQresultErrorMessage) EACH(PQresultStatus) EACH(PQsendQuery) \
  EACH(PQsendQueryParams) EACH(PQserverVersion) EACH(PQsetErrorVerbosity) EACH(PQsetNoticeReceiver) \
  EACH(PQsetnonblocking) EACH(PQsocket) EACH(PQstatus) EACH(PQtransactionStatus) EACH(PQuser)

/// A pointer to each function, of the type that the header gives it.
struct clibpq {
#define CLIBPQ_FIELD(function) __typeof__(function) *function;
  CLIBPQ_FUNCTIONS(CLIBPQ_FIELD)
#undef CLIBPQ_FIELD
};

/// Finds the functions in a library that dlopen(3) loaded. Returns the name of one that it lacks, or NULL.
static inline const char *clibpq_find(void *library, struct clibpq *functions) {
#define CLIBPQ_FIND(function) \
  if (!(functions->function = (__typeof__(functions->function))dlsym(library, #function))) return #function;
  CLIBPQ_FUNCTIONS(CLIBPQ_FIND)
#undef CLIBPQ_FIND
  return NULL;
}

// PG_DIAG_* of postgres_ext.h.
enum {
  CLIBPQ_SEVERITY = PG_DIAG_SEVERITY_NONLOCALIZED,
  CLIBPQ_SQLSTATE = PG_DIAG_SQLSTATE,
  CLIBPQ_MESSAGE = PG_DIAG_MESSAGE_PRIMARY,
  CLIBPQ_DETAIL = PG_DIAG_MESSAGE_DETAIL,
  CLIBPQ_HINT = PG_DIAG_MESSAGE_HINT,
};
