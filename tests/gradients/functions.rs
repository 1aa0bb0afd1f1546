//! Rows of less common functions of one or two numbers, and of integers.

use burn::tensor::{Int, Tensor};

use super::{Row, broadcast, check_all, same};

#[test]
fn trigonometric_functions() {
    let rows = [
        Row("tan", -1.2, 1.2, |[x, ..]| x.tan()),
        Row("asin", -0.9, 0.9, |[x, ..]| x.asin()),
        Row("acos", -0.9, 0.9, |[x, ..]| x.acos()),
        Row("atan", -4.0, 4.0, |[x, ..]| x.atan()),
        Row("sinh", -3.0, 3.0, |[x, ..]| x.sinh()),
        Row("cosh", -3.0, 3.0, |[x, ..]| x.cosh()),
        Row("asinh", -4.0, 4.0, |[x, ..]| x.asinh()),
        Row("acosh", 1.2, 4.0, |[x, ..]| x.acosh()),
        Row("atanh", -0.9, 0.9, |[x, ..]| x.atanh()),
    ];
    check_all(&rows, 16, same());
}

#[test]
fn rounding_and_what_is_no_number() {
    let rows = [
        Row("round", -3.0, 3.0, |[x, y, _]| x.clone().round() * y + x),
        Row("ceil", -3.0, 3.0, |[x, y, _]| x.clone().ceil() * y + x),
        Row("trunc", -3.0, 3.0, |[x, y, _]| x.clone().trunc() * y + x),
        Row("round halves", -4.0, 4.0, |[x, y, _]| (x.round() / 2.0).round() * y),
        Row("is_nan", -2.0, 2.0, |[x, y, z]| y.mask_fill(x.log().is_nan(), 0.5) * z),
        Row("is_inf", -2.0, 2.0, |[x, y, z]| y.mask_fill(x.sign().log().is_inf(), 0.5) * z),
        Row("small log1p", -1e-4, 1e-4, |[x, ..]| x.log1p() * 1e4),
    ];
    check_all(&rows, 16, same());
}

#[test]
fn functions_of_two_tensors_broadcast() {
    let rows = [
        Row("powf", 0.4, 2.0, |[x, y, _]| x.powf(y)),
        Row("powi", 0.4, 2.0, |[x, y, _]| x.powi((y * 2.0).floor())),
        Row("atan2", -2.0, 2.0, |[x, y, _]| x.atan2(y + 0.01)),
        Row("hypot", 0.2, 2.0, |[x, y, _]| x.hypot(-y)),
        Row("remainder", 0.4, 4.0, |[x, y, _]| x.remainder(-y)),
        Row("fmod", 0.4, 4.0, |[x, y, _]| x.fmod(y)),
    ];
    check_all(&rows, 24, broadcast());
}

#[test]
fn remainders_by_a_number() {
    let rows = [
        Row("remainder", -4.0, 4.0, |[x, ..]| x.remainder_scalar(0.7)),
        Row("remainder by less than zero", -4.0, 4.0, |[x, ..]| x.remainder_scalar(-0.7)),
        Row("fmod", -4.0, 4.0, |[x, ..]| x.fmod_scalar(0.7)),
    ];
    check_all(&rows, 16, same());
}

#[test]
fn cross_products() {
    let rows = [
        Row("first axis", -2.0, 2.0, |[x, y, z]| {
            let [x, y, z] = [x, y, z].map(|x| x.narrow(0, 0, 1));
            let first = Tensor::cat(vec![x.clone(), y.clone() + 1.0, z.clone()], 0);
            first.cross(Tensor::cat(vec![y, z, x - 1.0], 0), 0)
        }),
        Row("last axis", -2.0, 2.0, |[x, y, z]| {
            let [x, y, z] = [x, y, z].map(|x| x.narrow(2, 0, 1));
            let first = Tensor::cat(vec![x.clone(), y.clone() + 1.0, z.clone()], 2);
            first.cross(Tensor::cat(vec![y, z, x - 1.0], 2), 2)
        }),
    ];
    check_all(&rows, 8, same());
}

/// Integers from -9 to 9 that depend on the operand.
fn ints(x: &Tensor<3>) -> Tensor<3, Int> {
    (x.clone() * 3.0).int()
}

#[test]
fn integers() {
    let rows = [
        Row("arithmetic", -3.0, 3.0, |[x, y, z]| {
            let (a, b) = (ints(&x), ints(&y).abs() + 1);
            let quotients = a.clone() / b.clone() + a.clone() / 2 - a.clone() / -4;
            let rests = a.clone().remainder(b.clone()) + a.clone().remainder(-b.clone());
            let more = a.clone().remainder_scalar(3) * 5 + a.remainder_scalar(-3).powi(b % 4);
            (quotients * 7 + rests * 3 + more).float() * z
        }),
        Row("limits", -3.0, 3.0, |[x, y, z]| {
            let a = ints(&x).clamp(-4, 5).clamp_min(-3).clamp_max(4) * ints(&y).sign();
            a.float() * z
        }),
        Row("bits", -3.0, 3.0, |[x, y, z]| {
            let (a, b) = (ints(&x), ints(&y));
            let two = a.clone().bitwise_and(b.clone()) + a.clone().bitwise_or(b.clone()) * 3;
            let two = two + a.clone().bitwise_xor(b.clone()) * 5 + b.clone().bitwise_not() * 2;
            let one = a.clone().bitwise_and_scalar(6) + a.clone().bitwise_or_scalar(-4) * 3;
            let one = one + a.clone().bitwise_xor_scalar(5) * 7;
            let by = b.abs().bitwise_and_scalar(3);
            let shifted =
                a.clone().bitwise_left_shift(by.clone()) + a.clone().bitwise_right_shift(by);
            let more = a.clone().bitwise_left_shift_scalar(2) - a.bitwise_right_shift_scalar(1);
            (two + one + shifted + more).float() * z
        }),
        Row("sums", -3.0, 3.0, |[x, y, z]| {
            let (a, b) = (ints(&x), ints(&y));
            let sums = a.clone().sum_dim(0) + b.clone().sum_dims(&[1, 2]) * a.clone().cumsum(1);
            let means = b.clone().mean_dim(2) * 3 + a.clone().mean().reshape([1, 1, 1]);
            let all = a.clone().sum().reshape([1, 1, 1]) + b.clamp(-1, 1).prod_dim(1);
            (sums + means + all + a.clamp(0, 1).cumprod(2)).float() * z
        }),
        Row("extremes", -3.0, 3.0, |[x, y, z]| {
            let (a, b) = (ints(&x), ints(&y));
            let places = a.clone().argmax(2).float() + b.clone().argmin(1).float();
            let most = a.clone().max_dim(0) + b.clone().min_dim(1) * 3;
            let most = most + a.clone().cummax(1) * 5 - b.clone().cummin(2);
            let all = a.clone().max().reshape([1, 1, 1]) * b.clone().min().reshape([1, 1, 1]);
            let sizes = a.max_abs_dim(2) * b.clone().max_abs().reshape([1, 1, 1]);
            let all = (most + all + sizes + b.sort_descending(1)).float();
            (all + places) * z
        }),
        Row("matmul", -3.0, 3.0, |[x, y, z]| {
            let product = ints(&x).matmul(ints(&y).swap_dims(1, 2));
            product.sum_dim(2).float() * z
        }),
    ];
    check_all(&rows, 16, same());
}

#[test]
fn any_and_all() {
    let rows = [
        Row("of bools", -2.0, 2.0, |[x, y, z]| {
            let (x, y) = (x.greater_scalar(-1.0), y.greater_scalar(1.0));
            let each = x.clone().all_dim(1).float() + y.clone().any_dim(2).float() * 3.0;
            let whole = x.all().float() + y.any().float() * 3.0;
            (each + whole.reshape([1, 1, 1])) * z
        }),
        Row("of floats", -2.0, 2.0, |[x, y, z]| {
            let (x, y) = (x.clamp_min(-1.0) + 1.0, y.clamp_min(1.0) - 1.0);
            let each = x.clone().all_dim(1).float() + y.clone().any_dim(2).float() * 3.0;
            let whole = x.all().float() + y.any().float() * 3.0;
            (each + whole.reshape([1, 1, 1])) * z
        }),
        Row("of integers", -2.0, 2.0, |[x, y, z]| {
            let (x, y) = (x.int(), (y / 2.0).int());
            let each = x.clone().all_dim(0).float() + y.clone().any_dim(1).float() * 3.0;
            let whole = x.all().float() + y.any().float() * 3.0;
            (each + whole.reshape([1, 1, 1])) * z
        }),
    ];
    check_all(&rows, 16, same());
}
