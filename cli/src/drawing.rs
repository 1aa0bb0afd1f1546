//! How wide a timetable is drawn, and how shares and amounts are written.

use console::Term;
use zerobubble::trace::{Label, Timeline};

/// Characters of time where nobody says how wide a line may be: with device names and shares they
/// fit a common terminal.
const WIDTH: usize = 96;
/// Fewer characters of time say nothing.
const LEAST_WIDTH: usize = 24;
/// Characters of a line beside its time, where device numbers have one digit.
const BESIDE: usize = "device 0 || 100.0% busy".len();

/// The characters of time that fit in a line: those of the terminal that stdout is, if it is one.
pub fn line_width(timeline: &Timeline) -> usize {
    let digits = timeline.lanes.len().saturating_sub(1).to_string().len();
    match Term::stdout().size_checked() {
        Some((_, columns)) => {
            usize::from(columns).saturating_sub(BESIDE + digits - 1).max(LEAST_WIDTH)
        }
        None => WIDTH,
    }
}

/// The characters of time for `timeline`: a whole number for its shortest action, if it fits in the
/// line, so that actions of one length are drawn alike.
pub fn width(timeline: &Timeline) -> usize {
    width_within(timeline, line_width(timeline))
}

fn width_within(timeline: &Timeline, most: usize) -> usize {
    let spans = || timeline.lanes.iter().flatten();
    let end = spans().map(|span| span.end).fold(0.0, f64::max);
    let actions = || {
        spans().filter_map(|span| match span.label {
            Label::Action(action) => Some((action, span.end - span.start)),
            Label::Transfer | Label::Parcel { .. } | Label::Update => None,
        })
    };
    let times = actions().map(|(_, time)| time).filter(|time| *time > 0.0);
    let shortest = times.fold(f64::INFINITY, f64::min);
    let widths =
        (1..=characters(timeline)).rev().map(|columns| (end / shortest * columns as f64).round());
    let fits = |width: &usize| (1..=most).contains(width);
    widths.map(|width| width as usize).find(fits).unwrap_or(most)
}

/// The most characters that an action can use: its name, and one between it and the next.
fn characters(timeline: &Timeline) -> usize {
    let mut most = 4;
    for lane in &timeline.lanes {
        let actions = || {
            lane.iter().filter_map(|span| match span.label {
                // A fused backward is as long as two actions.
                Label::Action(action) if !action.is_fused() => Some(action),
                _ => None,
            })
        };
        let several =
            actions().any(|action| Some(action.stage) != actions().next().map(|a| a.stage));
        for action in actions() {
            let stage = if several { 0 } else { action.stage.to_string().len() };
            most = most.max(action.to_string().len() - stage + 1);
        }
    }
    most
}

/// `1 device`, `2 devices`; `1 microbatch`, `2 microbatches`.
pub fn counted(count: usize, what: &str) -> String {
    let plural = if what.ends_with("ch") { "es" } else { "s" };
    format!("{count} {what}{}", if count == 1 { "" } else { plural })
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

    /// One device with an action that is called `name` for each of these times.
    fn timeline(name: &str, times: &[f64]) -> Timeline {
        let mut end = 0.0;
        let span = |time: &f64| {
            let start = end;
            end += time;
            Span { label: Label::Action(name.parse().unwrap()), start, end }
        };
        Timeline { lanes: vec![times.iter().map(span).collect()], transfers: Vec::new() }
    }

    #[test]
    fn the_shortest_action_gets_a_whole_number_of_characters() {
        let rows = [
            (&[1.0; 24][..], 96),
            (&[1.0; 25], 75),
            (&[0.5, 1.0], 12),
            (&[1.0; 97], 96),
            (&[0.0], 96),
            (&[], 96),
        ];
        for (times, expected) in rows {
            assert_eq!(width_within(&timeline("0F0", times), 96), expected, "{times:?}");
        }
    }

    #[test]
    fn a_wide_terminal_shows_long_names() {
        let mut timeline = timeline("10F10", &[1.0; 20]);
        timeline.lanes[0][0].label = Label::Action("0F10".parse().unwrap());
        let widths = [59, 60, 119, 120, 500].map(|most| width_within(&timeline, most));
        assert_eq!(widths, [40, 60, 100, 120, 120]);
    }

    #[test]
    fn one_is_not_several() {
        let written = [counted(1, "device"), counted(0, "device"), counted(2, "microbatch")];
        assert_eq!(written, ["1 device", "0 devices", "2 microbatches"]);
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
