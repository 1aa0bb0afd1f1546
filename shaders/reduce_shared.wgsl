// Long sums of few outputs; one workgroup computes one output. Thread t adds the inputs t, t +
// WORKGROUP and so on; then neighbours are added in a fixed tree.
//
// The head has Element, OUTPUTS, INPUTS (of one output), `load(o, n)`, which is input n of output
// o, `w0_put(o, value)`, and the grid.

var<workgroup> parts: array<Element, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let o = workgroup_index(workgroup);
    if (o >= OUTPUTS) {
        return;
    }
    var total = Element();
    for (var n = local; n < INPUTS; n += WORKGROUP) {
        total += load(o, n);
    }
    parts[local] = total;
    for (var apart = WORKGROUP / 2u; apart > 0u; apart /= 2u) {
        workgroupBarrier();
        if (local < apart) {
            parts[local] += parts[local + apart];
        }
    }
    if (local == 0u) {
        w0_put(o, parts[0]);
    }
}
