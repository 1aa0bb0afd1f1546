//! In place of `src/threads.rs`: the same names, for threads of a [`world`].
//!
//! A channel promises what `crossbeam_channel` documents, and no more: what is left in one whose
//! receivers are gone stays there until its senders are gone too.

use std::any::type_name;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_channel::{RecvError, SendError, TrySendError};
pub use crossbeam_channel::{RecvTimeoutError, TryRecvError};

pub use crate::world::now;
use crate::world::{self, What};

pub struct JoinHandle<T> {
    id: usize,
    system: std::thread::JoinHandle<T>,
}

impl<T> JoinHandle<T> {
    pub fn join(self) -> std::thread::Result<T> {
        world::wait_for_end(self.id);
        self.system.join()
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {}", self.id)
    }
}

pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    world::spawn(name, run).map(|(id, system)| JoinHandle { id, system })
}

pub struct Sender<T>(Arc<Channel<T>>);

pub struct Receiver<T>(Arc<Channel<T>>);

struct Channel<T> {
    key: usize,
    capacity: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    messages: VecDeque<T>,
    /// How many messages were put in, and taken out.
    sent: usize,
    received: usize,
    senders: usize,
    receivers: usize,
}

pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { messages: VecDeque::new(), sent: 0, received: 0, senders: 1, receivers: 1 };
    let channel = Channel { key: world::new_key(), capacity, state: Mutex::new(state) };
    let channel = Arc::new(channel);
    (Sender(channel.clone()), Receiver(channel))
}

impl<T> Channel<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in if there is a place for it.
    fn put(&self, message: T) -> Result<(), TrySendError<T>> {
        let mut state = self.state();
        if state.receivers == 0 || world::is_stuck() {
            return Err(TrySendError::Disconnected(message));
        }
        if state.messages.len() >= self.capacity.max(1) {
            return Err(TrySendError::Full(message));
        }
        state.messages.push_back(message);
        state.sent += 1;
        world::note(What::Sent(type_name::<T>()));
        world::wake(self.key);
        Ok(())
    }

    fn take(&self) -> Result<T, TryRecvError> {
        let mut state = self.state();
        if world::is_stuck() {
            return Err(TryRecvError::Disconnected);
        }
        let Some(message) = state.messages.pop_front() else {
            let gone = state.senders == 0;
            return Err(if gone { TryRecvError::Disconnected } else { TryRecvError::Empty });
        };
        state.received += 1;
        world::note(What::Received(type_name::<T>()));
        world::wake(self.key);
        Ok(message)
    }

    /// Without a place for it, a message is handed over, or it is taken back.
    fn meet(&self) -> Result<(), SendError<T>> {
        let number = self.state().sent;
        loop {
            let mut state = self.state();
            if self.capacity > 0 || state.received >= number {
                return Ok(());
            }
            if state.receivers == 0 || world::is_stuck() {
                let message = state.messages.pop_back().expect("the message is there");
                return Err(SendError(message));
            }
            drop(state);
            world::wait(Some(self.key), None);
        }
    }
}

impl<T> Sender<T> {
    pub fn send(&self, mut message: T) -> Result<(), SendError<T>> {
        world::pause();
        loop {
            match self.0.put(message) {
                Ok(()) => return self.0.meet(),
                Err(TrySendError::Disconnected(message)) => return Err(SendError(message)),
                Err(TrySendError::Full(back)) => message = back,
            }
            world::wait(Some(self.0.key), None);
        }
    }

    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        world::pause();
        self.0.put(message)
    }
}

impl<T> Receiver<T> {
    pub fn recv(&self) -> Result<T, RecvError> {
        world::pause();
        loop {
            match self.0.take() {
                Ok(message) => return Ok(message),
                Err(TryRecvError::Disconnected) => return Err(RecvError),
                Err(TryRecvError::Empty) => world::wait(Some(self.0.key), None),
            }
        }
    }

    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        world::pause();
        loop {
            match self.0.take() {
                Ok(message) => return Ok(message),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if now() >= deadline => {
                    return Err(RecvTimeoutError::Timeout);
                }
                Err(TryRecvError::Empty) => world::wait(Some(self.0.key), Some(deadline)),
            }
        }
    }

    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        world::pause();
        self.0.take()
    }

    pub fn try_iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.try_recv().ok())
    }
}

pub struct Messages<'a, T>(&'a Receiver<T>);

impl<T> Iterator for Messages<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Messages<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        Messages(self)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        world::pause();
        self.0.state().senders -= 1;
        world::wake(self.0.key);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        world::pause();
        self.0.state().receivers -= 1;
        world::wake(self.0.key);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sender {}", self.0.key)
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "receiver {}", self.0.key)
    }
}
