//! Promise: a browser shows the report of a run, complete, without a network and without an error.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// Twelve microbatches on two devices.
const RUN: &str = "train --devices cpux2 --steps 5 --layers 4 --width 16 --heads 2 --context 8 \
                   --microbatches 12 --microbatch-size 1";
const TWO_CHUNKS: [&str; 2] = ["--schedule", "zb-v"];
/// F, B and W on four stages.
const ACTIONS: usize = 4 * 12 * 3;

/// Runs in the page before and after its own scripts.
const BEFORE: &str = include_str!("report/before.js");
const AFTER: &str = include_str!("report/after.js");

/// Browsers that are found by name, and where others are.
const NAMES: [&str; 6] =
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge"];
const PLACES: [&str; 3] = [
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
];

fn browser() -> PathBuf {
    let named = env::var_os("CHROME").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let found = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let places = PLACES.iter().map(PathBuf::from);
    named.into_iter().chain(found).chain(places).find(|path| path.is_file()).expect(
        "there is no Chromium or Chrome (try: apt-get install chromium, or CHROME=its path)",
    )
}

fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The report of a run with these options besides.
fn report(options: &[&str]) -> String {
    let folder = folder();
    let path = folder.path().join("report.html");
    let mut command = Command::new(env!("CARGO_BIN_EXE_zerobubble"));
    command
        .args(RUN.split_whitespace())
        .args(options)
        .args([OsStr::new("--report"), path.as_ref()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = format!("report         {}\n", path.display());
    assert!(String::from_utf8_lossy(&output.stdout).ends_with(&shown));
    fs::read_to_string(path).unwrap()
}

/// What a browser finds in `page` in a frame of `width` pixels: a window cannot be as narrow as a
/// phone.
fn opened(page: &str, width: u32) -> Value {
    let folder = folder();
    let script = |text: &str| format!("<script>{text}</script>");
    let page = page.replacen("<head>", &format!("<head>{}", script(BEFORE)), 1).replacen(
        "</body>",
        &format!("{}</body>", script(AFTER)),
        1,
    );
    let page = page.replace('&', "&amp;").replace('"', "&quot;");
    let take = "document.body.append(this.contentDocument.getElementById('found'))";
    let frame = format!(
        "<!doctype html><iframe width={width} height=844 onload=\"{take}\" srcdoc=\"{page}\">"
    );
    let file = folder.path().join("framed.html");
    fs::write(&file, frame).unwrap();
    let output = Command::new(browser())
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"])
        .arg("--window-size=1600,1000")
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .arg(&file)
        .output()
        .unwrap();
    let dom = String::from_utf8(output.stdout).unwrap();
    let found = dom.split("<output id=\"found\">").nth(1).and_then(|t| t.split("</output>").next());
    let found = found.unwrap_or_else(|| {
        panic!("the page was not checked\n{}", String::from_utf8_lossy(&output.stderr))
    });
    let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&found).unwrap()
}

#[test]
fn a_browser_shows_all_of_it() {
    let page = report(&TWO_CHUNKS);
    let found = opened(&page, 1280);
    assert_eq!(found["problems"], Value::Array(Vec::new()));
    let bars = |which: &str, kind: &str| found["bars"][which][kind].as_u64().unwrap_or(0) as usize;
    for which in ["planned", "measured"] {
        for kind in ["F", "B", "W"] {
            assert_eq!(bars(which, kind), ACTIONS / 3, "{which} {kind}");
        }
        // Every bar was pointed at, and is what was written of it.
        assert_eq!(found["read"][which], ACTIONS + bars(which, "U"), "{which}: {found}");
        assert_eq!(found["lanes"][which], 2);
    }
    assert_eq!((bars("planned", "U"), bars("measured", "U")), (0, 2));
    assert!(found["zoomed"].as_u64().unwrap() < ACTIONS as u64 && found["restored"] == true);
    for place in ["key", "loss", "speed", "legend", "memory-curves", "blocks", "stages", "links"] {
        assert!(found["filled"][place].as_u64().unwrap() > 0, "{place} is empty: {found}");
    }
    assert!(found["command"].as_str().unwrap().starts_with("zerobubble train --devices cpux2 "));
    assert!(found["legible"] == true, "{found}");
}

#[test]
fn a_phone_shows_all_of_it_without_scrolling_sideways() {
    let page = report(&["--balance", "measured", "--schedule", "1f1b"]);
    let found = opened(&page, 390);
    assert_eq!(found["problems"], Value::Array(Vec::new()));
    assert_eq!(found["width"]["window"], 390);
    let [page, visible] = ["page", "visible"].map(|key| found["width"][key].as_u64().unwrap());
    assert!(page <= visible, "{page} pixels in {visible}");
}

#[test]
fn nothing_in_a_run_is_read_as_html() {
    let folder = folder();
    let text = folder.path().join("<b>&amp;.txt");
    let hostile = "</script><script>broken(</script><!--<script>&quot;</pre>\n".repeat(60);
    fs::write(&text, hostile).unwrap();
    let page = report(&["--text", text.to_str().unwrap()]);
    let found = opened(&page, 1280);
    assert_eq!(found["problems"], Value::Array(Vec::new()));
    assert!(found["settings"].as_str().unwrap().contains("<b>&amp;.txt"), "{found}");
}

#[test]
fn a_file_that_cannot_be_written_is_said_before_training() {
    let folder = folder();
    let missing = folder.path().join("missing").join("report.html");
    for option in ["--report", "--trace"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zerobubble"));
        command.args(RUN.split_whitespace()).arg(option).arg(&missing);
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.lines().count() == 1 && error.contains("cannot be written"), "{error}");
        assert!(error.contains("missing"), "{error}");
    }
}

/// What is written to this file finds a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_cannot_be_written_in_the_end_takes_no_figures_with_it() {
    for option in ["--report", "--trace"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zerobubble"));
        command.args(RUN.split_whitespace()).args(["--json", option, "/dev/full"]);
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(found["weights_hash"].is_string(), "{found}");
        let last = error.lines().last().unwrap();
        assert!(last.starts_with("error: /dev/full: it cannot be written: "), "{error}");
        assert!(last.ends_with("(try: a file on a disk with free space)"), "{error}");
    }
}
