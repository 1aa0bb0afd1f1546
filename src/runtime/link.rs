//! The channels between neighbouring stages on different devices. The end that receives finds
//! parcels by microbatch, as they may be needed in another order than they are sent.

use std::collections::HashMap;

use crate::engine::Parcel;
use crate::plan::{Channel, Link, MicrobatchId, Placement};
use crate::threads::{Receiver, Sender, bounded};

/// One device's ends of its links.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Links that the device sends into.
    pub sends: HashMap<Link, Sender<Sent>>,
    /// Links that the device receives from.
    pub receives: HashMap<Link, Inbound>,
}

/// A parcel on a link, and the microbatch that it is of.
pub(super) type Sent = (MicrobatchId, Parcel);

/// The end of a link that receives.
#[derive(Debug)]
pub(super) struct Inbound {
    channel: Receiver<Sent>,
    /// Parcels that were met before they were asked for. They and those in the channel are never
    /// more than the link's capacity, which counts all that was sent and not taken.
    arrived: HashMap<MicrobatchId, Parcel>,
}

impl Inbound {
    /// The parcel of a microbatch, if it is there.
    pub(super) fn take(&mut self, microbatch: MicrobatchId) -> Option<Parcel> {
        if let Some(parcel) = self.arrived.remove(&microbatch) {
            return Some(parcel);
        }
        loop {
            let (of, parcel) = self.channel.try_recv().ok()?;
            if of == microbatch {
                return Some(parcel);
            }
            self.arrived.insert(of, parcel);
        }
    }
}

/// Every device's ends of the channels.
pub(super) fn links(channels: &[Channel], placement: &Placement) -> Vec<Links> {
    let mut links: Vec<Links> = (0..placement.device_count()).map(|_| Links::default()).collect();
    for &Channel { link, capacity } in channels {
        // A channel of capacity 0 would make sender and receiver meet; none is that small,
        // because a parcel is sent before its receiver is told to run.
        let (sender, channel) = bounded(capacity.max(1) as usize);
        let from = placement.device(link.from).index();
        let to = placement.device(link.to).index();
        links[from].sends.insert(link, sender);
        links[to].receives.insert(link, Inbound { channel, arrived: HashMap::new() });
    }
    links
}
