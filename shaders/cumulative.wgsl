// Sums and the like along an axis; one thread computes those of one line, one after another.
//
// The head has INPUTS (of one line), `inputs(o)`, `load(o, n)`, which is element n of line o,
// `place(o, n)`, which is where its sum goes, `combine(a, b)`, which adds the element b to the sum
// a, `w0_put(place, value)`, and REVERSE, with which the sums start at the line's end.

fn compute(o: u32) {
    let first = select(0u, INPUTS - 1u, REVERSE);
    var total = load(o, first);
    w0_put(place(o, first), total);
    for (var k = 1u; k < inputs(o); k += 1u) {
        let n = select(k, INPUTS - 1u - k, REVERSE);
        total = combine(total, load(o, n));
        w0_put(place(o, n), total);
    }
}
