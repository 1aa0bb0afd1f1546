//! Promise: a variant of the GPU tests is what its name says: its driver, what that can do, the
//! tiles and unchecked shaders of users, and whether Vulkan's validation layer watches.
//!
//! `scripts/test-gpu` runs this before the variant's other tests, with the environment of those.
#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;

use zerobubble::engine::wgpu::testing::{abilities, tile_of};
use zerobubble::engine::wgpu::{
    Context, Element, Gpu, GpuInfo, Operand, Tile, View, gpus, kernel_of, tiles,
};
use zerobubble::graph::{DType, Graph, Op, Shape};

/// The variable that names the variant.
const VARIANT: &str = "ZEROBUBBLE_TEST_VARIANT";
/// The variable with which a process calls itself to violate Vulkan's rules.
const VIOLATE: &str = "ZEROBUBBLE_TEST_VIOLATE";
/// The rule that is violated: a buffer is made to be used for something.
const RULE: &str = "VUID-VkBufferCreateInfo-usage-requiredbitmask";

struct Variant {
    name: &'static str,
    /// What the name of its only adapter begins with.
    adapter: &'static str,
    /// Whether the adapter stores halves.
    halves: bool,
    /// Whether it has 64-bit integers, with which some tiles load.
    wide: bool,
    /// Whether the validation layer ends a process at its first message.
    watched: bool,
}

const PRODUCTION: Variant =
    Variant { name: "production", adapter: "llvmpipe", halves: true, wide: true, watched: false };
const VARIANTS: [Variant; 3] = [
    PRODUCTION,
    Variant { name: "validation", watched: true, ..PRODUCTION },
    Variant {
        name: "swiftshader",
        adapter: "SwiftShader",
        halves: false,
        wide: false,
        watched: false,
    },
];

fn variant() -> &'static Variant {
    let name = std::env::var(VARIANT).expect("scripts/test-gpu names a variant");
    let of_name = VARIANTS.iter().find(|variant| variant.name == name);
    of_name.unwrap_or_else(|| panic!("there is no variant {name}"))
}

fn context() -> Context {
    let gpu = Gpu::at(0).expect("the variant has a GPU");
    Context::open(gpu, "gpu:0").expect("the device opens")
}

#[test]
fn the_adapter_is_the_variants_alone() {
    let Variant { adapter, halves, wide, .. } = variant();
    let found = gpus();
    let [GpuInfo { name, f16, .. }] = &found[..] else { panic!("one adapter, not {found:?}") };
    assert!(name.starts_with(adapter), "{name}, not {adapter}");
    assert_eq!(f16, halves, "halves of {name}");
    assert_eq!(abilities(&context()).wide, *wide, "64-bit integers of {name}");
}

#[test]
fn products_have_the_tiles_of_users() {
    let context = context();
    // Small ones get the tile that is likely best, large ones the fastest. Where shaders are
    // checked, all get the smallest.
    for size in [8, 256] {
        let mut graph = Graph::default();
        let [x, y] = [0; 2].map(|_| graph.push_input(Shape(vec![size; 2]), DType::F32));
        let id = graph.push(Op::Matmul, &[x, y]).unwrap();
        let view = View::dense(&[size; 2]);
        let operand = |node| Operand { node, view: view.clone(), element: Element::F32 };
        let kernel = kernel_of(&graph[id], vec![operand(x), operand(y)]);
        let tile = tile_of(&context, &kernel).unwrap().expect("it is a product");
        assert_ne!(tile, Tile::SMALL, "{size}");
        assert!(tiles(&kernel, &abilities(&context)).contains(&tile), "{size}: {tile}");
    }
}

#[test]
fn the_validation_layer_is_loaded_where_the_variant_says() {
    let _context = context();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let loaded = maps.contains("libVkLayer_khronos_validation.so");
    assert_eq!(loaded, variant().watched, "of the libraries of this process:\n{maps}");
}

#[test]
fn a_violation_ends_the_process_that_the_layer_watches_and_no_other() {
    if std::env::var_os(VIOLATE).is_some() {
        return violate();
    }
    let itself = std::env::current_exe().unwrap();
    let name = "a_violation_ends_the_process_that_the_layer_watches_and_no_other";
    let ended = Command::new(itself).args(["--exact", name]).env(VIOLATE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(said.contains(RULE), variant().watched, "{ended:?}");
    assert_eq!(!ended.status.success(), variant().watched, "{ended:?}");
}

/// Makes a buffer for nothing, past wgpu's own checks.
fn violate() {
    use wgpu::hal::Device as _;
    let descriptor = wgpu::hal::BufferDescriptor {
        label: None,
        size: 16,
        usage: wgpu::BufferUses::empty(),
        memory_flags: wgpu::hal::MemoryFlags::empty(),
    };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let opened = adapters[0].request_device(&wgpu::DeviceDescriptor::default());
    let (device, _queue) = pollster::block_on(opened).unwrap();
    // SAFETY: the buffer is destroyed before the device is, and was never used.
    unsafe {
        let vulkan = device.as_hal::<wgpu::hal::api::Vulkan>().expect("it is Vulkan's");
        if let Ok(buffer) = vulkan.create_buffer(&descriptor) {
            vulkan.destroy_buffer(buffer);
        }
    }
}
