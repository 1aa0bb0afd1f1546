//! The head of `shaders/matmul_shared.wgsl`: tiles of both factors in shared memory.

use super::Shared;
use super::lanes::put;
use super::matrix::Matrix;
use crate::engine::wgpu::shader::bindings::position;

/// Number of workgroups.
pub(super) fn groups(tile: &Shared, x: &Matrix, y: &Matrix) -> usize {
    let [rows, columns] = along(tile, x, y);
    x.batch.elements() * rows * columns
}

/// Everything that `shaders/matmul_shared.wgsl` names, but for the bindings, `index` and `finish`.
pub(super) fn head(tile: &Shared, x: &Matrix, y: &Matrix) -> String {
    let [rows, columns] = along(tile, x, y);
    let consts = [
        ("M", x.outer),
        ("N", y.outer),
        ("K", x.inner),
        ("ROWS", tile.rows),
        ("COLUMNS", tile.columns),
        ("THREADS_M", tile.threads[0]),
        ("THREADS_N", tile.threads[1]),
        ("TILE_K", tile.step),
        ("GROUPS_M", rows),
        ("GROUPS_N", columns),
    ];
    let mut head = String::new();
    for (name, value) in consts {
        put(&mut head, format_args!("const {name}: u32 = {value}u;"));
    }
    for (name, matrix, [first, second]) in [("x", x, ["outer", "k"]), ("y", y, ["k", "outer"])] {
        let upper = name.to_uppercase();
        let along = matrix.inner_stride == 1;
        put(&mut head, format_args!("const {upper}_ALONG_K: bool = {along};"));
        let start = position(&matrix.batch, "batch");
        put(&mut head, format_args!("fn {name}_start(batch: u32) -> u32 {{ return {start}; }}"));
        let Matrix { read, outer_stride, inner_stride, .. } = matrix;
        let of = format!("start + outer * {outer_stride}u + k * {inner_stride}u");
        put(
            &mut head,
            format_args!(
                "fn {name}_at(start: u32, {first}: u32, {second}: u32) -> f32 {{\n    \
                 return r{read}_one_at({of});\n}}"
            ),
        );
    }
    head
}

/// Workgroups along the rows and columns.
fn along(tile: &Shared, x: &Matrix, y: &Matrix) -> [usize; 2] {
    let [m, n] = tile.threads;
    [x.outer.div_ceil(tile.rows * m), y.outer.div_ceil(tile.columns * n)]
}
