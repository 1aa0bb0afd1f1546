//! Plans at other costs than F = B = W are at or below the orders that others have published.

use zerobubble_plan::{Costs, TransferCost, Transfers, V_HALF, simulate};

use super::Case;

/// p, m, F B W of a device, transfer, and the step bubble in percent that the order of the public
/// implementation of V-Half (Qi et al. 2024) has at these, by this simulator.
type Row = (u32, u32, [f64; 3], f64, f64);

/// The first three are costs that were measured.
const V_HALF_PUBLISHED: &[Row] = &[
    (8, 24, [9918.0, 10434.0, 7038.0], 213.0, 14.56),
    (16, 48, [28814.0, 28760.0, 19352.0], 1610.0, 18.47),
    (4, 12, [2.0, 2.4, 1.6], 0.0, 9.77),
    (2, 2, [1.0, 1.05, 0.71], 0.02, 25.25),
    (2, 2, [1.0, 0.8, 0.5], 0.3, 40.65),
    (2, 4, [1.0, 1.2, 0.8], 0.1, 11.11),
    (2, 4, [1.0, 1.5, 0.6], 0.0, 10.47),
    (2, 8, [1.0, 2.0, 1.0], 0.06, 13.42),
    (2, 8, [1.0, 1.05, 0.71], 0.02, 3.66),
    (3, 6, [1.0, 0.8, 0.5], 0.3, 38.12),
    (3, 6, [1.0, 1.2, 0.8], 0.1, 20.35),
    (3, 12, [1.0, 1.5, 0.6], 0.0, 14.68),
    (3, 12, [1.0, 2.0, 1.0], 0.06, 19.73),
    (4, 4, [1.0, 1.05, 0.71], 0.02, 34.67),
    (4, 4, [1.0, 0.8, 0.5], 0.3, 51.71),
    (4, 8, [1.0, 1.2, 0.8], 0.1, 19.46),
    (4, 8, [1.0, 1.5, 0.6], 0.0, 20.77),
    (5, 5, [1.0, 2.0, 1.0], 0.06, 47.78),
    (5, 5, [1.0, 1.05, 0.71], 0.02, 39.15),
    (5, 15, [1.0, 0.8, 0.5], 0.3, 38.34),
    (5, 15, [1.0, 1.2, 0.8], 0.1, 17.88),
    (6, 9, [1.0, 1.5, 0.6], 0.0, 29.01),
    (6, 9, [1.0, 2.0, 1.0], 0.06, 32.43),
    (7, 14, [1.0, 1.05, 0.71], 0.02, 21.73),
    (7, 14, [1.0, 0.8, 0.5], 0.3, 45.75),
    (8, 8, [1.0, 1.2, 0.8], 0.1, 41.32),
    (8, 8, [1.0, 1.5, 0.6], 0.0, 41.51),
    (8, 12, [1.0, 2.0, 1.0], 0.06, 34.46),
    (8, 12, [1.0, 1.05, 0.71], 0.02, 25.29),
    (8, 32, [1.0, 0.8, 0.5], 0.3, 37.15),
    (8, 32, [1.0, 1.2, 0.8], 0.1, 14.21),
    (9, 27, [1.0, 1.5, 0.6], 0.0, 22.07),
    (9, 27, [1.0, 2.0, 1.0], 0.06, 26.98),
    (10, 20, [1.0, 1.05, 0.71], 0.02, 21.40),
    (10, 20, [1.0, 0.8, 0.5], 0.3, 46.45),
    (11, 12, [1.0, 1.2, 0.8], 0.1, 41.94),
    (11, 12, [1.0, 1.5, 0.6], 0.0, 41.69),
    (12, 36, [1.0, 2.0, 1.0], 0.06, 26.84),
    (12, 36, [1.0, 1.05, 0.71], 0.02, 15.84),
    (13, 13, [1.0, 0.8, 0.5], 0.3, 64.91),
    (13, 13, [1.0, 1.2, 0.8], 0.1, 50.94),
    (16, 16, [1.0, 1.5, 0.6], 0.0, 45.52),
    (16, 16, [1.0, 2.0, 1.0], 0.06, 48.21),
    (16, 64, [1.0, 1.05, 0.71], 0.02, 12.88),
    (16, 64, [1.0, 0.8, 0.5], 0.3, 39.29),
    (24, 24, [1.0, 1.2, 0.8], 0.1, 47.86),
    (24, 24, [1.0, 1.5, 0.6], 0.0, 47.53),
    (24, 48, [1.0, 2.0, 1.0], 0.06, 33.76),
    (24, 48, [1.0, 1.05, 0.71], 0.02, 23.65),
    (32, 32, [1.0, 0.8, 0.5], 0.3, 64.11),
    (32, 32, [1.0, 1.2, 0.8], 0.1, 48.66),
    (32, 48, [1.0, 1.5, 0.6], 0.0, 35.40),
    (32, 48, [1.0, 2.0, 1.0], 0.06, 39.00),
];

/// Every device spends `work` on a microbatch, and every transfer takes `transfer`.
fn costs(case: Case, work: [f64; 3], transfer: f64) -> Costs {
    let [f, b, w] = work;
    let mut costs = case.costs(f, b, w);
    costs.transfers = Transfers::uniform(TransferCost::of_any_size(transfer));
    costs
}

#[test]
fn v_half_idles_no_longer_than_the_published_order_and_stashes_no_more() {
    for &(p, m, work, transfer, published) in V_HALF_PUBLISHED {
        let case = Case { family: &V_HALF, p, v: 2, m };
        let found = simulate(&case.plan(), &costs(case, work, transfer)).unwrap();
        let step = 100.0 * found.bubble.step;
        // The table has two decimals.
        assert!(step < published + 0.005, "{case} at {work:?} {transfer}: {step} > {published}");
        let most = f64::from((p + 2) / 2);
        assert!(found.memory.iter().all(|device| device.peak_stash <= most), "{case}");
    }
}
