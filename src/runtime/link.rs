//! The channels between neighbouring stages on different devices.

use std::collections::HashMap;

use crate::engine::Parcel;
use crate::plan::{Channel, Link, Placement};
use crate::threads::{Receiver, Sender, bounded};

/// One device's ends of its links.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Links that the device sends into.
    pub sends: HashMap<Link, Sender<Parcel>>,
    /// Links that the device receives from.
    pub receives: HashMap<Link, Receiver<Parcel>>,
}

/// Every device's ends of the channels.
pub(super) fn links(channels: &[Channel], placement: &Placement) -> Vec<Links> {
    let mut links: Vec<Links> = (0..placement.device_count()).map(|_| Links::default()).collect();
    for channel in channels {
        // A channel of capacity 0 would make sender and receiver meet; none is that small,
        // because a parcel is sent before its receiver is told to run.
        let (sender, receiver) = bounded(channel.capacity.max(1) as usize);
        let from = placement.device(channel.link.from).index();
        let to = placement.device(channel.link.to).index();
        links[from].sends.insert(channel.link, sender);
        links[to].receives.insert(channel.link, receiver);
    }
    links
}
