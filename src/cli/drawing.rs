//! How wide a timetable is drawn, and how shares and amounts are written.

use zerobubble::trace::{Label, Timeline};

/// Characters of time that, with device names and shares, fit a common terminal.
pub const WIDTH_LIMIT: usize = 96;

/// The characters of time for `timeline`: a whole number for its shortest action, if that fits, so
/// that actions of one length are drawn alike.
pub fn width(timeline: &Timeline) -> usize {
    let spans = || timeline.lanes.iter().flatten();
    let end = spans().map(|span| span.end).fold(0.0, f64::max);
    let actions = spans().filter(|span| matches!(span.label, Label::Action(_)));
    let times = actions.map(|span| span.end - span.start).filter(|time| *time > 0.0);
    let shortest = times.fold(f64::INFINITY, f64::min);
    let widths = (1..=4).rev().map(|columns| (end / shortest * f64::from(columns)).round());
    let fits = |width: &usize| (1..=WIDTH_LIMIT).contains(width);
    widths.map(|width| width as usize).find(fits).unwrap_or(WIDTH_LIMIT)
}

/// A number with at most three decimals.
pub fn short(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A fraction in percent.
pub fn percent(fraction: f64) -> String {
    format!("{:.1}%", 100.0 * fraction)
}

/// Bytes in the unit that people read them in.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        10_485_760..10_737_418_240 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use zerobubble::trace::Span;

    use super::*;

    /// One device with actions of these times.
    fn timeline(times: &[f64]) -> Timeline {
        let mut end = 0.0;
        let span = |time: &f64| {
            let start = end;
            end += time;
            Span { label: Label::Action("0F0".parse().unwrap()), start, end }
        };
        Timeline { lanes: vec![times.iter().map(span).collect()], transfers: Vec::new() }
    }

    #[test]
    fn the_shortest_action_gets_a_whole_number_of_characters() {
        let rows = [
            (&[1.0; 24][..], 96),
            (&[1.0; 25], 75),
            (&[0.5, 1.0], 12),
            (&[1.0; 97], WIDTH_LIMIT),
            (&[0.0], WIDTH_LIMIT),
            (&[], WIDTH_LIMIT),
        ];
        for (times, expected) in rows {
            assert_eq!(width(&timeline(times)), expected, "{times:?}");
        }
    }

    #[test]
    fn a_number_has_no_more_decimals_than_it_needs() {
        let written = [4.0, 30.0, 3.5, 11.0 / 3.0, 0.0004].map(short);
        assert_eq!(written, ["4", "30", "3.5", "3.667", "0"]);
    }

    #[test]
    fn bytes_have_the_unit_they_are_read_in() {
        let written = [0, 10_239, 10_240, 10_485_760, 25_276_063_744].map(bytes);
        assert_eq!(written, ["0 B", "10239 B", "10.0 KiB", "10.0 MiB", "23.5 GiB"]);
    }
}
