//! ZB-H2: twice the forwards ahead of 1F1B, so that no device idles between its first and its last
//! action (Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 2.2).

use super::{Family, Shape, Size, actions};
use crate::action::{Action, StageId};
use crate::work::Work;

/// No bubble between a device's first and last action, at twice 1F1B's memory (Qi et al. 2023,
/// section 2.2).
pub const ZB_H2: Family = Family {
    name: "zb-h2",
    about: "no bubble within a device's span at F = B = W, at about twice 1f1b's memory",
    shape: Shape::Line,
    lanes: |size| size.line(lane),
};

/// The lane of one stage.
///
/// For p = 4 devices, m = 8 microbatches, F = B = W = 1:
///
/// ```text
/// device 0 |F0-F1-F2-F3-F4-F5-F6-B0-W0-F7-B1-W1-B2-W2-B3-W3-B4-W4-B5-W5-B6-W6-B7-W7-.........|
/// device 1 |...F0-F1-F2-F3-F4-B0-F5-B1-F6-B2-W0-F7-B3-W1-B4-W2-B5-W3-B6-W4-B7-W5-W6-W7-......|
/// device 2 |......F0-F1-F2-B0-F3-B1-F4-B2-F5-B3-F6-B4-W0-F7-B5-W1-B6-W2-B7-W3-W4-W5-W6-W7-...|
/// device 3 |.........F0-B0-F1-B1-F2-B2-F3-B3-F4-B4-F5-B5-F6-B6-W0-F7-B7-W1-W2-W3-W4-W5-W6-W7-|
/// ```
///
/// F and B are those of 1F1B with 2(p - i) - 1 forwards ahead on stage i: as many as fit in, at
/// F = B, before its first gradient comes back. W runs 2i microbatches behind B. So no stage holds
/// more than 2p - 1 microbatches between F and W.
///
/// Where W <= B the span bubble is (p-1)(F+B) - (min(m,2p-1)-1)min(F,W): for m >= 2p - 1 and W <= F
/// the source's (p-1)(F+B-2W). The step bubble is then the larger of that and (p-1)F, the time that
/// the first microbatch needs to reach the last stage.
fn lane(stage: StageId, size: Size) -> Vec<Action> {
    let Size { devices, microbatches, .. } = size;
    let (f, b, w) = (actions(stage, Work::F), actions(stage, Work::B), actions(stage, Work::W));
    let ahead = (2 * (devices - stage.0) - 1).min(microbatches);
    let behind = (2 * stage.0).min(microbatches);
    let mut lane: Vec<Action> = (0..ahead).map(&f).collect();
    for k in 0..microbatches {
        lane.push(b(k));
        lane.extend(k.checked_sub(behind).map(&w));
        lane.extend((k + ahead < microbatches).then(|| f(k + ahead)));
    }
    lane.extend((microbatches - behind..microbatches).map(&w));
    lane
}
