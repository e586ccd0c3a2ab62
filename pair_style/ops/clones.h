// Functions that are compiled once per instruction set; the best is chosen when the library is loaded.
//
//   RAREAL_CLONES void f(...) {...}          plain loops, which the compiler turns into vectors;
//   RAREAL_WIDTHS(void f(...), body;)        vectors written out: `bytes` is the length that the set has in registers.
//
// Longer vectors than the registers are correct and several times slower: GCC keeps them in memory.

#ifndef RAREAL_CLONES_H
#define RAREAL_CLONES_H

#include <cstdlib>    // for __GLIBC__

#if defined(RAREAL_BYTES)    // one instruction set, that of the compiler's options: for tests
#define RAREAL_CLONES
#define RAREAL_WIDTHS(function, ...) \
  function \
  { \
    constexpr int bytes = RAREAL_BYTES; \
    __VA_ARGS__ \
  }
#elif defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define RAREAL_CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#define RAREAL_WIDTHS(function, ...) \
  __attribute__((target("avx512f"))) function \
  { \
    constexpr int bytes = 64; \
    __VA_ARGS__ \
  } \
  __attribute__((target("avx2,fma"))) function \
  { \
    constexpr int bytes = 32; \
    __VA_ARGS__ \
  } \
  __attribute__((target("default"))) function \
  { \
    constexpr int bytes = 16; \
    __VA_ARGS__ \
  }
#else
#define RAREAL_CLONES
#define RAREAL_WIDTHS(function, ...) \
  function \
  { \
    constexpr int bytes = 16; \
    __VA_ARGS__ \
  }
#endif

#endif
