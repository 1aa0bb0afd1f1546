//! 1F1B: one forward, one backward (Narayanan et al. 2019, "PipeDream", section 3.2), flushed at
//! the end of each step (Narayanan et al. 2021, "Memory-Efficient Pipeline-Parallel DNN Training").

use super::{Family, Shape, Size, actions, fused};
use crate::action::{Action, StageId};
use crate::work::Work;

/// One forward, one backward (Narayanan et al. 2019, section 3.2).
pub const ONE_F_ONE_B: Family = Family {
    name: "1f1b",
    about: "one forward, one backward: at most p microbatches in memory",
    shape: Shape::Line,
    lanes: |size| size.line(lane),
};

/// The lane of one stage.
///
/// For p = 4 devices, m = 4 microbatches, F = B = W = 1:
///
/// ```text
/// device 0 |F0-F1-F2-F3-..................BW0---...BW1---...BW2---...BW3---|
/// device 1 |...F0-F1-F2-............BW0---F3-BW1---...BW2---...BW3---......|
/// device 2 |......F0-F1-......BW0---F2-BW1---F3-BW2---...BW3---............|
/// device 3 |.........F0-BW0---F1-BW1---F2-BW2---F3-BW3---..................|
/// ```
///
/// Stage i runs p - i forwards ahead, as many as fit in before its first gradient comes back, so no
/// stage holds more than p microbatches. The span bubble is GPipe's, (p-1)(F+B+W).
fn lane(stage: StageId, size: Size) -> Vec<Action> {
    let Size { devices, microbatches, .. } = size;
    let (f, bw) = (actions(stage, Work::F), fused(stage));
    let ahead = (devices - stage.0).min(microbatches);
    let mut lane: Vec<Action> = (0..ahead).map(&f).collect();
    for k in 0..microbatches {
        lane.push(bw(k));
        lane.extend((k + ahead < microbatches).then(|| f(k + ahead)));
    }
    lane
}
