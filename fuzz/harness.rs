//! Runs a fuzz target without libFuzzer: its corpus, and mutations of it that are the same every
//! time.
//!
//! `ZEROBUBBLE_FUZZ_SECONDS` runs other mutations of every target for so long.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

/// No input of some kilobytes takes this long, however busy the machine.
const LONGEST: Duration = Duration::from_secs(10);

/// Asserts that `holds` does not panic on any file of `fuzz/corpus/TARGET`, nor on what mutations
/// make of them: `cases` of these, which take a test less than a second. With
/// `ZEROBUBBLE_FUZZ_SECONDS`, the clock is looked at after so many.
///
/// # Panics
///
/// With the smallest input found on which it does, or where there is no corpus.
pub fn run(target: &str, cases: u32, holds: fn(&[u8])) {
    let corpus = corpus(target);
    for (path, input) in &corpus {
        // A panic in it is reported by the test runner; this says of which file it is.
        let name = path.display();
        assert!(std::panic::catch_unwind(|| holds(input)).is_ok(), "{name} fails");
    }
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    let started = Instant::now();
    let seconds = env::var("ZEROBUBBLE_FUZZ_SECONDS").ok().map(|text| {
        text.parse().unwrap_or_else(|_| panic!("ZEROBUBBLE_FUZZ_SECONDS={text} is not a number"))
    });
    let end = Duration::from_secs(seconds.unwrap_or(0));
    for round in 0u64.. {
        mutate(target, cases, holds, &inputs, round);
        if started.elapsed() >= end {
            let mutations = (round + 1) * u64::from(cases);
            eprintln!("{target}: {mutations} mutations in {:?}", started.elapsed());
            break;
        }
    }
}

/// All files of the target's corpus, by name.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut folders = folders.map(|folder| folder.join("fuzz/corpus").join(target));
    let folder = folders.find(|folder| folder.is_dir()).expect("the target has a corpus");
    let entries = fs::read_dir(&folder).expect("the corpus is a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    let read = |path: PathBuf| {
        let input = fs::read(&path).expect("an input can be read");
        (path, input)
    };
    paths.into_iter().map(read).collect()
}

/// Runs mutations, which `round` draws.
fn mutate(target: &str, cases: u32, holds: fn(&[u8]), inputs: &[Vec<u8>], round: u64) {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&round.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let mutations = (any::<Index>(), vec(edit(), 1..12));
    let made = |start: &Index, edits: &[Edit]| {
        let start = start.get(inputs).clone();
        edits.iter().fold(start, |input, edit| edited(input, edit, inputs))
    };
    let result = runner.run(&mutations, |(start, edits)| {
        let input = made(&start, &edits);
        let before = Instant::now();
        holds(&input);
        let time = before.elapsed();
        prop_assert!(time < LONGEST, "it takes {time:?}");
        Ok(())
    });
    if let Err(TestError::Fail(reason, (start, edits))) = result {
        let input = made(&start, &edits);
        panic!("{target} fails: {reason}\nput this into its corpus: b\"{}\"", input.escape_ascii());
    }
    result.expect("no input is rejected");
}

/// A change of an input.
#[derive(Debug, Clone)]
enum Edit {
    Flip {
        at: Index,
        bit: u8,
    },
    Insert {
        at: Index,
        bytes: Vec<u8>,
    },
    Remove {
        at: Index,
        count: usize,
    },
    /// Bytes of some input, anywhere.
    Copy {
        at: Index,
        of: Index,
        from: Index,
        count: usize,
    },
    /// A number in place of the digits there.
    Number {
        at: Index,
        number: u64,
    },
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    let number = prop_oneof![0u64..12, Just(u64::from(u32::MAX)), any::<u64>()];
    prop_oneof![
        (at(), 0u8..8).prop_map(|(at, bit)| Edit::Flip { at, bit }),
        (at(), vec(any::<u8>(), 1..5)).prop_map(|(at, bytes)| Edit::Insert { at, bytes }),
        (at(), 1usize..40).prop_map(|(at, count)| Edit::Remove { at, count }),
        (at(), at(), at(), 1usize..60).prop_map(|(at, of, from, count)| Edit::Copy {
            at,
            of,
            from,
            count
        }),
        (at(), number).prop_map(|(at, number)| Edit::Number { at, number }),
    ]
}

fn edited(mut input: Vec<u8>, edit: &Edit, inputs: &[Vec<u8>]) -> Vec<u8> {
    let place = |at: &Index| at.index(input.len() + 1);
    match edit {
        Edit::Flip { at, bit } => {
            let at = place(at);
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Edit::Insert { at, bytes } => {
            let at = place(at);
            input.splice(at..at, bytes.iter().copied());
        }
        Edit::Remove { at, count } => {
            let at = place(at);
            input.drain(at..(at + count).min(input.len()));
        }
        Edit::Copy { at, of, from, count } => {
            let (at, other) = (place(at), of.get(inputs));
            let from = from.index(other.len() + 1);
            input.splice(at..at, other[from..(from + count).min(other.len())].iter().copied());
        }
        Edit::Number { at, number } => {
            let at = place(at);
            let Some(start) = input[at..].iter().position(u8::is_ascii_digit) else { return input };
            let start = at + start;
            let digits = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            input.splice(start..start + digits, number.to_string().into_bytes());
        }
    }
    input
}
