// Position of the first extreme along an axis; one thread computes one output. A NaN is extreme.
//
// The head has INPUTS (of one output), `load(o, n)`, which is input n of output o, `w0`, and
// `beats(a, b)`, which is the comparison.

fn compute(o: u32) {
    var best = load(o, 0u);
    var at = 0u;
    for (var n = 1u; n < INPUTS; n += 1u) {
        let x = load(o, n);
        if (beats(x, best) || (!(x == x) && best == best)) {
            best = x;
            at = n;
        }
    }
    w0[o] = i32(at);
}
