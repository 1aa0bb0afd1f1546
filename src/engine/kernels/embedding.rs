//! Row lookup in a table and its gradient.

use multiversion::multiversion;

/// `dst[i] = table[indices[i]]`, for `table [rows, dim]` and `dst [indices.len(), dim]`.
///
/// Panics if an index is not a row of the table.
pub fn gather_rows(dst: &mut [f32], table: &[f32], indices: &[i64], dim: usize) {
    check(table.len(), dst.len(), indices, dim);
    for (d, &index) in dst.chunks_exact_mut(dim).zip(indices) {
        let start = index as usize * dim;
        d.copy_from_slice(&table[start..start + dim]);
    }
}

/// `table[indices[i]] += rows[i]` for `i` in ascending order, with the shapes of [`gather_rows`].
///
/// Panics if an index is not a row of the table; the table is then unchanged.
#[multiversion(targets = "simd")]
pub fn scatter_add_rows(table: &mut [f32], rows: &[f32], indices: &[i64], dim: usize) {
    check(table.len(), rows.len(), indices, dim);
    for (row, &index) in rows.chunks_exact(dim).zip(indices) {
        let start = index as usize * dim;
        let target = &mut table[start..start + dim];
        for (t, &r) in target.iter_mut().zip(row) {
            *t += r;
        }
    }
}

fn check(table: usize, rows: usize, indices: &[i64], dim: usize) {
    assert!(dim > 0 && table.is_multiple_of(dim), "table is not whole rows of {dim}");
    assert_eq!(rows, indices.len() * dim, "one row of {dim} per index");
    let count = table / dim;
    for &index in indices {
        let valid = usize::try_from(index).is_ok_and(|index| index < count);
        assert!(valid, "index {index} is not a row of a table of {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::values;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn match_a_scalar_loop(
            dim in 1usize..40, indices in proptest::collection::vec(0i64..7, 0..20),
        ) {
            let table = values(7 * dim, 1);
            let rows = values(indices.len() * dim, 2);
            let mut gathered = vec![0.0; rows.len()];
            gather_rows(&mut gathered, &table, &indices, dim);
            let (mut scattered, mut want) = (table.clone(), table.clone());
            scatter_add_rows(&mut scattered, &rows, &indices, dim);
            for (i, &index) in indices.iter().enumerate() {
                for j in 0..dim {
                    assert_eq!(gathered[i * dim + j], table[index as usize * dim + j]);
                    want[index as usize * dim + j] += rows[i * dim + j];
                }
            }
            assert_eq!(scattered, want);
        }
    }

    #[test]
    #[should_panic(expected = "index -1 is not a row")]
    fn a_negative_index_panics() {
        gather_rows(&mut [0.0; 2], &[0.0; 4], &[-1], 2);
    }

    #[test]
    #[should_panic(expected = "index 2 is not a row")]
    fn an_index_past_the_table_panics() {
        scatter_add_rows(&mut [0.0; 4], &[0.0; 2], &[2], 2);
    }
}
