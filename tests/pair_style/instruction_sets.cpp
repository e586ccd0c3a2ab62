// Prints descriptors, their gradients, energies and gradients of networks, in both precisions: the same numbers
// whatever instructions it was compiled for.

#include "committee_network.h"
#include "environment.h"

#include <cmath>
#include <cstdio>
#include <vector>

using namespace rareal;

template <typename T> void print(const char *name, const T *values, std::size_t count)
{
  std::printf("%s%zu", name, sizeof(T));
  for (std::size_t k = 0; k < count; ++k) std::printf(" %.17g", static_cast<double>(values[k]));
  std::printf("\n");
}

template <typename T> void gelu(T *values, T *slopes, int64_t count)
{
  for (int64_t k = 0; k < count; ++k) {
    const double z = values[k], cdf = 0.5 * (1.0 + std::erf(z * std::sqrt(0.5)));
    slopes[k] = static_cast<T>(cdf + z * 0.39894228040143268 * std::exp(-0.5 * z * z));
    values[k] = static_cast<T>(z * cdf);
  }
}

// 37 neighbours, among them some at exactly linear and right angles.
template <typename T> std::vector<T> descriptor()
{
  Descriptor<T> d;
  d.elements = 2;
  d.eta_r = T(19.7), d.cutoff_r = T(5.1), d.eta_a = T(12.5), d.zeta = T(14.1), d.cutoff_a = T(3.5);
  for (int k = 0; k < 16; ++k) d.shifts_r.push_back(T(0.8 + k * 0.26875));
  for (int k = 0; k < 8; ++k) d.shifts_a.push_back(T(0.8 + k * 0.3375));
  for (int k = 0; k < 4; ++k) {
    d.cos_sections.push_back(T(std::cos(0.3927 + 0.7854 * k)));
    d.sin_sections.push_back(T(std::sin(0.3927 + 0.7854 * k)));
  }
  std::vector<T> vectors{1, 0, 0, -1, 0, 0, 2, 0, 0, 0, 1.5, 0};
  for (int k = 4; k < 37; ++k) {
    const double r = 1.0 + 0.11 * k, cosine = std::cos(2.1 * k), sine = std::sqrt(1.0 - cosine * cosine);
    for (const double x : {r * sine * std::cos(1.7 * k), r * sine * std::sin(1.7 * k), r * cosine})
      vectors.push_back(static_cast<T>(x));
  }
  const int64_t count = static_cast<int64_t>(vectors.size()) / 3, dimension = d.dimension(), members = 3;
  std::vector<int64_t> species, others;
  for (int64_t k = 0; k < count; ++k) {
    species.push_back(k % 3 == 0);
    others.push_back(k);
  }
  Environment<T> environment;
  std::vector<T> row(panelled(dimension)), cotangents(members * dimension), gradients(members * count * 3);
  for (std::size_t k = 0; k < cotangents.size(); ++k) cotangents[k] = T(std::sin(1.0 + k));
  environment.read(d, species.data(), others.data(), vectors.data(), 0, count);
  environment.add_values(row.data());
  environment.add_gradients(cotangents.data(), dimension, members, gradients.data(), 3 * count);
  print("values", row.data(), row.size());
  print("gradients", gradients.data(), gradients.size());
  return row;
}

template <typename T> void networks(const std::vector<T> &inputs)
{
  const int64_t members = 3, rows = 17, in = static_cast<int64_t>(inputs.size()), sizes[] = {in, 40, 24};
  std::vector<std::vector<T>> kept;
  CommitteeNetwork<T> network;
  network.members = members;
  for (int layer = 0; layer < 2; ++layer) {
    const int64_t n = sizes[layer], m = sizes[layer + 1];
    std::vector<T> weights(members * n * panelled(m)), transposed(members * panelled(n) * m),
        biases(members * panelled(m));
    for (int64_t k = 0; k < members; ++k)
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < m; ++j) {
          const T w = T(0.2 * std::sin(0.7 * layer + 1.3 * k + 0.11 * i + 0.37 * j));
          weights[(k * panelled(m) + j / 32 * 32) * n + i * 32 + j % 32] = w;
          transposed[(k * panelled(n) + i / 32 * 32) * m + j * 32 + i % 32] = w;
          biases[k * panelled(m) + j] = T(0.1 * std::cos(k + j));
        }
    for (auto *array : {&weights, &transposed, &biases}) kept.push_back(std::move(*array));
    network.hidden.push_back({n, m, kept[3 * layer].data(), kept[3 * layer + 1].data(), kept[3 * layer + 2].data()});
  }
  std::vector<T> output(members * 32), bias(members, T(0.5)), x(rows * in);
  for (int64_t k = 0; k < members; ++k)
    for (int64_t j = 0; j < 24; ++j) output[k * 32 + j] = T(std::sin(0.3 * j + k));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < in; ++i) x[r * in + i] = inputs[i] * T(1.0 + 0.1 * r);
  network.output_weights = output.data();
  network.output_biases = bias.data();
  NetworkEvaluation<T> evaluation;
  evaluation.evaluate(network, &gelu<T>, x.data(), in, rows);
  for (int64_t k = 0; k < members; ++k) print("energies", evaluation.energies(k), rows);
  print("slopes", evaluation.gradients(), members * rows * in);
}

int main()
{
  networks(descriptor<double>());
  networks(descriptor<float>());
}
