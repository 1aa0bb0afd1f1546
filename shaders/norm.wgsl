// Squares of the norms of parts of an array: a workgroup sums the squares of PART vectors of four.
//
//     out[k] = sum of x[i] x[i] over part k
//
// A thread sums every WORKGROUP-th vector of the part, then pairs of threads sum what they have
// until one is left: one order, whatever the device.
//
// The head binds `x` (vectors of four) and `out`, and has VECTORS (how many vectors there are),
// PART, PARTS (how many of them) and the grid.

var<workgroup> sums: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let part = workgroup_index(workgroup);
    let end = min((part + 1u) * PART, VECTORS);
    var sum = vec4<f32>();
    for (var i = part * PART + local; i < end; i += WORKGROUP) {
        let four = x[i];
        sum += four * four;
    }
    sums[local] = (sum.x + sum.y) + (sum.z + sum.w);
    for (var width = WORKGROUP / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if (local < width) {
            sums[local] += sums[local + width];
        }
    }
    if (local == 0u && part < PARTS) {
        out[part] = sums[0];
    }
}
