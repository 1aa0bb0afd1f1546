//! Which device holds which stage, and the links between neighbouring stages.

use std::fmt;

use super::action::{Action, DeviceId, StageId};
use super::work::Work;

/// The device of every stage.
///
/// A device may hold several stages, its chunks, in any pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The device that holds a stage; the index is the [`StageId`].
    pub stages: Vec<DeviceId>,
}

impl Placement {
    /// One stage per device, in order.
    pub fn linear(devices: u32) -> Self {
        Self { stages: (0..devices).map(DeviceId).collect() }
    }

    /// `chunks` stages per device: chunk c of device d is stage c * devices + d, so that stage s is
    /// on device s mod `devices` (Narayanan et al. 2021, section 2.2). For 3 devices and 2 chunks
    /// `0 1 2 0 1 2`.
    pub fn looped(devices: u32, chunks: u32) -> Self {
        Self { stages: (0..chunks).flat_map(|_| (0..devices).map(DeviceId)).collect() }
    }

    /// Two stages per device, a V: stages 0 to `devices` - 1 go down the devices and as many come
    /// back up, so that stages s and 2 * `devices` - 1 - s share a device (Qi et al. 2024). For 3
    /// devices `0 1 2 2 1 0`.
    pub fn folded(devices: u32) -> Self {
        let down = (0..devices).map(DeviceId);
        Self { stages: down.clone().chain(down.rev()).collect() }
    }

    /// How many stages there are.
    pub fn stage_count(&self) -> usize {
        self.stages.len()
    }

    /// How many devices there are: one more than the highest one named.
    pub fn device_count(&self) -> usize {
        self.stages.iter().map(|device| device.index() + 1).max().unwrap_or(0)
    }

    /// The device that holds `stage`.
    pub fn device(&self, stage: StageId) -> DeviceId {
        self.stages[stage.index()]
    }

    /// The stages that `device` holds, ascending.
    pub fn stages_of(&self, device: DeviceId) -> impl Iterator<Item = StageId> + '_ {
        (0u32..)
            .map(StageId)
            .zip(&self.stages)
            .filter_map(move |(s, d)| (*d == device).then_some(s))
    }

    /// Every link between different devices: at each boundary activations first, then gradients.
    pub fn links(&self) -> impl Iterator<Item = Link> + '_ {
        (1..self.stages.len() as u32)
            .flat_map(|upper| {
                let (lower, upper) = (StageId(upper - 1), StageId(upper));
                [Link { from: lower, to: upper }, Link { from: upper, to: lower }]
            })
            .filter(|link| self.crosses(*link))
    }

    /// Whether the two ends of `link` are on different devices.
    pub fn crosses(&self, link: Link) -> bool {
        self.device(link.from) != self.device(link.to)
    }

    /// Where the parcel that `action` takes at its start comes from, on whichever device.
    pub(super) fn inbound(&self, action: Action) -> Option<Link> {
        let from = match action.work {
            Work::F => below(action.stage)?,
            Work::B => self.above(action.stage)?,
            Work::W => return None,
        };
        Some(Link { from, to: action.stage })
    }

    /// Where the parcel that `action` hands on at its end goes, on whichever device.
    pub(super) fn outbound(&self, action: Action) -> Option<Link> {
        let to = match action.work {
            Work::F => self.above(action.stage)?,
            Work::B => below(action.stage)?,
            Work::W => return None,
        };
        Some(Link { from: action.stage, to })
    }

    fn above(&self, stage: StageId) -> Option<StageId> {
        (stage.index() + 1 < self.stages.len()).then(|| StageId(stage.0 + 1))
    }
}

fn below(stage: StageId) -> Option<StageId> {
    stage.0.checked_sub(1).map(StageId)
}

/// A directed connection of two neighbouring stages: activations go up, gradients go down.
/// Prints as `0>1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link {
    /// The stage whose action produces the parcels.
    pub from: StageId,
    /// The stage whose action takes them.
    pub to: StageId,
}

impl Link {
    /// Whether activations travel here, and not gradients.
    pub fn is_forward(self) -> bool {
        self.from < self.to
    }

    /// The boundary the link crosses, as the index of its lower stage.
    pub fn boundary(self) -> usize {
        self.from.min(self.to).index()
    }

    /// A dense index: two links per boundary.
    pub(super) fn index(self) -> usize {
        2 * self.boundary() + usize::from(!self.is_forward())
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}>{}", self.from, self.to)
    }
}
