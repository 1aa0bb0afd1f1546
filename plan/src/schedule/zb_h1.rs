//! ZB-H1: 1F1B with the weight gradients moved into the bubble, at 1F1B's peak stash
//! (Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 2.1).

use super::{Family, Shape, Size, actions};
use crate::action::{Action, StageId};
use crate::work::Work;

/// 1F1B with W moved into the bubble (Qi et al. 2023, section 2.1).
pub const ZB_H1: Family = Family {
    name: "zb-h1",
    about: "1f1b with weight gradients in the bubble, at 1f1b's memory",
    shape: Shape::Line,
    lanes: |size| size.line(lane),
};

/// The lane of one stage.
///
/// For p = 4 devices, m = 6 microbatches, F = B = W = 1:
///
/// ```text
/// device 0 |F0-F1-F2-F3-.........B0-W0-F4-B1-W1-F5-B2-W2-B3-W3-B4-W4-B5-W5-|
/// device 1 |...F0-F1-F2-......B0-F3-B1-W0-F4-B2-W1-F5-B3-W2-B4-W3-B5-W4-W5-|
/// device 2 |......F0-F1-...B0-F2-B1-F3-B2-W0-F4-B3-W1-F5-B4-W2-B5-W3-W4-W5-|
/// device 3 |.........F0-B0-F1-B1-F2-B2-F3-B3-W0-F4-B4-W1-F5-B5-W2-W3-W4-W5-|
/// ```
///
/// F and B keep the order of 1F1B; on stage i, W runs i microbatches behind B. A later stage of
/// 1F1B holds fewer microbatches, so it can put off more W and hand gradients back sooner, and what
/// was put off fills the drain. No stage holds more than p microbatches between F and W.
///
/// Where W <= B the span bubble is (p-1)(F+B) - (min(m,p)-1)min(F,W): for m >= p and W <= F the
/// source's (p-1)(F+B-W). A larger W does not help, because the first gradient comes back to stage
/// 0 no sooner than (p-1)B after its p-th F, and p is all the F that it may run before.
fn lane(stage: StageId, size: Size) -> Vec<Action> {
    let Size { devices, microbatches, .. } = size;
    let (f, b, w) = (actions(stage, Work::F), actions(stage, Work::B), actions(stage, Work::W));
    let ahead = (devices - stage.0).min(microbatches);
    let behind = stage.0.min(microbatches);
    let mut lane: Vec<Action> = (0..ahead).map(&f).collect();
    for k in 0..microbatches {
        lane.push(b(k));
        lane.extend(k.checked_sub(behind).map(&w));
        lane.extend((k + ahead < microbatches).then(|| f(k + ahead)));
    }
    lane.extend((microbatches - behind..microbatches).map(&w));
    lane
}
