//! What a microbatch stashes on a device: after F, and what is left of it after B.

use std::str::FromStr;

use zerobubble::plan::StageBytes;

use super::values::number;

/// Numbers are read to so many parts of one, and rounded up: no limit is exceeded by rounding.
const PARTS: u64 = 1_000_000;

/// The largest of the numbers is at least this in memory's terms, so that limits, which may lie
/// between them, are hardly cut off.
const FINE: u64 = 1 << 20;

/// The most that a microbatch may stash: products with counts stay in range.
const MOST: f64 = 1e6;

/// What a microbatch stashes of a device's whole share. One chunk has its even part of it.
///
/// `plan` gives limits and peaks in the unit of the two numbers, and has memory counted in whole
/// parts of that unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stash {
    /// From F to the end of B, in parts.
    after_f: u64,
    /// From B to the end of W, in parts.
    after_b: u64,
    /// How many parts are one.
    one: u64,
}

impl Stash {
    /// In as many parts as equal ratios have in common, so that they are planned alike.
    fn new(after_f: u64, after_b: u64, one: u64) -> Self {
        let common = common_divisor(common_divisor(after_f, after_b), one);
        let largest = after_f.max(after_b).max(one) / common;
        let times = (FINE / largest).max(1).next_power_of_two();
        let [after_f, after_b, one] = [after_f, after_b, one].map(|of| of / common * times);
        Self { after_f, after_b, one }
    }

    /// The same where B frees nothing, if it frees something.
    pub fn freed_at_w(self) -> Option<Self> {
        let frees = self.after_b < self.after_f;
        frees.then(|| Self::new(self.after_f, self.after_f, self.one))
    }

    /// What a stage keeps that has a whole share by itself, where one part is so many bytes.
    ///
    /// B frees the difference where less is left after it; else it adds the difference.
    pub fn bytes(self, of_parts: impl Fn(u64) -> u64) -> StageBytes {
        let (after_f, after_b) = (of_parts(self.after_f), of_parts(self.after_b));
        let both = after_f.min(after_b);
        StageBytes {
            forward_for_b: after_f - both,
            forward_for_w: both,
            backward_for_w: after_b - both,
            ..StageBytes::default()
        }
    }

    /// How many parts are one.
    pub fn one(self) -> u64 {
        self.one
    }

    /// What limits and peaks are counted in: microbatches, if that is what one leaves after F.
    pub fn unit(self) -> &'static str {
        if self.after_f == self.one { "microbatches" } else { "units of --stash" }
    }
}

impl FromStr for Stash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Vec<&str> = text.split(',').collect();
        let [after_f, after_b] = numbers[..] else {
            let count = numbers.len();
            return Err(format!(
                "'{text}' has {count} numbers, AFTER_F,AFTER_B are two (try: 1,0.35)"
            ));
        };
        let above = |number: f64| number > 0.0 && number <= MOST;
        let from = |number: f64| (0.0..=MOST).contains(&number);
        let problem = |text: &str, what: &str| {
            format!(
                "'{text}' is not what a microbatch leaves after {what} up to {MOST} (try: 1,0.35)"
            )
        };
        let after_f = number(after_f, above, "").map_err(|_| problem(after_f, "F, above 0 and"))?;
        let after_b = number(after_b, from, "").map_err(|_| problem(after_b, "B, from 0"))?;
        Ok(Self::new(parts(after_f), parts(after_b), PARTS))
    }
}

/// The smallest number of parts that is no less.
fn parts(number: f64) -> u64 {
    let nearest = (number * PARTS as f64).round();
    let is_less = nearest / (PARTS as f64) < number;
    nearest as u64 + u64::from(is_less)
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness;

    fn stash(text: &str) -> Stash {
        text.parse().unwrap()
    }

    fn in_ones(text: &str) -> [f64; 2] {
        let Stash { after_f, after_b, one } = stash(text);
        [after_f, after_b].map(|parts| parts as f64 / one as f64)
    }

    #[test]
    fn numbers_are_kept_to_six_digits_and_rounded_up_beyond_them() {
        assert_eq!(in_ones("1,1"), [1.0, 1.0]);
        assert_eq!(in_ones(" 1, 0.35"), [1.0, 0.35]);
        assert_eq!(in_ones("4.35,123.456789"), [4.35, 123.456789]);
        assert_eq!(in_ones("1000000,0"), [1e6, 0.0]);
        assert_eq!(in_ones("1,0.00000001"), [1.0, 0.000001]);
        assert_eq!(in_ones("0.3333333,2"), [0.333334, 2.0]);
    }

    #[test]
    fn any_text_is_a_stash_in_range_or_an_error_that_says_why() {
        harness::run("stash", 10_000, |input| {
            match String::from_utf8_lossy(input).parse::<Stash>() {
                Ok(stash) => {
                    let Stash { after_f, after_b, one } = stash;
                    assert!(after_f > 0 && one > 0, "{stash:?}");
                    assert!(after_f.max(after_b) <= one * MOST as u64, "{stash:?}");
                    assert!(after_f.max(after_b).max(one) >= FINE / 2, "{stash:?}");
                }
                Err(error) => assert!(error.contains('\''), "{error}"),
            }
        });
    }

    #[test]
    fn equal_ratios_have_equal_parts() {
        assert_eq!(stash("1,1"), Stash { after_f: FINE, after_b: FINE, one: FINE });
        assert_eq!(stash("1,0.35").freed_at_w(), Some(stash("1,1")));
        assert_eq!(stash("20,7").freed_at_w(), Some(stash("20,20")));
        assert_eq!(stash("1,1").freed_at_w(), None);
    }

    #[test]
    fn b_frees_what_is_not_left_after_it_or_adds_what_is_more() {
        let bytes = |text: &str| {
            let bytes = stash(text).bytes(|parts| parts);
            let of = [bytes.forward_for_b, bytes.forward_for_w, bytes.backward_for_w];
            of.map(|bytes| bytes as f64 / stash(text).one() as f64)
        };
        assert_eq!(bytes("1,1"), [0.0, 1.0, 0.0]);
        assert_eq!(bytes("1,0.25"), [0.75, 0.25, 0.0]);
        assert_eq!(bytes("1,0"), [1.0, 0.0, 0.0]);
        assert_eq!(bytes("1,1.5"), [0.0, 1.0, 0.5]);
    }

    #[test]
    fn what_is_not_two_numbers_in_range_is_an_error_that_says_what_to_try() {
        let rows = [
            ("1", "'1' has 1 numbers, AFTER_F,AFTER_B are two"),
            ("1,1,1", "'1,1,1' has 3 numbers, AFTER_F,AFTER_B are two"),
            ("0,1", "'0' is not what a microbatch leaves after F, above 0 and up to 1000000"),
            ("nan,1", "'nan' is not what a microbatch leaves after F, above 0 and up to 1000000"),
            ("1,-1", "'-1' is not what a microbatch leaves after B, from 0 up to 1000000"),
            ("1,2e6", "'2e6' is not what a microbatch leaves after B, from 0 up to 1000000"),
            ("1,x", "'x' is not what a microbatch leaves after B, from 0 up to 1000000"),
        ];
        for (text, problem) in rows {
            let error = text.parse::<Stash>().unwrap_err();
            assert_eq!(error, format!("{problem} (try: 1,0.35)"));
        }
    }
}
