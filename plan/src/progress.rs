//! A checked plan and the capacities of its channels -> proof that it ends.

use super::channels::Channel;
use super::check::CheckedPlan;
use super::token_run::run;
use crate::error::Result;

/// Proves that `plan` ends when every link in `channels` holds that many parcels at most.
///
/// Capacity 0 is a rendezvous: the sender waits until the receiver takes the parcel. A link that
/// is not listed is unbounded.
///
/// # Errors
///
/// When the plan would deadlock, with the action that a device waits in and what it waits for, or
/// when `channels` name a link that no two devices have.
pub fn progress(plan: &CheckedPlan, channels: &[Channel]) -> Result<()> {
    run(plan.plan(), channels).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Link, StageId, check};

    /// The result for a plan of two devices with one capacity for both links.
    fn ends(lane_0: &str, lane_1: &str, capacity: u32) -> String {
        let text = format!(
            "schedule test\nmicrobatches 2\nplacement 0 1\ndevice 0: {lane_0}\ndevice 1: {lane_1}\n"
        );
        let plan = check(text.parse().unwrap()).unwrap();
        let up = Link { from: StageId(0), to: StageId(1) };
        let down = Link { from: StageId(1), to: StageId(0) };
        match progress(&plan, &[up, down].map(|link| Channel { link, capacity })) {
            Ok(()) => "ends".to_owned(),
            Err(error) => error.problem,
        }
    }

    #[test]
    fn a_plan_ends_only_with_enough_capacity_on_its_links() {
        let (gpipe_0, gpipe_1) = ("0F0 0F1 0BW0 0BW1", "1F0 1F1 1BW0 1BW1");
        assert_eq!(ends(gpipe_0, gpipe_1, 0), "ends");
        let one_f_one_b_1 = "1F0 1BW0 1F1 1BW1";
        assert_eq!(
            ends(gpipe_0, one_f_one_b_1, 0),
            "deadlock: device 0 waits after 0F1 because link 0>1 is full (capacity 0), \
             device 1 waits after 1BW0 because link 1>0 is full (capacity 0)"
        );
        assert_eq!(ends(gpipe_0, one_f_one_b_1, 1), "ends");
    }
}
