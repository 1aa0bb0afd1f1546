//! The tiles that were measured to be best for products on an adapter, kept in a file for later
//! runs. Tiles never change a bit of the result, so neither does anything here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::element::Element;
use super::kernel::Kernel;
use super::shader::Shader;
use super::shader::matmul::{Abilities, Tile, matmul, tiles};

/// What a measurement holds for: another driver may prefer another tile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterKey {
    /// The adapter's name.
    pub name: String,
    /// The driver's name.
    pub driver: String,
    /// The driver's version.
    pub driver_info: String,
    /// Version of this crate.
    pub version: String,
}

/// The best tile of every product that was measured on an adapter.
#[derive(Debug)]
pub struct TileCache {
    adapter: AdapterKey,
    /// Absent where there is no place for a file.
    file: Option<PathBuf>,
    tiles: BTreeMap<String, Tile>,
}

/// What is in the file.
#[derive(Serialize, Deserialize)]
struct Stored {
    adapter: AdapterKey,
    tiles: BTreeMap<String, Tile>,
}

impl AdapterKey {
    /// The adapter, for this version of the crate.
    pub fn new(name: &str, driver: &str, driver_info: &str) -> Self {
        let [name, driver, driver_info] = [name, driver, driver_info].map(String::from);
        Self { name, driver, driver_info, version: env!("CARGO_PKG_VERSION").into() }
    }

    fn file_name(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        format!("tiles-{}.json", self.name.chars().map(plain).collect::<String>())
    }
}

impl TileCache {
    /// What is remembered in the directory, if any; a file that is torn, or of another adapter,
    /// driver or version, counts as none.
    pub fn read(directory: Option<&Path>, adapter: AdapterKey) -> Self {
        let file = directory.map(|directory| directory.join(adapter.file_name()));
        let text = file.as_ref().and_then(|file| std::fs::read(file).ok());
        let stored = text.and_then(|text| serde_json::from_slice::<Stored>(&text).ok());
        let tiles = match stored {
            Some(stored) if stored.adapter == adapter => stored.tiles,
            _ => BTreeMap::new(),
        };
        Self { adapter, file, tiles }
    }

    /// The remembered tile for a product, if it is one of those that may be used.
    pub fn tile(&self, kernel: &Kernel, abilities: &Abilities) -> Option<Tile> {
        let tile = *self.tiles.get(&problem(kernel))?;
        tiles(kernel, abilities).contains(&tile).then_some(tile)
    }

    /// The tile for a product: the remembered one, or else the one whose shader `seconds` says is
    /// the fastest, which is remembered from then on. A shader that fails is not used.
    ///
    /// # Errors
    ///
    /// The first failure, when all shaders fail.
    pub fn measured<E>(
        &mut self,
        kernel: &Kernel,
        abilities: &Abilities,
        mut seconds: impl FnMut(&Shader) -> Result<f64, E>,
    ) -> Result<Tile, E> {
        if let Some(tile) = self.tile(kernel, abilities) {
            return Ok(tile);
        }
        let mut best: Option<(f64, Tile)> = None;
        let mut failure = None;
        for tile in tiles(kernel, abilities) {
            match seconds(&matmul(kernel, &tile)) {
                Ok(time) if best.is_none_or(|(least, _)| time < least) => {
                    best = Some((time, tile));
                }
                Ok(_) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match (best, failure) {
            (Some((_, tile)), _) => {
                self.tiles.insert(problem(kernel), tile);
                Ok(tile)
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(default_tile(kernel, abilities)),
        }
    }

    /// Writes the file: whole or not at all. Where that does not work, nothing is remembered.
    pub fn write(&self) {
        let Some(file) = &self.file else { return };
        let stored = Stored { adapter: self.adapter.clone(), tiles: self.tiles.clone() };
        let Ok(text) = serde_json::to_vec_pretty(&stored) else { return };
        // Beside the file, and of this process alone: a rename within a directory is atomic.
        let beside = file.with_extension(format!("{}.tmp", std::process::id()));
        let written = file
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&beside, text))
            .and_then(|()| std::fs::rename(&beside, file));
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
    }
}

/// The tile to use without a measurement.
pub fn default_tile(kernel: &Kernel, abilities: &Abilities) -> Tile {
    tiles(kernel, abilities)[0]
}

/// Where files of measurements go, from the environment's variables: `ZEROBUBBLE_CACHE`, or
/// `zerobubble` in `XDG_CACHE_HOME`, or in `.cache` of `HOME`; none where none is set.
pub fn directory(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let beneath = |base: PathBuf| base.join("zerobubble");
    set("ZEROBUBBLE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").filter(|base| base.is_absolute()).map(beneath))
        .or_else(|| set("HOME").map(|home| beneath(home.join(".cache"))))
}

/// What a tile is best for: sizes, places of the elements, and what becomes of the products.
fn problem(kernel: &Kernel) -> String {
    let views = kernel.reads.iter().take(2).map(|read| {
        let view = &read.view;
        let halves = if read.element == Element::F16 { " in halves" } else { "" };
        format!("{:?} by {:?} from {}{halves}", view.shape, view.strides, view.offset)
    });
    let views: Vec<String> = views.collect();
    let others = kernel.reads.len() - views.len();
    format!("{}, {others} reads, {} writes", views.join(" times "), kernel.writes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::wgpu::kernel::{Argument, Body, Chain, Operand, Target, View, Write};
    use crate::graph::NodeId;

    const CPU: Abilities = Abilities { cpu: true, subgroup: Some(8), wide: true, uniform_bytes: 0 };
    const GPU: Abilities = Abilities { cpu: false, subgroup: None, wide: false, uniform_bytes: 0 };

    fn product(m: usize, k: usize, n: usize) -> Kernel {
        let read = |shape: &[usize], node| Operand {
            node: NodeId(node),
            view: View::dense(shape),
            element: Element::F32,
        };
        let chain = Chain { elements: m * n, steps: Vec::new(), results: vec![Argument::Product] };
        let target = Target::Value(NodeId(2));
        Kernel {
            reads: vec![read(&[m, k], 0), read(&[k, n], 1)],
            writes: vec![Write { target, shape: vec![m, n], element: Element::F32 }],
            body: Body::Matmul(chain),
        }
    }

    fn adapter(driver_info: &str) -> AdapterKey {
        AdapterKey::new("llvmpipe (LLVM 15.0.6, 256 bits)", "llvmpipe", driver_info)
    }

    /// A directory of this process and test, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let name = format!("zerobubble-tiles-{test}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// The longest label is the fastest.
    fn by_label(shader: &Shader) -> Result<f64, String> {
        Ok(1.0 / shader.label.len() as f64)
    }

    fn forbidden(shader: &Shader) -> Result<f64, String> {
        Err(format!("{} is measured", shader.label))
    }

    #[test]
    fn a_measurement_is_remembered_for_its_adapter_and_version() {
        let scratch = Scratch::new("remembered");
        let kernel = product(128, 128, 96);
        let mut cache = TileCache::read(Some(&scratch.0), adapter("22"));
        let tile = cache.measured(&kernel, &CPU, by_label).expect("it works");
        assert_eq!(cache.measured(&kernel, &CPU, forbidden), Ok(tile));
        cache.write();
        let again = TileCache::read(Some(&scratch.0), adapter("22"));
        assert_eq!(again.tile(&kernel, &CPU), Some(tile));
        assert_eq!(again.tile(&product(128, 128, 97), &CPU), None);
        assert_eq!(again.tile(&kernel, &GPU), None, "not a tile of that adapter");
        let newer = TileCache::read(Some(&scratch.0), adapter("23"));
        assert_eq!(newer.tile(&kernel, &CPU), None);
        let mut other = adapter("22");
        other.version = "0.0.0".into();
        assert_eq!(TileCache::read(Some(&scratch.0), other).tile(&kernel, &CPU), None);
        let left = std::fs::read_dir(&scratch.0).expect("it is there").count();
        assert_eq!(left, 1, "nothing but the file");
    }

    #[test]
    fn a_torn_file_counts_as_none_and_is_replaced() {
        let scratch = Scratch::new("torn");
        let kernel = product(64, 32, 64);
        let mut cache = TileCache::read(Some(&scratch.0), adapter("22"));
        cache.measured(&kernel, &CPU, by_label).expect("it works");
        cache.write();
        let file = scratch.0.join(adapter("22").file_name());
        let whole = std::fs::read(&file).expect("it is written");
        for end in [0, 1, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&file, &whole[..end]).expect("it is writable");
            let cache = TileCache::read(Some(&scratch.0), adapter("22"));
            assert_eq!(cache.tile(&kernel, &CPU), None);
        }
        cache.write();
        assert_eq!(std::fs::read(&file).expect("it is written"), whole);
    }

    #[test]
    fn nothing_is_remembered_where_nothing_can_be_written() {
        let scratch = Scratch::new("file");
        std::fs::write(&scratch.0, "a file, not a directory").expect("it is writable");
        for place in [None, Some(scratch.0.as_path())] {
            let mut cache = TileCache::read(place, adapter("22"));
            let tile = cache.measured(&product(8, 8, 8), &CPU, by_label);
            assert!(tile.is_ok());
            cache.write();
        }
        std::fs::remove_file(&scratch.0).expect("it was not replaced");
    }

    #[test]
    fn shaders_that_fail_are_not_used() {
        let kernel = product(128, 128, 128);
        let mut cache = TileCache::read(None, adapter("22"));
        assert!(cache.measured(&kernel, &CPU, forbidden).is_err());
        let last = *tiles(&kernel, &CPU).last().expect("there are some");
        let only = matmul(&kernel, &last).label;
        let tile = cache
            .measured(&kernel, &CPU, |shader| if shader.label == only { Ok(1.0) } else { Err(()) });
        assert_eq!(tile, Ok(last));
    }

    #[test]
    fn the_directory_is_the_first_that_is_named() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<(String, OsString)> =
                set.iter().map(|(name, value)| ((*name).into(), value.into())).collect();
            directory(move |name| set.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
        };
        let home = ("HOME", "/h");
        let xdg = ("XDG_CACHE_HOME", "/x");
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[home]), Some("/h/.cache/zerobubble".into()));
        assert_eq!(of(&[home, xdg]), Some("/x/zerobubble".into()));
        assert_eq!(of(&[home, ("XDG_CACHE_HOME", "")]), of(&[home]));
        assert_eq!(of(&[home, ("XDG_CACHE_HOME", "x")]), of(&[home]));
        assert_eq!(of(&[home, xdg, ("ZEROBUBBLE_CACHE", "c")]), Some("c".into()));
    }
}
