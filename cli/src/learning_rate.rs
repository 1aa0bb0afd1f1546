//! The learning rate of every step, as the command line says it.

use std::fmt;

use burn::lr_scheduler::LrSchedulerConfig;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::{ModuleLrScheduler, ModuleLrSchedulerConfig};
use burn::lr_scheduler::sequential::SequentialLrSchedulerConfig;
use zerobubble::error::{Error, Result};

use super::args::{RateSchedule, TrainArgs};

/// Warm-up, then a constant rate or half a cosine.
pub struct Rates {
    steps: u32,
    warmup: u32,
    /// The largest.
    full: f64,
    /// Where a cosine ends.
    smallest: Option<f64>,
}

impl Rates {
    /// What `args` ask for.
    pub fn of(args: &TrainArgs) -> Result<Self> {
        let TrainArgs { steps, warmup, min_learning_rate, .. } = *args;
        let full = args.common.learning_rate;
        if warmup >= steps {
            return Err(Error::config(format!("a warm-up of {warmup} in {steps} steps"))
                .hint("a --warmup below --steps"));
        }
        let smallest = match args.learning_rate_schedule {
            RateSchedule::Cosine => Some(min_learning_rate.unwrap_or(full / 10.0)),
            RateSchedule::Constant if min_learning_rate.is_some() => {
                return Err(Error::config("a smallest learning rate, but none that falls")
                    .hint("--learning-rate-schedule cosine"));
            }
            RateSchedule::Constant => None,
        };
        Ok(Self { steps, warmup, full, smallest })
    }

    /// The scheduler. In the warm-up of N steps, step i from 0 has the (i + 1)th of N + 1 parts.
    pub fn scheduler(&self) -> Result<ModuleLrScheduler> {
        let warmup = self.warmup as usize;
        let after: LrSchedulerConfig = match self.smallest {
            None => self.full.into(),
            Some(smallest) => {
                let steps = self.steps as usize - warmup;
                CosineAnnealingLrSchedulerConfig::new(self.full, steps).with_min_lr(smallest).into()
            }
        };
        let scheduler = if warmup == 0 {
            ModuleLrSchedulerConfig::new(after).init()
        } else {
            let first = self.full / (warmup as f64 + 1.0);
            let rise = LinearLrSchedulerConfig::new(first, self.full, warmup).into();
            SequentialLrSchedulerConfig::new(vec![rise, after], vec![warmup]).init()
        };
        scheduler.map_err(|problem| {
            Error::config(problem).hint("a --learning-rate of at most 1, and no smaller minimum")
        })
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.full)?;
        if let Some(smallest) = self.smallest {
            write!(f, " down to {smallest} along a cosine")?;
        }
        match self.warmup {
            0 => Ok(()),
            steps => write!(f, ", after a warm-up of {steps} steps"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(steps: u32, warmup: u32, smallest: Option<f64>) -> Vec<f64> {
        let rates = Rates { steps, warmup, full: 0.8, smallest };
        let mut scheduler = rates.scheduler().unwrap();
        (0..steps).map(|_| scheduler.step().base()).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close, "{found:?}, not {expected:?}");
    }

    #[test]
    fn the_rate_rises_and_then_stays_or_falls() {
        assert_close(&rates(3, 0, None), &[0.8; 3]);
        assert_close(&rates(5, 3, None), &[0.2, 0.4, 0.6, 0.8, 0.8]);
        assert_close(&rates(4, 1, None), &[0.4, 0.8, 0.8, 0.8]);
        let quarter = 0.5 * (1.0 + std::f64::consts::FRAC_PI_4.cos());
        let fall = [0.8, 0.2 + 0.6 * quarter, 0.5, 0.8 - 0.6 * quarter];
        assert_close(&rates(4, 0, Some(0.2)), &fall);
        assert_close(&rates(5, 1, Some(0.2)), &[&[0.4], &fall[..]].concat());
    }

    #[test]
    fn a_rate_says_what_it_does() {
        let said = |warmup, smallest| Rates { steps: 9, warmup, full: 0.01, smallest }.to_string();
        assert_eq!(said(0, None), "0.01");
        assert_eq!(
            said(4, Some(0.001)),
            "0.01 down to 0.001 along a cosine, after a warm-up of 4 steps"
        );
    }
}
