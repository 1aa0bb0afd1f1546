//! Timeline -> a drawing for the terminal: one lane per device, characters in proportion to time.

use super::{Label, Span, Timeline, bubble, stages};

/// Draws `timeline` with `width` characters of time, between the devices' names and shares of busy
/// time.
///
/// An action is its letter and, where it fits, its microbatch, filled up with `-`: `F2--`.
/// On a device with several stages the stage comes first: `4F2-`. A fused backward is `BW2-----`.
pub fn draw(timeline: &Timeline, width: usize) -> String {
    let bubble = bubble(timeline);
    let spans = || timeline.lanes.iter().flatten();
    let start = spans().map(|span| span.start).fold(f64::INFINITY, f64::min);
    let end = spans().map(|span| span.end).fold(f64::NEG_INFINITY, f64::max);
    let scale = Scale { start, per_column: (end - start) / width as f64, width };
    let name_width = timeline.lanes.len().saturating_sub(1).to_string().len();
    let mut drawing = String::new();
    for (device, (lane, time)) in timeline.lanes.iter().zip(&bubble.devices).enumerate() {
        let row = row(lane, scale);
        let busy = time.busy_percent();
        drawing += &format!("device {device:name_width$} |{row}| {busy:5.1}% busy\n");
    }
    drawing + &legend(timeline)
}

/// Maps time to columns. A column shows what runs at its middle.
#[derive(Clone, Copy)]
struct Scale {
    start: f64,
    per_column: f64,
    width: usize,
}

impl Scale {
    fn column(self, time: f64) -> usize {
        let column = (time - self.start) / self.per_column;
        // Ticks that rounding moved off a column's middle by an ulp must not move a character.
        ((column - 0.5 - 1e-9).ceil().max(0.0) as usize).min(self.width)
    }
}

fn row(lane: &[Span], scale: Scale) -> String {
    let several = stages(lane).len() > 1;
    let mut row = String::with_capacity(scale.width);
    for span in lane {
        let (from, to) = (scale.column(span.start), scale.column(span.end));
        row.extend(std::iter::repeat_n('.', from.saturating_sub(row.len())));
        row += &cell(span.label, several, to.saturating_sub(row.len()));
    }
    row.extend(std::iter::repeat_n('.', scale.width.saturating_sub(row.len())));
    row
}

/// The longest name of a span that leaves no doubt in `width` characters, filled up.
fn cell(label: Label, several_stages: bool, width: usize) -> String {
    let names = match label {
        Label::Action(action) => {
            let full = action.to_string();
            let stage = if several_stages { 0 } else { action.stage.to_string().len() };
            [full[stage..].to_owned(), action.letters().to_owned(), action.work.to_string()]
        }
        Label::Transfer | Label::Parcel { .. } => [">".into(), ">".into(), ">".into()],
        Label::Update => ["update".into(), "U".into(), "U".into()],
    };
    let name = names.into_iter().find(|name| name.len() <= width).unwrap_or_default();
    format!("{name:-<width$}")
}

fn legend(timeline: &Timeline) -> String {
    let has = |label| timeline.lanes.iter().flatten().any(|span| span.label == label);
    let mut legend = "F forward, B input gradient, W weight gradient".to_owned();
    if has(Label::Transfer) {
        legend += ", > transfer";
    }
    if has(Label::Update) {
        legend += ", U optimizer update";
    }
    legend + ", . idle\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A span per word of a lane: `0F0=0..1` is an action, `>=0..1` and `U=0..1` are the others.
    fn timeline(lanes: &[&str]) -> Timeline {
        let span = |word: &str| {
            let (name, times) = word.split_once('=').unwrap();
            let (start, end) = times.split_once("..").unwrap();
            let label = match name {
                ">" => Label::Transfer,
                "U" => Label::Update,
                action => Label::Action(action.parse().unwrap()),
            };
            Span { label, start: start.parse().unwrap(), end: end.parse().unwrap() }
        };
        let lanes = lanes.iter().map(|l| l.split_whitespace().map(span).collect()).collect();
        Timeline { lanes, transfers: Vec::new() }
    }

    fn check(lanes: &[&str], width: usize, expected: &str) {
        let drawing = draw(&timeline(lanes), width);
        assert!(drawing == expected, "got\n{drawing}expected\n{expected}");
    }

    const LANES: [&str; 2] =
        ["0F0=10..11 0BW0=14..16 U=16..17", "1F0=11..12 1B0=12..13 1W0=13..14"];

    #[test]
    fn characters_are_in_proportion_to_time() {
        check(
            &LANES,
            28,
            "\
device 0 |F0--............BW0-----U---|  50.0% busy
device 1 |....F0--B0--W0--............|  50.0% busy
F forward, B input gradient, W weight gradient, U optimizer update, . idle
",
        );
    }

    #[test]
    fn names_shrink_to_the_width_there_is() {
        check(
            &LANES,
            7,
            "\
device 0 |F...BWU|  50.0% busy
device 1 |.FBW...|  50.0% busy
F forward, B input gradient, W weight gradient, U optimizer update, . idle
",
        );
        check(
            &["0F0=0..3 >=3..4 0F10=4..8"],
            8,
            "\
device 0 |F0->F10-|  87.5% busy
F forward, B input gradient, W weight gradient, > transfer, . idle
",
        );
        check(
            &["0F0=0..0.1 0F1=0.1..2 0B0=2..2.1 0B1=2.1..4"],
            4,
            "\
device 0 |F1B1| 100.0% busy
F forward, B input gradient, W weight gradient, . idle
",
        );
    }

    #[test]
    fn a_device_with_several_stages_names_them() {
        check(
            &["0F0=0..4 2F0=4..8 2BW0=8..12 0BW0=12..14"],
            14,
            "\
device 0 |0F0-2F0-2BW0BW| 100.0% busy
F forward, B input gradient, W weight gradient, . idle
",
        );
    }

    #[test]
    fn nothing_ran_is_drawn_as_nothing() {
        check(
            &["", ""],
            4,
            "\
device 0 |....|   0.0% busy
device 1 |....|   0.0% busy
F forward, B input gradient, W weight gradient, . idle
",
        );
        check(
            &["0F0=0..0"],
            0,
            "\
device 0 ||   0.0% busy
F forward, B input gradient, W weight gradient, . idle
",
        );
    }
}
