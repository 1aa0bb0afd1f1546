//! How far two trained modules are apart.

#[path = "values.rs"]
pub mod values;

use burn::module::Module;

use values::values;

/// Every parameter is within `tolerance` of the expected one, as a fraction of its norm.
#[track_caller]
pub fn assert_close<M: Module>(ours: &M, expected: &M, tolerance: f64) {
    let (ours, expected) = (values(ours), values(expected));
    assert_eq!(ours.len(), expected.len(), "as many parameters");
    for (at, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
        let norm = |values: &mut dyn Iterator<Item = f32>| {
            values.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
        };
        let distance = norm(&mut ours.iter().zip(expected).map(|(a, b)| a - b));
        let size = norm(&mut expected.iter().copied());
        assert!(distance <= tolerance * size, "parameter {at}: {distance} of {size}");
    }
}
