// libpq, and the field codes of its error reports: they are character macros, which have no fixed type in Swift.
#pragma once
#include <libpq-fe.h>

// PG_DIAG_* of postgres_ext.h.
enum {
  CLIBPQ_SEVERITY = PG_DIAG_SEVERITY_NONLOCALIZED,
  CLIBPQ_SQLSTATE = PG_DIAG_SQLSTATE,
  CLIBPQ_MESSAGE = PG_DIAG_MESSAGE_PRIMARY,
  CLIBPQ_DETAIL = PG_DIAG_MESSAGE_DETAIL,
  CLIBPQ_HINT = PG_DIAG_MESSAGE_HINT,
};
