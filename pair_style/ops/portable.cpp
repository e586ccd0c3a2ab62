// The operators of aev.cpp, gelu.cpp and jacobian.cpp from PyTorch's own operators, for devices that have no kernel of
// ours: what a CUDA tensor gets. The formulas and the meaning of all arguments are written down there.
//
// Derivatives are the analytic ones, so that a model's forward needs no autograd on any device. Memory grows with the
// number of triples; members take turns.

#include <torch/library.h>
#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

namespace {

using at::Tensor;

constexpr double pi = 3.14159265358979323846;

struct Parameters {
  int64_t n_local, elements;
  const std::vector<double> &radial, &shifts_r, &angular, &shifts_a, &sections;

  int64_t n_radial() const { return static_cast<int64_t>(shifts_r.size()); }
  int64_t n_shifts() const { return static_cast<int64_t>(shifts_a.size()); }
  int64_t n_sections() const { return static_cast<int64_t>(sections.size()); }
  int64_t n_angular() const { return n_shifts() * n_sections(); }
  int64_t pairs() const { return elements * (elements + 1) / 2; }
  int64_t dimension() const { return elements * n_radial() + pairs() * n_angular(); }
};

Tensor row(const std::vector<double> &values, const Tensor &like)
{
  return at::tensor(values, at::kDouble).to(like.options());
}

// Edges of local centres within the radial cutoff: their radial terms and derivatives.
struct Radial {
  Tensor edge, slot, distance, unit;    // slot: centre * elements + element of the neighbour
  Tensor value, slope;                  // [E, n_radial]

  Radial(const Parameters &p, const Tensor &species, const Tensor &edges, const Tensor &vectors)
  {
    TORCH_CHECK(edges.dim() == 2 && edges.size(0) == 2, "aev: edge_index must have shape [2, edges]");
    TORCH_CHECK(vectors.dim() == 2 && vectors.size(0) == edges.size(1) && vectors.size(1) == 3,
                "aev: edge_vec must have shape [edges, 3]");
    const Tensor centre = edges.select(0, 0);
    if (centre.numel() > 1)
      TORCH_CHECK((centre.slice(0, 1) >= centre.slice(0, 0, -1)).all().item<bool>(),
                  "aev: edges must be grouped by ascending central atom");
    const Tensor length = vectors.pow(2).sum(1).sqrt();
    // not (length < cutoff): what is no number must not vanish
    edge = at::nonzero((centre < p.n_local) & (length >= p.radial[1]).logical_not()).squeeze(1);
    distance = length.index_select(0, edge);
    unit = vectors.index_select(0, edge) / distance.unsqueeze(1);
    const Tensor neighbour = edges.select(0, 1).index_select(0, edge);
    slot = centre.index_select(0, edge) * p.elements + species.index_select(0, neighbour);

    const double eta = p.radial[0], factor = pi / p.radial[1];
    const Tensor r = distance.unsqueeze(1), x = r - row(p.shifts_r, r), gauss = (-eta * x * x).exp();
    const Tensor fc = 0.125 * (r * factor).cos() + 0.125, dfc = (-0.125 * factor) * (r * factor).sin();
    value = gauss * fc;
    slope = gauss * (dfc - 2.0 * eta * x * fc);
  }
};

// Unordered pairs of neighbours within the angular cutoff: factors f1 (sections) and f2 (shifts) and derivatives.
struct Triples {
  Tensor a, b, slot;    // rows of Radial; centre * pairs of elements + pair
  Tensor unit_a, unit_b, r_a, r_b, cosine;
  Tensor fa, fb, dfa, dfb;    // cutoff functions [T]
  Tensor f1, df1, f2, df2;    // [T, sections], [T, shifts]

  Triples(const Parameters &p, const Radial &radial)
  {
    const double cutoff = p.angular[2];
    const Tensor near = at::nonzero((radial.distance >= cutoff).logical_not()).squeeze(1);
    const Tensor centre = at::floor_divide(radial.slot.index_select(0, near), p.elements);
    // The n-th neighbour of an atom is paired with all that follow it in the atom's group.
    const Tensor ends = at::bincount(centre, {}, p.n_local).cumsum(0).index_select(0, centre);
    const Tensor rank = at::arange(near.size(0), near.options()), partners = ends - rank - 1;
    const Tensor first = at::repeat_interleave(rank, partners);
    const Tensor before = (partners.cumsum(0) - partners).index_select(0, first);
    const Tensor second = first + 1 + at::arange(first.size(0), near.options()) - before;
    a = near.index_select(0, first);
    b = near.index_select(0, second);

    const auto element = [&](const Tensor &edge) {
      return at::remainder(radial.slot.index_select(0, edge), p.elements);
    };
    const Tensor low = at::minimum(element(a), element(b)), high = at::maximum(element(a), element(b));
    const Tensor pair = low * p.elements - at::floor_divide(low * (low - 1), 2) + (high - low);
    slot = centre.index_select(0, first) * p.pairs() + pair;

    r_a = radial.distance.index_select(0, a);
    r_b = radial.distance.index_select(0, b);
    unit_a = radial.unit.index_select(0, a);
    unit_b = radial.unit.index_select(0, b);
    const double factor = pi / cutoff;
    fa = 0.5 * (r_a * factor).cos() + 0.5;
    fb = 0.5 * (r_b * factor).cos() + 0.5;
    dfa = (-0.5 * factor) * (r_a * factor).sin();
    dfb = (-0.5 * factor) * (r_b * factor).sin();

    cosine = (unit_a * unit_b).sum(1);
    const Tensor c = (0.95 * cosine).unsqueeze(1), s = (1.0 - c * c).sqrt(), ratio = c / s;
    const Tensor section = row(p.sections, c), cos_section = section.cos(), sin_section = section.sin();
    const double zeta = p.angular[1], eta = p.angular[0];
    const Tensor safe = (0.5 * (1.0 + c * cos_section + s * sin_section)).clamp_min(1e-12);
    const Tensor lower = ((zeta - 1.0) * safe.log()).exp();
    f1 = 2.0 * lower * safe;
    df1 = 0.95 * zeta * lower * (cos_section - ratio * sin_section);
    const Tensor x = (0.5 * (r_a + r_b)).unsqueeze(1) - row(p.shifts_a, c);
    f2 = (-eta * x * x).exp();
    df2 = -eta * x * f2;
  }

  // From derivatives by the two distances and the cosine [T, ...] to those by the two edge vectors [T, ..., 3].
  std::tuple<Tensor, Tensor> by_vectors(Tensor by_a, Tensor by_b, Tensor by_cosine) const
  {
    const bool many = by_a.dim() == 2;
    const auto as_row = [many](const Tensor &t) { return many ? t.unsqueeze(1) : t; };    // [T, 3] or [T, 1, 3]
    const auto per_triple = [many](const Tensor &t) { return many ? t.unsqueeze(1) : t; };
    const Tensor ua = as_row(unit_a), ub = as_row(unit_b), cos = as_row(cosine.unsqueeze(1));
    const Tensor ca = (by_cosine / per_triple(r_a)).unsqueeze(-1), cb = (by_cosine / per_triple(r_b)).unsqueeze(-1);
    return {by_a.unsqueeze(-1) * ua + ca * (ub - cos * ua), by_b.unsqueeze(-1) * ub + cb * (ua - cos * ub)};
  }
};

Tensor aev(const Tensor &species, const Tensor &edges, const Tensor &vectors, int64_t n_local, int64_t elements,
           std::vector<double> radial_, std::vector<double> shifts_r, std::vector<double> angular,
           std::vector<double> shifts_a, std::vector<double> sections)
{
  const Parameters p{n_local, elements, radial_, shifts_r, angular, shifts_a, sections};
  const Radial radial(p, species, edges, vectors);
  const Triples triples(p, radial);
  const Tensor terms =
      (triples.f2.unsqueeze(2) * triples.f1.unsqueeze(1)).flatten(1) * (triples.fa * triples.fb).unsqueeze(1);
  const auto options = vectors.options();
  const Tensor first = at::zeros({n_local * elements, p.n_radial()}, options).index_add(0, radial.slot, radial.value);
  const Tensor second = at::zeros({n_local * p.pairs(), p.n_angular()}, options).index_add(0, triples.slot, terms);
  return at::cat({first.view({n_local, elements * p.n_radial()}), second.view({n_local, p.pairs() * p.n_angular()})},
                 1);
}

Tensor aev_vjp(const Tensor &cotangents, const Tensor &species, const Tensor &edges, const Tensor &vectors,
               int64_t n_local, int64_t elements, std::vector<double> radial_, std::vector<double> shifts_r,
               std::vector<double> angular, std::vector<double> shifts_a, std::vector<double> sections)
{
  const Parameters p{n_local, elements, radial_, shifts_r, angular, shifts_a, sections};
  TORCH_CHECK(cotangents.dim() == 3 && cotangents.size(1) == n_local && cotangents.size(2) == p.dimension(),
              "aev_vjp: cotangents must have shape [members, local atoms, ", p.dimension(), "]");
  const Radial radial(p, species, edges, vectors);
  const Triples t(p, radial);
  const Tensor fc = t.fa * t.fb;
  const int64_t split = elements * p.n_radial();
  std::vector<Tensor> gradients;
  for (int64_t m = 0; m < cotangents.size(0); ++m) {
    const Tensor w = cotangents.select(0, m);
    const Tensor wr = w.slice(1, 0, split).reshape({n_local * elements, p.n_radial()}).index_select(0, radial.slot);
    Tensor by_edge = (wr * radial.slope).sum(1, true) * radial.unit;

    const Tensor wa =
        w.slice(1, split).reshape({n_local * p.pairs(), p.n_shifts(), p.n_sections()}).index_select(0, t.slot);
    const Tensor sum = (wa * t.f1.unsqueeze(1)).sum(2), dsum = (wa * t.df1.unsqueeze(1)).sum(2);
    const Tensor value = (t.f2 * sum).sum(1), distance = (t.df2 * sum).sum(1) * fc;
    const auto [ga, gb] =
        t.by_vectors(value * t.dfa * t.fb + distance, value * t.fa * t.dfb + distance, (t.f2 * dsum).sum(1) * fc);
    by_edge = by_edge.index_add(0, t.a, ga).index_add(0, t.b, gb);
    gradients.push_back(at::zeros_like(vectors, at::MemoryFormat::Contiguous).index_add(0, radial.edge, by_edge));
  }
  return at::stack(gradients);
}

Tensor aev_jacobian(const Tensor &species, const Tensor &edges, const Tensor &vectors, int64_t n_local,
                    int64_t elements, std::vector<double> radial_, std::vector<double> shifts_r,
                    std::vector<double> angular, std::vector<double> shifts_a, std::vector<double> sections)
{
  const Parameters p{n_local, elements, radial_, shifts_r, angular, shifts_a, sections};
  const Radial radial(p, species, edges, vectors);
  const Triples t(p, radial);
  Tensor out = at::zeros({vectors.size(0) * p.dimension(), 3}, vectors.options());
  // Rows: edge * dimension + component, the components counted from that of the element or pair of elements.
  const auto add = [&](const Tensor &edge, const Tensor &offset, int64_t count, const Tensor &gradient) {
    const Tensor start = radial.edge.index_select(0, edge) * p.dimension() + offset;
    const Tensor rows = start.unsqueeze(1) + at::arange(count, start.options());
    out.index_add_(0, rows.flatten(), gradient.reshape({-1, 3}));
  };
  const Tensor all = at::arange(radial.edge.size(0), radial.edge.options());
  add(all, at::remainder(radial.slot, elements) * p.n_radial(), p.n_radial(),
      radial.slope.unsqueeze(2) * radial.unit.unsqueeze(1));

  const auto each = [](const Tensor &shifts, const Tensor &sections_) {
    return (shifts.unsqueeze(2) * sections_.unsqueeze(1)).flatten(1);
  };
  const auto column = [](const Tensor &factor) { return factor.unsqueeze(1); };
  const Tensor value = each(t.f2, t.f1), slope = each(t.df2, t.f1) * column(t.fa * t.fb);
  const auto [ga, gb] = t.by_vectors(value * column(t.dfa * t.fb) + slope, value * column(t.fa * t.dfb) + slope,
                                     each(t.f2, t.df1) * column(t.fa * t.fb));
  const Tensor offset = elements * p.n_radial() + at::remainder(t.slot, p.pairs()) * p.n_angular();
  add(t.a, offset, p.n_angular(), ga);
  add(t.b, offset, p.n_angular(), gb);
  return out.view({vectors.size(0), p.dimension(), 3});
}

std::tuple<Tensor, Tensor, Tensor> gelu_derivatives(const Tensor &z)
{
  const Tensor cdf = 0.5 * ((z * std::sqrt(0.5)).erf() + 1.0);
  const Tensor pdf = (-0.5 * z * z).exp() * (1.0 / std::sqrt(2.0 * pi));
  return {z * cdf, cdf + z * pdf, (2.0 - z * z) * pdf};
}

Tensor gelu_adjoint_(Tensor adjoint, const Tensor &slope, const Tensor &tangent, const Tensor &back,
                     const Tensor &curvature)
{
  adjoint.mul_(slope).add_(tangent * back * curvature);
  return adjoint;
}

Tensor jacobian_product(const Tensor &cotangents, std::vector<Tensor> jacobians)
{
  std::vector<Tensor> frames;
  for (std::size_t b = 0; b < jacobians.size(); ++b)
    frames.push_back(at::mm(cotangents.select(1, static_cast<int64_t>(b)), jacobians[b]));
  return at::stack(frames, 1);
}

Tensor jacobian_product_transposed(const Tensor &adjoints, std::vector<Tensor> jacobians)
{
  for (auto &jacobian : jacobians) jacobian = jacobian.t();
  return jacobian_product(adjoints, jacobians);
}

}    // namespace

TORCH_LIBRARY_IMPL(rareal, CompositeExplicitAutograd, library)
{
  library.impl("aev", &aev);
  library.impl("aev_vjp", &aev_vjp);
  library.impl("aev_jacobian", &aev_jacobian);
  library.impl("gelu_derivatives", &gelu_derivatives);
  library.impl("gelu_adjoint_", &gelu_adjoint_);
  library.impl("jacobian_product", &jacobian_product);
  library.impl("jacobian_product_transposed", &jacobian_product_transposed);
}
