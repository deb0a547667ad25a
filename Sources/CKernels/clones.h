// Compiles a function for several CPU generations and chooses at load time, so that one binary runs everywhere.
#pragma once
#if defined(__x86_64__) && defined(__linux__)
#define GUIRA_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define GUIRA_CLONES
#endif
// Results are the same bits on every CPU: no fused multiply-add, no reordered sums.
#pragma STDC FP_CONTRACT OFF
