//! Where things are in a picture, in pixels.

use super::{Annotations, held, peak_stash};
use crate::trace::{Label, Span, Timeline, rows, stages};

/// Pixels of a bar from its top to its foot.
pub(super) const BAR: f64 = 36.0;
/// Pixels from one lane to the next, without transfers.
const PITCH: f64 = 46.0;
/// Pixels of the bar of a parcel.
pub(super) const PARCEL: f64 = 5.0;
/// Pixels from one row of parcels to the next.
pub(super) const ROW: f64 = PARCEL + 1.0;
/// Pixels above the first lane.
pub(super) const TOP: f64 = 64.0;
/// The least pixels of time, and the most.
const TIME_WIDTH: (f64, f64) = (480.0, 10_000.0);
/// Pixels of a short action whose names are short, if the picture is neither too small nor too
/// large.
const ACTION_WIDTH: f64 = 24.0;
/// The sizes at which names in a bar are easy to read: of its work, and of its microbatch.
const READABLE: (f64, f64) = (8.5, 11.0);
/// As long a part of the actions may be too short for their names.
const TOO_SHORT: f64 = 0.1;
/// The least pixels from one tick of the axis to the next.
const TICK_WIDTH: f64 = 60.0;
/// Pixels that letters in a bar leave beside them, on both sides together.
pub(super) const MARGINS: f64 = 3.0;

/// Maps devices and times to pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) start: f64,
    pub(super) duration: f64,
    /// Time from one tick of the axis to the next, and the digits that times are printed with.
    pub(super) tick: f64,
    pub(super) decimals: usize,
    pub(super) left: f64,
    pub(super) time_width: f64,
    pub(super) width: f64,
    pitch: f64,
    pub(super) devices: usize,
    /// Pixels of a short action, and of the letters in it.
    pub(super) action: f64,
    pub(super) work_size: f64,
    pub(super) microbatch_size: f64,
}

impl Geometry {
    pub(super) fn new(timeline: &Timeline, annotations: &Annotations) -> Self {
        let spans = || timeline.lanes.iter().chain(&timeline.transfers).flatten();
        let start = spans().map(|span| span.start).fold(f64::INFINITY, f64::min);
        let end = spans().map(|span| span.end).fold(f64::NEG_INFINITY, f64::max);
        let duration = end - start;
        // Nothing ran, or it took no time: any scale shows that.
        let empty = !(duration > 0.0 && duration.is_finite());
        let (start, duration) = if empty { (start.min(0.0), 1.0) } else { (start, duration) };
        let short = short_action(timeline).unwrap_or(duration).max(duration / 1e4);
        let (work_letters, microbatch_letters) = most_letters(timeline);
        let names = (READABLE.0 * work_letters as f64).max(READABLE.1 * microbatch_letters as f64);
        let wanted = ACTION_WIDTH.max(text_width("0", 1.0) * names + MARGINS);
        let time_width = (wanted * duration / short).clamp(TIME_WIDTH.0, TIME_WIDTH.1);
        let action = time_width * short / duration;
        // Less a little, as bars end where pixels are rounded to.
        let size = |letters: usize| (action - MARGINS - 0.1) / text_width("0", letters as f64);
        let microbatch_size = size(microbatch_letters).clamp(8.0, 13.0);
        let (tick, decimals) = round_at_least(TICK_WIDTH / time_width * duration);
        let names = timeline.lanes.iter().enumerate().map(|(device, lane)| {
            text_width(&format!("device {device}"), 13.0)
                .max(text_width(&held(&stages(lane)), 11.0))
        });
        let left = 28.0 + names.fold(0.0, f64::max).ceil();
        let stash =
            annotations.peak_stash.iter().map(|stash| text_width(&peak_stash(*stash), 11.0));
        let right = 28.0 + stash.fold(text_width("100.0% busy", 13.0), f64::max).ceil();
        Self {
            start,
            duration,
            tick,
            decimals: decimals + 1,
            left,
            time_width: time_width.round(),
            width: left + time_width.round() + right,
            pitch: pitch(timeline),
            devices: timeline.lanes.len(),
            action,
            work_size: size(work_letters).clamp(7.0, 10.0).min(0.8 * microbatch_size),
            microbatch_size,
        }
    }

    /// Rounded to what is printed, so that neighbours that touch still do.
    pub(super) fn x(self, time: f64) -> f64 {
        let x = self.left + (time - self.start) / self.duration * self.time_width;
        (x * 100.0).round() / 100.0
    }

    pub(super) fn lane(self, device: usize) -> f64 {
        TOP + self.pitch * device as f64
    }

    /// The line below the last lane.
    pub(super) fn axis(self) -> f64 {
        self.lane(self.devices)
    }

    pub(super) fn time(self, time: f64) -> String {
        format!("{:.*}", self.decimals, time - self.start)
    }
}

/// Pixels from one lane to the next, with rows for parcels below each.
fn pitch(timeline: &Timeline) -> f64 {
    let most = |lane: &Vec<Span>| rows(lane).into_iter().max().map_or(0, |row| row + 1);
    match timeline.transfers.iter().map(most).max().unwrap_or(0) {
        0 => PITCH,
        rows => PITCH + ROW * rows as f64 - 1.0,
    }
}

/// The length of an action that few are shorter than.
fn short_action(timeline: &Timeline) -> Option<f64> {
    let actions = timeline.lanes.iter().flatten();
    let actions = actions.filter(|span| matches!(span.label, Label::Action(_)));
    let mut lengths: Vec<f64> = actions.map(|span| span.end - span.start).collect();
    lengths.sort_by(f64::total_cmp);
    lengths.get((TOO_SHORT * lengths.len() as f64) as usize).copied()
}

/// The letters of the longest `4F` and of the longest microbatch.
fn most_letters(timeline: &Timeline) -> (usize, usize) {
    let (mut work, mut microbatch) = (1, 1);
    for lane in &timeline.lanes {
        let several = stages(lane).len() > 1;
        for span in lane {
            let Label::Action(action) = span.label else { continue };
            let stage = if several { action.stage.to_string().len() } else { 0 };
            work = work.max(stage + 1);
            microbatch = microbatch.max(action.microbatch.to_string().len());
        }
    }
    (work, microbatch)
}

/// The least of 1, 2 and 5 times a power of ten that is no less, and its digits after the point.
fn round_at_least(least: f64) -> (f64, usize) {
    let (mut power, mut decimals) = (1.0, 0usize);
    while power * 10.0 <= least {
        power *= 10.0;
    }
    while power > least && decimals < 12 {
        power /= 10.0;
        decimals += 1;
    }
    let step = [1.0, 2.0, 5.0].into_iter().map(|factor| factor * power).find(|step| *step >= least);
    step.map_or((10.0 * power, decimals.saturating_sub(1)), |step| (step, decimals))
}

/// Roughly: letters of the usual fonts differ.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    0.62 * size * text.chars().count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let rows = [
            (1.0, "1", 0),
            (1.1, "2", 0),
            (2.0, "2", 0),
            (4.9, "5", 0),
            (5.1, "10", 0),
            (51.0, "100", 0),
            (0.3, "0.5", 1),
            (0.07, "0.1", 1),
            (0.011, "0.02", 2),
        ];
        for (least, step, decimals) in rows {
            let (found, digits) = round_at_least(least);
            assert_eq!((format!("{found:.decimals$}"), digits), (step.to_owned(), decimals));
        }
        assert!(round_at_least(f64::MAX).0 >= f64::MAX);
        assert!(round_at_least(f64::MIN_POSITIVE).0 > 0.0);
    }
}
