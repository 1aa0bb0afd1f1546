// Positions of the elements along an axis, in order. One thread finds the place of one element: as
// many come before it as are ahead of it, or as large and before it.
//
// The head has INPUTS (of one line), `inputs(o)`, `load(o, n)`, which is element n of line o,
// `key(x)`, which is an integer, `beats(a, b)`, which says whether key a is ahead of key b,
// `place(o, n)`, which is where position n of the line is stored, and `w0`.

fn compute(t: u32) {
    let o = t / INPUTS;
    let n = t % INPUTS;
    let own = key(load(o, n));
    var before = 0u;
    for (var k = 0u; k < inputs(o); k += 1u) {
        let other = key(load(o, k));
        before += select(0u, 1u, beats(other, own) || (other == own && k < n));
    }
    w0[place(o, before)] = i32(n);
}
