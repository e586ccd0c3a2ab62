// A function marked RAREAL_CLONES is compiled once per instruction set; the best is chosen when the library is loaded.

#ifndef RAREAL_CLONES_H
#define RAREAL_CLONES_H

#include <cstdlib>    // for __GLIBC__

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define RAREAL_CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#else
#define RAREAL_CLONES
#endif

#endif
