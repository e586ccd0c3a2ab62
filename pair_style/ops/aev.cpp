// ANI atomic environment vectors (AEVs) from an edge list, with their analytic derivatives.
//
// Smith, Isayev, Roitberg, Chem. Sci. 2017, 8, 3192, equations 3 and 4, in the form TorchANI gives them: a factor
// 0.25 before the radial terms, and cos(theta) scaled by 0.95, which also keeps the derivative finite for collinear
// neighbours. cos(theta - theta_s) is expanded, so that no arc cosine is evaluated.
//
// Edges are grouped by ascending central atom, both directions present. Two derivatives are offered:
//   aev_vjp       contracts d(AEV)/d(edge vector) with the cotangents of all committee members in one pass;
//   aev_jacobian  returns it whole, for training, where a frame is visited hundreds of times.

#include <torch/library.h>
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

using at::Tensor;

constexpr double pi = 3.14159265358979323846;

struct Parameters {
  double eta_r, cutoff_r, eta_a, zeta, cutoff_a;
  std::vector<double> shifts_r, shifts_a, sections;
  int64_t elements;

  int64_t n_radial() const { return static_cast<int64_t>(shifts_r.size()); }
  int64_t n_angular() const { return static_cast<int64_t>(shifts_a.size() * sections.size()); }
  int64_t dimension() const { return elements * n_radial() + elements * (elements + 1) / 2 * n_angular(); }
  // Row-wise index of the unordered element pair, as TorchANI counts them.
  int64_t pair_offset(int64_t a, int64_t b) const
  {
    if (a > b) std::swap(a, b);
    return elements * n_radial() + (a * elements - a * (a - 1) / 2 + (b - a)) * n_angular();
  }
};

Parameters make_parameters(int64_t elements, const std::vector<double> &radial, const std::vector<double> &shifts_r,
                           const std::vector<double> &angular, const std::vector<double> &shifts_a,
                           const std::vector<double> &sections)
{
  TORCH_CHECK(radial.size() == 2, "aev: radial parameters are (eta, cutoff)");
  TORCH_CHECK(angular.size() == 3, "aev: angular parameters are (eta, zeta, cutoff)");
  return {radial[0], radial[1], angular[0], angular[1], angular[2], shifts_r, shifts_a, sections, elements};
}

// An edge as its central atom sees it.
template <typename T> struct Neighbour {
  int64_t edge, element;
  T r, unit[3], cutoff, dcutoff;    // angular cutoff function and its derivative
};

// One unordered pair of neighbours: angular factors f1 (sections), radial factors f2 (shifts) and derivatives.
template <typename T> struct Triple {
  std::vector<T> f1, df1, f2, df2;
  T cosine;

  explicit Triple(const Parameters &p) :
      f1(p.sections.size()), df1(p.sections.size()), f2(p.shifts_a.size()), df2(p.shifts_a.size()), cosine(0)
  {
    for (double section : p.sections) {
      cos_section.push_back(static_cast<T>(std::cos(section)));
      sin_section.push_back(static_cast<T>(std::sin(section)));
    }
    for (double shift : p.shifts_a) shift_a.push_back(static_cast<T>(shift));
    eta = static_cast<T>(p.eta_a);
    zeta = static_cast<T>(p.zeta);
  }

  void evaluate(const Neighbour<T> &a, const Neighbour<T> &b)
  {
    cosine = a.unit[0] * b.unit[0] + a.unit[1] * b.unit[1] + a.unit[2] * b.unit[2];
    const T c = T(0.95) * cosine;
    const T s = std::sqrt(T(1) - c * c);
    const T ratio = c / s;
    const int64_t n1 = static_cast<int64_t>(f1.size()), n2 = static_cast<int64_t>(f2.size());
    for (int64_t z = 0; z < n1; ++z) {
      const T base = T(0.5) * (T(1) + c * cos_section[z] + s * sin_section[z]);
      // base >= 0 by construction; rounding may take it just below, where the power vanishes anyway.
      const T safe = std::max(base, T(1e-12));
      const T lower = std::exp((zeta - T(1)) * std::log(safe));    // base^(zeta - 1)
      f1[z] = T(2) * lower * safe;
      df1[z] = T(0.95) * zeta * lower * (cos_section[z] - ratio * sin_section[z]);
    }
    const T mean = T(0.5) * (a.r + b.r);
    for (int64_t k = 0; k < n2; ++k) {
      const T x = mean - shift_a[k];
      f2[k] = std::exp(-eta * x * x);
      df2[k] = -eta * x * f2[k];    // with respect to one distance: half of d/d(mean)
    }
  }

private:
  std::vector<T> cos_section, sin_section, shift_a;
  T eta, zeta;
};

template <typename T> class Centre {
public:
  Centre(const Parameters &p) : p(p), triple(p), radial(p.n_radial()), dradial(p.n_radial())
  {
    for (double shift : p.shifts_r) shift_r.push_back(static_cast<T>(shift));
  }

  // Reads the edges [first, last) of one central atom; those of no length or beyond the cutoff are ignored.
  void read(const int64_t *species, const int64_t *other, const T *vec, int64_t first, int64_t last)
  {
    all.clear();
    near.clear();
    for (int64_t e = first; e < last; ++e) {
      const T *v = vec + 3 * e;
      const T r = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
      if (r >= T(p.cutoff_r)) continue;
      Neighbour<T> n{e, species[other[e]], r, {v[0] / r, v[1] / r, v[2] / r}, T(0), T(0)};
      if (r < T(p.cutoff_a)) {
        const T argument = T(pi / p.cutoff_a) * r;
        n.cutoff = T(0.5) * std::cos(argument) + T(0.5);
        n.dcutoff = T(-0.5 * pi / p.cutoff_a) * std::sin(argument);
        near.push_back(n);
      }
      all.push_back(n);
    }
  }

  // radial[k], dradial[k]: the radial terms of one neighbour and their derivative with respect to r.
  void evaluate_radial(const Neighbour<T> &n)
  {
    const T argument = T(pi / p.cutoff_r) * n.r, eta = static_cast<T>(p.eta_r);
    const T fc = T(0.125) * std::cos(argument) + T(0.125);
    const T dfc = T(-0.125 * pi / p.cutoff_r) * std::sin(argument);
    const int64_t count = p.n_radial();
    for (int64_t k = 0; k < count; ++k) {
      const T x = n.r - shift_r[k];
      const T gauss = std::exp(-eta * x * x);
      radial[k] = gauss * fc;
      dradial[k] = gauss * (dfc - T(2) * eta * x * fc);
    }
  }

  void values(T *out)
  {
    for (const auto &n : all) {
      evaluate_radial(n);
      T *row = out + n.element * p.n_radial();
      for (int64_t k = 0; k < p.n_radial(); ++k) row[k] += radial[k];
    }
    for_each_triple([&](const Neighbour<T> &a, const Neighbour<T> &b) {
      T *row = out + p.pair_offset(a.element, b.element);
      const T fc = a.cutoff * b.cutoff;
      for (T f2 : triple.f2)
        for (T f1 : triple.f1) *row++ += f2 * f1 * fc;
    });
  }

  // Adds, for every member, the gradient with respect to the edge vectors: cotangent [members, stride] -> out.
  void vjp(const T *cotangent, int64_t stride, int64_t members, T *out, int64_t out_stride)
  {
    for (const auto &n : all) {
      evaluate_radial(n);
      for (int64_t m = 0; m < members; ++m) {
        const T *w = cotangent + m * stride + n.element * p.n_radial();
        T slope = 0;
        for (int64_t k = 0; k < p.n_radial(); ++k) slope += w[k] * dradial[k];
        T *g = out + m * out_stride + 3 * n.edge;
        for (int d = 0; d < 3; ++d) g[d] += slope * n.unit[d];
      }
    }
    const int64_t n1 = static_cast<int64_t>(p.sections.size()), n2 = static_cast<int64_t>(p.shifts_a.size());
    for_each_triple([&](const Neighbour<T> &a, const Neighbour<T> &b) {
      const T fc = a.cutoff * b.cutoff;
      for (int64_t m = 0; m < members; ++m) {
        const T *w = cotangent + m * stride + p.pair_offset(a.element, b.element);
        T value = 0, by_cosine = 0, by_distance = 0;
        for (int64_t k = 0; k < n2; ++k, w += n1) {
          T sum = 0, dsum = 0;
          for (int64_t z = 0; z < n1; ++z) {
            sum += w[z] * triple.f1[z];
            dsum += w[z] * triple.df1[z];
          }
          value += triple.f2[k] * sum;
          by_distance += triple.df2[k] * sum;
          by_cosine += triple.f2[k] * dsum;
        }
        scatter(a, b, value * a.dcutoff * b.cutoff + by_distance * fc, value * a.cutoff * b.dcutoff + by_distance * fc,
                by_cosine * fc, out + m * out_stride, 3, 0);
      }
    });
  }

  // Adds d(AEV[d])/d(edge vector) to out[edge, d, 3].
  void jacobian(T *out, int64_t dimension)
  {
    const int64_t stride = 3 * dimension;
    for (const auto &n : all) {
      evaluate_radial(n);
      T *g = out + n.edge * stride + 3 * n.element * p.n_radial();
      for (int64_t k = 0; k < p.n_radial(); ++k)
        for (int d = 0; d < 3; ++d) g[3 * k + d] += dradial[k] * n.unit[d];
    }
    const int64_t n1 = static_cast<int64_t>(p.sections.size()), n2 = static_cast<int64_t>(p.shifts_a.size());
    for_each_triple([&](const Neighbour<T> &a, const Neighbour<T> &b) {
      const int64_t offset = 3 * p.pair_offset(a.element, b.element);
      const T fc = a.cutoff * b.cutoff, dfa = a.dcutoff * b.cutoff, dfb = a.cutoff * b.dcutoff;
      for (int64_t k = 0; k < n2; ++k)
        for (int64_t z = 0; z < n1; ++z) {
          const T value = triple.f2[k] * triple.f1[z], slope = triple.df2[k] * triple.f1[z] * fc;
          scatter(a, b, value * dfa + slope, value * dfb + slope, triple.f2[k] * triple.df1[z] * fc, out, stride,
                  offset + 3 * (k * n1 + z));
        }
    });
  }

private:
  const Parameters &p;
  Triple<T> triple;
  std::vector<T> radial, dradial, shift_r;
  std::vector<Neighbour<T>> all, near;

  template <typename Visit> void for_each_triple(Visit visit)
  {
    for (size_t a = 0; a < near.size(); ++a)
      for (size_t b = a + 1; b < near.size(); ++b) {
        triple.evaluate(near[a], near[b]);
        visit(near[a], near[b]);
      }
  }

  // From derivatives by the two distances and the cosine to derivatives by the two edge vectors.
  void scatter(const Neighbour<T> &a, const Neighbour<T> &b, T by_a, T by_b, T by_cosine, T *out, int64_t stride,
               int64_t offset) const
  {
    T *ga = out + a.edge * stride + offset, *gb = out + b.edge * stride + offset;
    const T ca = by_cosine / a.r, cb = by_cosine / b.r;
    for (int d = 0; d < 3; ++d) {
      ga[d] += by_a * a.unit[d] + ca * (b.unit[d] - triple.cosine * a.unit[d]);
      gb[d] += by_b * b.unit[d] + cb * (a.unit[d] - triple.cosine * b.unit[d]);
    }
  }
};

// The edge list in the form the loops above want, checked once.
struct Edges {
  Tensor species, centre, other, vec;
  int64_t n_local;

  Edges(const Tensor &species_, const Tensor &edge_index, const Tensor &edge_vec, int64_t n_local_) :
      species(species_.contiguous()), vec(edge_vec.contiguous()), n_local(n_local_)
  {
    TORCH_CHECK(edge_index.dim() == 2 && edge_index.size(0) == 2, "aev: edge_index must have shape [2, edges]");
    TORCH_CHECK(vec.dim() == 2 && vec.size(0) == edge_index.size(1) && vec.size(1) == 3,
                "aev: edge_vec must have shape [edges, 3]");
    centre = edge_index[0].contiguous();
    other = edge_index[1].contiguous();
  }

  template <typename T, typename Visit> void visit(const Parameters &p, Visit &&body) const
  {
    Centre<T> work(p);
    const int64_t *c = centre.data_ptr<int64_t>(), *o = other.data_ptr<int64_t>(), *s = species.data_ptr<int64_t>();
    const int64_t n = centre.numel();
    for (int64_t first = 0, last; first < n; first = last) {
      for (last = first + 1; last < n && c[last] == c[first];) ++last;
      TORCH_CHECK(last == n || c[last] > c[first], "aev: edges must be grouped by ascending central atom");
      if (c[first] >= n_local) break;
      work.read(s, o, vec.data_ptr<T>(), first, last);
      body(work, c[first]);
    }
  }
};

Tensor aev(const Tensor &species, const Tensor &edge_index, const Tensor &edge_vec, int64_t n_local, int64_t elements,
           std::vector<double> radial, std::vector<double> shifts_r, std::vector<double> angular,
           std::vector<double> shifts_a, std::vector<double> sections)
{
  const auto p = make_parameters(elements, radial, shifts_r, angular, shifts_a, sections);
  const Edges edges(species, edge_index, edge_vec, n_local);
  Tensor out = at::zeros({n_local, p.dimension()}, edge_vec.options());
  AT_DISPATCH_FLOATING_TYPES(edge_vec.scalar_type(), "aev", [&] {
    scalar_t *data = out.data_ptr<scalar_t>();
    edges.visit<scalar_t>(p, [&](auto &centre, int64_t i) { centre.values(data + i * p.dimension()); });
  });
  return out;
}

Tensor aev_vjp(const Tensor &cotangents, const Tensor &species, const Tensor &edge_index, const Tensor &edge_vec,
               int64_t n_local, int64_t elements, std::vector<double> radial, std::vector<double> shifts_r,
               std::vector<double> angular, std::vector<double> shifts_a, std::vector<double> sections)
{
  const auto p = make_parameters(elements, radial, shifts_r, angular, shifts_a, sections);
  TORCH_CHECK(cotangents.dim() == 3 && cotangents.size(1) == n_local && cotangents.size(2) == p.dimension(),
              "aev_vjp: cotangents must have shape [members, local atoms, ", p.dimension(), "]");
  const Edges edges(species, edge_index, edge_vec, n_local);
  const Tensor w = cotangents.contiguous();
  const int64_t members = w.size(0);
  Tensor out = at::zeros({members, edge_vec.size(0), 3}, edge_vec.options());
  AT_DISPATCH_FLOATING_TYPES(edge_vec.scalar_type(), "aev_vjp", [&] {
    const scalar_t *rows = w.data_ptr<scalar_t>();
    scalar_t *data = out.data_ptr<scalar_t>();
    edges.visit<scalar_t>(p, [&](auto &centre, int64_t i) {
      centre.vjp(rows + i * p.dimension(), n_local * p.dimension(), members, data, 3 * edge_vec.size(0));
    });
  });
  return out;
}

Tensor aev_jacobian(const Tensor &species, const Tensor &edge_index, const Tensor &edge_vec, int64_t n_local,
                    int64_t elements, std::vector<double> radial, std::vector<double> shifts_r,
                    std::vector<double> angular, std::vector<double> shifts_a, std::vector<double> sections)
{
  const auto p = make_parameters(elements, radial, shifts_r, angular, shifts_a, sections);
  const Edges edges(species, edge_index, edge_vec, n_local);
  Tensor out = at::zeros({edge_vec.size(0), p.dimension(), 3}, edge_vec.options());
  AT_DISPATCH_FLOATING_TYPES(edge_vec.scalar_type(), "aev_jacobian", [&] {
    scalar_t *data = out.data_ptr<scalar_t>();
    edges.visit<scalar_t>(p, [&](auto &centre, int64_t) { centre.jacobian(data, p.dimension()); });
  });
  return out;
}

}    // namespace

// SymInt: the number of atoms may be a symbol where a model is compiled ahead of time.
#define RAREAL_AEV_PARAMETERS \
  "SymInt n_local, int elements, float[] radial, float[] shifts_r, float[] angular, float[] shifts_a, float[] sections"

TORCH_LIBRARY(rareal, library)
{
  library.def("aev(Tensor species, Tensor edge_index, Tensor edge_vec, " RAREAL_AEV_PARAMETERS ") -> Tensor");
  library.def("aev_vjp(Tensor cotangents, Tensor species, Tensor edge_index, Tensor edge_vec, " RAREAL_AEV_PARAMETERS
              ") -> Tensor");
  library.def("aev_jacobian(Tensor species, Tensor edge_index, Tensor edge_vec, " RAREAL_AEV_PARAMETERS
              ") -> Tensor");
}

// For other devices see portable.cpp.
TORCH_LIBRARY_IMPL(rareal, CPU, library)
{
  library.impl("aev", &aev);
  library.impl("aev_vjp", &aev_vjp);
  library.impl("aev_jacobian", &aev_jacobian);
}
