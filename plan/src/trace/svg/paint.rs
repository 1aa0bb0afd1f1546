//! The colours of a picture.
//!
//! Those of bars are the medium-contrast scheme of Paul Tol ("Colour Schemes", technical note
//! SRON/EPS/TN/09-002, issue 3.2, 2021): colour-blind readers tell them apart, and, since no two
//! are equally light, so does a reader of a black and white print.

use crate::trace::Label;

/// How a kind of bar is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    /// The kind: `F`, `B`, `W`, `BW`, `U` for an update or `T` for a transfer.
    pub class: &'static str,
    /// What that stands for.
    pub meaning: &'static str,
    /// Colour of the bar, as `#RRGGBB`.
    pub fill: &'static str,
    /// Colour of what is written on it.
    pub ink: &'static str,
}

/// The colours of all kinds of bars, on light and on dark pages.
pub const PAINTS: [Paint; 6] = [
    Paint { class: "F", meaning: "forward", fill: "#6699CC", ink: "#000000" },
    Paint { class: "B", meaning: "input gradient", fill: "#EECC66", ink: "#000000" },
    Paint { class: "W", meaning: "weight gradient", fill: "#EE99AA", ink: "#000000" },
    Paint { class: "BW", meaning: "full backward", fill: "#997700", ink: "#000000" },
    Paint { class: "U", meaning: "optimizer update", fill: "#004488", ink: "#FFFFFF" },
    Paint { class: "T", meaning: "transfer", fill: "#994455", ink: "#FFFFFF" },
];

pub(super) const LIGHT: Page =
    Page { paper: "#FFFFFF", text: "#1F2328", muted: "#59636E", idle: "#E9ECEF", line: "#C9D1D9" };
pub(super) const DARK: Page =
    Page { paper: "#0D1117", text: "#F0F6FC", muted: "#9198A1", idle: "#21262D", line: "#3D444D" };

/// What is not a bar.
pub(super) struct Page {
    pub(super) paper: &'static str,
    pub(super) text: &'static str,
    pub(super) muted: &'static str,
    pub(super) idle: &'static str,
    pub(super) line: &'static str,
}

/// The class of a bar.
pub(super) fn class(label: Label) -> &'static str {
    match label {
        Label::Action(action) => action.letters(),
        Label::Update => "U",
        Label::Transfer | Label::Parcel { .. } => "T",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance (WCAG 2.2) of `#RRGGBB`.
    fn luminance(colour: &str) -> f64 {
        let channel = |at: usize| {
            let value = u8::from_str_radix(&colour[at..at + 2], 16).unwrap();
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    /// Contrast ratio (WCAG 2.2), from 1 to 21.
    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn no_two_fills_are_equally_light() {
        for page in [&LIGHT, &DARK] {
            let mut fills: Vec<&str> = PAINTS.iter().map(|paint| paint.fill).collect();
            fills.push(page.idle);
            for (position, a) in fills.iter().enumerate() {
                for b in &fills[..position] {
                    assert!(contrast(a, b) >= 1.3, "{a} {b}: {}", contrast(a, b));
                }
            }
        }
    }

    #[test]
    fn letters_can_be_read() {
        for Paint { fill, ink, .. } in &PAINTS {
            assert!(contrast(fill, ink) >= 4.5, "{ink} on {fill}");
        }
        for Page { paper, text, muted, .. } in [&LIGHT, &DARK] {
            assert!(contrast(paper, text) >= 4.5 && contrast(paper, muted) >= 4.5);
        }
    }
}
