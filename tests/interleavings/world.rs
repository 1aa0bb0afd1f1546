//! Threads of which one runs at a time. Which one, a seed decides, and it decides anew whenever a
//! thread is about to do something that another can notice. Time passes only here.
//!
//! Every thread has a priority, and of those that can go on the highest does (Burckhardt et al.
//! 2010, "A randomized scheduler with probabilistic guarantees of finding bugs"). A thread that
//! runs gets another priority now and then; how often is the seed's too, so that some worlds
//! switch all the time and others let one thread stand still for long.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// More turns than any run of the runtime here takes.
const MOST_TURNS: usize = 300_000;

thread_local! {
    /// The world that this thread is of, and its number there.
    static HERE: RefCell<Option<(Arc<World>, usize)>> = const { RefCell::new(None) };
}

struct World {
    /// The thread that runs.
    running: AtomicUsize,
    /// The time of the operating system at which the world's begins.
    began: Instant,
    state: Mutex<State>,
}

struct State {
    random: Random,
    clock: Duration,
    /// What a turn takes.
    turn: Duration,
    /// Every so many turns a thread gets another priority.
    steady: u64,
    turns: usize,
    threads: Vec<Member>,
    keys: usize,
    /// How many threads there may be.
    most_threads: usize,
    stuck: Option<String>,
    events: Vec<Event>,
}

/// A thread of a world.
struct Member {
    name: String,
    system: Thread,
    priority: u64,
    phase: Phase,
    joined: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Ready,
    Waiting { key: Option<usize>, until: Option<Duration> },
    Ended,
}

/// What a thread did that others can notice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event {
    pub thread: usize,
    pub what: What,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum What {
    /// Put a message of this type into a channel.
    Sent(&'static str),
    /// Took a message of this type out of a channel.
    Received(&'static str),
    /// Met the trouble of this number.
    Trouble(usize),
}

/// How a world ended.
pub struct End<T> {
    /// What the body gave, or its panic.
    pub value: Result<T, Box<dyn Any + Send>>,
    pub events: Vec<Event>,
    /// Who waited for what, if nobody could go on, or if there was no end to it.
    pub stuck: Option<String>,
    /// Threads that were not joined when the body ended.
    pub left: Vec<String>,
}

/// Runs `body` as the first thread of a world. Of threads beside it there may be `most_threads`.
pub fn simulate<T>(seed: u64, most_threads: usize, body: impl FnOnce() -> T) -> End<T> {
    let mut random = Random::new(seed);
    let turn = Duration::from_nanos(random.of(&[1, 500, 20_000]));
    let steady = random.of(&[1, 4, 64]);
    let state = State {
        random,
        clock: Duration::ZERO,
        turn,
        steady,
        turns: 0,
        threads: Vec::new(),
        keys: 0,
        most_threads: most_threads + 1,
        stuck: None,
        events: Vec::new(),
    };
    let (running, began) = (AtomicUsize::new(0), Instant::now());
    let world = Arc::new(World { running, began, state: Mutex::new(state) });
    world.state().add("caller", thread::current());
    HERE.set(Some((world.clone(), 0)));
    let value = catch_unwind(AssertUnwindSafe(body));
    let left = world.state().left();
    // Those end too, one way or the other.
    let threads = world.state().threads.len();
    for id in 1..threads {
        wait_for_end(id);
    }
    HERE.set(None);
    let mut state = world.state();
    let (events, stuck) = (std::mem::take(&mut state.events), state.stuck.take());
    drop(state);
    End { value, events, stuck, left }
}

/// Lets another thread run first, or not.
pub fn pause() {
    with(|world, me| {
        let mut state = world.state();
        let steady = state.steady;
        if state.random.once_in(steady) {
            state.threads[me].priority = state.random.next();
        }
        world.hand_over(me, state);
    });
}

/// Waits until another thread wakes this key, or until a moment.
pub fn wait(key: Option<usize>, until: Option<Instant>) {
    let waited = with(|world, me| {
        let mut state = world.state();
        let until = until.map(|until| until.saturating_duration_since(world.began));
        // What is stuck is to end: nothing is waited for but the end of a thread.
        if state.stuck.is_none() || key.is_some_and(|key| key < state.threads.len()) {
            state.threads[me].phase = Phase::Waiting { key, until };
        }
        world.hand_over(me, state);
    });
    assert!(waited.is_some(), "it would wait outside of a world");
}

/// Lets those go on who wait for this key.
pub fn wake(key: usize) {
    with(|world, _| world.state().wake(key));
}

/// A key to wait for.
pub fn new_key() -> usize {
    let key = with(|world, _| {
        let mut state = world.state();
        state.keys += 1;
        // Those below are threads.
        state.keys + 1000
    });
    key.expect("a channel of a world")
}

/// Whether nobody could go on: then nothing waits any more, so that all threads end.
pub fn is_stuck() -> bool {
    with(|world, _| world.state().stuck.is_some()).unwrap_or(true)
}

pub fn now() -> Instant {
    with(|world, _| world.began + world.state().clock).expect("the time of a world")
}

/// Does nothing for so long.
pub fn sleep(time: Duration) {
    wait(None, Some(now() + time));
}

/// Writes down what this thread does.
pub fn note(what: What) {
    with(|world, thread| world.state().events.push(Event { thread, what }));
}

/// What was written down so far.
pub fn events() -> Vec<Event> {
    with(|world, _| world.state().events.clone()).expect("the events of a world")
}

/// A thread that begins when it is its turn; its number, and that of the operating system.
pub fn spawn(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> std::io::Result<(usize, thread::JoinHandle<()>)> {
    let (world, _) = HERE.with_borrow(|here| here.clone()).expect("a thread of a world");
    let id = world.state().threads.len();
    if id >= world.state().most_threads {
        return Err(std::io::ErrorKind::WouldBlock.into());
    }
    let inside = world.clone();
    let handle = thread::spawn(move || {
        inside.wait_for_turn(id);
        HERE.set(Some((inside.clone(), id)));
        // What a thread holds is dropped while it is of the world.
        let ended = catch_unwind(AssertUnwindSafe(run));
        HERE.set(None);
        inside.end(id);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    world.state().add(name, handle.thread().clone());
    Ok((id, handle))
}

/// Waits until a thread has ended, and counts it as joined.
pub fn wait_for_end(id: usize) {
    let ended = || with(|world, _| world.state().threads[id].phase == Phase::Ended);
    while ended() == Some(false) {
        wait(Some(id), None);
    }
    with(|world, _| world.state().threads[id].joined = true);
}

fn with<T>(act: impl FnOnce(&World, usize) -> T) -> Option<T> {
    let here = HERE.with_borrow(|here| here.clone());
    here.map(|(world, me)| act(&world, me))
}

impl World {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(&self, me: usize, mut state: MutexGuard<'_, State>) {
        let next = state.choose().expect("somebody can go on");
        if next == me {
            return;
        }
        self.give_turn(next, state);
        self.wait_for_turn(me);
    }

    fn give_turn(&self, next: usize, state: MutexGuard<'_, State>) {
        let system = state.threads[next].system.clone();
        drop(state);
        self.running.store(next, Ordering::Release);
        system.unpark();
    }

    fn wait_for_turn(&self, me: usize) {
        while self.running.load(Ordering::Acquire) != me {
            thread::park();
        }
    }

    fn end(&self, me: usize) {
        let mut state = self.state();
        state.threads[me].phase = Phase::Ended;
        state.wake(me);
        let next = state.choose().expect("the caller outlives all");
        self.give_turn(next, state);
    }
}

impl State {
    fn add(&mut self, name: &str, system: Thread) {
        let priority = self.random.next();
        let (name, phase) = (name.to_owned(), Phase::Ready);
        self.threads.push(Member { name, system, priority, phase, joined: false });
    }

    /// Threads that were not joined.
    fn left(&self) -> Vec<String> {
        let left = self.threads[1..].iter().filter(|thread| !thread.joined);
        left.map(|thread| thread.name.clone()).collect()
    }

    fn wake(&mut self, woken: usize) {
        for thread in &mut self.threads {
            if matches!(thread.phase, Phase::Waiting { key: Some(key), .. } if key == woken) {
                thread.phase = Phase::Ready;
            }
        }
    }

    /// Who runs next. Where all wait for a moment, it is now that moment.
    fn choose(&mut self) -> Option<usize> {
        self.turns += 1;
        self.clock += self.turn;
        if self.turns > MOST_TURNS {
            self.give_up("there is no end to it");
        }
        loop {
            for thread in &mut self.threads {
                if matches!(thread.phase, Phase::Waiting { until: Some(until), .. }
                    if until <= self.clock)
                {
                    thread.phase = Phase::Ready;
                }
            }
            let ready = |&id: &usize| self.threads[id].phase == Phase::Ready;
            let next = (0..self.threads.len()).filter(ready);
            if let Some(next) = next.max_by_key(|&id| self.threads[id].priority) {
                return Some(next);
            }
            let moments = self.threads.iter().filter_map(|thread| match thread.phase {
                Phase::Waiting { until, .. } => until,
                Phase::Ready | Phase::Ended => None,
            });
            match moments.min() {
                Some(moment) => self.clock = moment,
                None if self.stuck.is_some() => return None,
                None => self.give_up("nobody can go on"),
            }
        }
    }

    /// Lets all threads go on that wait; what they waited for is refused.
    fn give_up(&mut self, why: &str) {
        if self.stuck.is_some() {
            return;
        }
        let mut who = Vec::new();
        for thread in &mut self.threads {
            let doing = match thread.phase {
                Phase::Waiting { .. } => "waits",
                Phase::Ready => "is ready",
                Phase::Ended => "has ended",
            };
            who.push(format!("{} {doing}", thread.name));
            if thread.phase != Phase::Ended {
                thread.phase = Phase::Ready;
            }
        }
        self.stuck = Some(format!("{why}: {}", who.join(", ")));
    }
}

/// SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators"): a seed has to
/// mean the same for ever.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Scatters the bits of a word.
pub fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
