// Cotangents of all members times the descriptors' Jacobians, frame by frame: memory is read once, and nothing else counts.
//
//   jacobian_product             out[m, b] = cotangents[m, b] J_b      [M, B, R] times [R, K] gives [M, B, K]
//   jacobian_product_transposed  out[m, b] = adjoints[m, b] J_b^T      its derivative
//
// A matrix library is made for other shapes: a few rows of cotangents against thousands of rows of J. Single precision.

#include "clones.h"

#include <torch/library.h>
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using at::Tensor;

constexpr int64_t lanes = 16, group = 4;    // floats in a vector; members that share a pass over J
typedef float Lanes __attribute__((vector_size(lanes * sizeof(float))));

__attribute__((always_inline)) inline void load(Lanes &to, const float *from) { std::memcpy(&to, from, sizeof(Lanes)); }

// c[m] and out[m] are rows of one frame's cotangents and results; `count` members, at most `group`.
RAREAL_CLONES void product(const float *jacobian, int64_t rows, int64_t columns, const float *const *c,
                           float *const *out, int64_t count)
{
  for (int64_t start = 0; start < columns; start += 4 * lanes) {
    const int64_t width = std::min<int64_t>(4, (columns - start) / lanes);
    Lanes sums[group][4] = {};
    for (int64_t r = 0; r < rows; ++r) {
      const float *row = jacobian + r * columns + start;
      Lanes part[4] = {};
      for (int64_t k = 0; k < width; ++k) load(part[k], row + k * lanes);
      for (int64_t m = 0; m < group; ++m)
        for (int64_t k = 0; k < 4; ++k) sums[m][k] += c[m][r] * part[k];
    }
    for (int64_t m = 0; m < count; ++m)
      for (int64_t k = 0; k < width; ++k) std::memcpy(out[m] + start + k * lanes, &sums[m][k], sizeof(Lanes));
  }
}

RAREAL_CLONES void product_transposed(const float *jacobian, int64_t rows, int64_t columns, const float *const *g,
                                      float *const *out, int64_t count)
{
  for (int64_t r = 0; r < rows; ++r) {
    const float *row = jacobian + r * columns;
    Lanes sums[group] = {};
    for (int64_t k = 0; k < columns; k += lanes) {
      Lanes part;
      load(part, row + k);
      for (int64_t m = 0; m < group; ++m) {
        Lanes adjoint;
        load(adjoint, g[m] + k);
        sums[m] += adjoint * part;
      }
    }
    for (int64_t m = 0; m < count; ++m) {
      float total = 0.0F;
      for (int64_t l = 0; l < lanes; ++l) total += sums[m][l];
      out[m][r] = total;
    }
  }
}

using Kernel = void (*)(const float *, int64_t, int64_t, const float *const *, float *const *, int64_t);

Tensor apply(Kernel kernel, const Tensor &input_, const std::vector<Tensor> &jacobians, int64_t in, int64_t out)
{
  const Tensor input = input_.contiguous();
  const int64_t members = input.size(0), frames = input.size(1), taken = input.size(2);
  TORCH_CHECK(static_cast<int64_t>(jacobians.size()) == frames && frames > 0,
              "jacobian_product: one Jacobian per frame");
  for (const auto &jacobian : jacobians)
    TORCH_CHECK(jacobian.is_contiguous() && jacobian.scalar_type() == at::kFloat &&
                    jacobian.sizes() == jacobians[0].sizes() && jacobian.size(in) == taken &&
                    jacobian.size(1) % lanes == 0,
                "jacobian_product: contiguous float32 Jacobians of one shape, columns a multiple of 16");
  const int64_t made = jacobians[0].size(out);
  Tensor result = at::empty({members, frames, made}, input.options());
  const float *from = input.const_data_ptr<float>();
  float *to = result.mutable_data_ptr<float>();
  at::parallel_for(0, frames, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b)
      for (int64_t m = 0; m < members; m += group) {
        const float *source[group];
        float *target[group];
        const int64_t count = std::min(group, members - m);
        for (int64_t k = 0; k < group; ++k) {
          const int64_t row = (m + std::min(k, count - 1)) * frames + b;    // idle places repeat the last member
          source[k] = from + row * taken;
          target[k] = to + row * made;
        }
        const auto &jacobian = jacobians[b];
        kernel(jacobian.const_data_ptr<float>(), jacobian.size(0), jacobian.size(1), source, target, count);
      }
  });
  return result;
}

Tensor jacobian_product(const Tensor &cotangents, std::vector<Tensor> jacobians)
{
  return apply(&product, cotangents, jacobians, 0, 1);
}

Tensor jacobian_product_transposed(const Tensor &adjoints, std::vector<Tensor> jacobians)
{
  return apply(&product_transposed, adjoints, jacobians, 1, 0);
}

}    // namespace

TORCH_LIBRARY_FRAGMENT(rareal, library)
{
  library.def("jacobian_product(Tensor cotangents, Tensor[] jacobians) -> Tensor");
  library.def("jacobian_product_transposed(Tensor adjoints, Tensor[] jacobians) -> Tensor");
}

// For other devices see portable.cpp.
TORCH_LIBRARY_IMPL(rareal, CPU, library)
{
  library.impl("jacobian_product", &jacobian_product);
  library.impl("jacobian_product_transposed", &jacobian_product_transposed);
}
