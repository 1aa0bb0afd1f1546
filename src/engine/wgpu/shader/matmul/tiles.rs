//! Which tiles there are for a product, and which is likely the best.

use super::lanes::{Side, Tiling};
use super::matrix::Matrix;
use super::{Lanes, Shared, Tile, factors, shared};
use crate::engine::wgpu::kernel::Kernel;
use crate::engine::wgpu::shader::Abilities;

/// Products from which on a faster tile makes up for a longer compilation.
const LARGE: f64 = (1 << 22) as f64;
/// Workgroups that keep every GPU busy.
const BUSY: usize = 128;

/// A few tiles for a product that may be tried on an adapter, the one to use without a measurement
/// first. To try one takes a CPU about a second, for its compiler more than for the product.
///
/// # Panics
///
/// When the kernel is no product.
pub fn tiles(kernel: &Kernel, abilities: &Abilities) -> Vec<Tile> {
    let factors = factors(kernel);
    let most = if abilities.cpu { 3 } else { 6 };
    let mut costs: Vec<(f64, Tile)> = if abilities.cpu {
        let all = lane_tiles(abilities, &factors).into_iter();
        all.map(|tile| (lane_cost(&tile, &factors), Tile::Lanes(tile))).collect()
    } else {
        let all = shared_tiles().into_iter();
        all.map(|tile| (shared_cost(&tile, &factors), Tile::Shared(tile))).collect()
    };
    costs.sort_by(|a, b| a.0.total_cmp(&b.0));
    costs.into_iter().take(most).map(|(_, tile)| tile).collect()
}

fn lane_tiles(abilities: &Abilities, factors: &[Matrix; 2]) -> Vec<Lanes> {
    let lanes = abilities.subgroup.unwrap_or(8);
    let mut tiles = Vec::new();
    for rows in [8, 16, 32, 64] {
        for columns in [1, 2, 4, 8] {
            // Code that does not fit into the instruction cache is slower than shorter steps.
            let step = if rows * columns <= 128 { 8 } else { 4 };
            for swapped in [false, true] {
                let broadcast = abilities.subgroup.is_some_and(|lanes| rows % lanes == 0);
                let wide = abilities.wide;
                let uniform_bytes = abilities.uniform_bytes;
                let mut tile =
                    Lanes { rows, columns, step, lanes, broadcast, wide, swapped, uniform_bytes };
                // Longer steps only take longer to compile where vectors have four elements.
                if tiling(&tile, factors).is_uniform() {
                    tile.step = 4;
                }
                tiles.push(tile);
            }
        }
    }
    tiles
}

fn tiling<'a>(tile: &'a Lanes, [x, y]: &'a [Matrix; 2]) -> Tiling<'a> {
    Tiling::new(tile, x, y)
}

/// Cycles of llvmpipe, as measured. To load an element into one lane takes 25, or half of that as
/// half of a 64-bit integer, a quarter as a quarter, or 3 from a uniform buffer; to add the
/// products of all lanes takes 3, or more where most sums are not in registers. Tiles of many sums
/// take long to compile.
fn lane_cost(tile: &Lanes, factors: &[Matrix; 2]) -> f64 {
    let tiling = tiling(tile, factors);
    let lanes = tile.lanes as f64;
    let shared_by = if tile.broadcast { lanes } else { 1.0 };
    let load = |side: &Side| match side.length() {
        _ if side.uniform => 3.0,
        4.. if tile.wide && side.matrix.half => 6.3,
        2.. if tile.wide || side.matrix.half => 12.5,
        _ => 25.0,
    };
    let x_loads = tile.rows as f64 * lanes / shared_by * load(&tiling.x);
    let y_loads = tile.columns as f64 * lanes * load(&tiling.y);
    let sums = (tile.rows * tile.columns) as f64;
    let (x, y) = (tiling.x.matrix, tiling.y.matrix);
    let products = (x.outer * y.outer * x.inner * x.batch.elements()) as f64;
    let (product, compiled) = match tiling.is_uniform() {
        true => (if sums > 64.0 { 3.6 } else { 3.0 }, 1.0 + sums / 1000.0),
        false => (3.0, if sums > 256.0 && products < LARGE { 1.3 } else { 1.0 }),
    };
    let each_k = x_loads + y_loads + product * sums;
    let end = sums * lanes * 15.0;
    tiling.groups() as f64 * (each_k * x.inner as f64 + end) * compiled
}

fn shared_tiles() -> Vec<Shared> {
    let tile = |rows, columns, threads| Shared { rows, columns, threads, step: 16 };
    vec![
        tile(8, 4, [16, 16]),
        tile(4, 4, [16, 16]),
        tile(4, 4, [8, 8]),
        tile(2, 2, [16, 16]),
        tile(1, 4, [8, 32]),
        tile(4, 1, [32, 8]),
    ]
}

/// What a GPU loads and computes, with what lies beyond the edges, over how much of it is busy.
fn shared_cost(tile: &Shared, [x, y]: &[Matrix; 2]) -> f64 {
    let [m, n] = [tile.rows * tile.threads[0], tile.columns * tile.threads[1]];
    let groups = shared::groups(tile, x, y);
    let products = (groups * m * n) as f64;
    let reads = 1.0 / tile.rows as f64 + 1.0 / tile.columns as f64;
    let loads = 4.0 / m as f64 + 4.0 / n as f64;
    products * (1.0 + reads + loads) / groups.min(BUSY) as f64
}
