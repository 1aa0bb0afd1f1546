// Sums along an axis; one thread computes those of one line, one after another.
//
// The head has INPUTS (of one line), `inputs(o)`, `load(o, n)`, which is element n of line o,
// `place(o, n)`, which is where its sum goes, `w0_put(place, value)`, and REVERSE, with which the
// sums start at the line's end.

fn compute(o: u32) {
    var total = 0.0;
    for (var k = 0u; k < inputs(o); k += 1u) {
        let n = select(k, INPUTS - 1u - k, REVERSE);
        total += load(o, n);
        w0_put(place(o, n), total);
    }
}
