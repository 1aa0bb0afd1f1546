// Sums over some axes: the inputs of an output one after another.
//
// The head has Element, `inputs(o)`, which is how many an output has, `load(o, n)`, which is input
// n of output o, `four(o, n)`, which is that one and its three neighbours, `w0_put(o, value)`, and
// `compute(t)`, which calls one of these.

fn sum(o: u32) {
    var total = Element();
    for (var n = 0u; n < inputs(o); n += 1u) {
        total += load(o, n);
    }
    w0_put(o, total);
}

// The neighbours are inputs.
fn sum_by_fours(o: u32) {
    var total = Element();
    for (var n = 0u; n < inputs(o); n += 4u) {
        let v = four(o, n);
        total = total + v.x + v.y + v.z + v.w;
    }
    w0_put(o, total);
}

// The neighbours are outputs.
fn four_sums(o: u32) {
    var total = vec4<Element>();
    for (var n = 0u; n < inputs(o); n += 1u) {
        total += four(o, n);
    }
    w0_put(o, total.x);
    w0_put(o + 1u, total.y);
    w0_put(o + 2u, total.z);
    w0_put(o + 3u, total.w);
}
