// Small C kernels that Swift cannot express or does not vectorize. Each has a scalar twin, named *_scalar, that its test
// compares it with; the fast one is chosen at run time, so that one binary runs on every x86-64 and on other CPUs.
#pragma once
#include "crc32c.h"
#include "embeddings.h"
#include "id_streams.h"
#include "layers.h"
#include "posix.h"
#include "replica.h"
