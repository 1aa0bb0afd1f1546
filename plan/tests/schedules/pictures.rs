//! The timetable above each generator is the one that it generates.

use std::fs;
use std::path::Path;

use zerobubble_plan::trace::draw;
use zerobubble_plan::{FAMILIES, generate};

use super::Case;

/// The source of the file that defines the family called `name`.
fn source(name: &str) -> String {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/schedule"));
    let defines = |text: &String| text.contains(&format!("name: \"{name}\","));
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let found: Vec<String> =
        files.map(|path| fs::read_to_string(path).unwrap()).filter(defines).collect();
    assert_eq!(found.len(), 1, "{name} is defined in {} files of {folder:?}", found.len());
    found.into_iter().next().unwrap()
}

/// Columns that a line of a comment leaves for the time of a device.
const WIDTH: usize = 85;

/// What `draw` prints when F, B and W of a chunk take 1 each, as lines of a comment. A drawing that
/// is too wide is cut into as few parts of equal width as fit.
fn picture(case: Case) -> String {
    let simulation = case.at_one_per_action();
    let units = simulation.bubble.makespan.round() as usize;
    // Width for the stage where a device has several.
    let columns = if case.v == 1 { 3 } else { 4 };
    let drawing = draw(&simulation.timeline, columns * units);
    let lanes: Vec<(&str, &str)> =
        drawing.lines().filter_map(|line| line.rsplit_once('|')?.0.split_once('|')).collect();
    let parts = (columns * units).div_ceil(WIDTH / columns * columns);
    let part = columns * units.div_ceil(parts);
    let rows = |from: usize| {
        let to = (from + part).min(columns * units);
        let row = |(device, lane): &(&str, &str)| format!("/// {device}|{}|\n", &lane[from..to]);
        lanes.iter().map(row).collect::<String>()
    };
    let parts: Vec<String> = (0..columns * units).step_by(part).map(rows).collect();
    parts.join("///\n")
}

#[test]
fn the_picture_above_each_generator_is_what_it_generates() {
    for &family in FAMILIES {
        let source = source(family.name);
        let (_, rest) = source.split_once("/// For p = 4 devices, m = ").unwrap_or_else(|| {
            panic!("{family}: no timetable for p = 4 devices");
        });
        let m: u32 = rest.split(' ').next().unwrap().parse().unwrap();
        let v = generate(family, 4, None, m).unwrap().placement.stage_count() as u32 / 4;
        let case = Case { family, p: 4, v, m };
        let picture = picture(case);
        assert!(source.contains(&picture), "{case} draws\n{picture}");
        assert!((4..=8).contains(&m), "{case}: not the size of a timetable");
    }
}
