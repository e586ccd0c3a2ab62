// Mean and spread of a committee's predictions.

#ifndef RAREAL_COMMITTEE_STATISTICS_H
#define RAREAL_COMMITTEE_STATISTICS_H

#include <cstddef>

namespace rareal {

struct Spread {
  double mean;
  double variance;    // of the population: divided by the number of members
};

/** Two passes over n values that lie `stride` apart.
 *
 * Counted from the first value, so that large common offsets cost no digits and equal values give exactly zero.
 */
inline Spread spread(const double *values, std::size_t n, std::size_t stride = 1)
{
  const double origin = values[0];
  double shift = 0.0;
  for (std::size_t m = 0; m < n; ++m) shift += values[m * stride] - origin;
  shift /= static_cast<double>(n);

  double variance = 0.0;
  for (std::size_t m = 0; m < n; ++m) {
    const double deviation = values[m * stride] - origin - shift;
    variance += deviation * deviation;
  }
  return {origin + shift, variance / static_cast<double>(n)};
}

}    // namespace rareal

#endif
