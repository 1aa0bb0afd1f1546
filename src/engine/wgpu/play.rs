//! Actions on the device: recorded, submitted, and collected when they are done.

use std::time::{Duration, Instant};

use burn::tensor::{Bool, Int, Tensor, TensorData, f16};
use burn_backend::TensorMetadata;
use burn_dispatch::DispatchTensor;
use wgpu::{CommandEncoder, ComputePassDescriptor, ComputePassTimestampWrites, SubmissionIndex};

use super::WgpuEngine;
use super::element::Element;
use super::layout::{KEY_BYTES, Range, SMALL, Sink, TIMESTAMPS, Transfer, UploadSource};
use super::staging::EntryId;
use crate::engine::{MicrobatchLoss, Outcome, Parcel, Precision, host_tensor};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{Action, Work};

/// Where a staging buffer for the host holds the status word and the timestamps; tensors follow.
const STATUS_AT: u64 = 0;
const TIMESTAMPS_AT: u64 = 16;
const TENSORS_AT: u64 = SMALL;

/// A device that takes longer for an action has stopped.
const LONGEST_ACTION: Duration = Duration::from_secs(600);

/// Bytes of the start and the end of an action.
const STAMP_BYTES: u64 = 16;

/// An action that the device has not finished.
#[derive(Debug)]
pub(super) struct UnderWay {
    action: Action,
    submission: SubmissionIndex,
    submitted: Instant,
    down: Option<EntryId>,
    downloads: Vec<Transfer<Sink>>,
    status: bool,
    transfers: Vec<(Instant, Instant)>,
}

impl WgpuEngine {
    /// Records `action` and hands it to the device.
    pub(super) fn submit(&mut self, action: Action, arrived: Parcel) -> Result<()> {
        let scripts = self.scripts(action);
        let segment = scripts[0].segment;
        let uploads = scripts[0].uploads.clone();
        let downloads: Vec<_> = scripts.iter().flat_map(|of| of.downloads.clone()).collect();
        let status = scripts.iter().any(|script| script.status);
        self.segments[segment].take(action, &self.layout.segments[segment]);
        let mut transfers = Vec::new();
        let mut encoder = self.context.encoder();
        let mut up = None;
        if !uploads.is_empty() {
            let start = Instant::now();
            up = Some(self.upload(action, &uploads, arrived, segment, &mut encoder)?);
            transfers.push((start, Instant::now()));
            self.show_arrived(action, &uploads, segment, &mut encoder)?;
        }
        if status {
            encoder.clear_buffer(&self.buffers.status, 0, None);
        }
        let timed = self.buffers.timestamps.is_some();
        let down = (timed || status || !downloads.is_empty()).then(|| self.down.take());
        let works = action.works();
        for (at, &work) in works.iter().enumerate() {
            let ends = [at == 0, at + 1 == works.len()];
            let shown = self.compute_shown(action, work, &mut encoder)?;
            self.compute(action, work, down.map(|entry| (entry, ends)), shown, &mut encoder);
            let states = self.layout.scripts[&(action.stage, work)].states.clone();
            self.set_states(&states, segment, action, &mut encoder);
            // What B sends may be in memory that W uses again.
            if let Some(entry) = down {
                let sent = &self.layout.scripts[&(action.stage, work)].downloads;
                self.download(entry, sent, segment, action, &mut encoder);
            }
        }
        if let Some(entry) = down {
            self.report(entry, status, &mut encoder);
        }
        let submission = self.context.submit(encoder);
        if let Some(entry) = up {
            self.up.map(entry);
        }
        if let Some(entry) = down {
            self.down.map(entry);
        }
        if self.evaluates || action.computes(Work::W) {
            self.segments[segment].release(action.microbatch);
        }
        self.context.check()?;
        let submitted = Instant::now();
        let waiting =
            UnderWay { action, submission, submitted, down, downloads, status, transfers };
        self.under_way.push_back(waiting);
        Ok(())
    }

    /// One pass of the dispatches of one work; buffers that a dispatch writes and a later one reads
    /// are ordered by wgpu. The pass may be the first or the last one of its action, which is
    /// timed. It is empty if the dispatches were `shown` already.
    fn compute(
        &self,
        action: Action,
        work: Work,
        timed: Option<(EntryId, [bool; 2])>,
        shown: bool,
        encoder: &mut CommandEncoder,
    ) {
        let queries = self.buffers.timestamps.as_ref().zip(timed);
        let timestamp_writes = queries.and_then(|((queries, _), (entry, [first, last]))| {
            (first || last).then_some(ComputePassTimestampWrites {
                query_set: queries,
                beginning_of_pass_write_index: first.then_some(2 * entry.index()),
                end_of_pass_write_index: last.then_some(2 * entry.index() + 1),
            })
        });
        let mut pass =
            encoder.begin_compute_pass(&ComputePassDescriptor { label: None, timestamp_writes });
        if shown {
            return;
        }
        for dispatch in self.dispatches(action, work) {
            pass.set_pipeline(&dispatch.pipeline);
            pass.set_bind_group(0, &dispatch.group, &[]);
            let [x, y, z] = dispatch.workgroups;
            pass.dispatch_workgroups(x, y, z);
        }
    }

    /// Puts what an action takes from the host into staging and records its copies.
    fn upload(
        &mut self,
        action: Action,
        uploads: &[Transfer<UploadSource>],
        arrived: Parcel,
        segment: usize,
        encoder: &mut CommandEncoder,
    ) -> Result<EntryId> {
        let key = self.key(action);
        let inputs = self.inputs.get(action.microbatch.index());
        let mut arrived: Vec<_> = arrived.into_iter().map(Some).collect();
        let mut sent = |at: usize| arrived[at].take().expect("what arrives goes to one place");
        let data = uploads
            .iter()
            .map(|copy| match copy.what {
                UploadSource::Parcel(at, Element::F16) => Ok(halves(sent(at))),
                UploadSource::Parcel(at, _) => words(sent(at)),
                UploadSource::Input(input) => {
                    let inputs = inputs.expect("a step has the inputs of all its microbatches");
                    words(inputs[input.0 as usize].clone())
                }
                UploadSource::Key => Ok(key.to_vec()),
            })
            .collect::<Result<Vec<_>>>()
            .map_err(|error| error.in_action(action))?;
        let entry = self.up.take();
        self.up.wait(entry, &self.context)?;
        self.up.write(entry, &self.context, |put| {
            for (copy, data) in uploads.iter().zip(&data) {
                assert_eq!(data.len() as u64 * 4, copy.bytes, "{action} got another parcel");
                put(copy.offset, bytemuck::cast_slice(data));
            }
        })?;
        self.up.unmap(entry);
        for copy in uploads {
            let to = self.buffers.place(copy.place, segment, self.slots(action, segment));
            let from = self.up.buffer(entry);
            encoder.copy_buffer_to_buffer(from, copy.offset, to.buffer, to.offset, copy.bytes);
        }
        Ok(entry)
    }

    /// Seed, step and microbatch, low words first, and whether nothing is dropped.
    fn key(&self, action: Action) -> [u32; KEY_BYTES as usize / 4] {
        let halves = |number: u64| [number as u32, (number >> 32) as u32];
        let [seed_low, seed_high] = halves(self.setup.seed);
        let [step_low, step_high] = halves(self.step);
        let kept = u32::from(self.evaluates);
        [seed_low, seed_high, step_low, step_high, action.microbatch.0, kept, 0, 0]
    }

    /// Records the copies of what a work gives to the host.
    fn download(
        &self,
        entry: EntryId,
        downloads: &[Transfer<Sink>],
        segment: usize,
        action: Action,
        encoder: &mut CommandEncoder,
    ) {
        let to = self.down.buffer(entry);
        for copy in downloads {
            let from = self.buffers.place(copy.place, segment, self.slots(action, segment));
            let at = TENSORS_AT + copy.offset;
            encoder.copy_buffer_to_buffer(from.buffer, from.offset, to, at, copy.bytes);
        }
    }

    /// Records the copies of the status word and the timestamps.
    fn report(&self, entry: EntryId, status: bool, encoder: &mut CommandEncoder) {
        let to = self.down.buffer(entry);
        if status {
            encoder.copy_buffer_to_buffer(&self.buffers.status, 0, to, STATUS_AT, 4);
        }
        if let Some((queries, buffer)) = &self.buffers.timestamps {
            let first = 2 * entry.index();
            let at = u64::from(entry.index()) * TIMESTAMPS;
            encoder.resolve_query_set(queries, first..first + 2, buffer, at);
            encoder.copy_buffer_to_buffer(buffer, at, to, TIMESTAMPS_AT, STAMP_BYTES);
        }
    }

    /// The oldest action under way, if it is done within `timeout`.
    pub(super) fn collect(&mut self, timeout: Duration) -> Result<Option<Outcome>> {
        let Some(oldest) = self.under_way.front() else { return Ok(None) };
        if !self.context.wait(&oldest.submission, timeout)? {
            if oldest.submitted.elapsed() > LONGEST_ACTION {
                let time = LONGEST_ACTION.as_secs();
                return Err(self.context.error(format!("no action takes more than {time} s")));
            }
            return Ok(None);
        }
        let done = self.under_way.pop_front().expect("it is the front");
        let mut outcome = Outcome { transfers: done.transfers, ..Outcome::default() };
        let Some(entry) = done.down else { return Ok(Some(outcome)) };
        self.down.wait(entry, &self.context)?;
        let start = Instant::now();
        let words = |bytes: &[u8]| bytemuck::pod_collect_to_vec::<u8, u32>(bytes);
        let read = self.down.read(entry, &self.context, |bytes| {
            let part = |at: u64, size: u64| &bytes[at as usize..(at + size) as usize];
            let tensor = |copy: &Transfer<Sink>| words(part(TENSORS_AT + copy.offset, copy.bytes));
            let tensors: Vec<Vec<u32>> = done.downloads.iter().map(tensor).collect();
            let stamps = bytemuck::pod_collect_to_vec::<u8, u64>(part(TIMESTAMPS_AT, STAMP_BYTES));
            (tensors, words(part(STATUS_AT, 4))[0], stamps)
        });
        self.down.unmap(entry);
        let (tensors, status, stamps) = read?;
        if done.status {
            check_status(status).map_err(|error| error.in_action(done.action))?;
        }
        if self.buffers.timestamps.is_some() {
            let ticks = stamps[1].saturating_sub(stamps[0]) as f64;
            let period = f64::from(self.context.queue.get_timestamp_period());
            outcome.seconds = Some(ticks * period * 1e-9);
        }
        for (copy, words) in done.downloads.into_iter().zip(tensors) {
            match copy.what {
                Sink::Loss => {
                    let floats: Vec<f32> = words.into_iter().map(f32::from_bits).collect();
                    let loss = MicrobatchLoss::of(&floats);
                    outcome.loss = Some(loss);
                    if !loss.is_finite() {
                        let problem = format!("the loss is {loss}");
                        outcome.fault = Some(self.not_finite(&problem, done.action));
                    }
                }
                Sink::Parcel { shape, element } => {
                    let (sent, has_nan) = sent(words, shape, element);
                    outcome.parcel.push(sent);
                    if has_nan && done.action.work == Work::F {
                        let fault = self.not_finite("an activation is NaN", done.action);
                        outcome.fault.get_or_insert(fault);
                    }
                }
            }
        }
        if !outcome.parcel.is_empty() {
            outcome.transfers.push((start, Instant::now()));
        }
        Ok(Some(outcome))
    }

    fn not_finite(&self, problem: &str, action: Action) -> Error {
        let hint = match self.layout.precision {
            Precision::F32 => "a smaller learning rate, or inputs without NaN",
            Precision::F16 => {
                "activations in f32, `activations(f32)`, since halves end at 65504; or a smaller \
                 learning rate"
            }
        };
        Error::new(ErrorKind::NotFinite, problem).in_action(action).hint(hint)
    }

    /// Writes a tensor to its place, piece by piece through staging, and waits.
    pub(super) fn write(&mut self, range: Range, value: &DispatchTensor) -> Result<()> {
        let data = words(value.clone())?;
        assert_eq!(data.len() as u64 * 4, range.bytes, "a tensor fills its place");
        for (at, piece) in data.chunks(self.layout.staging as usize / 4).enumerate() {
            let entry = self.up.take();
            self.up.wait(entry, &self.context)?;
            self.up.write(entry, &self.context, |put| put(0, bytemuck::cast_slice(piece)))?;
            self.up.unmap(entry);
            let mut encoder = self.context.encoder();
            let to = self.buffers.chunk(range.arena, range.chunk);
            let offset = range.offset + at as u64 * self.layout.staging;
            let bytes = piece.len() as u64 * 4;
            encoder.copy_buffer_to_buffer(self.up.buffer(entry), 0, to, offset, bytes);
            self.context.submit(encoder);
            self.up.map(entry);
        }
        self.context.check()
    }

    /// Reads a tensor from its place, piece by piece through staging.
    pub(super) fn read(&mut self, range: Range) -> Result<Vec<f32>> {
        let mut data = Vec::with_capacity(range.bytes as usize / 4);
        let mut done = 0;
        while done < range.bytes {
            let bytes = (range.bytes - done).min(self.layout.staging);
            let entry = self.down.take();
            let mut encoder = self.context.encoder();
            let from = self.buffers.chunk(range.arena, range.chunk);
            let to = self.down.buffer(entry);
            encoder.copy_buffer_to_buffer(from, range.offset + done, to, 0, bytes);
            self.context.submit(encoder);
            self.down.map(entry);
            self.down.wait(entry, &self.context)?;
            let part = self.down.read(entry, &self.context, |all| {
                bytemuck::pod_collect_to_vec::<u8, f32>(&all[..bytes as usize])
            });
            self.down.unmap(entry);
            data.extend(part?);
            done += bytes;
        }
        Ok(data)
    }
}

/// A tensor of a parcel from elements as the device stores them, and whether it has a NaN.
pub(super) fn sent(words: Vec<u32>, shape: Vec<usize>, element: Element) -> (DispatchTensor, bool) {
    let floats: Vec<f32> = match element {
        Element::F32 => bytemuck::cast_vec(words),
        Element::F16 => widened(&words, shape.iter().product()),
        Element::Int => {
            let wide: Vec<i64> = words.into_iter().map(|x| i64::from(x as i32)).collect();
            return (host_tensor(TensorData::new(wide, shape)), false);
        }
        Element::Bool => {
            let truths: Vec<bool> = words.into_iter().map(|x| x != 0).collect();
            return (host_tensor(TensorData::new(truths, shape)), false);
        }
    };
    let has_nan = floats.iter().any(|x| x.is_nan());
    (host_tensor(TensorData::new(floats, shape)), has_nan)
}

/// Elements as the device stores them, but for halves: 32 bits each, whatever they are. Floats of a
/// tensor that nobody else holds are not copied.
fn words(tensor: DispatchTensor) -> Result<Vec<u32>> {
    let dtype = tensor.dtype();
    if dtype.is_float() {
        let data = Tensor::<1>::from_dispatch(tensor).into_data().convert::<f32>();
        let floats = data.try_into_vec::<f32>().expect("it was converted to f32");
        return Ok(bytemuck::cast_vec(floats));
    }
    if dtype.is_bool() {
        let data = Tensor::<1, Bool>::from_dispatch(tensor).into_data();
        return Ok(data.iter::<bool>().map(u32::from).collect());
    }
    let data = Tensor::<1, Int>::from_dispatch(tensor).into_data();
    let narrow = |x: i64| {
        i32::try_from(x).map(|x| x as u32).map_err(|_| {
            Error::data(format!("the integer {x} does not fit into 32 bits"))
                .hint("smaller integers on GPUs, or a CPU device")
        })
    };
    data.iter::<i64>().map(narrow).collect()
}

/// Floats as the device stores halves, two in a word.
fn halves(tensor: DispatchTensor) -> Vec<u32> {
    let data = Tensor::<1>::from_dispatch(tensor).into_data();
    let half = |x: f32| u32::from(f16::from_f32(x).to_bits());
    let halves: Vec<u32> = data.iter::<f32>().map(half).collect();
    halves.chunks(2).map(|pair| pair[0] | pair.get(1).map_or(0, |high| high << 16)).collect()
}

/// The first `count` halves of some words.
fn widened(words: &[u32], count: usize) -> Vec<f32> {
    let halves = words.iter().flat_map(|&word| [word as u16, (word >> 16) as u16]);
    halves.take(count).map(|bits| f16::from_bits(bits).to_f32()).collect()
}

/// What kernels report: 0, or one more than the largest index that was out of range.
pub(super) fn check_status(status: u32) -> Result<()> {
    let problem = match status {
        0 => return Ok(()),
        u32::MAX => "an index is negative".to_string(),
        above => format!("index {} is out of range", above - 1),
    };
    Err(Error::data(problem).hint("indices below the size of what they index"))
}
