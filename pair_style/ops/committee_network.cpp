#include "committee_network.h"

#include "clones.h"

#include <algorithm>
#include <array>
#include <utility>

using rareal::CommitteeNetwork;
using rareal::NetworkEvaluation;
using rareal::panel_width;
using rareal::panelled;

namespace {

/** One panel of a product: out [R, 32] = bias + x [R, depth] panel [depth, 32]. All sums stay in registers. */
template <int bytes, typename T, int R>
RAREAL_INLINE void tile(const T *x, int64_t x_stride, const T *panel, int64_t depth, const T *bias, T *out,
                        int64_t out_stride)
{
  typedef T Lanes __attribute__((vector_size(bytes)));
  constexpr int64_t lanes = bytes / sizeof(T), n = panel_width / lanes;
  Lanes sums[R][n];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < n; ++c) std::memcpy(&sums[r][c], bias + c * lanes, sizeof(Lanes));
  for (int64_t k = 0; k < depth; ++k) {
    Lanes weights[n];
    for (int c = 0; c < n; ++c) std::memcpy(&weights[c], panel + k * panel_width + c * lanes, sizeof(Lanes));
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const T factor = x[r * x_stride + k];
#pragma GCC unroll 8
      for (int c = 0; c < n; ++c) sums[r][c] += factor * weights[c];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < n; ++c) std::memcpy(out + r * out_stride + c * lanes, &sums[r][c], sizeof(Lanes));
}

template <typename T>
using Tile = void (*)(const T *x, int64_t x_stride, const T *panel, int64_t depth, const T *bias, T *out,
                      int64_t out_stride);

// Clones per instruction set must be plain functions: one per precision and number of rows.
#define RAREAL_TILE(T, R) \
  RAREAL_WIDTHS(void tile_##T##_##R(const T *x, int64_t x_stride, const T *panel, int64_t depth, const T *bias, \
                                    T *out, int64_t out_stride), \
                tile<bytes, T, R>(x, x_stride, panel, depth, bias, out, out_stride);)
#define RAREAL_SIX_TILES(T) \
  RAREAL_TILE(T, 1) RAREAL_TILE(T, 2) RAREAL_TILE(T, 3) RAREAL_TILE(T, 4) RAREAL_TILE(T, 5) RAREAL_TILE(T, 6)
RAREAL_SIX_TILES(double)
RAREAL_SIX_TILES(float)
RAREAL_TILE(float, 7)
RAREAL_TILE(float, 8)
RAREAL_TILE(float, 9)
RAREAL_TILE(float, 10)
RAREAL_TILE(float, 11)
RAREAL_TILE(float, 12)
RAREAL_TILE(float, 13)
RAREAL_TILE(float, 14)

template <typename T> constexpr auto tiles = nullptr;
template <>
constexpr std::array<Tile<float>, 14> tiles<float> = {tile_float_1,  tile_float_2,  tile_float_3,  tile_float_4,
                                                      tile_float_5,  tile_float_6,  tile_float_7,  tile_float_8,
                                                      tile_float_9,  tile_float_10, tile_float_11, tile_float_12,
                                                      tile_float_13, tile_float_14};
template <>
constexpr std::array<Tile<double>, 6> tiles<double> = {tile_double_1, tile_double_2, tile_double_3,
                                                       tile_double_4, tile_double_5, tile_double_6};

/** Rows whose sums fill the registers: 32 of 64 bytes with AVX-512; fewer and shorter ones elsewhere. */
template <typename T> int64_t most_rows()
{
#if defined(__GNUC__) && defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return static_cast<int64_t>(tiles<T>.size());
  if (__builtin_cpu_supports("avx2")) return sizeof(T) == 4 ? 3 : 1;
#endif
  return 1;
}

/** out [rows, panels*32] = bias + x W; without bias, bias_step is 0 and bias one panel of zeros. */
template <typename T>
void multiply(const T *x, int64_t x_stride, int64_t rows, const T *weights, int64_t depth, int64_t panels,
              const T *bias, int64_t bias_step, T *out)
{
  static const int64_t most = most_rows<T>();
  const int64_t stride = panels * panel_width, blocks = (rows + most - 1) / most;
  for (int64_t p = 0; p < panels; ++p)
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t first = rows * b / blocks, count = rows * (b + 1) / blocks - first;
      const Tile<T> tile = tiles<T>[count - 1];
      tile(x + first * x_stride, x_stride, weights + p * depth * panel_width, depth, bias + p * bias_step,
           out + first * stride + p * panel_width, stride);
    }
}

template <typename T> RAREAL_INLINE void scale_loop(T *values, const T *factors, int64_t count)
{
#pragma GCC ivdep
  for (int64_t k = 0; k < count; ++k) values[k] *= factors[k];
}

template <int bytes, typename T> RAREAL_INLINE T dot_loop(const T *a, const T *b, int64_t count)
{
  typedef T Lanes __attribute__((vector_size(bytes)));
  constexpr int64_t lanes = bytes / sizeof(T);
  Lanes sum = {};
  for (int64_t k = 0; k < count; k += lanes) {
    Lanes left, right;
    std::memcpy(&left, a + k, sizeof(left));
    std::memcpy(&right, b + k, sizeof(right));
    sum += left * right;
  }
  T total = 0;
  for (int64_t l = 0; l < lanes; ++l) total += sum[l];
  return total;
}

#define RAREAL_INSTANTIATE(T) \
  RAREAL_CLONES void scale(T *values, const T *factors, int64_t count) { scale_loop(values, factors, count); } \
  RAREAL_WIDTHS(T dot(const T *a, const T *b, int64_t count), return dot_loop<bytes>(a, b, count);)
RAREAL_INSTANTIATE(float)
RAREAL_INSTANTIATE(double)

}    // namespace

template <typename T>
void NetworkEvaluation<T>::evaluate(const CommitteeNetwork<T> &network, Activation<T> activation, const T *x,
                                    int64_t stride, int64_t rows)
{
  static const std::array<T, panel_width> no_bias{};
  const auto depth = static_cast<int64_t>(network.hidden.size());
  values_.resize(depth);
  slopes_.resize(depth);
  int64_t widest = 0;
  for (int64_t k = 0; k < depth; ++k) {
    const int64_t width = panelled(network.hidden[k].outputs);
    values_[k].shape(1, rows * width);
    slopes_[k].shape(1, rows * width);
    widest = std::max(widest, width);
  }
  back_.shape(1, rows * widest);
  const int64_t inputs = panelled(network.hidden[0].inputs);
  energies_.shape(network.members, rows);
  gradients_.shape(1, network.members * rows * inputs);

  for (int64_t m = 0; m < network.members; ++m) {
    const T *value = x;
    int64_t value_stride = stride;
    for (int64_t k = 0; k < depth; ++k) {
      const auto &layer = network.hidden[k];
      const int64_t width = panelled(layer.outputs);
      multiply(value, value_stride, rows, layer.weights + m * width * layer.inputs, layer.inputs, width / panel_width,
               layer.biases + m * width, panel_width, values_[k][0]);
      activation(values_[k][0], slopes_[k][0], rows * width);
      value = values_[k][0];
      value_stride = width;
    }
    const T *output = network.output_weights + m * value_stride;
    for (int64_t r = 0; r < rows; ++r)
      energies_[m][r] = network.output_biases[m] + dot(value + r * value_stride, output, value_stride);

    // dE/dz of the last hidden layer, then layer by layer towards the inputs
    T *delta = slopes_[depth - 1][0];
    for (int64_t r = 0; r < rows; ++r) scale(delta + r * value_stride, output, value_stride);
    for (int64_t k = depth - 1; k >= 0; --k) {
      const auto &layer = network.hidden[k];
      const int64_t width = panelled(layer.inputs);
      T *result = k > 0 ? back_[0] : gradients_[0] + m * rows * inputs;
      multiply(delta, panelled(layer.outputs), rows, layer.transposed + m * width * layer.outputs, layer.outputs,
               width / panel_width, no_bias.data(), 0, result);
      if (k == 0) break;
      delta = slopes_[k - 1][0];
      scale(delta, result, rows * width);
    }
  }
}

template class rareal::NetworkEvaluation<float>;
template class rareal::NetworkEvaluation<double>;
