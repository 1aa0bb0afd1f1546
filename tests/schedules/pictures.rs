//! The timetable above each generator is the one that it generates.

use std::fs;
use std::path::Path;

use zerobubble::plan::{FAMILIES, generate};
use zerobubble::trace::draw;

use super::Case;

/// The source of the file that defines the family called `name`.
fn source(name: &str) -> String {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/plan/schedule"));
    let defines = |text: &String| text.contains(&format!("name: \"{name}\","));
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let found: Vec<String> =
        files.map(|path| fs::read_to_string(path).unwrap()).filter(defines).collect();
    assert_eq!(found.len(), 1, "{name} is defined in {} files of {folder:?}", found.len());
    found.into_iter().next().unwrap()
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
        let simulation = case.simulate(v.into(), v.into(), v.into());
        let columns = if v == 1 { 3.0 } else { 4.0 };
        let drawing =
            draw(&simulation.timeline, (columns * simulation.bubble.makespan).round() as usize);
        let lanes = drawing.lines().filter_map(|line| Some(line.rsplit_once('|')?.0));
        let picture: String = lanes.map(|lane| format!("/// {lane}|\n")).collect();
        assert!(source.contains(&picture), "{case} draws\n{picture}");
        assert!((4..=8).contains(&m), "{case}: not the size of a timetable");
    }
}
