//! A run -> one HTML file that needs nothing but itself.

use std::io;

use zerobubble::trace::{Annotations, Span, Timeline, svg};
use zerobubble::train::Balance;

use super::Finished;
use super::data::data;

const TEMPLATE: &str = include_str!("report.html");
const STYLE: &str = include_str!("report.css");
const SCRIPTS: [&str; 4] = [
    include_str!("base.js"),
    include_str!("chart.js"),
    include_str!("timetable.js"),
    include_str!("page.js"),
];

/// The page of a run as it was so many seconds after the start of 1970.
///
/// The data is one JSON object in it, and its scripts draw from that. Where scripts are off, the
/// two timetables are there as pictures.
///
/// # Errors
///
/// When the data is no JSON.
pub fn page(of: &Finished, now: u64) -> io::Result<String> {
    let Finished { trainer, steps, .. } = *of;
    let json = serde_json::to_string(&data(of, now))?;
    let stash: Vec<f64> = trainer.prediction().memory.iter().map(|of| of.peak_stash).collect();
    let (unit, size) = match trainer.balance() {
        Balance::Flops => ("MFLOP", 1e-6),
        Balance::Measured => ("ms", 1e3),
    };
    let schedule = &trainer.plan().plan().schedule;
    let planned = Annotations { schedule, unit, peak_stash: &stash };
    let measured = Annotations { schedule, unit: "ms", peak_stash: &[] };
    let title = of.job.model.split(": ").next().unwrap_or_default();
    Ok(fill(TEMPLATE, |name| match name {
        "title" => escaped(title),
        "style" => STYLE.to_owned(),
        "script" => SCRIPTS.concat(),
        "planned" => svg(&scaled(&trainer.prediction().timeline, size), &planned),
        "measured" => steps.median().map_or_else(
            || "<p>All steps were done before.</p>".to_owned(),
            |step| svg(&scaled(&step.timeline, 1e3), &measured),
        ),
        // Entities are not read in a script element, and only `<` can end it.
        "data" => json.replace('<', "\\u003c"),
        other => unreachable!("the template has no {other}"),
    }))
}

/// The same in another unit of time.
fn scaled(timeline: &Timeline, factor: f64) -> Timeline {
    let span = |span: &Span| Span {
        start: factor * span.start,
        end: factor * span.end,
        label: span.label,
    };
    let lanes = |lanes: &[Vec<Span>]| -> Vec<Vec<Span>> {
        lanes.iter().map(|lane| lane.iter().map(span).collect()).collect()
    };
    Timeline { lanes: lanes(&timeline.lanes), transfers: lanes(&timeline.transfers) }
}

/// `template` with a text for every `{{name}}`. What a text contains is not filled in turn.
fn fill(template: &str, text: impl Fn(&str) -> String) -> String {
    let mut parts = template.split("{{");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").expect("a name in the template ends");
        filled += &text(name);
        filled += rest;
    }
    filled
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_not_filled_again() {
        let text = |name: &str| format!("<{name} {{{{a}}}}>");
        assert_eq!(fill("x{{a}}{{b}}y", text), "x<a {{a}}><b {{a}}>y");
        assert_eq!(fill("no name", text), "no name");
    }

    #[test]
    fn the_page_loads_nothing() {
        for part in [TEMPLATE, STYLE].into_iter().chain(SCRIPTS) {
            for foreign in ["src=", "href=", "url(", "@import", "fetch(", "import("] {
                assert!(!part.contains(foreign), "{foreign}");
            }
            let addresses = part.replace("http://www.w3.org/2000/svg", "");
            assert!(!addresses.contains("http:") && !addresses.contains("https:"));
        }
    }

    #[test]
    fn a_title_is_text() {
        assert_eq!(escaped("<b title=\"a\"> & 'c'"), "&lt;b title=&quot;a&quot;&gt; &amp; 'c'");
    }
}
