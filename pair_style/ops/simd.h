// What loops over numbers share: padded memory, and elementary functions that the compiler can call for whole vectors.

#ifndef RAREAL_SIMD_H
#define RAREAL_SIMD_H

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
// glibc has vector versions of these.
#define RAREAL_VECTOR_FUNCTION __attribute__((__simd__("notinbranch")))
extern "C" {
RAREAL_VECTOR_FUNCTION float logf(float);
RAREAL_VECTOR_FUNCTION float sinf(float);
RAREAL_VECTOR_FUNCTION float cosf(float);
RAREAL_VECTOR_FUNCTION double exp(double);
RAREAL_VECTOR_FUNCTION double log(double);
RAREAL_VECTOR_FUNCTION double sin(double);
RAREAL_VECTOR_FUNCTION double cos(double);
}
#endif

#define RAREAL_INLINE __attribute__((always_inline)) inline

namespace rareal::simd {

/** e^x for x < 88, to an error of 1e-7; below e^-87 it stays there. Vector libraries take a slow path for underflow.
 *
 * 2^n e^f with |f| < ln(2) / 2; the polynomial of e^f is that of S. L. Moshier's Cephes library.
 */
RAREAL_INLINE float exponential(float x)
{
  x = x < -87.0F ? -87.0F : x;
  constexpr float round = 12582912.0F;    // 1.5 * 2^23: adding it leaves no digits after the point
  const float n = (x * 1.44269504F + round) - round;
  const float f = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * f + 1.3981999507e-3F;
  p = p * f + 8.3334519073e-3F;
  p = p * f + 4.1665795894e-2F;
  p = p * f + 1.6666665459e-1F;
  p = p * f + 5.0000001201e-1F;
  p = p * f * f + f + 1.0F;
  return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}
RAREAL_INLINE double exponential(double x) { return ::exp(x < -700.0 ? -700.0 : x); }
RAREAL_INLINE float logarithm(float x) { return ::logf(x); }
RAREAL_INLINE double logarithm(double x) { return ::log(x); }
RAREAL_INLINE float sine(float x) { return ::sinf(x); }
RAREAL_INLINE double sine(double x) { return ::sin(x); }
RAREAL_INLINE float cosine(float x) { return ::cosf(x); }
RAREAL_INLINE double cosine(double x) { return ::cos(x); }

constexpr int64_t bytes = 64;    // of the longest vectors there are; shorter ones take several

template <typename T> constexpr int64_t lanes = bytes / static_cast<int64_t>(sizeof(T));

/** As many numbers as fill whole vectors. */
template <typename T> constexpr int64_t padded(int64_t count) { return (count + lanes<T> - 1) / lanes<T> * lanes<T>; }

/** Rows of equal length, aligned, in memory that only grows. The contents are not kept by `shape`. */
template <typename T> class Rows {
 public:
  void shape(int64_t rows, int64_t length)
  {
    stride_ = padded<T>(length);
    const auto needed = static_cast<std::size_t>(rows * stride_ + lanes<T>);
    if (memory_.size() < needed) memory_.resize(needed + needed / 2);
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    begin_ = memory_.data() + (bytes - address % bytes) % bytes / sizeof(T);
  }

  T *operator[](int64_t row) { return begin_ + row * stride_; }
  const T *operator[](int64_t row) const { return begin_ + row * stride_; }
  int64_t stride() const { return stride_; }

 private:
  std::vector<T> memory_;
  T *begin_ = nullptr;
  int64_t stride_ = 0;
};

}    // namespace rareal::simd

#endif
