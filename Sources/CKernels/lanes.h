// Eight floats at a time, from any address: a register on CPUs with AVX, two on others.
#pragma once

#define LANES 8
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define AT(pointer) (*(const lanes *)(pointer))
#define PUT(pointer) (*(lanes *)(pointer))
