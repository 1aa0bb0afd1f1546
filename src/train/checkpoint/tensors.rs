//! Tensors by name, as a safetensors file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use burn::tensor::TensorData;
use safetensors::{Dtype, SafeTensors, View};

use crate::error::{Error, Result};
use crate::graph::Shape;

/// Tensors of f32 by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Tensors(BTreeMap<String, SavedTensor>);

#[derive(Debug, Clone, PartialEq)]
struct SavedTensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Tensors {
    /// Takes a tensor.
    ///
    /// # Errors
    ///
    /// When there is one of that name.
    pub(super) fn add(&mut self, name: String, data: &TensorData) -> Result<()> {
        let tensor =
            SavedTensor { shape: data.shape().to_vec(), values: data.iter::<f32>().collect() };
        match self.0.entry(name) {
            Entry::Vacant(free) => {
                free.insert(tensor);
                Ok(())
            }
            Entry::Occupied(taken) => {
                let problem = format!("the module has two parameters named {}", taken.key());
                Err(Error::model(problem).hint("other names in the module"))
            }
        }
    }

    /// The tensor of a name that [`check`](Self::check) has found.
    pub(super) fn get(&self, name: &str) -> TensorData {
        let SavedTensor { shape, values } = &self.0[name];
        TensorData::new(values.clone(), shape.clone())
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
            match self.0.get(name) {
                None => return other(format!("it has no {name}, which the trainer has")),
                Some(tensor) if tensor.shape != shape.0 => {
                    let (saved, own) = (&tensor.shape, &shape.0);
                    return other(format!("{name} is {saved:?} in it, {own:?} in the trainer"));
                }
                Some(_) => {}
            }
        }
        match self.0.keys().find(|name| !expected.iter().any(|(own, _)| own == *name)) {
            Some(name) => other(format!("it has {name}, which the trainer has not")),
            None => Ok(()),
        }
    }

    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        safetensors::serialize(&self.0, None)
            .map_err(|error| Error::run(format!("the tensors are no safetensors file: {error}")))
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |error| Error::data(format!("no safetensors file: {error}"));
        let file = SafeTensors::deserialize(bytes).map_err(wrong)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(Error::data(format!("{name} is of {}, not of F32", view.dtype())));
            }
            let values = view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
            let tensor = SavedTensor { shape: view.shape().to_vec(), values: values.collect() };
            tensors.insert(name.to_owned(), tensor);
        }
        Ok(Self(tensors))
    }
}

impl View for &SavedTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if cfg!(target_endian = "little") {
            return Cow::Borrowed(bytemuck::cast_slice(&self.values));
        }
        Cow::Owned(self.values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        self.values.len() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_parse_back_to_the_same_bits(
            tensors: BTreeMap<String, (u8, Vec<u32>)>
        ) {
            let mut saved = Tensors::default();
            let mut shapes = Vec::new();
            for (name, (rank, bits)) in tensors.iter().filter(|(name, _)| *name != "__metadata__") {
                let shape = [vec![1; usize::from(rank % 4)], vec![bits.len()]].concat();
                let values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
                saved.add(name.clone(), &TensorData::new(values, shape.clone())).unwrap();
                shapes.push((name.clone(), Shape(shape)));
            }
            let read = Tensors::parse(&saved.bytes().unwrap()).unwrap();
            read.check(&shapes).unwrap();
            for (name, shape) in &shapes {
                let data = read.get(name);
                prop_assert_eq!(data.shape().to_vec(), shape.0.clone());
                let bits: Vec<u32> = data.iter::<f32>().map(f32::to_bits).collect();
                prop_assert_eq!(&bits, &tensors[name].1);
            }
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let mut saved = Tensors::default();
        let data = |shape: [usize; 2]| TensorData::new(vec![0f32; shape[0] * shape[1]], shape);
        saved.add("a.weight".into(), &data([2, 3])).unwrap();
        saved.add("b.weight".into(), &data([3, 1])).unwrap();
        assert!(saved.add("a.weight".into(), &data([1, 1])).is_err());
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
