//! Promise: a plan in a file is judged as it is meant, and what is wrong with it is one line that
//! names the file and the line.

use std::fs;
use std::process::{Command, Output};

use tempfile::TempDir;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("plans-").tempdir().unwrap())
    }

    /// `plan` with these arguments in the folder of the files.
    fn plan(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zerobubble"));
        command.current_dir(&self.0).arg("plan").args(line.split_whitespace());
        command.output().unwrap()
    }

    /// The one line on stderr of a file that is refused.
    fn refuses(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.0.path().join(name), content).unwrap();
        let Output { status, stdout, stderr } = self.plan(&format!("--check {name}"));
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), stdout.len()), (Some(1), 0), "{name}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        let rest = stderr.strip_prefix(&format!("error: {name}: ")).unwrap_or_else(|| {
            panic!("{name} is not named: {stderr}");
        });
        assert!(!rest.trim_end().chars().any(char::is_control), "{rest:?}");
        rest.trim_end().to_owned()
    }
}

fn makespan(output: &Output) -> f64 {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    json["makespan"].as_f64().unwrap()
}

#[test]
fn auto_is_not_behind_the_order_of_dynamic_as_a_plan_in_a_file() {
    let files = Files::new();
    let case = "--cost 1,1,1.9 --transfer 3 --memory-limit 4";
    let auto = files.plan(&format!("--schedule auto --microbatches 4 --json {case}"));
    let order = files.plan(&format!("--schedule dynamic --microbatches 4 --format plan {case}"));
    fs::write(files.0.path().join("order"), order.stdout).unwrap();
    let order = makespan(&files.plan(&format!("--check order --json {case}")));
    assert!((order - 36.6).abs() < 1e-9, "{order}");
    assert!(makespan(&auto) < order + 1e-9, "{}", makespan(&auto));
}

#[test]
fn older_letters_of_pytorch_are_read_and_told() {
    let files = Files::new();
    let old = "0F0,0F1,,0B0,0W0,0B1,0W1\n,1F0,1B0,1F1,1B1,1W0,1W1\n";
    fs::write(files.0.path().join("old.csv"), old).unwrap();
    let output = files.plan("--check old.csv --format csv");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), old.replace('B', "I"));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "old.csv: older letters of PyTorch: B is read as the gradient of the input, as there is W \
         and no I; today that is I, and B a full backward\n"
    );
    assert_eq!(makespan(&files.plan("--check old.csv --json")), 7.0);
    fs::write(files.0.path().join("now.csv"), "0F0,0I0,0W0\n,1F0,1B0\n").unwrap();
    assert_eq!(files.plan("--check now.csv").stderr, b"");
    assert_eq!(
        files.refuses("mixed.csv", b"0F0,0I0,0W0\n,1F0,1BW0\n").split(" (try").next(),
        Some("line 2, cell 3: '1BW0', but '0I0' in line 1, cell 2, is of other letters")
    );
}

#[test]
fn every_fault_of_a_file_names_the_file_and_the_line() {
    let files = Files::new();
    let plan = "schedule x\n# by hand\nmicrobatches 2\nplacement 0 1\n\
        device 0: 0F0 0F1 0BW0 0BW1\ndevice 1: 1F0 1F1 1BW0 1BW1\n";
    let rows = [
        ("schedule x", "schedule \u{1b}[31mx", "line 1, cell 1: '\\u{1b}[31mx' has a character"),
        ("s 2", "s 0", "line 3: 2 stages and 0 microbatches"),
        ("t 0 1", "t 0 4294967295", "line 4: the placement names 4294967296 devices, but"),
        ("t 0 1", "t 1 1", "line 4: device 0 holds no stage"),
        ("t 0 1", "t 0 1 2", "line 4: the placement names 3 devices, but there are 2 lanes"),
        ("0F1", "0F\u{1b}[2J1", "line 5, cell 2: '0F\\u{1b}[2J1' is not an action"),
        ("0F1 ", "", "line 5: action 0F1 is missing"),
        ("0F1", "1F1", "line 5, cell 2: action 1F1: it is in the lane of device 0"),
        ("0F1", "9F1", "line 5, cell 2: action 9F1: the placement has only 2 stages"),
        ("1F0 1F1 1BW0", "1BW0 1F0 1F1", "line 6, cell 1: action 1BW0: it comes before 1F0"),
        ("1F1", "1F1 1F1", "line 6, cell 3: action 1F1: duplicate"),
        ("0F1 0BW0", "0BW0 0F1", "line 5, cell 2: deadlock: device 0 waits at 0BW0 for 1BW0"),
    ];
    for (from, to, error) in rows {
        let found = files.refuses("plan", plan.replacen(from, to, 1).as_bytes());
        assert!(found.starts_with(error), "{found}");
    }
    let csv = "0F0,0F1,,0B0,0B1\n,1F0,1B0,1F1,1B1\n";
    let rows = [
        ("1F1", "1X1", "line 2, cell 4: '1X1' is not an action"),
        ("1F1", "1F0", "line 2, cell 4: action 1F0: duplicate"),
        ("0F1,", ",", "line 1: action 0F1 is missing"),
    ];
    for (from, to, error) in rows {
        let found = files.refuses("plan.csv", csv.replacen(from, to, 1).as_bytes());
        assert!(found.starts_with(error), "{found}");
    }
    let binary = [csv.as_bytes(), b"2F0,\xff\n"].concat();
    assert_eq!(
        files.refuses("plan.csv", &binary),
        "cannot be read: line 3 is not text in UTF-8 (try: save it as UTF-8)"
    );
    let long: String = (0..70_000).map(|k| format!(" 0F{k}")).collect();
    let long = format!("schedule x\nmicrobatches 70000\nplacement 0\ndevice 0:{long}\n");
    let error = files.refuses("long", long.as_bytes());
    assert!(error.starts_with("70000 pairs of stage and microbatch are too many"), "{error}");
}

#[test]
fn transfers_in_a_file_are_those_of_each_direction_between_two_devices() {
    let files = Files::new();
    let write = |content: &str| fs::write(files.0.path().join("links"), content).unwrap();
    write("# from, to\n- 1 21 2\n1 0 20 21\n21 20 - 1\n 2, 21, 1, 0\n");
    for case in ["--schedule interleaved-1f1b", "--schedule dynamic", "--schedule auto"] {
        let pairs = makespan(&files.plan(&format!("{case} --json --transfer 1,20,1")));
        // From the last device to the first it is not the way along the line that counts.
        let of_file = makespan(&files.plan(&format!("{case} --json --transfer links")));
        assert!(of_file <= pairs, "{case}: {of_file}, {pairs}");
        let one = makespan(&files.plan(&format!("{case} --json --transfer 1")));
        // One time is that of every pair, and not of the way between two that are no neighbours.
        let line = makespan(&files.plan(&format!("{case} --json --transfer 1,1,1")));
        assert!(one <= line && line < pairs, "{case}: {one}, {line}, {pairs}");
        assert!(one < of_file, "{case}: {one}, {of_file}");
    }
    let plan = files.plan("--schedule v-min --format plan");
    fs::write(files.0.path().join("plan"), plan.stdout).unwrap();
    let judged = makespan(&files.plan("--check plan --json --transfer links"));
    assert_eq!(judged, makespan(&files.plan("--schedule v-min --json --transfer links")));
    let refused = |transfer: &str, code: i32| {
        let Output { status, stderr, .. } = files.plan(&format!("--transfer {transfer}"));
        assert_eq!(status.code(), Some(code));
        String::from_utf8(stderr).unwrap()
    };
    write("0 1\n1 x\n");
    assert!(refused("links", 1).starts_with("error: links: line 2: 'x' is not a time"));
    write("0 1\n1 0\n");
    assert!(refused("links", 2).starts_with("error: links: 2 rows for 4 devices"));
    assert!(refused("1,2", 2).starts_with("error: --transfer has 2 times for the 3 neighbouring"));
    assert!(refused("absent", 1).starts_with("error: absent: cannot be read"));
}

#[test]
fn a_plan_is_told_whether_it_has_the_standard_order() {
    let files = Files::new();
    let head = "schedule x\nmicrobatches 2\nplacement 0\ndevice 0:";
    let told = |lane: &str| {
        fs::write(files.0.path().join("plan"), format!("{head} {lane}\n")).unwrap();
        let text = String::from_utf8(files.plan("--check plan").stdout).unwrap();
        let json = files.plan("--check plan --json").stdout;
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let order = text.lines().find_map(|line| line.strip_prefix("order        "));
        (order.unwrap().to_owned(), json["order"].clone())
    };
    let rows = [
        (
            "0F0 0F1 0BW0 0BW1",
            "standard: microbatches ascend within every stage",
            [true, true, true],
        ),
        (
            "0F0 0F1 0B1 0B0 0W0 0W1",
            "of its own: B of stage 0 runs 1 0; weights get the bits of the standard order",
            [false, true, true],
        ),
        (
            "0F1 0F0 0BW0 0BW1",
            "of its own: F of stage 0 runs 1 0; weights get the bits of the standard order, \
             running statistics do not",
            [false, true, false],
        ),
        (
            "0F0 0F1 0BW1 0BW0",
            "of its own: W of stage 0 runs 1 0, and 1 more; weights get other bits than in the \
             standard order",
            [false, false, true],
        ),
        ("0F1 0F0", "of its own: F of stage 0 runs 1 0; nothing is trained", [false, true, false]),
    ];
    for (lane, expected, fields) in rows {
        let (text, json) = told(lane);
        assert_eq!(text, expected);
        let found = ["standard", "same_weights", "same_statistics"].map(|of| &json[of]);
        assert_eq!(found, fields, "{lane}");
    }
    let own = told("0F0 0F1 0BW1 0BW0").1["own"][1].to_string();
    assert_eq!(own, r#"{"microbatches":[1,0],"stage":0,"work":"W"}"#);
    let made = files.plan("--schedule gpipe --json").stdout;
    assert!(!String::from_utf8(made).unwrap().contains("\"order\""));
}
