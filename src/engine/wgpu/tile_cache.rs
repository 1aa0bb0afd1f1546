//! The tiles that were measured to be best for products on an adapter, kept in a file for later
//! runs. Tiles never change a bit of the result, so neither does anything here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy, choose_base_strategy};
use serde::{Deserialize, Serialize};

use super::element::Element;
use super::kernel::Kernel;
use super::shader::Abilities;
use super::shader::Shader;
use super::shader::matmul::{Tile, matmul, tiles};

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
    /// What is remembered in the folder, if any; a file that is torn, or of another adapter, driver
    /// or version, counts as none.
    pub fn read(folder: Option<&Path>, adapter: AdapterKey) -> Self {
        let file = folder.map(|folder| folder.join(adapter.file_name()));
        let text = file.as_ref().and_then(|file| fs::read(file).ok());
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
        let _ = replace(file, &text);
    }
}

/// Writes a file in place of another or of none: whole or not at all.
fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder)?;
    // Beside the file: a rename within a folder is atomic. Temporary files are for their user alone
    // where nothing else is said; this one may be read by whoever may read the folder.
    let mut beside = tempfile::Builder::new().make_in(folder, |path| File::create_new(path))?;
    beside.write_all(content)?;
    beside.persist(file)?;
    Ok(())
}

/// The tile to use without a measurement.
pub fn default_tile(kernel: &Kernel, abilities: &Abilities) -> Tile {
    tiles(kernel, abilities)[0]
}

/// Where files of measurements go: the folder that `ZEROBUBBLE_CACHE` names, or else `zerobubble`
/// in the user's folder for caches; none where there is neither.
pub fn folder() -> Option<PathBuf> {
    let caches = choose_base_strategy().ok().map(|user| user.cache_dir());
    named_or_own(std::env::var_os("ZEROBUBBLE_CACHE"), caches)
}

fn named_or_own(named: Option<OsString>, caches: Option<PathBuf>) -> Option<PathBuf> {
    let named = named.filter(|name| !name.is_empty()).map(PathBuf::from);
    // A user whose home is not absolute has none.
    let caches = caches.filter(|caches| caches.is_absolute());
    named.or_else(|| caches.map(|caches| caches.join("zerobubble")))
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
    use tempfile::tempdir;

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

    /// The longest label is the fastest.
    fn by_label(shader: &Shader) -> Result<f64, String> {
        Ok(1.0 / shader.label.len() as f64)
    }

    fn forbidden(shader: &Shader) -> Result<f64, String> {
        Err(format!("{} is measured", shader.label))
    }

    #[test]
    fn a_measurement_is_remembered_for_its_adapter_and_version() {
        let scratch = tempdir().expect("a folder can be made");
        // It is made when the file is written.
        let folder = scratch.path().join("tiles");
        let kernel = product(128, 128, 96);
        let mut cache = TileCache::read(Some(&folder), adapter("22"));
        let tile = cache.measured(&kernel, &CPU, by_label).expect("it works");
        assert_eq!(cache.measured(&kernel, &CPU, forbidden), Ok(tile));
        cache.write();
        let again = TileCache::read(Some(&folder), adapter("22"));
        assert_eq!(again.tile(&kernel, &CPU), Some(tile));
        assert_eq!(again.tile(&product(128, 128, 97), &CPU), None);
        assert_eq!(again.tile(&kernel, &GPU), None, "not a tile of that adapter");
        let newer = TileCache::read(Some(&folder), adapter("23"));
        assert_eq!(newer.tile(&kernel, &CPU), None);
        let mut other = adapter("22");
        other.version = "0.0.0".into();
        assert_eq!(TileCache::read(Some(&folder), other).tile(&kernel, &CPU), None);
        let left = fs::read_dir(&folder).expect("it is there").count();
        assert_eq!(left, 1, "nothing but the file");
    }

    /// Whatever the file has, only a tile that may be used is used, and the file is replaced by one
    /// that reads as what was remembered.
    fn holds(input: &[u8]) {
        thread_local! {
            static FOLDER: tempfile::TempDir = tempdir().expect("a folder can be made");
        }
        // The corpus is of no version.
        let own = env!("CARGO_PKG_VERSION");
        let text = String::from_utf8_lossy(input).replace("VERSION", own);
        FOLDER.with(|folder| {
            let file = folder.path().join(adapter("22").file_name());
            // To write over a file can take as long as the disk.
            fs::remove_file(&file).ok();
            fs::write(&file, text).expect("it is writable");
            let cache = TileCache::read(Some(folder.path()), adapter("22"));
            for (kernel, abilities) in [(product(128, 128, 96), CPU), (product(8, 8, 8), GPU)] {
                let found = cache.tile(&kernel, &abilities);
                assert!(found.is_none_or(|tile| tiles(&kernel, &abilities).contains(&tile)));
            }
            fs::remove_file(&file).expect("it was not replaced");
            cache.write();
            let again = TileCache::read(Some(folder.path()), adapter("22"));
            assert_eq!(again.tiles, cache.tiles);
        });
    }

    #[test]
    fn any_file_is_tiles_that_may_be_used_or_none() {
        crate::harness::run("tile_cache", 10_000, holds);
    }

    #[test]
    fn a_torn_file_counts_as_none_and_is_replaced() {
        let folder = tempdir().expect("a folder can be made");
        let kernel = product(64, 32, 64);
        let mut cache = TileCache::read(Some(folder.path()), adapter("22"));
        cache.measured(&kernel, &CPU, by_label).expect("it works");
        cache.write();
        let file = folder.path().join(adapter("22").file_name());
        let whole = fs::read(&file).expect("it is written");
        for end in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&file, &whole[..end]).expect("it is writable");
            let cache = TileCache::read(Some(folder.path()), adapter("22"));
            assert_eq!(cache.tile(&kernel, &CPU), None);
        }
        cache.write();
        assert_eq!(fs::read(&file).expect("it is written"), whole);
    }

    #[test]
    fn nothing_is_remembered_where_nothing_can_be_written() {
        let folder = tempdir().expect("a folder can be made");
        let file = folder.path().join("file");
        fs::write(&file, "a file, not a folder").expect("it is writable");
        for place in [None, Some(file.as_path())] {
            let mut cache = TileCache::read(place, adapter("22"));
            let tile = cache.measured(&product(8, 8, 8), &CPU, by_label);
            assert!(tile.is_ok());
            cache.write();
        }
        fs::remove_file(&file).expect("it was not replaced");
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
    fn the_folder_is_the_one_that_is_named_or_in_the_users_caches() {
        let of = |named: Option<&str>, caches: Option<&Path>| {
            named_or_own(named.map(OsString::from), caches.map(PathBuf::from))
        };
        let caches = std::env::temp_dir();
        let own = Some(caches.join("zerobubble"));
        assert_eq!(of(None, None), None);
        assert_eq!(of(None, Some(&caches)), own);
        assert_eq!(of(Some(""), Some(&caches)), own);
        assert_eq!(of(None, Some(Path::new(".cache"))), None);
        assert_eq!(of(Some("c"), Some(&caches)), Some("c".into()));
        assert_eq!(of(Some("c"), None), Some("c".into()));
        assert!(folder().is_some(), "users have a folder for caches on every system");
    }
}
