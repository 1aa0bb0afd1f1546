//! What a parcel takes from one device to another.

use std::sync::Arc;

use crate::action::DeviceId;
use crate::error::{Error, Result};
use crate::placement::Placement;

/// What a parcel takes from one device to another: a part that it always takes, and a part that
/// grows with its bytes. One unit of time throughout, the one of actions.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TransferCost {
    /// From the end of an action until an empty parcel is on the other device.
    pub latency: f64,
    /// What every byte adds to that.
    pub per_byte: f64,
}

/// The costs of all transfers, from every device to every other. Within a device a parcel takes no
/// time. The default is that none ever does.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transfers(Kind);

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// The same between all devices, however many.
    Uniform(TransferCost),
    /// From device a to device b at `a * devices + b`.
    Each { devices: usize, costs: Arc<[TransferCost]> },
}

impl Default for Kind {
    fn default() -> Self {
        Self::Uniform(TransferCost::default())
    }
}

impl TransferCost {
    /// A parcel takes the same, however large it is.
    pub fn of_any_size(latency: f64) -> Self {
        Self { latency, per_byte: 0.0 }
    }

    /// What a parcel of so many bytes takes.
    pub fn time(self, bytes: u64) -> f64 {
        self.latency + self.per_byte * bytes as f64
    }
}

impl Transfers {
    /// The same between all devices.
    pub fn uniform(cost: TransferCost) -> Self {
        Self(Kind::Uniform(cost))
    }

    /// Entry d is between device d and device d + 1, in both directions. Between devices that are
    /// not neighbours a parcel takes the way along the line, and all times on it: so also from the
    /// last device to the first, as loops of several chunks do.
    pub fn along_a_line(neighbours: &[TransferCost]) -> Self {
        let plus = |one: TransferCost, other: &TransferCost| TransferCost {
            latency: one.latency + other.latency,
            per_byte: one.per_byte + other.per_byte,
        };
        Self::from_fn(neighbours.len() + 1, |from, to| {
            let way = &neighbours[from.min(to).index()..from.max(to).index()];
            way.iter().fold(TransferCost::default(), plus)
        })
    }

    /// What `cost` gives for every two of so many devices, from the first to the second.
    pub fn from_fn(devices: usize, cost: impl Fn(DeviceId, DeviceId) -> TransferCost) -> Self {
        let id = |device: usize| DeviceId(device as u32);
        let mut costs = Vec::with_capacity(devices * devices);
        for from in 0..devices {
            let other =
                |to| if from == to { TransferCost::default() } else { cost(id(from), id(to)) };
            costs.extend((0..devices).map(other));
        }
        let Some(&first) = costs.get(1) else { return Self::default() };
        let mut between = (0..costs.len()).filter(|at| at / devices != at % devices);
        if between.all(|at| costs[at] == first) {
            return Self::uniform(first);
        }
        Self(Kind::Each { devices, costs: costs.into() })
    }

    /// What any parcel costs from one device to another.
    ///
    /// # Panics
    ///
    /// When `self` is of fewer devices.
    pub fn cost(&self, from: DeviceId, to: DeviceId) -> TransferCost {
        match &self.0 {
            _ if from == to => TransferCost::default(),
            Kind::Uniform(cost) => *cost,
            Kind::Each { devices, costs } => {
                assert!(to.index() < *devices, "device {to} of {devices}");
                costs[from.index() * devices + to.index()]
            }
        }
    }

    /// What a parcel of so many bytes takes from one device to another.
    ///
    /// # Panics
    ///
    /// When `self` is of fewer devices.
    pub fn time(&self, from: DeviceId, to: DeviceId, bytes: u64) -> f64 {
        self.cost(from, to).time(bytes)
    }

    /// Whether it is the same between which devices a parcel goes.
    pub fn is_uniform(&self) -> bool {
        matches!(self.0, Kind::Uniform(_))
    }

    /// What a byte adds, there and back together, from each stage to the next: what
    /// [`PlaceOptions::byte_costs`](crate::PlaceOptions::byte_costs) asks for.
    pub fn byte_costs(&self, placement: &Placement) -> Vec<f64> {
        let per_byte = |from, to| self.cost(from, to).per_byte;
        let both = |pair: &[DeviceId]| per_byte(pair[0], pair[1]) + per_byte(pair[1], pair[0]);
        placement.stages.windows(2).map(both).collect()
    }

    /// Whether two devices can change places and no transfer takes another time.
    pub(crate) fn are_alike(&self, one: DeviceId, other: DeviceId) -> bool {
        let Kind::Each { devices, .. } = &self.0 else { return true };
        let exchanged = |device: DeviceId| match device {
            _ if device == one => other,
            _ if device == other => one,
            _ => device,
        };
        (0..*devices as u32).map(DeviceId).all(|device| {
            let there = exchanged(device);
            [one, other].into_iter().all(|of| {
                self.cost(of, device) == self.cost(exchanged(of), there)
                    && self.cost(device, of) == self.cost(there, exchanged(of))
            })
        })
    }

    /// Times must be such, and there must be some for every device.
    pub(crate) fn check(&self, of_devices: usize) -> Result<()> {
        let costs = match &self.0 {
            Kind::Uniform(cost) => std::slice::from_ref(cost),
            Kind::Each { devices, .. } if *devices < of_devices => {
                let problem = format!("transfers of {devices} devices for {of_devices} devices");
                return Err(Error::config(problem));
            }
            Kind::Each { costs, .. } => costs,
        };
        let times = costs.iter().flat_map(|cost| [cost.latency, cost.per_byte]);
        match times.into_iter().find(|time| !(time.is_finite() && *time >= 0.0)) {
            Some(time) => Err(Error::config(format!("{time} is not a transfer time"))),
            None => Ok(()),
        }
    }

    /// The longest that a parcel of so many bytes takes between any devices.
    pub(crate) fn longest(&self, bytes: u64) -> f64 {
        let costs = match &self.0 {
            Kind::Uniform(cost) => std::slice::from_ref(cost),
            Kind::Each { costs, .. } => costs,
        };
        costs.iter().map(|cost| cost.time(bytes)).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_size(latencies: &[f64]) -> Vec<TransferCost> {
        latencies.iter().map(|latency| TransferCost::of_any_size(*latency)).collect()
    }

    #[test]
    fn a_parcel_takes_the_way_along_the_line() {
        let transfers = Transfers::along_a_line(&any_size(&[1.0, 20.0, 3.0]));
        let time = |from, to| transfers.time(DeviceId(from), DeviceId(to), 7);
        assert_eq!([time(0, 1), time(1, 2), time(2, 3)], [1.0, 20.0, 3.0]);
        assert_eq!([time(3, 0), time(0, 3), time(3, 1), time(2, 2)], [24.0, 24.0, 23.0, 0.0]);
    }

    #[test]
    fn every_byte_adds_to_the_latency_of_its_direction() {
        let cost = |from: DeviceId, _| TransferCost { latency: 5.0, per_byte: f64::from(from.0) };
        let transfers = Transfers::from_fn(2, cost);
        assert_eq!(transfers.time(DeviceId(0), DeviceId(1), 10), 5.0);
        assert_eq!(transfers.time(DeviceId(1), DeviceId(0), 10), 15.0);
        assert_eq!(transfers.byte_costs(&Placement::folded(2)), [1.0, 0.0, 1.0]);
    }

    #[test]
    fn devices_are_alike_where_nothing_changes_if_they_change_places() {
        let transfers = Transfers::along_a_line(&any_size(&[1.0, 1.0]));
        let alike = |one, other| transfers.are_alike(DeviceId(one), DeviceId(other));
        assert_eq!([alike(0, 2), alike(0, 1), alike(1, 2)], [true, false, false]);
    }

    #[test]
    fn a_matrix_of_one_time_is_that_time() {
        let cost = TransferCost::of_any_size(2.0);
        assert_eq!(Transfers::from_fn(3, |_, _| cost), Transfers::uniform(cost));
        assert_eq!(Transfers::along_a_line(&[cost]), Transfers::uniform(cost));
        assert_eq!(Transfers::from_fn(1, |_, _| cost), Transfers::default());
    }
}
