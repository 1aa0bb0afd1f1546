//! The three kinds of work, and what there is one of for each.

use std::fmt;
use std::ops::{Index, IndexMut};

use serde::Serialize;

/// A kind of work of a stage on a microbatch, in the order in which they follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// Forward.
    F,
    /// Gradient of the stage's input, which the previous stage waits for.
    B,
    /// Gradient of the stage's weights, which only the optimizer waits for.
    W,
}

/// One value for each kind of work. Serialises as the list of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub struct PerWork<T>(
    /// In the order of [`Work::ALL`].
    pub [T; 3],
);

impl Work {
    /// All kinds, in their order.
    pub const ALL: [Self; 3] = [Self::F, Self::B, Self::W];
}

impl<T> PerWork<T> {
    /// What `value` gives for each kind.
    pub fn from_fn(value: impl FnMut(Work) -> T) -> Self {
        Self(Work::ALL.map(value))
    }

    /// What `change` makes of each value.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> PerWork<U> {
        PerWork(self.0.map(change))
    }

    /// References to the values.
    pub fn as_ref(&self) -> PerWork<&T> {
        PerWork(self.0.each_ref())
    }

    /// Every kind and its value.
    pub fn iter(&self) -> impl Iterator<Item = (Work, &T)> {
        Work::ALL.into_iter().zip(&self.0)
    }
}

impl PerWork<f64> {
    /// F, B and W together.
    pub fn total(&self) -> f64 {
        self.0.iter().sum()
    }
}

impl<T> Index<Work> for PerWork<T> {
    type Output = T;

    fn index(&self, work: Work) -> &T {
        &self.0[work as usize]
    }
}

impl<T> IndexMut<Work> for PerWork<T> {
    fn index_mut(&mut self, work: Work) -> &mut T {
        &mut self.0[work as usize]
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F => "F",
            Self::B => "B",
            Self::W => "W",
        })
    }
}
