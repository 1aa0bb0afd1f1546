//! Promise: whatever the threads' timing, a run of the runtime has one result, which is that of
//! one device, or its first error; every action is reported once, and every thread ends.
//!
//! The runtime is that of `src/runtime`, file by file. Only `src/threads.rs`, which it takes its
//! threads, channels and time from, is another here: one thread runs at a time, and a seed decides
//! which. So what a seed finds it finds again:
//!
//! ```console
//! $ ZEROBUBBLE_INTERLEAVINGS=4711 cargo test --release --test interleavings
//! $ ZEROBUBBLE_INTERLEAVINGS=0..100000 cargo test --release --test interleavings
//! ```

#[path = "interleavings/alone.rs"]
mod alone;
#[path = "interleavings/case.rs"]
mod case;
#[path = "interleavings/device.rs"]
mod device;
#[path = "common/families.rs"]
mod families;
#[path = "interleavings/model.rs"]
mod model;
#[path = "../src/runtime/mod.rs"]
mod runtime;
#[path = "interleavings/threads.rs"]
mod threads;
#[path = "interleavings/world.rs"]
mod world;

/// What the runtime uses of the library, by the same paths.
use zerobubble::{compile, engine, graph, plan, trace};

mod error {
    pub use zerobubble::error::{Error, ErrorKind, Result};

    /// The one function that the library does not give away.
    pub fn of_panic(panic: &(dyn std::any::Any + Send)) -> Error {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Error::run(format!("panicked: {text}"))
    }
}

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use case::{Call, Case, is_received, is_sent};
use device::{How, Place, Trouble};
use families::families;
use world::{Event, simulate};
use zerobubble::plan::{Work, ZB_V};

/// The variable that asks for other seeds.
const ASKED: &str = "ZEROBUBBLE_INTERLEAVINGS";

/// Plays a run; what is wrong with it, if anything is, and what its threads did.
fn judge(case: &Case) -> (Option<String>, Vec<Event>) {
    let end = simulate(case.seed, case.threads, || case.play());
    let count = |is: fn(&Event, &str) -> bool, name| {
        end.events.iter().filter(|event| is(event, name)).count()
    };
    let orders = count(is_sent, "Order");
    let reports = [count(is_sent, "Report"), count(is_received, "Report")];
    let wrong = if let Some(stuck) = end.stuck {
        Some(stuck)
    } else if let Err(panic) = end.value {
        Some(error::of_panic(&*panic).problem)
    } else if !end.left.is_empty() {
        Some(format!("not joined: {}", end.left.join(", ")))
    } else if reports != [orders; 2] {
        Some(format!("{orders} orders, and {reports:?} reports sent and received"))
    } else {
        None
    };
    (wrong, end.events)
}

/// A case of every family, in its own order and dynamic, on 2 to 8 devices by turns.
fn case(seed: u64) -> Case {
    let families: Vec<_> = families().collect();
    let kinds = 2 * families.len() as u64;
    let kind = (seed % kinds) as usize;
    let devices = 2 + (seed / kinds % 7) as u32;
    Case::draw(seed, families[kind / 2], kind % 2 == 1, devices)
}

/// Plays cases on all cores.
fn play_all(cases: u64, case: impl Fn(u64) -> Case + Sync) {
    let next = AtomicU64::new(0);
    let play = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= cases {
                return None;
            }
            let case = case(number);
            if let (Some(wrong), _) = judge(&case) {
                return Some(format!("{case}: {wrong}"));
            }
        }
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let players: Vec<_> = (0..cores).map(|_| scope.spawn(play)).collect();
        players.into_iter().filter_map(|player| player.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The seeds that the environment asks for.
fn seeds() -> Range<u64> {
    let Ok(asked) = std::env::var(ASKED) else { return 0..500 };
    let number = |text: &str| text.parse().expect("a seed, or a range such as 0..1000");
    match asked.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => number(&asked)..number(&asked) + 1,
    }
}

#[test]
fn a_run_has_one_result_or_its_first_error() {
    let seeds = seeds();
    play_all(seeds.end - seeds.start, |number| case(seeds.start + number));
}

#[test]
fn a_run_in_any_order_of_microbatches_has_one_result_as_well() {
    let seeds = seeds();
    play_all(seeds.end - seeds.start, |number| case(seeds.start + number).reordered());
}

/// Threads that had been started already were left to themselves.
#[test]
fn a_thread_that_is_missing_leaves_no_other() {
    let sizes = (2..=8).flat_map(|devices| (0..=devices).map(move |threads| (devices, threads)));
    let sizes: Vec<(u32, u32)> = sizes.collect();
    play_all(sizes.len() as u64, |number| {
        let (devices, threads) = sizes[number as usize];
        let mut case = Case::draw(number, &ZB_V, number % 2 == 1, devices);
        case.threads = threads as usize;
        case
    });
}

#[test]
fn what_the_tests_look_for_is_seen() {
    let (deadlock, left) = simulate_pair();
    assert!(deadlock.is_some_and(|stuck| stuck == DEADLOCK), "a deadlock");
    assert_eq!(left, ["one"], "a thread that nobody joins");
    let mut orders = BTreeSet::new();
    for seed in 0..20 {
        let end = simulate(seed, 2, || {
            let (sender, receiver) = threads::bounded(2);
            for number in 0..2 {
                let sender = sender.clone();
                threads::spawn("sender", move || sender.send(number).unwrap()).unwrap();
            }
            [(); 2].map(|()| receiver.recv().unwrap())
        });
        orders.extend(end.value.ok());
    }
    assert_eq!(orders.len(), 2, "both orders");
}

const DEADLOCK: &str = "nobody can go on: caller waits, one waits";

/// Two threads that wait for each other: how that ended, and who was not joined.
fn simulate_pair() -> (Option<String>, Vec<String>) {
    let end = simulate(0, 1, || {
        let [(to_one, at_one), (to_caller, at_caller)] = [(); 2].map(|()| threads::bounded(1));
        let one = move || {
            if at_one.recv().is_ok() {
                to_caller.send(()).unwrap();
            }
        };
        drop(threads::spawn("one", one).unwrap());
        at_caller.recv().unwrap_err();
        drop(to_one);
    });
    let _: Option<()> = end.value.ok();
    (end.stuck, end.left)
}

#[test]
fn a_seed_plays_the_same_interleaving_again() {
    let mut events = 0;
    for seed in 0..40 {
        let [(_, first), (_, again)] = [judge(&case(seed)), judge(&case(seed))];
        assert!(first == again, "{seed}");
        events += first.len();
    }
    assert!(events > 10_000, "{events}");
}

#[test]
fn an_action_may_fail_anywhere() {
    let kinds = families().flat_map(|family| [(family, false), (family, true)]);
    let all_sizes = std::env::var_os(ASKED).is_some();
    let mut cases = Vec::new();
    for (kind, (family, is_dynamic)) in (0..).zip(kinds) {
        // By turns, or all of them.
        for devices in (2..=8).filter(|devices| all_sizes || devices % 7 == kind % 7) {
            let seed = u64::from(kind);
            let actions = Case::draw(seed, family, is_dynamic, devices).actions();
            let case = move |place| (seed, family, is_dynamic, devices, place);
            cases.extend(actions.into_iter().map(case));
        }
    }
    play_all(cases.len() as u64, |number| {
        let (seed, family, is_dynamic, devices, place) = cases[number as usize];
        let mut case = Case::draw(seed, family, is_dynamic, devices);
        (case.seed, case.threads) = (number, devices as usize + 1);
        case.calls = vec![Call::Step; 2];
        let hows = [How::Fails, How::FailsLater, How::Panics, How::NotFinite];
        let is_f = matches!(place, Place::Action(action) if action.computes(Work::F));
        // Only F says of a number that it is not finite.
        let how = hows[number as usize % if is_f { 4 } else { 3 }];
        case.troubles = vec![Trouble { call: (number / 4 % 2) as usize, place, how }];
        case
    });
}

/// What measures the runtime itself counts every action and joins its threads as well.
#[test]
fn empty_devices_end_whatever_their_timing() {
    for seed in 0..20 {
        let end = simulate(seed, 3, || runtime::overhead(2, 3, 2));
        assert_eq!((end.stuck, end.left), (None, Vec::new()), "seed {seed}");
        let cost = end.value.unwrap_or_else(|_| panic!("seed {seed} panicked"));
        assert!(cost.unwrap() > Duration::ZERO, "seed {seed}: the clock goes on");
    }
}
