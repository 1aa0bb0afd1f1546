//! Which stages are adjacent.

use crate::engine::StageSetup;

/// The stages in runs of adjacent ones.
pub(super) fn runs(stages: &[StageSetup]) -> impl Iterator<Item = &[StageSetup]> {
    stages.chunk_by(|a, b| a.stage.0 + 1 == b.stage.0)
}
