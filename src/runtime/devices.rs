//! The channels to and from the devices, and how many orders each of them has.

use std::time::Instant;

use super::WINDOW;
use super::worker::{Answer, Duty, Order, Report};
use crate::error::{Error, Result};
use crate::threads::{Receiver, RecvTimeoutError, Sender, bounded};

/// All devices, as the scheduler sees them.
pub(super) struct Devices {
    orders: Vec<Sender<Order>>,
    reports: Receiver<Report>,
    /// Orders that have no report yet, by device.
    under_way: Vec<usize>,
}

impl Devices {
    pub(super) fn new(orders: Vec<Sender<Order>>, reports: Receiver<Report>) -> Self {
        Self { under_way: vec![0; orders.len()], orders, reports }
    }

    pub(super) fn count(&self) -> usize {
        self.orders.len()
    }

    /// Whether `device` may be given one more order.
    pub(super) fn takes_orders(&self, device: usize) -> bool {
        self.under_way[device] < WINDOW
    }

    pub(super) fn order(&mut self, device: usize, order: Order) -> Result<()> {
        assert!(self.takes_orders(device), "device {device} has its orders");
        self.orders[device].send(order).map_err(|_| gone(device))?;
        self.under_way[device] += 1;
        Ok(())
    }

    /// Gives every device a duty and waits until all are done.
    pub(super) fn all(&mut self, duty: impl Fn() -> Duty) -> Result<()> {
        for device in 0..self.count() {
            self.order(device, Order::Do(duty()))?;
        }
        (0..self.count()).try_for_each(|_| self.report().map(drop))
    }

    /// Gives every device a duty with a sender for what it asks of them; gives all answers.
    pub(super) fn ask<T>(&mut self, duty: impl Fn(Sender<Vec<T>>) -> Duty) -> Result<Vec<T>> {
        let (reply, answers) = bounded(self.count());
        self.all(|| duty(reply.clone()))?;
        Ok(answers.try_iter().flatten().collect())
    }

    pub(super) fn report(&mut self) -> Result<(usize, Answer)> {
        let report = self.reports.recv().map_err(|_| Error::run("all devices are gone"))?;
        self.receive(report)
    }

    /// The next report, if it comes before a moment.
    pub(super) fn report_before(&mut self, moment: Instant) -> Result<Option<(usize, Answer)>> {
        match self.reports.recv_deadline(moment) {
            Ok(report) => self.receive(report).map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Error::run("all devices are gone")),
        }
    }

    /// A report that is there already.
    pub(super) fn report_now(&mut self) -> Result<Option<(usize, Answer)>> {
        self.reports.try_recv().ok().map(|report| self.receive(report)).transpose()
    }

    /// Waits for what is still under way after an error; its results no longer matter.
    pub(super) fn drain(&mut self) {
        while self.under_way.iter().sum::<usize>() > 0 {
            let Ok(report) = self.reports.recv() else { return };
            self.under_way[report.device] -= 1;
        }
    }

    fn receive(&mut self, report: Report) -> Result<(usize, Answer)> {
        self.under_way[report.device] -= 1;
        report.answer.map(|answer| (report.device, answer))
    }
}

fn gone(device: usize) -> Error {
    Error::run(format!("the thread of device {device} is gone"))
}
