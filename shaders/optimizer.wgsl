// Updates of whole arrays of parameters, and sums of gradients; a thread updates four neighbours.
// The operations are those of the CPU devices, in their order; a driver may fuse them.
//
//     adamw         m = m b1 + g (1 - b1);  v = v b2 + g g (1 - b2)
//                   p = p keep - rate (m / c1) / (sqrt(v / c2) + epsilon)
//     sgd           p = p - rate d,  d = p penalty + g
//     sgd_momentum  v = d, or later d fresh + v momentum;  p = p - rate v, or rate (v momentum + d)
//     add           p = p + g
//
// where g is the gradient times the step's scale, but for add. Without weight decay there is no
// factor `keep` and no `p penalty`.
//
// The head binds `p`, `g`, and `m`, `v` and `settings` where they are used, with functions that get
// and put four elements, and has VECTORS (how many fours there are), `compute(i)`, which calls one
// of these, and the grid.

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(workgroup, local);
    if (i < VECTORS) {
        compute(i);
    }
}
