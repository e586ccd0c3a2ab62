// The atomic networks of one element, those of all members: energies and their gradients by the inputs. No PyTorch.
//
// A committee on a molecule means a few rows of atoms against every weight there is: weights must be read in the order
// in which they lie in memory, once forwards and once backwards. So they are kept twice, in panels of 32 columns.

#ifndef RAREAL_COMMITTEE_NETWORK_H
#define RAREAL_COMMITTEE_NETWORK_H

#include "simd.h"

#include <cstdint>
#include <vector>

namespace rareal {

constexpr int64_t panel_width = 32;

/** Columns, filled up to whole panels. */
constexpr int64_t panelled(int64_t columns) { return (columns + panel_width - 1) / panel_width * panel_width; }

/** z = x W + b of every member, packed: weights [M, panels of outputs, inputs, 32], their transposes
 * [M, panels of inputs, outputs, 32], biases [M, panelled(outputs)]; zeros where there is no column. */
template <typename T> struct HiddenLayer {
  int64_t inputs = 0, outputs = 0;
  const T *weights = nullptr, *transposed = nullptr, *biases = nullptr;
};

/** Hidden layers with GELU, then one output: weights [M, panelled(inputs)], biases [M]. */
template <typename T> struct CommitteeNetwork {
  int64_t members = 0;
  std::vector<HiddenLayer<T>> hidden;
  const T *output_weights = nullptr, *output_biases = nullptr;
};

/** Replaces z by GELU(z) and writes GELU'(z), `count` numbers. */
template <typename T> using Activation = void (*)(T *values, T *slopes, int64_t count);

/** In one pass, for single precision; see gelu.cpp. */
void gelu_with_slope(float *values, float *slopes, int64_t count);

/** Evaluates networks on a few rows at a time, in memory that it keeps. */
template <typename T> class NetworkEvaluation {
 public:
  /** Inputs x [rows, stride] of which panelled(inputs) columns count -> energies [M, rows] and gradients
   * [M, rows, panelled(inputs)], valid until the next call. */
  void evaluate(const CommitteeNetwork<T> &network, Activation<T> activation, const T *x, int64_t stride, int64_t rows);

  const T *energies(int64_t member) const { return energies_[member]; }
  const T *gradients() const { return gradients_[0]; }

 private:
  simd::Rows<T> energies_, gradients_;
  std::vector<simd::Rows<T>> values_, slopes_;    // per hidden layer [1, rows * panelled(outputs)]
  simd::Rows<T> back_;
};

extern template class NetworkEvaluation<float>;
extern template class NetworkEvaluation<double>;

}    // namespace rareal

#endif
