//! Tensors by name, as a safetensors file: written and read one tensor at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError};

use super::disk;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Shape;

/// Bytes of the length that a file begins with.
const LENGTH: usize = size_of::<u64>();
/// Bytes of the largest header that is read, as in the crate `safetensors`.
const LARGEST_HEADER: u64 = 100_000_000;

/// A file of f32 tensors whose header was read and makes sense.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SavedTensors {
    path: PathBuf,
    tensors: BTreeMap<String, SavedTensor>,
}

#[derive(Debug, Clone, PartialEq)]
struct SavedTensor {
    shape: Vec<usize>,
    /// Where in the file it begins.
    start: u64,
}

/// Writes tensors of these shapes in the order of their names. `values` gives each when it is its
/// turn, so that one at a time is in memory.
///
/// # Errors
///
/// When two have one name, one is not finite, or `into` cannot be written to.
pub(super) fn write(
    into: &mut impl Write,
    shapes: &BTreeMap<String, Vec<usize>>,
    mut values: impl FnMut(&str) -> Result<Vec<f32>>,
) -> Result<()> {
    let mut end = 0;
    let info = |(name, shape): (&String, &Vec<usize>)| {
        let start = end;
        end += size_of::<f32>() * shape.iter().product::<usize>();
        let (shape, data_offsets) = (shape.clone(), (start, end));
        (name.clone(), TensorInfo { dtype: Dtype::F32, shape, data_offsets })
    };
    let infos = shapes.iter().map(info).collect();
    let impossible = |error: SafeTensorError| Error::run(format!("no safetensors file: {error}"));
    let metadata = Metadata::new(None, infos).map_err(impossible)?;
    let mut header = serde_json::to_vec(&metadata).expect("metadata has a JSON form");
    header.resize(header.len().next_multiple_of(LENGTH), b' ');
    let unwritable = |error| Error::new(ErrorKind::Io, format!("cannot be written: {error}"));
    into.write_all(&(header.len() as u64).to_le_bytes()).map_err(unwritable)?;
    into.write_all(&header).map_err(unwritable)?;
    for (name, shape) in shapes {
        let values = values(name)?;
        assert_eq!(values.len(), shape.iter().product::<usize>(), "elements of {name}");
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(not_finite(name, *value));
        }
        if cfg!(target_endian = "big") {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            into.write_all(&bytes).map_err(unwritable)?;
        } else {
            into.write_all(bytemuck::cast_slice(&values)).map_err(unwritable)?;
        }
    }
    Ok(())
}

impl SavedTensors {
    /// Reads the header of a file, of which nothing is believed that the file's length contradicts.
    ///
    /// # Errors
    ///
    /// When it is no safetensors file of f32 tensors.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let wrong = |problem: &dyn std::fmt::Display| {
            let problem = format!("not a safetensors file of this version: {problem}");
            Error::new(ErrorKind::NotUnderstood, problem)
        };
        let mut file = disk::open(path)?;
        let length = file.metadata().map_err(|error| disk::unreadable(&error))?.len();
        let mut start = [0; LENGTH];
        file.read_exact(&mut start).map_err(|error| wrong(&error))?;
        let header_length = u64::from_le_bytes(start);
        if header_length > LARGEST_HEADER || header_length > length {
            return Err(wrong(&format!("a header of {header_length} bytes in {length}")));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).map_err(|error| wrong(&error))?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| wrong(&error))?;
        let (data, mut end) = (LENGTH as u64 + header_length, 0);
        let mut tensors = BTreeMap::new();
        for name in metadata.offset_keys() {
            let info = metadata.info(&name).expect("it is one of its names");
            if info.dtype != Dtype::F32 {
                return Err(wrong(&format!("{name} is of {}, not of F32", info.dtype)));
            }
            let bytes = info.shape.iter().try_fold(size_of::<f32>(), |n, &d| n.checked_mul(d));
            let (from, to) = info.data_offsets;
            if from != end || bytes.and_then(|bytes| from.checked_add(bytes)) != Some(to) {
                return Err(wrong(&format!("{name} is not where the tensor before it ends")));
            }
            end = to;
            let start = data + from as u64;
            tensors.insert(name, SavedTensor { shape: info.shape.clone(), start });
        }
        if data.checked_add(end as u64) != Some(length) {
            return Err(wrong(&format!("{end} bytes of tensors in a file of {length}")));
        }
        Ok(Self { path: path.to_owned(), tensors })
    }

    /// Reads the tensor of a name that [`check`](Self::check) has found.
    ///
    /// # Errors
    ///
    /// When the file cannot be read any more.
    pub(super) fn get(&self, name: &str) -> Result<TensorData> {
        let SavedTensor { shape, start } = &self.tensors[name];
        let values = disk::open(&self.path).and_then(|file| read(file, *start, shape))?;
        Ok(TensorData::new(values, shape.clone()))
    }

    /// Reads all values.
    ///
    /// # Errors
    ///
    /// The first that is not finite.
    pub(super) fn check_finite(&self) -> Result<()> {
        for (name, SavedTensor { shape, start }) in &self.tensors {
            let values = disk::open(&self.path).and_then(|file| read(file, *start, shape))?;
            if let Some(value) = values.into_iter().find(|value| !value.is_finite()) {
                return Err(not_finite(name, value));
            }
        }
        Ok(())
    }

    /// Whether these, of a checkpoint, have the names and shapes of the trainer's.
    ///
    /// # Errors
    ///
    /// The first difference.
    pub(super) fn check(&self, expected: &[(String, Shape)]) -> Result<()> {
        let other = |problem: String| {
            Err(Error::data(problem).hint("the model that was saved, or another folder"))
        };
        for (name, shape) in expected {
            match self.tensors.get(name) {
                None => return other(format!("it has no {name}, which the trainer has")),
                Some(tensor) if tensor.shape != shape.0 => {
                    let (saved, own) = (&tensor.shape, &shape.0);
                    return other(format!("{name} is {saved:?} in it, {own:?} in the trainer"));
                }
                Some(_) => {}
            }
        }
        match self.tensors.keys().find(|name| !expected.iter().any(|(own, _)| own == *name)) {
            Some(name) => other(format!("it has {name}, which the trainer has not")),
            None => Ok(()),
        }
    }
}

fn read(mut file: File, start: u64, shape: &[usize]) -> Result<Vec<f32>> {
    let mut values = vec![0f32; shape.iter().product()];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
    file.seek(SeekFrom::Start(start)).map_err(|error| disk::unreadable(&error))?;
    file.read_exact(bytes).map_err(|error| disk::unreadable(&error))?;
    if cfg!(target_endian = "big") {
        values.iter_mut().for_each(|value| *value = f32::from_bits(value.to_bits().swap_bytes()));
    }
    Ok(values)
}

fn not_finite(name: &str, value: f32) -> Error {
    Error::new(ErrorKind::NotFinite, format!("{name} has a value that is {value}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::NamedTempFile;

    use super::*;

    fn saved(tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Result<NamedTempFile> {
        let mut file = NamedTempFile::new().unwrap();
        let shapes = tensors.iter().map(|(name, (shape, _))| (name.clone(), shape.clone()));
        write(&mut file, &shapes.collect(), |name| Ok(tensors[name].1.clone())).map(|()| file)
    }

    proptest! {
        #[test]
        fn a_file_reads_back_to_the_same_bits(tensors: BTreeMap<String, (u8, Vec<u32>)>) {
            let finite = |bits: &u32| Some(f32::from_bits(*bits)).filter(|value| value.is_finite());
            let tensors: BTreeMap<_, _> = tensors
                .into_iter()
                .filter(|(name, _)| *name != "__metadata__")
                .map(|(name, (rank, bits))| {
                    let values: Vec<f32> = bits.iter().filter_map(finite).collect();
                    let shape = [vec![1; usize::from(rank % 4)], vec![values.len()]].concat();
                    (name, (shape, values))
                })
                .collect();
            let file = saved(&tensors).unwrap();
            let read = SavedTensors::open(file.path()).unwrap();
            let shapes: Vec<_> = tensors
                .iter()
                .map(|(name, (shape, _))| (name.clone(), Shape(shape.clone())))
                .collect();
            read.check(&shapes).unwrap();
            read.check_finite().unwrap();
            for (name, (shape, values)) in &tensors {
                let data = read.get(name).unwrap();
                prop_assert_eq!(&data.shape().to_vec(), shape);
                let bits: Vec<u32> = data.iter::<f32>().map(f32::to_bits).collect();
                prop_assert_eq!(bits, values.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
            }
            // Another program of the format reads them as well.
            let bytes = std::fs::read(file.path()).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            prop_assert_eq!(file.len(), tensors.len());
        }

        #[test]
        fn a_changed_header_is_an_error_or_another_header(at: prop::sample::Index, byte: u8) {
            let one = |values: &[f32]| (vec![values.len()], values.to_vec());
            let tensors = [("a".into(), one(&[1.0, 2.0])), ("b".into(), one(&[3.0]))].into();
            let file = saved(&tensors).unwrap();
            let mut bytes = std::fs::read(file.path()).unwrap();
            let header = bytes.len() - 12;
            bytes[at.index(header)] = byte;
            std::fs::write(file.path(), bytes).unwrap();
            if let Ok(read) = SavedTensors::open(file.path()) {
                prop_assert!(read.tensors.keys().all(|name| read.get(name).is_ok()));
            }
        }
    }

    #[test]
    fn values_that_are_not_finite_are_neither_written_nor_read() {
        let with = |value: f32| [("a.weight".into(), (vec![2], vec![1.0, value]))].into();
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = saved(&with(value)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NotFinite);
            assert_eq!(error.problem, format!("a.weight has a value that is {value}"));
            // As an earlier version wrote it.
            let file = saved(&with(2.0)).unwrap();
            let mut bytes = std::fs::read(file.path()).unwrap();
            let last = bytes.len() - 4;
            bytes[last..].copy_from_slice(&value.to_le_bytes());
            std::fs::write(file.path(), bytes).unwrap();
            let error = SavedTensors::open(file.path()).unwrap().check_finite().unwrap_err();
            assert_eq!(error.kind, ErrorKind::NotFinite);
        }
    }

    #[test]
    fn a_length_that_the_file_does_not_have_is_not_believed() {
        let file = NamedTempFile::new().unwrap();
        let header =
            br#"{"a":{"dtype":"F32","shape":[4000000000,4000000000],"data_offsets":[0,8]}}"#;
        for length in [u64::MAX, 99_999_999, header.len() as u64] {
            let bytes = [&length.to_le_bytes()[..], header, &[0; 8]].concat();
            std::fs::write(file.path(), bytes).unwrap();
            let error = SavedTensors::open(file.path()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NotUnderstood, "{error}");
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let zeros = |shape: [usize; 2]| (shape.to_vec(), vec![0f32; shape[0] * shape[1]]);
        let tensors = [("a.weight".into(), zeros([2, 3])), ("b.weight".into(), zeros([3, 1]))];
        let file = saved(&tensors.into()).unwrap();
        let saved = SavedTensors::open(file.path()).unwrap();
        let own = |rows: &[(&str, [usize; 2])]| {
            let row = |&(name, shape): &(&str, [usize; 2])| (name.into(), Shape(shape.to_vec()));
            saved.check(&rows.iter().map(row).collect::<Vec<_>>())
        };
        let (a, b) = (("a.weight", [2, 3]), ("b.weight", [3, 1]));
        own(&[b, a]).unwrap();
        let rows = [
            (vec![a, ("b.weight", [3, 2])], "b.weight is [3, 1] in it, [3, 2] in the trainer"),
            (vec![a, b, ("c.bias", [1, 1])], "it has no c.bias, which the trainer has"),
            (vec![a], "it has b.weight, which the trainer has not"),
        ];
        for (rows, expected) in rows {
            assert_eq!(own(&rows).unwrap_err().problem, expected);
        }
    }
}
