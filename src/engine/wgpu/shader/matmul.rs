//! Products of matrices to WGSL. Whatever the tile, an element of the output is one chain of `fma`
//! over ascending k that starts from 0, so that tiles never change a bit.

mod epilogue;
mod lanes;
mod matrix;
mod shared;
mod tiles;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::epilogue::Epilogue;
use self::lanes::Tiling;
use self::matrix::Matrix;
pub use self::tiles::tiles;
use super::Shader;
use super::bindings::{Loads, grid};
use super::chain::is_read;
use crate::engine::wgpu::element::Element;
use crate::engine::wgpu::kernel::{Body, Chain, Kernel};

/// How a product is cut into workgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Tile {
    /// One subgroup per workgroup, sums in registers, no shared memory.
    Lanes(Lanes),
    /// Tiles of both factors in shared memory.
    Shared(Shared),
}

impl Tile {
    /// The tile whose shader is compiled fastest: what bounds checks are used with.
    pub const SMALL: Self = Self::Lanes(Lanes {
        rows: 4,
        columns: 1,
        step: 1,
        lanes: 8,
        broadcast: false,
        wide: false,
        swapped: false,
        uniform_bytes: 0,
    });
}

/// A tile of `shaders/matmul.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lanes {
    /// Rows of a workgroup; a multiple of `lanes` where it broadcasts.
    pub rows: usize,
    /// Columns of one lane; a power of two.
    pub columns: usize,
    /// Most k that are unrolled: 1, 2, 4 or 8.
    pub step: usize,
    /// Threads of a workgroup.
    pub lanes: usize,
    /// Whether each lane loads other rows and hands them to all: needs subgroups of `lanes`.
    pub broadcast: bool,
    /// Whether elements are loaded as halves of 64-bit integers: needs those.
    pub wide: bool,
    /// Whether lanes differ in rows of the output instead of columns.
    pub swapped: bool,
    /// Most bytes of a factor that is read as a uniform buffer, where vectors of it fit; 0 where
    /// none is.
    pub uniform_bytes: u64,
}

/// A tile of `shaders/matmul_shared.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shared {
    /// Rows of a thread.
    pub rows: usize,
    /// Columns of a thread.
    pub columns: usize,
    /// Threads along the rows and along the columns.
    pub threads: [usize; 2],
    /// How many k are in shared memory at once.
    pub step: usize,
}

/// The shader of a kernel whose body is [`Body::Matmul`].
///
/// # Panics
///
/// When the body is another.
pub fn matmul(kernel: &Kernel, tile: &Tile) -> Shader {
    let [x, y] = factors(kernel);
    let (loads, head, finish, body, groups, size) = match tile {
        Tile::Lanes(lanes) => {
            let tiling = Tiling::new(lanes, &x, &y);
            let epilogue = Epilogue::new(kernel, tiling.paired);
            let in_twos = epilogue == Epilogue::Together;
            let loads = Loads::of_product(kernel, lanes.uniform_bytes, tiling.factors(), in_twos);
            let finish = epilogue.wgsl(kernel, chain(kernel));
            let body = include_str!("../../../../shaders/matmul.wgsl");
            (loads, tiling.head(), finish, body, tiling.groups(), lanes.lanes)
        }
        Tile::Shared(tile) => {
            let loads = Loads::of_product(kernel, 0, [None, None], false);
            let head = shared::head(tile, &x, &y);
            let finish = super::chain::finish(kernel, chain(kernel));
            let body = include_str!("../../../../shaders/matmul_shared.wgsl");
            let threads = tile.threads.iter().product();
            (loads, head, finish, body, shared::groups(tile, &x, &y), threads)
        }
    };
    let grid = grid(groups * size, size);
    let exact = grid.workgroups.iter().map(|&size| size as usize).product::<usize>() == groups;
    let grid_head = format!("const GROUPS: u32 = {groups}u;\nconst EXACT: bool = {exact};\n");
    let index = index(x.outer, y.outer, tile);
    Shader {
        label: label(kernel, tile),
        source: [&loads.head, &head, &grid_head, &grid.wgsl(), &index, &finish, body].concat(),
        workgroups: grid.workgroups,
        uniforms: loads.uniforms,
    }
}

/// `index`: the tile's rows are the output's, or its columns where it is swapped.
fn index(m: usize, n: usize, tile: &Tile) -> String {
    let swapped = matches!(tile, Tile::Lanes(Lanes { swapped: true, .. }));
    let [row, column] = if swapped { ["column", "row"] } else { ["row", "column"] };
    format!(
        "fn index(batch: u32, row: u32, column: u32) -> u32 {{\n    \
         return (batch * {m}u + {row}) * {n}u + {column};\n}}\n"
    )
}

fn label(kernel: &Kernel, tile: &Tile) -> String {
    let shape = |read: usize| {
        let sizes = kernel.reads[read].view.shape.iter().map(usize::to_string);
        sizes.collect::<Vec<_>>().join("x")
    };
    format!("matmul {} {} {tile}", shape(0), shape(1))
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tile::Lanes(lanes) => {
                let Lanes { rows, columns, step, lanes: by, .. } = lanes;
                write!(f, "lanes {rows}x{columns} by {by} step {step}")?;
                let flags = [
                    (lanes.broadcast, "broadcast"),
                    (lanes.wide, "wide"),
                    (lanes.swapped, "swapped"),
                    (lanes.uniform_bytes > 0, "uniform"),
                ];
                let set = flags.iter().filter(|flag| flag.0);
                set.into_iter().try_for_each(|flag| write!(f, " {}", flag.1))
            }
            Tile::Shared(Shared { rows, columns, threads: [m, n], step }) => {
                write!(f, "shared {rows}x{columns} by {m}x{n} step {step}")
            }
        }
    }
}

fn chain(kernel: &Kernel) -> &Chain {
    let Body::Matmul(chain) = &kernel.body else { panic!("no product: {:?}", kernel.body) };
    chain
}

fn factors(kernel: &Kernel) -> [Matrix; 2] {
    let chain = chain(kernel);
    let [x, y] = [&kernel.reads[0], &kernel.reads[1]];
    let matrix = |read: usize, matrix: Matrix| Matrix {
        half: kernel.reads[read].element == Element::F16,
        plain: is_read(chain, read),
        ..matrix
    };
    [matrix(0, Matrix::x(&x.view)), matrix(1, Matrix::y(&y.view))]
}
