#pragma once
// libopenblas-dev. Debian's plain <cblas.h> may be another library's, by its alternatives.
#if __has_include(<cblas-openblas.h>)
#include <cblas-openblas.h>
#else
#include <cblas.h>
#endif
