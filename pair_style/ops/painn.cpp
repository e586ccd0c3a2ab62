// The message of PaiNN for all members of a committee at once, with its first and second derivatives.
//
// Schuett, Unke, Gastegger, ICML 2021, equations 7 and 8, summed over the edges e = (i, j) of each central atom i:
//
//   scalars_i += x1_j w1_e        vectors_i += (x2_j w2_e) u_e + (x3_j w3_e) v_j
//
// with the neighbour's transformed scalars x = (x1, x2, x3), its vectors v, the filters w and the edge's unit vector u.
// PyTorch would write a dozen arrays of the size of the edges; one pass over the edges needs none of them.
//
// With adjoints a of scalars_i and b of vectors_i the sum over edges of
//   S = a x1 w1 + (b.u) x2 w2 + (b.v) x3 w3
// is linear in each argument, so that every derivative below is written down from it:
//   painn_message                  dS/da, dS/db
//   painn_message_backward         dS/d(x, v, w, u)
//   painn_message_double_backward  the derivatives of (dx.dS/dx + dv.dS/dv + dw.dS/dw + du.dS/du), for forces in a loss
//
// Shapes: x [M, n, 3F], v [M, n, 3, F], w [M, P, 3F], unit [M, P, 3], a [M, n, F], b [M, n, 3, F], edges int64 [2, P].
// The members and the features are independent: threads share them out and never write to the same place.

#include "clones.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <tuple>

namespace {

using at::Tensor;
using Two = std::tuple<Tensor, Tensor>;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Six = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

constexpr int64_t block = 64;    // features that one task handles: its rows of an edge stay in the first-level cache

// Features [0, count) of one block of one member; `width` is F, arrays begin at the block's first feature.
struct Span {
  const int64_t *centre, *neighbour;
  int64_t edges, width, count;
};

#define RAREAL_EDGE_ROWS \
  const int64_t i = s.centre[e], j = s.neighbour[e], width = s.width, count = s.count; \
  const T u0 = u[3 * e], u1 = u[3 * e + 1], u2 = u[3 * e + 2]; \
  const T *x1 = x + 3 * width * j, *x2 = x1 + width, *x3 = x2 + width; \
  const T *v0 = v + 3 * width * j, *v1 = v0 + width, *v2 = v1 + width; \
  const T *w1 = w + 3 * width * e, *w2 = w1 + width, *w3 = w2 + width;

template <typename T>
__attribute__((always_inline)) inline void forward_span(const Span &s, const T *x, const T *v, const T *w, const T *u,
                                                        T *scalars, T *vectors)
{
  for (int64_t e = 0; e < s.edges; ++e) {
    RAREAL_EDGE_ROWS
    T *q = scalars + width * i, *m0 = vectors + 3 * width * i, *m1 = m0 + width, *m2 = m1 + width;
#pragma GCC ivdep
    for (int64_t f = 0; f < count; ++f) {
      const T p2 = x2[f] * w2[f], p3 = x3[f] * w3[f];
      q[f] += x1[f] * w1[f];
      m0[f] += p2 * u0 + p3 * v0[f];
      m1[f] += p2 * u1 + p3 * v1[f];
      m2[f] += p2 * u2 + p3 * v2[f];
    }
  }
}

template <typename T>
__attribute__((always_inline)) inline void backward_span(const Span &s, const T *x, const T *v, const T *w, const T *u,
                                                         const T *a, const T *b, T *gx, T *gv, T *gw, T *gu)
{
  for (int64_t e = 0; e < s.edges; ++e) {
    RAREAL_EDGE_ROWS
    const T *ai = a + width * i, *b0 = b + 3 * width * i, *b1 = b0 + width, *b2 = b1 + width;
    T *gx1 = gx + 3 * width * j, *gx2 = gx1 + width, *gx3 = gx2 + width;
    T *gv0 = gv + 3 * width * j, *gv1 = gv0 + width, *gv2 = gv1 + width;
    T *gw1 = gw + 3 * width * e, *gw2 = gw1 + width, *gw3 = gw2 + width;
    T g0 = 0, g1 = 0, g2 = 0;
#pragma GCC ivdep
    for (int64_t f = 0; f < count; ++f) {
      const T bu = b0[f] * u0 + b1[f] * u1 + b2[f] * u2;
      const T bv = b0[f] * v0[f] + b1[f] * v1[f] + b2[f] * v2[f];
      const T p2 = x2[f] * w2[f], p3 = x3[f] * w3[f];
      gx1[f] += ai[f] * w1[f];
      gx2[f] += bu * w2[f];
      gx3[f] += bv * w3[f];
      gw1[f] = ai[f] * x1[f];
      gw2[f] = bu * x2[f];
      gw3[f] = bv * x3[f];
      gv0[f] += b0[f] * p3;
      gv1[f] += b1[f] * p3;
      gv2[f] += b2[f] * p3;
      g0 += b0[f] * p2;
      g1 += b1[f] * p2;
      g2 += b2[f] * p2;
    }
    gu[3 * e] = g0;
    gu[3 * e + 1] = g1;
    gu[3 * e + 2] = g2;
  }
}

// dx, dv, dw, du are the adjoints of the first backward pass's results.
template <typename T>
__attribute__((always_inline)) inline void double_span(const Span &s, const T *x, const T *v, const T *w, const T *u,
                                                       const T *a, const T *b, const T *dx, const T *dv, const T *dw,
                                                       const T *du, T *gx, T *gv, T *gw, T *gu, T *ga, T *gb)
{
  for (int64_t e = 0; e < s.edges; ++e) {
    RAREAL_EDGE_ROWS
    const T h0 = du[3 * e], h1 = du[3 * e + 1], h2 = du[3 * e + 2];
    const T *y1 = dx + 3 * width * j, *y2 = y1 + width, *y3 = y2 + width;
    const T *n0 = dv + 3 * width * j, *n1 = n0 + width, *n2 = n1 + width;
    const T *t1 = dw + 3 * width * e, *t2 = t1 + width, *t3 = t2 + width;
    const T *ai = a + width * i, *b0 = b + 3 * width * i, *b1 = b0 + width, *b2 = b1 + width;
    T *gx1 = gx + 3 * width * j, *gx2 = gx1 + width, *gx3 = gx2 + width;
    T *gv0 = gv + 3 * width * j, *gv1 = gv0 + width, *gv2 = gv1 + width;
    T *gw1 = gw + 3 * width * e, *gw2 = gw1 + width, *gw3 = gw2 + width;
    T *gai = ga + width * i, *gb0 = gb + 3 * width * i, *gb1 = gb0 + width, *gb2 = gb1 + width;
    T g0 = 0, g1 = 0, g2 = 0;
#pragma GCC ivdep
    for (int64_t f = 0; f < count; ++f) {
      const T bu = b0[f] * u0 + b1[f] * u1 + b2[f] * u2;
      const T bv = b0[f] * v0[f] + b1[f] * v1[f] + b2[f] * v2[f];
      const T bh = b0[f] * h0 + b1[f] * h1 + b2[f] * h2;
      const T bn = b0[f] * n0[f] + b1[f] * n1[f] + b2[f] * n2[f];
      const T p2 = x2[f] * w2[f], p3 = x3[f] * w3[f];
      const T q1 = y1[f] * w1[f] + x1[f] * t1[f];
      const T q2 = y2[f] * w2[f] + x2[f] * t2[f];
      const T q3 = y3[f] * w3[f] + x3[f] * t3[f];
      gx1[f] += ai[f] * t1[f];
      gx2[f] += bu * t2[f] + bh * w2[f];
      gx3[f] += bv * t3[f] + bn * w3[f];
      gw1[f] = ai[f] * y1[f];
      gw2[f] = bu * y2[f] + bh * x2[f];
      gw3[f] = bv * y3[f] + bn * x3[f];
      gv0[f] += b0[f] * q3;
      gv1[f] += b1[f] * q3;
      gv2[f] += b2[f] * q3;
      g0 += b0[f] * q2;
      g1 += b1[f] * q2;
      g2 += b2[f] * q2;
      gai[f] += q1;
      gb0[f] += u0 * q2 + v0[f] * q3 + n0[f] * p3 + h0 * p2;
      gb1[f] += u1 * q2 + v1[f] * q3 + n1[f] * p3 + h1 * p2;
      gb2[f] += u2 * q2 + v2[f] * q3 + n2[f] * p3 + h2 * p2;
    }
    gu[3 * e] = g0;
    gu[3 * e + 1] = g1;
    gu[3 * e + 2] = g2;
  }
}

// Clones per instruction set must be plain functions.
#define RAREAL_INSTANTIATE(T) \
  RAREAL_CLONES void forward_pass(const Span &s, const T *x, const T *v, const T *w, const T *u, T *q, T *m) \
  { \
    forward_span<T>(s, x, v, w, u, q, m); \
  } \
  RAREAL_CLONES void backward_pass(const Span &s, const T *x, const T *v, const T *w, const T *u, const T *a, \
                                   const T *b, T *gx, T *gv, T *gw, T *gu) \
  { \
    backward_span<T>(s, x, v, w, u, a, b, gx, gv, gw, gu); \
  } \
  RAREAL_CLONES void double_pass(const Span &s, const T *x, const T *v, const T *w, const T *u, const T *a, \
                                 const T *b, const T *dx, const T *dv, const T *dw, const T *du, T *gx, T *gv, T *gw, \
                                 T *gu, T *ga, T *gb) \
  { \
    double_span<T>(s, x, v, w, u, a, b, dx, dv, dw, du, gx, gv, gw, gu, ga, gb); \
  }
RAREAL_INSTANTIATE(float)
RAREAL_INSTANTIATE(double)

struct Sizes {
  int64_t members, nodes, edges, width, blocks;

  Sizes(const Tensor &x, const Tensor &v, const Tensor &w, const Tensor &unit, const Tensor &edges_)
  {
    TORCH_CHECK(x.dim() == 3 && v.dim() == 4 && w.dim() == 3 && unit.dim() == 3 && edges_.dim() == 2,
                "painn_message: x [M, n, 3F], v [M, n, 3, F], w [M, P, 3F], unit [M, P, 3], edges [2, P]");
    members = x.size(0);
    nodes = x.size(1);
    edges = edges_.size(1);
    width = v.size(3);
    blocks = (width + block - 1) / block;
    TORCH_CHECK(x.size(2) == 3 * width && v.size(1) == nodes && w.size(1) == edges && w.size(2) == 3 * width &&
                    unit.size(1) == edges && edges_.size(0) == 2,
                "painn_message: sizes of x, v, w, unit and edges do not match");
  }

  // Calls f(span, member, first feature, number of the block) for every task.
  template <typename F> void each(const Tensor &edges_, F &&f) const
  {
    const int64_t *index = edges_.const_data_ptr<int64_t>();
    at::parallel_for(0, members * blocks, 1, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        const int64_t member = task / blocks, number = task % blocks, start = number * block;
        f(Span{index, index + edges, edges, width, std::min(block, width - start)}, member, start, number);
      }
    });
  }
};

// Members may share one array (a stride of zero): only what lies within a member must be contiguous.
Tensor packed(const Tensor &t)
{
  return t.dim() > 0 && t.size(0) > 0 && t.select(0, 0).is_contiguous() ? t : t.contiguous();
}

template <typename T> const T *rows(const Tensor &t, int64_t member)
{
  return t.const_data_ptr<T>() + member * t.stride(0);
}

template <typename T> T *place(const Tensor &t, int64_t member)
{
  return t.mutable_data_ptr<T>() + member * t.stride(0);
}

Two message(const Tensor &x_, const Tensor &v_, const Tensor &w_, const Tensor &unit_, const Tensor &edges_)
{
  const Sizes size(x_, v_, w_, unit_, edges_);
  const Tensor x = packed(x_), v = packed(v_), w = packed(w_), unit = packed(unit_), edges = edges_.contiguous();
  Tensor scalars = at::zeros({size.members, size.nodes, size.width}, x.options());
  Tensor vectors = at::zeros({size.members, size.nodes, 3, size.width}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "painn_message", [&] {
    using T = scalar_t;
    size.each(edges, [&](const Span &s, int64_t m, int64_t f, int64_t) {
      forward_pass(s, rows<T>(x, m) + f, rows<T>(v, m) + f, rows<T>(w, m) + f, rows<T>(unit, m),
                   place<T>(scalars, m) + f, place<T>(vectors, m) + f);
    });
  });
  return {scalars, vectors};
}

Four message_backward(const Tensor &x_, const Tensor &v_, const Tensor &w_, const Tensor &unit_, const Tensor &edges_,
                      const Tensor &a_, const Tensor &b_)
{
  const Sizes size(x_, v_, w_, unit_, edges_);
  const Tensor x = packed(x_), v = packed(v_), w = packed(w_), unit = packed(unit_), edges = edges_.contiguous();
  const Tensor a = packed(a_), b = packed(b_);
  Tensor gx = at::zeros(x.sizes(), x.options()), gv = at::zeros(v.sizes(), x.options());
  Tensor gw = at::empty(w.sizes(), x.options());
  Tensor gu = at::empty({size.members, size.blocks, size.edges, 3}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "painn_message_backward", [&] {
    using T = scalar_t;
    size.each(edges, [&](const Span &s, int64_t m, int64_t f, int64_t k) {
      backward_pass(s, rows<T>(x, m) + f, rows<T>(v, m) + f, rows<T>(w, m) + f, rows<T>(unit, m), rows<T>(a, m) + f,
                    rows<T>(b, m) + f, place<T>(gx, m) + f, place<T>(gv, m) + f, place<T>(gw, m) + f,
                    place<T>(gu, m) + k * 3 * s.edges);
    });
  });
  return {gx, gv, gw, gu.sum(1)};
}

Six message_double_backward(const Tensor &x_, const Tensor &v_, const Tensor &w_, const Tensor &unit_,
                            const Tensor &edges_, const Tensor &a_, const Tensor &b_, const Tensor &dx_,
                            const Tensor &dv_, const Tensor &dw_, const Tensor &du_)
{
  const Sizes size(x_, v_, w_, unit_, edges_);
  const Tensor x = packed(x_), v = packed(v_), w = packed(w_), unit = packed(unit_), edges = edges_.contiguous();
  const Tensor a = packed(a_), b = packed(b_), dx = packed(dx_), dv = packed(dv_), dw = packed(dw_), du = packed(du_);
  const auto options = x.options();
  Tensor gx = at::zeros(x.sizes(), options), gv = at::zeros(v.sizes(), options), gw = at::empty(w.sizes(), options);
  Tensor ga = at::zeros(a.sizes(), options), gb = at::zeros(b.sizes(), options);
  Tensor gu = at::empty({size.members, size.blocks, size.edges, 3}, options);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "painn_message_double_backward", [&] {
    using T = scalar_t;
    size.each(edges, [&](const Span &s, int64_t m, int64_t f, int64_t k) {
      double_pass(s, rows<T>(x, m) + f, rows<T>(v, m) + f, rows<T>(w, m) + f, rows<T>(unit, m), rows<T>(a, m) + f,
                  rows<T>(b, m) + f, rows<T>(dx, m) + f, rows<T>(dv, m) + f, rows<T>(dw, m) + f, rows<T>(du, m),
                  place<T>(gx, m) + f, place<T>(gv, m) + f, place<T>(gw, m) + f, place<T>(gu, m) + k * 3 * s.edges,
                  place<T>(ga, m) + f, place<T>(gb, m) + f);
    });
  });
  return {gx, gv, gw, gu.sum(1), ga, gb};
}

// ---- the same from PyTorch's own operators, for devices without a kernel above ----------------------------------------

std::array<Tensor, 3> thirds(const Tensor &t)
{
  const auto parts = t.chunk(3, -1);
  return {parts[0], parts[1], parts[2]};
}

// Rows of atoms as rows of edges, and back.
Tensor gather(const Tensor &atoms, const Tensor &index) { return atoms.index_select(1, index); }

Tensor scatter(const Tensor &edges, const Tensor &index, int64_t nodes)
{
  auto shape = edges.sizes().vec();
  shape[1] = nodes;
  return at::zeros(shape, edges.options()).index_add(1, index, edges);
}

Two message_any(const Tensor &x, const Tensor &v, const Tensor &w, const Tensor &unit, const Tensor &edges)
{
  const Tensor i = edges.select(0, 0), j = edges.select(0, 1);
  const auto p = thirds(gather(x, j) * w);
  const Tensor vectors = p[1].unsqueeze(2) * unit.unsqueeze(3) + p[2].unsqueeze(2) * gather(v, j);
  return {scatter(p[0], i, x.size(1)), scatter(vectors, i, x.size(1))};
}

Four message_backward_any(const Tensor &x, const Tensor &v, const Tensor &w, const Tensor &unit, const Tensor &edges,
                          const Tensor &a, const Tensor &b)
{
  const Tensor i = edges.select(0, 0), j = edges.select(0, 1);
  const Tensor xj = gather(x, j), vj = gather(v, j), ai = gather(a, i), bi = gather(b, i);
  const Tensor factors = at::cat({ai, (bi * unit.unsqueeze(3)).sum(2), (bi * vj).sum(2)}, -1);
  const auto p = thirds(xj * w);
  return {scatter(factors * w, j, x.size(1)), scatter(bi * p[2].unsqueeze(2), j, x.size(1)), factors * xj,
          (bi * p[1].unsqueeze(2)).sum(3)};
}

Six message_double_backward_any(const Tensor &x, const Tensor &v, const Tensor &w, const Tensor &unit,
                                const Tensor &edges, const Tensor &a, const Tensor &b, const Tensor &dx,
                                const Tensor &dv, const Tensor &dw, const Tensor &du)
{
  const Tensor i = edges.select(0, 0), j = edges.select(0, 1);
  const Tensor xj = gather(x, j), vj = gather(v, j), ai = gather(a, i), bi = gather(b, i);
  const Tensor yj = gather(dx, j), nj = gather(dv, j), u = unit.unsqueeze(3), h = du.unsqueeze(3);
  const Tensor factors = at::cat({ai, (bi * u).sum(2), (bi * vj).sum(2)}, -1);
  const Tensor changes = at::cat({at::zeros_like(ai), (bi * h).sum(2), (bi * nj).sum(2)}, -1);
  const auto p = thirds(xj * w), q = thirds(yj * w + xj * dw);
  const Tensor p2 = p[1].unsqueeze(2), p3 = p[2].unsqueeze(2), q2 = q[1].unsqueeze(2), q3 = q[2].unsqueeze(2);
  const int64_t nodes = x.size(1);
  return {scatter(factors * dw + changes * w, j, nodes),
          scatter(bi * q3, j, nodes),
          factors * yj + changes * xj,
          (bi * q2).sum(3),
          scatter(q[0], i, nodes),
          scatter(u * q2 + vj * q3 + nj * p3 + h * p2, i, nodes)};
}

// ---- derivatives as autograd sees them ----------------------------------------------------------------------------------

template <typename Signature> auto operation(const char *name)
{
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Sizes are symbols where a model is compiled ahead of time.
Tensor or_zeros(const Tensor &gradient, at::SymIntArrayRef sizes, const Tensor &like)
{
  return gradient.defined() ? gradient : at::zeros_symint(sizes, like.options());
}

struct MessageBackward : torch::autograd::Function<MessageBackward> {
  static variable_list forward(AutogradContext *context, const Tensor &x, const Tensor &v, const Tensor &w,
                               const Tensor &unit, const Tensor &edges, const Tensor &a, const Tensor &b)
  {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto op =
        operation<Four(const Tensor &, const Tensor &, const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                       const Tensor &)>("rareal::painn_message_backward");
    context->save_for_backward({x, v, w, unit, edges, a, b});
    const auto [gx, gv, gw, gu] = op.call(x, v, w, unit, edges, a, b);
    return {gx, gv, gw, gu};
  }

  static variable_list backward(AutogradContext *context, variable_list d)
  {
    static const auto op =
        operation<Six(const Tensor &, const Tensor &, const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                      const Tensor &, const Tensor &, const Tensor &, const Tensor &, const Tensor &)>(
            "rareal::painn_message_double_backward");
    const auto s = context->get_saved_variables();
    at::AutoDispatchBelowADInplaceOrView below;    // third derivatives are nobody's business
    const auto [gx, gv, gw, gu, ga, gb] =
        op.call(s[0], s[1], s[2], s[3], s[4], s[5], s[6], or_zeros(d[0], s[0].sym_sizes(), s[0]),
                or_zeros(d[1], s[1].sym_sizes(), s[0]), or_zeros(d[2], s[2].sym_sizes(), s[0]),
                or_zeros(d[3], s[3].sym_sizes(), s[0]));
    return {gx, gv, gw, gu, Tensor(), ga, gb};
  }
};

struct Message : torch::autograd::Function<Message> {
  static variable_list forward(AutogradContext *context, const Tensor &x, const Tensor &v, const Tensor &w,
                               const Tensor &unit, const Tensor &edges)
  {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto op =
        operation<Two(const Tensor &, const Tensor &, const Tensor &, const Tensor &, const Tensor &)>(
            "rareal::painn_message");
    context->save_for_backward({x, v, w, unit, edges});
    const auto [scalars, vectors] = op.call(x, v, w, unit, edges);
    return {scalars, vectors};
  }

  static variable_list backward(AutogradContext *context, variable_list d)
  {
    const auto s = context->get_saved_variables();
    const auto sizes = s[1].sym_sizes();
    const auto gradients =
        MessageBackward::apply(s[0], s[1], s[2], s[3], s[4], or_zeros(d[0], {sizes[0], sizes[1], sizes[3]}, s[0]),
                               or_zeros(d[1], sizes, s[0]));
    return {gradients[0], gradients[1], gradients[2], gradients[3], Tensor()};
  }
};

Two message_autograd(const Tensor &x, const Tensor &v, const Tensor &w, const Tensor &unit, const Tensor &edges)
{
  const auto result = Message::apply(x, v, w, unit, edges);
  return {result[0], result[1]};
}

Four message_backward_autograd(const Tensor &x, const Tensor &v, const Tensor &w, const Tensor &unit,
                               const Tensor &edges, const Tensor &a, const Tensor &b)
{
  const auto result = MessageBackward::apply(x, v, w, unit, edges, a, b);
  return {result[0], result[1], result[2], result[3]};
}

}    // namespace

TORCH_LIBRARY_FRAGMENT(rareal, library)
{
  library.def("painn_message(Tensor x, Tensor v, Tensor w, Tensor unit, Tensor edges) -> (Tensor, Tensor)");
  library.def("painn_message_backward(Tensor x, Tensor v, Tensor w, Tensor unit, Tensor edges, Tensor a, Tensor b) "
              "-> (Tensor, Tensor, Tensor, Tensor)");
  library.def("painn_message_double_backward(Tensor x, Tensor v, Tensor w, Tensor unit, Tensor edges, Tensor a, "
              "Tensor b, Tensor dx, Tensor dv, Tensor dw, Tensor du) "
              "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(rareal, CPU, library)
{
  library.impl("painn_message", &message);
  library.impl("painn_message_backward", &message_backward);
  library.impl("painn_message_double_backward", &message_double_backward);
}

TORCH_LIBRARY_IMPL(rareal, CompositeExplicitAutograd, library)
{
  library.impl("painn_message", &message_any);
  library.impl("painn_message_backward", &message_backward_any);
  library.impl("painn_message_double_backward", &message_double_backward_any);
}

TORCH_LIBRARY_IMPL(rareal, Autograd, library)
{
  library.impl("painn_message", &message_autograd);
  library.impl("painn_message_backward", &message_backward_autograd);
}
