// GELU with its first two derivatives in one pass, and its part of the derivative of a derivative, for training with
// forces in the loss.
//
// GELU(z) = z Phi(z);  GELU' = Phi + z phi;  GELU'' = (2 - z^2) phi, with the normal distribution Phi and density phi.
// One exponential serves all three: erf(x) = 1 - P(t) exp(-x^2), t = 1 / (1 + p x), Abramowitz and Stegun 7.1.26, whose
// error of 1.5e-7 is that of single precision. Double precision is left to PyTorch's own functions.

#include "clones.h"
#include "committee_network.h"
#include "simd.h"

#include <torch/library.h>
#include <ATen/ATen.h>

#include <ATen/Parallel.h>

#include <cmath>
#include <cstdint>
#include <tuple>

namespace {

using at::Tensor;

struct Gelu {
  float value, slope, curvature;
};

RAREAL_INLINE Gelu gelu(float x)
{
  const float gauss = rareal::simd::exponential(-0.5F * x * x);
  const float t = 1.0F / (1.0F + 0.3275911F * 0.70710678F * std::fabs(x));
  const float polynomial =
      t * (0.254829592F + t * (-0.284496736F + t * (1.421413741F + t * (-1.453152027F + t * 1.061405429F))));
  const float tail = 0.5F * polynomial * gauss;    // Phi(-|x|)
  const float cdf = x > 0.0F ? 1.0F - tail : tail;
  const float pdf = 0.39894228F * gauss;
  return {x * cdf, cdf + x * pdf, (2.0F - x * x) * pdf};
}

RAREAL_CLONES void gelu_range(const float *z, float *value, float *slope, float *curvature, int64_t count)
{
  for (int64_t k = 0; k < count; ++k) {
    const Gelu g = gelu(z[k]);
    value[k] = g.value;
    slope[k] = g.slope;
    curvature[k] = g.curvature;
  }
}

RAREAL_CLONES void gelu_slope_range(float *value, float *slope, int64_t count)
{
#pragma GCC ivdep
  for (int64_t k = 0; k < count; ++k) {
    const Gelu g = gelu(value[k]);
    value[k] = g.value;
    slope[k] = g.slope;
  }
}

std::tuple<Tensor, Tensor, Tensor> gelu_derivatives(const Tensor &input)
{
  TORCH_CHECK(input.scalar_type() == at::kFloat, "gelu_derivatives: single precision only");
  const Tensor z = input.contiguous();
  Tensor value = at::empty_like(z), slope = at::empty_like(z), curvature = at::empty_like(z);
  const float *in = z.data_ptr<float>();
  float *h = value.data_ptr<float>(), *dh = slope.data_ptr<float>(), *ddh = curvature.data_ptr<float>();
  at::parallel_for(0, z.numel(), 16384, [&](int64_t first, int64_t last) {
    gelu_range(in + first, h + first, dh + first, ddh + first, last - first);
  });
  return {value, slope, curvature};
}

RAREAL_CLONES void adjoint_range(float *adjoint, const float *slope, const float *tangent, const float *back,
                                 const float *curvature, int64_t count)
{
  for (int64_t k = 0; k < count; ++k) adjoint[k] = adjoint[k] * slope[k] + tangent[k] * back[k] * curvature[k];
}

// adjoint <- adjoint slope + tangent back curvature, the reverse pass through one activation and its tangent.
Tensor gelu_adjoint_(Tensor adjoint, const Tensor &slope, const Tensor &tangent, const Tensor &back_,
                     const Tensor &curvature)
{
  const Tensor back = back_.contiguous();
  for (const Tensor &t : {adjoint, slope, tangent, back, curvature})
    TORCH_CHECK(t.scalar_type() == at::kFloat && t.is_contiguous() && t.numel() == adjoint.numel(),
                "gelu_adjoint_: contiguous single precision of one shape");
  float *a = adjoint.mutable_data_ptr<float>();
  const float *s = slope.const_data_ptr<float>(), *t = tangent.const_data_ptr<float>();
  const float *b = back.const_data_ptr<float>(), *c = curvature.const_data_ptr<float>();
  at::parallel_for(0, adjoint.numel(), 16384, [&](int64_t first, int64_t last) {
    adjoint_range(a + first, s + first, t + first, b + first, c + first, last - first);
  });
  return adjoint;
}

}    // namespace

void rareal::gelu_with_slope(float *values, float *slopes, int64_t count) { gelu_slope_range(values, slopes, count); }

TORCH_LIBRARY_FRAGMENT(rareal, library)
{
  library.def("gelu_derivatives(Tensor z) -> (Tensor, Tensor, Tensor)");
  library.def("gelu_adjoint_(Tensor(a!) adjoint, Tensor slope, Tensor tangent, Tensor back, Tensor curvature) "
              "-> Tensor(a!)");
}

// For other devices see portable.cpp.
TORCH_LIBRARY_IMPL(rareal, CPU, library)
{
  library.impl("gelu_derivatives", &gelu_derivatives);
  library.impl("gelu_adjoint_", &gelu_adjoint_);
}
