//! Values of options, read and checked.

mod transfer;

use std::str::FromStr;

use clap::builder::{RangedU64ValueParser, TypedValueParser};
use zerobubble::error::{Error, Result};
use zerobubble::plan::{FORWARD_ONLY, PerWork, Schedule};

pub use transfer::TransferTimes;

/// Times of F, B and W: one triple for all devices, or one for each.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceTimes(Vec<PerWork<f64>>);

impl DeviceTimes {
    /// The times of each of `devices` devices.
    pub fn of(&self, devices: u32) -> Result<Vec<PerWork<f64>>> {
        match self.0[..] {
            [all] => Ok(vec![all; devices as usize]),
            _ if self.0.len() == devices as usize => Ok(self.0.clone()),
            _ => Err(Error::config(format!(
                "--cost has {} triples for {devices} devices",
                self.0.len()
            ))
            .hint("one triple F,B,W for all devices, or one for each")),
        }
    }
}

impl FromStr for DeviceTimes {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let triple = |triple: &str| {
            let times = triple.split(',').map(time).collect::<std::result::Result<Vec<_>, _>>()?;
            let count = times.len();
            let times = times.try_into().map(PerWork);
            times.map_err(|_| format!("'{triple}' has {count} times, F,B,W are three"))
        };
        text.split(';').map(triple).collect::<std::result::Result<_, _>>().map(Self)
    }
}

/// The names of all schedules.
pub fn all_schedules() -> String {
    Schedule::names().collect::<Vec<_>>().join(", ")
}

/// The names of those that train.
pub fn training_schedules() -> String {
    let train = Schedule::names().filter(|name| *name != FORWARD_ONLY.name);
    train.collect::<Vec<_>>().join(", ")
}

/// A schedule for `train`, which says itself why it cannot follow the one without backward work.
pub fn training_schedule(name: &str) -> std::result::Result<Schedule, zerobubble::plan::Error> {
    name.parse::<Schedule>().map_err(|error| error.hint(training_schedules()))
}

/// From 1 to `limit`: limits are far above any use, and keep products of counts in range.
pub fn count<T: TryFrom<u64> + Clone + Send + Sync + 'static>(
    limit: u32,
) -> impl TypedValueParser<Value = T>
where
    <T as TryFrom<u64>>::Error: Send + Sync + 'static + std::error::Error,
{
    RangedU64ValueParser::<T>::new().range(1..=u64::from(limit))
}

pub fn time(text: &str) -> std::result::Result<f64, String> {
    number(text, |time| time >= 0.0, "a time, 0 or more")
}

pub fn stash_limit(text: &str) -> std::result::Result<f64, String> {
    number(text, |limit| limit > 0.0, "a number of microbatches above 0")
}

pub fn norm(text: &str) -> std::result::Result<f64, String> {
    number(text, |norm| norm > 0.0, "a norm above 0")
}

pub fn learning_rate(text: &str) -> std::result::Result<f64, String> {
    number(text, |rate| rate >= 0.0, "a learning rate, 0 or more")
}

pub(super) fn number(
    text: &str,
    usable: impl Fn(f64) -> bool,
    what: &str,
) -> std::result::Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && usable(number) => Ok(number),
        _ => Err(format!("'{text}' is not {what}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness;

    #[test]
    fn any_text_is_times_or_an_error_that_says_why() {
        harness::run("cost", 10_000, |input| {
            match String::from_utf8_lossy(input).parse::<DeviceTimes>() {
                Ok(times) => {
                    let usable = |time: &f64| time.is_finite() && *time >= 0.0;
                    assert!(times.0.iter().all(|triple| triple.0.iter().all(usable)), "{times:?}");
                    assert_eq!(times.of(times.0.len() as u32).unwrap(), times.0);
                }
                Err(error) => assert!(error.contains('\''), "{error}"),
            }
        });
    }

    #[test]
    fn times_are_for_all_devices_or_for_each() {
        let times = |text: &str, devices| text.parse::<DeviceTimes>().unwrap().of(devices);
        assert_eq!(times("1, 2,0.5", 2).unwrap(), [PerWork([1.0, 2.0, 0.5]); 2]);
        assert_eq!(times("1,1,1;2,3,4", 2).unwrap()[1], PerWork([2.0, 3.0, 4.0]));
        assert!(times("1,1,1;2,3,4", 3).is_err());
    }
}
