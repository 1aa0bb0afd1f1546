//! An open device: makes its objects, counts them, and turns its failures into errors.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wgpu::{BufferUsages, PollType, ShaderRuntimeChecks, SubmissionIndex};

use super::adapters::Gpu;
use super::layout::AdapterLimits;
use super::shader::Shader;
use crate::error::{Error, Result};

/// The environment variable that turns the shaders' bounds checks on.
const CHECKS: &str = "ZEROBUBBLE_SHADER_CHECKS";

/// An open device.
#[derive(Debug)]
pub struct Context {
    /// Its name in errors, such as `gpu:0`.
    name: String,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    failure: Arc<Mutex<Option<String>>>,
    /// Whether shaders are compiled with bounds checks.
    checks: bool,
    pipelines: HashMap<String, wgpu::ComputePipeline>,
    /// Buffers, pipelines, bind groups and query sets made so far.
    objects: u64,
    /// Bytes of all buffers made so far.
    bytes: u64,
}

impl Context {
    /// Opens `gpu`, which is called `name`.
    ///
    /// # Errors
    ///
    /// When the driver does not open it.
    pub fn open(gpu: Gpu, name: &str) -> Result<Self> {
        let (device, queue) = gpu.open()?;
        let failure = Arc::new(Mutex::new(None));
        let (lost, broken) = (failure.clone(), failure.clone());
        device.set_device_lost_callback(move |reason, message| {
            note(&lost, format!("the device is lost ({reason:?}): {message}"));
        });
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            note(&broken, error.to_string());
        }));
        Ok(Self {
            name: name.to_string(),
            device,
            queue,
            failure,
            checks: std::env::var_os(CHECKS).is_some_and(|value| value != "0"),
            pipelines: HashMap::new(),
            objects: 0,
            bytes: 0,
        })
    }

    /// What the device allows.
    pub fn limits(&self) -> AdapterLimits {
        let limits = self.device.limits();
        AdapterLimits {
            buffer_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
            // Parameters are bound as storage or as uniform buffers.
            alignment: u64::from(limits.min_storage_buffer_offset_alignment)
                .max(u64::from(limits.min_uniform_buffer_offset_alignment))
                .max(16),
            timestamps: self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY),
        }
    }

    /// Whether kernels may write halves.
    pub fn has_halves(&self) -> bool {
        self.device.features().contains(wgpu::Features::SHADER_F16)
    }

    /// Whether shaders have bounds checks.
    pub(super) fn checks(&self) -> bool {
        self.checks
    }

    pub(super) fn objects(&self) -> u64 {
        self.objects
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes a buffer, with zeros. `what` names it where it does not fit.
    pub(super) fn buffer(
        &mut self,
        what: &str,
        bytes: u64,
        usage: BufferUsages,
    ) -> Result<wgpu::Buffer> {
        let buffer = self.buffer_once(what, bytes, usage)?;
        self.objects += 1;
        self.bytes += bytes;
        Ok(buffer)
    }

    /// Makes a buffer for the moment.
    pub(super) fn buffer_once(
        &self,
        what: &str,
        bytes: u64,
        usage: BufferUsages,
    ) -> Result<wgpu::Buffer> {
        let mapped_at_creation = usage.contains(BufferUsages::MAP_WRITE);
        let scopes = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation]
            .map(|filter| self.device.push_error_scope(filter));
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size: bytes,
            usage,
            mapped_at_creation,
        });
        for scope in scopes.into_iter().rev() {
            if let Some(error) = pollster::block_on(scope.pop()) {
                return Err(self.error(format!(
                    "no buffer of {bytes} bytes for {what}, after {} bytes: {}",
                    self.bytes,
                    one_line(&error.to_string())
                )));
            }
        }
        self.check().map(|()| buffer)
    }

    /// The pipeline of a shader whose buffers are `written` or only read; equal shaders share one.
    pub(super) fn pipeline(
        &mut self,
        shader: &Shader,
        written: &[bool],
    ) -> Result<wgpu::ComputePipeline> {
        if let Some(pipeline) = self.pipelines.get(&shader.source) {
            return Ok(pipeline.clone());
        }
        let most = self.device.limits().max_storage_buffers_per_shader_stage as usize;
        if written.len() > most {
            let problem = format!("{} buffers in one kernel, it takes {most}", written.len());
            return Err(self.error(problem).in_op(shader.label.clone()));
        }
        let pipeline = self.compile(shader, written)?;
        self.objects += 1;
        self.pipelines.insert(shader.source.clone(), pipeline.clone());
        Ok(pipeline)
    }

    /// Compiles a shader for the moment.
    pub(super) fn compile(
        &self,
        shader: &Shader,
        written: &[bool],
    ) -> Result<wgpu::ComputePipeline> {
        let scopes = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation]
            .map(|filter| self.device.push_error_scope(filter));
        let checks = if self.checks {
            ShaderRuntimeChecks::checked()
        } else {
            ShaderRuntimeChecks::unchecked()
        };
        // SAFETY: shaders are specialised to the shapes of a verified graph: every position that
        // they compute is within its view, and every view is within its buffer. Indices that come
        // from data are compared with the size first. Loops end: their bounds are constants.
        let module = unsafe {
            self.device.create_shader_module_trusted(
                wgpu::ShaderModuleDescriptor {
                    label: Some(&shader.label),
                    source: wgpu::ShaderSource::Wgsl(shader.source.as_str().into()),
                },
                checks,
            )
        };
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&shader.label),
            layout: Some(&self.layout(shader, written)),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // No shader reads shared memory that it has not written.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        for scope in scopes.into_iter().rev() {
            if let Some(error) = pollster::block_on(scope.pop()) {
                return Err(self
                    .error(format!("the shader does not compile: {}", one_line(&error.to_string())))
                    .in_op(shader.label.clone()));
            }
        }
        self.check()?;
        Ok(pipeline)
    }

    /// Buffers from 0 on in group 0.
    fn layout(&self, shader: &Shader, written: &[bool]) -> wgpu::PipelineLayout {
        let kind = |binding: u32, written: bool| match shader.is_uniform(binding as usize) {
            true => wgpu::BufferBindingType::Uniform,
            false => wgpu::BufferBindingType::Storage { read_only: !written },
        };
        let entry = |(binding, &written): (u32, &bool)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: kind(binding, written),
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let entries: Vec<_> = (0..).zip(written).map(entry).collect();
        let group = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &entries,
        });
        self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&group)],
            immediate_size: 0,
        })
    }

    /// Binds buffers, whole or in part, from 0 on.
    pub(super) fn bind(
        &mut self,
        pipeline: &wgpu::ComputePipeline,
        buffers: &[wgpu::BufferBinding<'_>],
    ) -> wgpu::BindGroup {
        self.objects += 1;
        self.bind_once(pipeline, buffers)
    }

    /// Binds buffers for the moment.
    pub(super) fn bind_once(
        &self,
        pipeline: &wgpu::ComputePipeline,
        buffers: &[wgpu::BufferBinding<'_>],
    ) -> wgpu::BindGroup {
        let resources = buffers.iter().cloned().map(wgpu::BindingResource::Buffer);
        let entries: Vec<_> = (0..)
            .zip(resources)
            .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
            .collect();
        self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        })
    }

    /// Timestamps of every action that may be under way.
    pub(super) fn queries(&mut self, count: u32) -> wgpu::QuerySet {
        self.objects += 1;
        self.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("timestamps"),
            ty: wgpu::QueryType::Timestamp,
            count,
        })
    }

    pub(super) fn encoder(&self) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    }

    pub(super) fn submit(&self, encoder: wgpu::CommandEncoder) -> SubmissionIndex {
        self.queue.submit([encoder.finish()])
    }

    /// Waits until a submission is done, for at most `timeout`; says whether it is.
    pub(super) fn wait(&self, submission: &SubmissionIndex, timeout: Duration) -> Result<bool> {
        let submission_index = Some(submission.clone());
        let polled = self.device.poll(PollType::Wait { submission_index, timeout: Some(timeout) });
        self.check()?;
        match polled {
            Ok(_) => Ok(true),
            Err(wgpu::PollError::Timeout) => Ok(false),
            // A lost device takes submissions, and does not know them later.
            Err(error) => {
                self.poll()?;
                Err(self.error(format!("the device is lost: {error}")))
            }
        }
    }

    /// Lets callbacks run, without waiting.
    pub(super) fn poll(&self) -> Result<()> {
        let polled = self.device.poll(PollType::Poll);
        self.check()?;
        polled.map(|_| ()).map_err(|error| self.error(error.to_string()))
    }

    /// The first failure that the device reported, if any.
    pub(super) fn check(&self) -> Result<()> {
        let failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match failure.as_ref() {
            None => Ok(()),
            Some(message) => Err(self.error(one_line(message))),
        }
    }

    pub(super) fn error(&self, problem: impl std::fmt::Display) -> Error {
        Error::run(format!("{}: {problem}", self.name))
            .hint("a smaller model or microbatch, more devices, or another driver")
    }
}

fn note(failure: &Mutex<Option<String>>, message: String) {
    let mut failure = failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    failure.get_or_insert(message);
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shader_that_does_not_compile_is_an_error_that_names_it() {
        let gpu = Gpu::at(0).expect("these tests need a GPU or software Vulkan");
        let mut context = Context::open(gpu, "gpu:0").unwrap();
        let shader = Shader {
            label: "a broken shader".into(),
            source: "@compute @workgroup_size(1) fn main() { let x: f32 = 1i; }".into(),
            workgroups: [1; 3],
            uniforms: Vec::new(),
        };
        let error = context.pipeline(&shader, &[true]).unwrap_err().to_string();
        assert!(
            error.contains("op a broken shader: gpu:0: the shader does not compile"),
            "{error}"
        );
        assert!(!error.contains('\n'), "{error}");
        context.check().unwrap();
    }
}
