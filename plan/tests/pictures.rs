//! Promise: a picture is valid SVG that shows every action once, where and when it is.

use std::collections::BTreeSet;

use roxmltree::{Document, Node};
use zerobubble_plan::trace::{Annotations, Label, Span, Timeline, svg};
use zerobubble_plan::{Costs, FAMILIES, GPIPE, TransferCost, Transfers, check, generate, simulate};

/// The picture of a family at unit costs, and what it shows.
fn picture(name: &str, p: u32, m: u32) -> (String, Timeline) {
    let family = FAMILIES.iter().find(|family| family.name == name).unwrap();
    let plan = check(generate(family, p, None, m).unwrap()).unwrap();
    let costs = Costs::unit(plan.plan().placement.stage_count());
    let simulation = simulate(&plan, &costs).unwrap();
    let peak_stash: Vec<f64> = simulation.memory.iter().map(|memory| memory.peak_stash).collect();
    let annotations = Annotations { schedule: name, unit: "", peak_stash: &peak_stash };
    (svg(&simulation.timeline, &annotations), simulation.timeline)
}

fn number(node: Node, attribute: &str) -> f64 {
    node.attribute(attribute).unwrap().parse().unwrap()
}

fn child<'a, 'd>(node: Node<'a, 'd>, tag: &str) -> Option<Node<'a, 'd>> {
    node.children().find(|child| child.has_tag_name(tag))
}

/// Title, top, left and right of every bar in a lane.
fn bars(document: &Document) -> Vec<(String, f64, f64, f64)> {
    let bars = document.descendants().filter(|node| {
        node.attribute("class").is_some_and(|class| class.starts_with("bar "))
            && child(*node, "title").is_some()
    });
    bars.map(|bar| {
        let title = child(bar, "title").unwrap().text().unwrap().to_owned();
        let rect = child(bar, "rect").unwrap();
        let (top, left) = (number(rect, "y"), number(rect, "x"));
        (title, top, left, left + number(rect, "width"))
    })
    .collect()
}

#[test]
fn a_small_picture_is_drawn_as_it_was_looked_at() {
    let (drawn, _) = picture("gpipe", 2, 2);
    assert!(drawn == include_str!("pictures/gpipe.svg"), "drawn is\n{drawn}");
}

#[test]
fn every_action_is_one_bar_of_its_lane_and_time() {
    for family in FAMILIES {
        for (p, m) in [(1, 1), (2, 2), (3, 8), (4, 12), (8, 40)] {
            let (drawn, timeline) = picture(family.name, p, m);
            let document = Document::parse(&drawn).unwrap();
            let bars = bars(&document);
            let spans: Vec<&Span> = timeline.lanes.iter().flatten().collect();
            assert_eq!(bars.len(), spans.len());
            for ((title, ..), span) in bars.iter().zip(spans) {
                let Label::Action(action) = span.label else { panic!("a plan has actions only") };
                let (name, times) = title.split_once(' ').unwrap();
                let (start, end) = times.split_once("..").unwrap();
                let times: [f64; 2] = [start, end].map(|time| time.parse().unwrap());
                assert_eq!((name, times), (&*action.to_string(), [span.start, span.end]));
            }
            let tops: BTreeSet<u64> = bars.iter().map(|(_, top, ..)| *top as u64).collect();
            assert_eq!(tops.len(), p as usize, "{family} has a row for each device");
        }
    }
}

#[test]
fn bars_of_a_lane_do_not_overlap_and_stay_in_the_picture() {
    for family in FAMILIES {
        for (p, m) in [(1, 1), (4, 12), (8, 40)] {
            let (drawn, _) = picture(family.name, p, m);
            let document = Document::parse(&drawn).unwrap();
            let view = document.root_element().attribute("viewBox").unwrap();
            let sizes: Vec<f64> = view.split(' ').map(|size| size.parse().unwrap()).collect();
            let bars = bars(&document);
            for pair in bars.windows(2) {
                let [(title, top, _, right), (next, next_top, left, _)] = pair else { panic!() };
                assert!(top != next_top || *right <= left + 1e-6, "{family}: {title} over {next}");
            }
            for (title, top, left, right) in bars {
                assert!(left >= 0.0 && right <= sizes[2] && top < sizes[3], "{family}: {title}");
            }
        }
    }
}

#[test]
fn every_bar_names_its_work_and_its_microbatch() {
    for family in FAMILIES {
        for (p, m) in [(4, 12), (2, 100), (8, 40)] {
            let (drawn, timeline) = picture(family.name, p, m);
            let document = Document::parse(&drawn).unwrap();
            let root = document.root_element();
            let view = root.attribute("viewBox").unwrap();
            assert!(view.ends_with(&format!(
                "{} {}",
                number(root, "width"),
                number(root, "height")
            )));
            let style = document.descendants().find(|node| node.has_tag_name("style")).unwrap();
            for size in style.text().unwrap().split("font-size:").skip(1) {
                let size: f64 = size.split("px").next().unwrap().parse().unwrap();
                assert!(size >= 8.0, "{family}: letters of {size} pixels");
            }
            let bars = document.descendants().filter(|node| child(*node, "title").is_some());
            let texts = bars.skip(1).flat_map(|bar| bar.children());
            let texts = texts.filter(|text| text.has_tag_name("text"));
            let actions = timeline.lanes.iter().flatten().count();
            assert_eq!(texts.count(), 2 * actions, "{family} of {p} devices, {m} microbatches");
        }
    }
}

fn span(label: Label, start: f64, end: f64) -> Span {
    Span { label, start, end }
}

#[test]
fn a_measured_step_shows_updates_and_transfers() {
    let forward = Label::Action("0F0".parse().unwrap());
    let timeline = Timeline {
        lanes: vec![vec![span(forward, 100.0, 103.5), span(Label::Update, 104.0, 105.25)]],
        transfers: vec![vec![span(Label::Transfer, 103.5, 104.0)]],
    };
    let drawn = svg(&timeline, &Annotations { schedule: "measured", unit: "ms", peak_stash: &[] });
    let document = Document::parse(&drawn).unwrap();
    let titles = document.descendants().filter(|node| node.has_tag_name("title"));
    let titles: Vec<&str> = titles.map(|title| title.text().unwrap()).collect();
    let heading = "measured · 1 device · 1 microbatch · \
        makespan 3.5 ms · step bubble 0.0% · span bubble 0.0%";
    assert_eq!(titles, [heading, "0F0 0.0..3.5", "update 4.0..5.2", "transfer 3.5..4.0"]);
    let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    for expected in ["time in ms", "100.0% busy", "optimizer update", "transfer", "idle"] {
        assert!(texts.contains(&expected), "{expected} is missing");
    }
    assert!(!drawn.contains("peak stash"));
}

#[test]
fn predicted_transfers_are_bars_below_the_device_that_sends() {
    let plan = check(generate(&GPIPE, 2, None, 2).unwrap()).unwrap();
    let transfers = Transfers::uniform(TransferCost::of_any_size(1.5));
    let costs = Costs { transfers, ..Costs::unit(2) };
    let simulation = simulate(&plan, &costs).unwrap();
    let annotations = Annotations { schedule: "gpipe", unit: "", peak_stash: &[] };
    let drawn = svg(&simulation.timeline, &annotations);
    let document = Document::parse(&drawn).unwrap();
    let bars = document.descendants().filter(|node| node.attribute("class") == Some("T"));
    let shown = bars.map(|bar| {
        let rect = child(bar, "rect").unwrap();
        (child(bar, "title").unwrap().text().unwrap(), number(rect, "y"))
    });
    let shown: Vec<(&str, f64)> = shown.collect();
    // The second is sent while the first is still under way: it stands below it.
    let titles: Vec<&str> = shown.iter().map(|(title, _)| *title).collect();
    assert_eq!(titles[0], "transfer of 0F0 to device 1 1.0..2.5");
    assert_eq!(titles[1], "transfer of 0F1 to device 1 2.0..3.5");
    assert!(titles[2].starts_with("transfer of 1BW"), "{titles:?}");
    assert!(shown[0].1 < shown[1].1 && shown[1].1 < shown[2].1, "{shown:?}");
    let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    assert!(texts.contains(&"transfer"));
}

#[test]
fn any_name_is_escaped() {
    let lanes = vec![vec![span(Label::Action("0F0".parse().unwrap()), 0.0, 1.0)]];
    let timeline = Timeline { lanes, transfers: Vec::new() };
    let schedule = "</text>\"<&\u{0}\u{1b}\u{fffe}]]>";
    let drawn = svg(&timeline, &Annotations { schedule, unit: "<&", peak_stash: &[1.0] });
    let document = Document::parse(&drawn).unwrap();
    let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    let title = "</text>\"<&\u{fffd}\u{fffd}\u{fffd}]]> · 1 device · 1 microbatch";
    assert!(texts.contains(&title) && texts.contains(&"time in <&"), "{drawn}");
}

#[test]
fn nothing_ran_is_drawn_as_nothing() {
    let zero = vec![span(Label::Action("0F0".parse().unwrap()), 5.0, 5.0)];
    for lanes in [vec![], vec![vec![], vec![]], vec![zero]] {
        let timeline = Timeline { lanes, transfers: Vec::new() };
        let drawn = svg(&timeline, &Annotations { schedule: "none", unit: "s", peak_stash: &[] });
        Document::parse(&drawn).unwrap();
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    }
}
