#pragma once
#include <stddef.h>
#include <stdint.h>

// CRC-32C (Castagnoli, reflected, initial and final inversion as in RFC 3720 B.4) of `count` bytes, continuing from `crc`
// (0 to begin with).
uint32_t guira_crc32c(uint32_t crc, const void *bytes, size_t count);
uint32_t guira_crc32c_scalar(uint32_t crc, const void *bytes, size_t count);
