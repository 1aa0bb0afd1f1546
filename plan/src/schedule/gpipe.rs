//! GPipe: all forwards, then all backwards (Huang et al. 2019, "GPipe", section 2.3).

use super::{Family, Shape, Size, actions, fused};
use crate::action::{Action, StageId};
use crate::work::Work;

/// All forwards, then all backwards (Huang et al. 2019, section 2.3).
pub const GPIPE: Family = Family {
    name: "gpipe",
    about: "all forwards, then all backwards",
    shape: Shape::Line,
    lanes: |size| size.line(lane),
};

/// The lane of one stage.
///
/// For p = 4 devices, m = 4 microbatches, F = B = W = 1:
///
/// ```text
/// device 0 |F0-F1-F2-F3-...........................BW0---BW1---BW2---BW3---|
/// device 1 |...F0-F1-F2-F3-..................BW0---BW1---BW2---BW3---......|
/// device 2 |......F0-F1-F2-F3-.........BW0---BW1---BW2---BW3---............|
/// device 3 |.........F0-F1-F2-F3-BW0---BW1---BW2---BW3---..................|
/// ```
///
/// Every stage holds all m microbatches. The span bubble is (p-1)(F+B+W).
fn lane(stage: StageId, size: Size) -> Vec<Action> {
    let forwards = (0..size.microbatches).map(actions(stage, Work::F));
    let backwards = (0..size.microbatches).map(fused(stage));
    forwards.chain(backwards).collect()
}
