//! Timeline -> an SVG picture: one lane per device, bars in proportion to time.
//!
//! A picture needs nothing but itself: its style, for a light and a dark page, is within.

mod geometry;
mod paint;

use std::collections::BTreeSet;
use std::fmt::Write;

use geometry::{BAR, Geometry, MARGINS, PARCEL, ROW, TOP, text_width};
use paint::{DARK, LIGHT, Page, class};
pub use paint::{PAINTS, Paint};

use super::{Label, Span, Timeline, bubble, rows, stages};
use crate::StageId;

/// What a picture says that the times do not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Annotations<'a> {
    /// The schedule's name.
    pub schedule: &'a str,
    /// What times are counted in, such as `ms`. Empty where they have no unit.
    pub unit: &'a str,
    /// Every device's peak stash in microbatches. Empty where it is not known.
    pub peak_stash: &'a [f64],
}

/// Draws `timeline` as an SVG file that follows the reader's choice of a light or a dark page.
///
/// A bar shows its work and, below, its microbatch, as far as they fit: `F` over `2` is
/// forward of microbatch 2. On a device with several stages the stage comes first, `4F`, and a bar
/// of the device's second stage has one stripe along its foot, of its third stage two, and so on.
/// Parcels on their way to or from a device are thin bars below its lane, under one another where
/// several are at once.
///
/// It is as wide as its names need to be read, however wide a page is. Times count from the first
/// span. The same input gives the same bytes.
pub fn svg(timeline: &Timeline, annotations: &Annotations) -> String {
    let geometry = Geometry::new(timeline, annotations);
    let heading = heading(timeline, annotations, geometry.decimals);
    let legend = legend(timeline, geometry.width);
    let height = geometry.axis() + 46.0 + 20.0 * legend.rows as f64;
    let mut svg = String::new();
    put(&mut svg, head(geometry, height, &heading));
    put(&mut svg, axis(geometry, annotations.unit));
    let bubble = bubble(timeline);
    for (device, lane) in timeline.lanes.iter().enumerate() {
        let top = geometry.lane(device);
        let stages = stages(lane);
        put(&mut svg, device_name(geometry, top, device, &stages));
        let stash = annotations.peak_stash.get(device).copied();
        put(&mut svg, shares(geometry, top, bubble.devices[device].busy_percent(), stash));
        lane.iter().for_each(|span| put(&mut svg, bar(geometry, top, span, &stages)));
        let transfers = timeline.transfers.get(device).map_or(&[][..], Vec::as_slice);
        for (span, row) in transfers.iter().zip(rows(transfers)) {
            put(&mut svg, parcel(geometry, top, span, row));
        }
    }
    let _ = writeln!(svg, "<g transform=\"translate(0 {})\">", geometry.axis() + 38.0);
    svg + &legend.items + "</g>\n</svg>\n"
}

fn put(svg: &mut String, element: String) {
    svg.push_str(&element);
    svg.push('\n');
}

/// What XML allows of a text, with its special characters named.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `value` with at most so many digits after the point.
fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// The two lines on top: what it is, and how long it takes.
fn heading(timeline: &Timeline, annotations: &Annotations, decimals: usize) -> [String; 2] {
    let microbatches = timeline.lanes.iter().flatten().filter_map(|span| match span.label {
        Label::Action(action) => Some(action.microbatch.index() + 1),
        Label::Transfer | Label::Parcel { .. } | Label::Update => None,
    });
    let devices = count(timeline.lanes.len(), "device", "devices");
    let microbatches = count(microbatches.max().unwrap_or(0), "microbatch", "microbatches");
    let bubble = bubble(timeline);
    let makespan = number(bubble.makespan, decimals);
    let unit =
        if annotations.unit.is_empty() { String::new() } else { format!(" {}", annotations.unit) };
    let (step, span) = (100.0 * bubble.step, 100.0 * bubble.span);
    [
        format!("{} · {devices} · {microbatches}", annotations.schedule),
        format!("makespan {makespan}{unit} · step bubble {step:.1}% · span bubble {span:.1}%"),
    ]
    .map(|line| escaped(&line))
}

fn count(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn head(geometry: Geometry, height: f64, [title, figures]: &[String; 2]) -> String {
    let width = geometry.width;
    let paints = PAINTS.iter().map(|Paint { class, fill, ink, .. }| {
        format!(
            ".{class} rect{{fill:{fill}}}.{class} text{{fill:{ink}}}.{class} path{{stroke:{ink}}}\n"
        )
    });
    // A thin edge of paper parts two bars; where bars are narrow it must leave something of them.
    let edge = number((geometry.action / 12.0).min(1.0), 2);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\">\n\
         <title>{title} · {figures}</title>\n\
         <style>\n\
         text{{font:11px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}}\n\
         .title{{font-size:17px;font-weight:600}}.name{{font-size:13px;font-weight:600}}\n\
         .figures{{font-size:13px}}.end{{text-anchor:end}}\n\
         .bar text,.mid{{text-anchor:middle}}.bar text{{font-size:{}px;font-weight:600}}\n\
         .bar .work{{font-size:{}px;font-weight:400}}.bar .key{{font-size:10px}}\n\
         .bar rect{{stroke-width:{edge}}}.bar path{{stroke-width:2;stroke-opacity:.7}}\n\
         {}{}@media (prefers-color-scheme:dark){{\n{}}}\n\
         </style>\n\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"16\" y=\"28\">{title}</text>\n\
         <text class=\"figures muted\" x=\"16\" y=\"48\">{figures}</text>",
        number(geometry.microbatch_size, 1),
        number(geometry.work_size, 1),
        page(&LIGHT),
        paints.collect::<String>(),
        page(&DARK),
    )
}

fn page(Page { paper, text, muted, idle, line }: &Page) -> String {
    format!(
        "text{{fill:{text}}}.muted{{fill:{muted}}}.paper{{fill:{paper}}}.idle{{fill:{idle}}}\n\
         .line{{stroke:{line}}}.stripe{{stroke:{text};stroke-width:2}}.bar rect{{stroke:{paper}}}\n"
    )
}

/// Idle lanes with the lines of the ticks through them, and the times below.
fn axis(geometry: Geometry, unit: &str) -> String {
    let Geometry { left, time_width, tick, .. } = geometry;
    let mut axis = String::new();
    for device in 0..geometry.devices {
        let top = geometry.lane(device);
        let _ = writeln!(
            axis,
            "<rect class=\"idle\" x=\"{left}\" y=\"{top}\" \
             width=\"{time_width}\" height=\"{BAR}\"/>"
        );
    }
    let bottom = geometry.axis();
    for k in 0..=(geometry.duration / tick + 1e-9) as u32 {
        let time = f64::from(k) * tick;
        let x = geometry.x(geometry.start + time);
        let time = format!("{time:.*}", geometry.decimals - 1);
        let _ = writeln!(
            axis,
            "<path class=\"line\" d=\"M{x} {TOP}V{bottom}\"/>\
             <text class=\"muted mid\" x=\"{x}\" y=\"{}\">{time}</text>",
            bottom + 14.0
        );
    }
    let name = if unit.is_empty() { "time".to_owned() } else { format!("time in {unit}") };
    axis + &format!(
        "<text class=\"muted\" x=\"{}\" y=\"{}\">{}</text>",
        left + time_width + 14.0,
        bottom + 14.0,
        escaped(&name)
    )
}

/// `stages 0, 7`, or nothing where the device has one stage.
fn held(stages: &BTreeSet<StageId>) -> String {
    if stages.len() < 2 {
        return String::new();
    }
    let stages: Vec<String> = stages.iter().map(StageId::to_string).collect();
    format!("stages {}", stages.join(", "))
}

fn device_name(geometry: Geometry, top: f64, device: usize, stages: &BTreeSet<StageId>) -> String {
    let (x, held) = (geometry.left - 12.0, held(stages));
    let y = top + if held.is_empty() { 23.0 } else { 16.0 };
    let name = format!("<text class=\"name end\" x=\"{x}\" y=\"{y}\">device {device}</text>");
    if held.is_empty() {
        return name;
    }
    name + &format!("<text class=\"muted end\" x=\"{x}\" y=\"{}\">{held}</text>", y + 14.0)
}

/// Right of a lane.
fn shares(geometry: Geometry, top: f64, busy_percent: f64, stash: Option<f64>) -> String {
    let x = geometry.left + geometry.time_width + 14.0;
    let y = top + if stash.is_none() { 23.0 } else { 16.0 };
    let busy =
        format!("<text class=\"figures\" x=\"{x}\" y=\"{y}\">{busy_percent:.1}% busy</text>");
    let Some(stash) = stash else { return busy };
    let stash = peak_stash(stash);
    busy + &format!("<text class=\"muted\" x=\"{x}\" y=\"{}\">{stash}</text>", y + 14.0)
}

fn peak_stash(microbatches: f64) -> String {
    format!("peak stash {}", number(microbatches, 2))
}

fn bar(geometry: Geometry, top: f64, span: &Span, stages: &BTreeSet<StageId>) -> String {
    let (x, end) = (geometry.x(span.start), geometry.x(span.end));
    let (class, BarText { name, work, microbatch }) =
        (class(span.label), bar_text(span.label, stages));
    let middle = number((x + end) / 2.0, 2);
    // What does not fit is left out: a part of a number would be another number.
    let fits = |text: &&String, size| text_width(text, size) <= end - x - MARGINS;
    let mut text = String::new();
    if let Some(work) = work.iter().find(|work| fits(work, geometry.work_size)) {
        let (y, work) = (top + 13.0, escaped(work));
        text += &format!("<text class=\"work\" x=\"{middle}\" y=\"{y}\">{work}</text>");
    }
    if let Some(microbatch) = microbatch.filter(|text| fits(&text, geometry.microbatch_size)) {
        text += &format!("<text x=\"{middle}\" y=\"{}\">{microbatch}</text>", top + 27.0);
    }
    format!(
        "<g class=\"bar {class}\"><title>{name} {}</title>\
         <rect x=\"{x}\" y=\"{top}\" width=\"{}\" height=\"{BAR}\"/>{}{text}</g>",
        times(geometry, span),
        number(end - x, 2),
        stripes(x + 1.0, end - 1.0, top, span.label, stages)
    )
}

/// What a bar says.
struct BarText {
    /// All of it.
    name: String,
    /// Its work, from the longest text to the shortest.
    work: Vec<String>,
    microbatch: Option<String>,
}

fn bar_text(label: Label, stages: &BTreeSet<StageId>) -> BarText {
    let other = |name: &str, work: &str| BarText {
        name: name.to_owned(),
        work: vec![work.to_owned()],
        microbatch: None,
    };
    match label {
        Label::Action(action) => {
            let letters = action.letters();
            let full = (stages.len() > 1).then(|| format!("{}{letters}", action.stage));
            BarText {
                name: action.to_string(),
                work: full.into_iter().chain([letters.to_owned()]).collect(),
                microbatch: Some(action.microbatch.to_string()),
            }
        }
        Label::Update => other("update", "U"),
        Label::Transfer => other("transfer", ">"),
        Label::Parcel { of, to } => other(&format!("transfer of {of} to device {to}"), ">"),
    }
}

/// One stripe along the foot of a bar for every stage of the device before the bar's own.
fn stripes(from: f64, to: f64, top: f64, label: Label, stages: &BTreeSet<StageId>) -> String {
    let Label::Action(action) = label else { return String::new() };
    let count = stages.range(..action.stage).count();
    if count == 0 || to <= from {
        return String::new();
    }
    // However many there are, the text still fits above them.
    let pitch = (9.0 / stages.len() as f64).min(3.5);
    let stripe = |k: usize| {
        let y = number(top + BAR - 2.5 - pitch * k as f64, 2);
        format!("M{} {y}H{}", number(from, 2), number(to, 2))
    };
    format!("<path d=\"{}\"/>", (0..count).map(stripe).collect::<String>())
}

fn parcel(geometry: Geometry, top: f64, span: &Span, row: usize) -> String {
    let (x, end) = (geometry.x(span.start), geometry.x(span.end));
    let BarText { name, .. } = bar_text(span.label, &BTreeSet::new());
    format!(
        "<g class=\"T\"><title>{name} {}</title>\
         <rect x=\"{x}\" y=\"{}\" width=\"{}\" height=\"{PARCEL}\"/></g>",
        times(geometry, span),
        top + BAR + 2.0 + ROW * row as f64,
        number(end - x, 2)
    )
}

fn times(geometry: Geometry, span: &Span) -> String {
    format!("{}..{}", geometry.time(span.start), geometry.time(span.end))
}

/// The elements of the legend, and how many rows they take.
struct Legend {
    items: String,
    rows: usize,
}

/// Names what the picture has, and nothing else.
fn legend(timeline: &Timeline, width: f64) -> Legend {
    let spans = || timeline.lanes.iter().chain(&timeline.transfers).flatten();
    let used = |paint: &&Paint| spans().any(|span| class(span.label) == paint.class);
    let mut items: Vec<(String, &str)> = Vec::new();
    for Paint { class, meaning, .. } in PAINTS.iter().filter(used) {
        let letter = if *class == "T" { ">" } else { class };
        let swatch = "<rect width=\"20\" height=\"14\"/>";
        let letter = format!("<text class=\"key\" x=\"10\" y=\"10.5\">{}</text>", escaped(letter));
        items.push((format!("<g class=\"bar {class}\">{swatch}{letter}</g>"), meaning));
    }
    let swatch = "<rect class=\"idle\" width=\"20\" height=\"14\"/>";
    items.push((swatch.to_owned(), "idle"));
    if timeline.lanes.iter().any(|lane| stages(lane).len() > 1) {
        let stripe = "<path class=\"stripe\" d=\"M1 11.5H19\"/>";
        items.push((format!("{swatch}{stripe}"), "a later stage of the device"));
    }
    let mut legend = Legend { items: String::new(), rows: 1 };
    let mut x = 16.0;
    for (swatch, meaning) in items {
        let item_width = 26.0 + text_width(meaning, 11.0);
        if x + item_width > width {
            (x, legend.rows) = (16.0, legend.rows + 1);
        }
        let y = 20 * (legend.rows - 1);
        let _ = writeln!(
            legend.items,
            "<g transform=\"translate({x} {y})\">{swatch}\
             <text x=\"26\" y=\"11\">{meaning}</text></g>"
        );
        x += (item_width + 18.0).round();
    }
    legend
}
