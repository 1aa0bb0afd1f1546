//! The head of `shaders/matmul.wgsl`: sums in registers, unrolled, without shared memory.

use std::fmt::Write as _;

use super::Lanes;
use super::matrix::{Load, Matrix};
use crate::engine::wgpu::shader::bindings::{Factor, position};

/// A product and its tile, with the loads that were chosen.
pub(super) struct Tiling<'a> {
    /// The tile.
    pub tile: &'a Lanes,
    /// The factor whose rows the tile has.
    pub x: Side<'a>,
    /// The factor whose columns the tile has.
    pub y: Side<'a>,
    /// How many k one step takes.
    pub step: usize,
    /// Whether two neighbours of the output are finished together.
    pub paired: bool,
}

/// A factor, and how it is loaded.
pub(super) struct Side<'a> {
    /// The factor.
    pub matrix: &'a Matrix,
    /// What one load takes.
    pub load: Load,
    /// Whether loads longer than one element are of 64-bit integers.
    wide: bool,
    /// Whether the factor is a uniform buffer, of vectors of 16 bytes.
    pub uniform: bool,
    /// Over how many k the lanes spread one load; 1 where all of them load the same k.
    spread: usize,
}

impl<'a> Tiling<'a> {
    /// The loads for a tile.
    pub fn new(tile: &'a Lanes, x: &'a Matrix, y: &'a Matrix) -> Self {
        let [x, y] = if tile.swapped { [y, x] } else { [x, y] };
        let rows = if tile.broadcast { tile.rows / tile.lanes } else { tile.rows };
        // Lanes without rows of their own take other k.
        let spread = if tile.broadcast { (4 * tile.lanes / tile.rows).max(1) } else { 1 };
        let x = Side::new(tile, x, (rows, spread));
        let y = Side::new(tile, y, (tile.columns, 1));
        let whole = |step: &usize| x.matrix.inner.is_multiple_of(*step);
        let inner = x.block().max(y.block()) > 1;
        let steps = [8, 4, 2].into_iter().filter(|&step| step <= tile.step);
        let step = steps.clone().find(|step| !inner || whole(step)).unwrap_or(1);
        // Along the output's rows, a pair is two of a lane's columns, or two rows of its tile.
        let (size, along) =
            if tile.swapped { (x.matrix.outer, tile.rows) } else { (y.matrix.outer, tile.columns) };
        let paired = tile.wide && size.is_multiple_of(2) && along.is_multiple_of(2);
        Self { tile, x, y, step, paired }
    }

    /// Everything that `shaders/matmul.wgsl` names, but for the bindings, `index` and `finish`.
    pub fn head(&self) -> String {
        let Lanes { rows, columns, lanes, .. } = *self.tile;
        let (m, n, k) = (self.x.matrix.outer, self.y.matrix.outer, self.x.matrix.inner);
        let mut head = String::new();
        let consts = [
            ("M", m),
            ("N", n),
            ("K", k),
            ("ROWS", rows),
            ("COLUMNS", columns),
            ("LANES", lanes),
            ("STEP", self.step),
            ("K_STEPPED", k - k % self.step),
            ("GROUPS_M", m.div_ceil(rows)),
            ("GROUPS_N", n.div_ceil(columns * lanes)),
        ];
        for (name, value) in consts {
            put(&mut head, format_args!("const {name}: u32 = {value}u;"));
        }
        let whole = m.is_multiple_of(rows) && n.is_multiple_of(columns * lanes);
        put(&mut head, format_args!("const WHOLE: bool = {whole};"));
        put(&mut head, format_args!("alias Sums = array<f32, {}>;", rows * columns));
        let values = vec!["value"; rows * columns].join(", ");
        put(&mut head, format_args!("fn all_equal(value: f32) -> Sums {{"));
        put(&mut head, format_args!("    return Sums({values});\n}}"));
        if self.tile.wide {
            head += "fn low(v: u64) -> f32 { return bitcast<f32>(u32(v)); }\n";
            head += "fn high(v: u64) -> f32 { return bitcast<f32>(u32(v >> 32u)); }\n";
        }
        if [&self.x, &self.y].iter().any(|side| side.uniform && side.matrix.half) {
            // Of a vector of eight halves, the four at a position that counts fours.
            head += "fn half_of(v: vec4<u32>, at: u32) -> vec2<u32> {\n    \
                     return select(v.xy, v.zw, at % 2u == 1u);\n}\n";
        }
        head += &self.starts();
        head += &self.adder("step", self.step);
        head += &self.adder("rest", 1);
        let product = if self.paired { "vec2<f32>" } else { "f32" };
        put(&mut head, format_args!("alias Product = {product};"));
        head += &self.sums_of();
        head
    }

    /// How the factors are bound, in the kernel's order.
    pub fn factors(&self) -> [Option<Factor>; 2] {
        let [x, y] = [self.x.factor(), self.y.factor()];
        if self.tile.swapped { [y, x] } else { [x, y] }
    }

    /// Whether a factor is a uniform buffer.
    pub fn is_uniform(&self) -> bool {
        self.x.uniform || self.y.uniform
    }

    /// Number of workgroups.
    pub fn groups(&self) -> usize {
        let rows = self.x.matrix.outer.div_ceil(self.tile.rows);
        let columns = self.y.matrix.outer.div_ceil(self.tile.columns * self.tile.lanes);
        self.x.matrix.batch.elements() * rows * columns
    }

    /// `Starts` and `starts`: positions of a lane's parts at k = 0, counted in loads. Rows and
    /// columns beyond the last are other ones again, whose products nobody uses.
    fn starts(&self) -> String {
        let (xs, ys) = (self.x_parts(), self.y_parts());
        let fields =
            (0..xs).map(|p| format!("x{p}: u32")).chain((0..ys).map(|p| format!("y{p}: u32")));
        let fields: Vec<String> = fields.collect();
        let mut text = format!("struct Starts {{ {} }}\n", fields.join(", "));
        text += "fn starts(batch: u32, row: u32, column: u32, lane: u32) -> Starts {\n";
        text += "    var at: Starts;\n";
        for (name, side) in [("x", &self.x), ("y", &self.y)] {
            let base = position(&side.matrix.batch, "batch");
            put(&mut text, format_args!("    let {name} = {base};"));
        }
        let lanes = self.tile.lanes;
        for p in 0..xs {
            let length = self.x.outer_length();
            let (base, row) = match (self.tile.broadcast, self.x.spread) {
                (true, 1) => ("x".into(), format!("row + (lane + {}u) * {length}u", p * lanes)),
                (true, spread) => {
                    let along = lanes / spread;
                    let stride = self.x.matrix.inner_stride;
                    let base = format!("x + lane / {along}u * {stride}u");
                    (base, format!("row + lane % {along}u * {length}u"))
                }
                (false, _) => ("x".into(), format!("row + {}u", p * length)),
            };
            put(&mut text, format_args!("    at.x{p} = {};", self.x.start(&base, &row)));
        }
        for p in 0..ys {
            let length = self.y.outer_length();
            let column = format!("column + lane * {}u + {}u", self.tile.columns, p * length);
            put(&mut text, format_args!("    at.y{p} = {};", self.y.start("y", &column)));
        }
        text + "    return at;\n}\n"
    }

    /// A function that adds the products of `count` k. Where loads are along k there is no rest,
    /// so it may do nothing.
    fn adder(&self, name: &str, count: usize) -> String {
        let mut text = format!("fn {name}(sums: ptr<function, Sums>, at: Starts, k: u32) {{\n");
        let block = self.x.block().max(self.y.block());
        if count.is_multiple_of(block) {
            let Lanes { rows, columns, .. } = *self.tile;
            let all = (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))).enumerate();
            for (n, (r, c)) in all.clone() {
                put(&mut text, format_args!("    let s{r}_{c}_0 = (*sums)[{n}];"));
            }
            for from in (0..count).step_by(block) {
                self.block(&mut text, from, block);
            }
            for (n, (r, c)) in all {
                put(&mut text, format_args!("    (*sums)[{n}] = s{r}_{c}_{count};"));
            }
        }
        text + "}\n"
    }

    /// Adds the products of k from `from` to `from + block`. What is loaded just before it is used
    /// keeps the compiler from doing all multiplications before all additions.
    fn block(&self, text: &mut String, from: usize, block: usize) {
        let columns = self.tile.columns;
        for p in 0..self.x_parts() {
            self.x.loads(text, "x", p, from, block);
        }
        if let Load::Inner(_) = self.y.load {
            let together = 2;
            for first in (0..columns).step_by(together) {
                let some = first..columns.min(first + together);
                for c in some.clone() {
                    self.y.loads(text, "y", c, from, block);
                }
                for j in from..from + block {
                    self.products(text, j, some.clone());
                }
            }
        } else {
            for j in from..from + block {
                for p in 0..self.y_parts() {
                    self.y.loads(text, "y", p, j, 1);
                }
                self.products(text, j, 0..columns);
            }
        }
    }

    /// Adds the products of one k for some columns and all rows.
    fn products(&self, text: &mut String, j: usize, columns: std::ops::Range<usize>) {
        for r in 0..self.tile.rows {
            let value = self.x_value(r, j);
            put(text, format_args!("    let a{r}_{j}_{} = {value};", columns.start));
            for c in columns.clone() {
                let (a, b) = (format!("a{r}_{j}_{}", columns.start), self.y_value(c, j));
                let sum = format!("s{r}_{c}");
                put(text, format_args!("    let {sum}_{} = fma({a}, {b}, {sum}_{j});", j + 1));
            }
        }
    }

    /// The element of x in row `r` for k number `j`.
    fn x_value(&self, r: usize, j: usize) -> String {
        let length = self.x.outer_length();
        let lanes = self.tile.lanes;
        if !self.tile.broadcast {
            return format!("x{}_{j}_{}", r / length, r % length);
        }
        let along = lanes / self.x.spread;
        let (part, lane) = (r / (lanes * length), r / length % along);
        let (ahead, lane) = (j % self.x.spread, lane + j % self.x.spread * along);
        format!("subgroupBroadcast(x{part}_{}_{}, {lane}u)", j - ahead, r % length)
    }

    /// The element of y in a lane's column `c` for k number `j`.
    fn y_value(&self, c: usize, j: usize) -> String {
        let length = self.y.outer_length();
        format!("y{}_{j}_{}", c / length, c % length)
    }

    /// `sums_of`, which copies: an array with a computed index would be kept in memory, which
    /// llvmpipe compiles for seconds.
    fn sums_of(&self) -> String {
        let Lanes { rows, columns, .. } = *self.tile;
        let together = self.rows_together();
        let mut text = format!("const ROWS_TOGETHER: u32 = {together}u;\n");
        put(&mut text, format_args!("alias Rows = array<f32, {}>;", together * columns));
        text += "fn sums_of(sums: ptr<function, Sums>, r: u32) -> Rows {\n    var rows: Rows;\n";
        text += "    switch r {\n";
        for r in (0..rows).step_by(together) {
            let first = r * columns;
            let all =
                (0..together * columns).map(|c| format!("rows[{c}] = (*sums)[{}];", first + c));
            let all: Vec<String> = all.collect();
            put(&mut text, format_args!("        case {r}u: {{ {} }}", all.join(" ")));
        }
        text += "        default: {}\n    }\n    return rows;\n}\n";
        text + &self.finish_rows()
    }

    fn finish_rows(&self) -> String {
        let columns = self.tile.columns;
        let mut text =
            "fn finish_rows(sums: Rows, batch: u32, row: u32, column: u32) {\n".to_string();
        let pairs = match (self.paired, self.tile.swapped) {
            (false, _) => (0..columns).map(|c| (c, format!("sums[{c}]"))).collect(),
            (true, false) => (0..columns).step_by(2).map(|c| (c, pair(c, c + 1))).collect(),
            (true, true) => (0..columns).map(|c| (c, pair(c, c + columns))).collect::<Vec<_>>(),
        };
        for (c, sums) in pairs {
            put(&mut text, format_args!("    finish_inside(batch, row, column + {c}u, {sums});"));
        }
        text + "}\n"
    }

    /// Rows whose sums are finished together.
    fn rows_together(&self) -> usize {
        if self.paired && self.tile.swapped { 2 } else { 1 }
    }

    fn x_parts(&self) -> usize {
        let lanes = if self.tile.broadcast { self.tile.lanes } else { 1 };
        self.tile.rows.div_ceil(lanes * self.x.outer_length())
    }

    fn y_parts(&self) -> usize {
        self.tile.columns.div_ceil(self.y.outer_length())
    }
}

impl<'a> Side<'a> {
    /// The loads of a factor of which a lane takes up to `outer` rows or columns for one k, or
    /// fewer, but then for `spread` times as many k. A uniform buffer is vectors or nothing:
    /// a component that is computed goes through memory.
    fn new(tile: &Lanes, matrix: &'a Matrix, (outer, spread): (usize, usize)) -> Self {
        if !matrix.plain && matrix.vectors() as u64 * 16 <= tile.uniform_bytes {
            let spreads = matrix.inner.is_multiple_of(spread) && spread <= tile.step;
            let most_outer = if spreads && spread > 1 { 4 } else { outer.min(4) };
            let load = matrix.load(tile.step.min(4), most_outer);
            let spread = if matches!(load, Load::Outer(_)) && spreads { spread } else { 1 };
            if let Load::Inner(4) | Load::Outer(4) = load {
                return Side { matrix, load, wide: false, uniform: true, spread };
            }
        }
        let most = match (matrix.plain, tile.wide) {
            (true, _) => 1,
            (false, true) => 8,
            (false, false) => 4,
        };
        let load = matrix.load(most.min(tile.step), most.min(outer));
        Side { matrix, load, wide: tile.wide, uniform: false, spread: 1 }
    }

    /// How many k one load takes, in all lanes together.
    fn block(&self) -> usize {
        if let Load::Inner(length) = self.load { length } else { self.spread }
    }

    /// How the factor is bound, unless its elements are loaded one by one.
    fn factor(&self) -> Option<Factor> {
        let vectors = self.matrix.vectors();
        let (space, array, uniform_bytes) = match self.uniform {
            true => {
                let word = if self.matrix.half { "u32" } else { "f32" };
                ("uniform", format!("array<vec4<{word}>, {vectors}>"), 16 * vectors as u64)
            }
            false => ("storage, read", format!("array<{}>", self.element()), 0),
        };
        (self.length() > 1).then_some(Factor { space, array, uniform_bytes })
    }

    fn element(&self) -> &'static str {
        match (self.matrix.half, self.wide, self.length()) {
            (true, _, 2) => "u32",
            (true, false, _) => "vec2<u32>",
            (true, true, 4) => "u64",
            (true, true, _) => "vec2<u64>",
            (false, false, 2) => "vec2<f32>",
            (false, false, _) => "vec4<f32>",
            (false, true, 2) => "u64",
            (false, true, 4) => "vec2<u64>",
            (false, true, _) => "vec4<u64>",
        }
    }

    /// Elements of a load.
    pub fn length(&self) -> usize {
        match self.load {
            Load::One => 1,
            Load::Inner(length) | Load::Outer(length) => length,
        }
    }

    fn outer_length(&self) -> usize {
        if let Load::Outer(length) = self.load { length } else { 1 }
    }

    /// Position, in loads, of what starts at index `outer` of the kept dimension.
    fn start(&self, base: &str, outer: &str) -> String {
        let last = self.matrix.outer - self.outer_length();
        let stride = self.matrix.outer_stride;
        format!("({base} + min({outer}, {last}u) * {stride}u) / {}u", self.length())
    }

    /// Loads a part for `count` k from number `from`, into variables with the names of the factor,
    /// the part, the number of k and the number along the kept dimension.
    fn loads(&self, text: &mut String, name: &str, part: usize, from: usize, count: usize) {
        let read = self.matrix.read;
        let start = format!("at.{name}{part}");
        for j in (from..from + count).step_by(self.block()) {
            let offset = match self.load {
                Load::One => format!("(k + {j}u) * {}u", self.matrix.inner_stride),
                Load::Inner(length) => format!("k / {length}u + {}u", j / length),
                Load::Outer(length) => {
                    format!("(k + {j}u) * {}u", self.matrix.inner_stride / length)
                }
            };
            let value = format!("{name}{part}_{j}");
            let at = format!("{start} + {offset}");
            let load = if self.length() == 1 {
                format!("r{read}_one_at({at})")
            } else if self.uniform && self.matrix.half {
                format!("half_of(r{read}[({at}) / 2u], {at})")
            } else {
                format!("r{read}[{at}]")
            };
            put(text, format_args!("    let {value} = {load};"));
            for i in 0..self.length() {
                let (j, i_outer) = match self.load {
                    Load::Inner(_) => (j + i, 0),
                    _ => (j, i),
                };
                let element = self.element_of(&value, i);
                put(text, format_args!("    let {name}{part}_{j}_{i_outer} = {element};"));
            }
        }
    }

    /// The `i`-th element of a load.
    fn element_of(&self, value: &str, i: usize) -> String {
        let component = |i: usize| ["x", "y", "z", "w"][i];
        let half = if i.is_multiple_of(2) { "low" } else { "high" };
        match (self.length(), self.wide) {
            (1, _) => value.into(),
            _ if self.matrix.half => {
                format!("unpack2x16float({}).{}", self.word_of(value, i / 2), component(i % 2))
            }
            (2, true) => format!("{half}({value})"),
            (_, true) => format!("{half}({value}.{})", component(i / 2)),
            (_, false) => format!("{value}.{}", component(i)),
        }
    }

    /// The `i`-th word of a load of halves.
    fn word_of(&self, value: &str, i: usize) -> String {
        let component = |i: usize| ["x", "y"][i];
        let shift = if i.is_multiple_of(2) { "" } else { " >> 32u" };
        match (self.length(), self.wide) {
            (2, _) => value.into(),
            (_, false) => format!("{value}.{}", component(i)),
            (4, true) => format!("u32({value}{shift})"),
            (_, true) => format!("u32({value}.{}{shift})", component(i / 2)),
        }
    }
}

fn pair(first: usize, second: usize) -> String {
    format!("vec2(sums[{first}], sums[{second}])")
}

/// Adds a line.
pub(super) fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes any text");
}
