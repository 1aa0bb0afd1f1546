//! The memory of a CPU device: a few large regions, cut into buffers that come back when they are
//! dropped.
//!
//! A stage's actions make the same sizes over and over, so after its first microbatches a device
//! takes all its memory from buffers that came back: nothing is asked of the system. Regions are
//! on huge pages where the system has them, because a step reads far more memory than the
//! processor can find the pages of.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};
use memmap2::{MmapOptions, MmapRaw};

use crate::out_of_memory::OutOfMemory;

/// Bytes of a region: many huge pages, and more than the values of a small model.
const REGION_BYTES: usize = 64 << 20;

/// Every buffer starts at a multiple of this: a cache line, and the widest vector.
const ALIGN: usize = 64;

/// Hands out buffers. Clones share their memory.
#[derive(Debug, Clone, Default)]
pub struct BufferPool(Arc<Mutex<Regions>>);

#[derive(Debug, Default)]
struct Regions {
    /// Kept alive for the buffers that lie in them.
    regions: Vec<MmapRaw>,
    /// Bytes of the last region that were handed out.
    used: usize,
    /// Buffers that came back, by their bytes.
    free: HashMap<usize, Vec<Block>>,
}

/// A part of a region that belongs to one buffer at a time.
#[derive(Debug)]
struct Block(NonNull<u8>);

// SAFETY: a block is memory of its own; whoever holds it is the only one to use it.
unsafe impl Send for Block {}
// SAFETY: a shared block is only read.
unsafe impl Sync for Block {}

/// Floats in a pool's memory. Dropping it gives the memory back.
#[derive(Debug)]
pub struct Buffer {
    block: Block,
    elements: usize,
    pool: BufferPool,
}

impl BufferPool {
    /// A buffer of `elements` floats of any value.
    ///
    /// Where the system gives no more memory, this unwinds with [`OutOfMemory`].
    pub fn take(&self, elements: usize) -> Buffer {
        let bytes = (elements * size_of::<f32>()).next_multiple_of(ALIGN);
        let mut regions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let back = regions.free.get_mut(&bytes).and_then(Vec::pop);
        let block = back.unwrap_or_else(|| regions.cut(bytes));
        drop(regions);
        Buffer { block, elements, pool: self.clone() }
    }

    /// A buffer of zeros.
    pub fn zeros(&self, elements: usize) -> Buffer {
        let mut buffer = self.take(elements);
        buffer.fill(0.0);
        buffer
    }
}

impl Regions {
    fn cut(&mut self, bytes: usize) -> Block {
        let free = self.regions.last().map_or(0, |region| region.len() - self.used);
        if bytes > free || self.regions.is_empty() {
            let region = mapped(bytes)
                .unwrap_or_else(|| OutOfMemory { asked: bytes, held: self.bytes() }.unwind());
            #[cfg(target_os = "linux")]
            // Without huge pages the region serves as well, only slower.
            let _ = region.advise(memmap2::Advice::HugePage);
            self.regions.push(region);
            self.used = 0;
        }
        let region = self.regions.last().expect("there is one by now");
        assert!(region.len() - self.used >= bytes, "a region holds what it was made for");
        // SAFETY: the assertion above. No reference to the region is made: other buffers in it are
        // in use.
        let start = unsafe { region.as_mut_ptr().add(self.used) };
        self.used += bytes;
        Block(NonNull::new(start).expect("a mapping is never at null"))
    }
}

impl Regions {
    /// All that the system gave.
    fn bytes(&self) -> usize {
        self.regions.iter().map(MmapRaw::len).sum()
    }
}

/// A region of so many bytes or, if the system has them, more; none if it has not even those.
fn mapped(bytes: usize) -> Option<MmapRaw> {
    let lengths = [bytes.max(REGION_BYTES), bytes];
    let map = |length| MmapOptions::new().len(length).map_anon().ok();
    lengths.into_iter().find_map(map).map(MmapRaw::from)
}

impl Buffer {
    /// The buffer as the memory of a tensor.
    pub fn into_bytes(self) -> Bytes {
        let bytes = self.elements * size_of::<f32>();
        // SAFETY: the first `bytes` bytes were zero when they were mapped and have only been
        // written as floats since.
        unsafe { Bytes::from_controller(Box::new(self), bytes) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = (self.elements * size_of::<f32>()).next_multiple_of(ALIGN);
        let mut regions = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        regions.free.entry(bytes).or_default().push(Block(self.block.0));
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the block holds that many floats, starts at a multiple of `ALIGN`, was zero when
        // it was mapped, and is this buffer's alone.
        unsafe { std::slice::from_raw_parts(self.block.0.as_ptr().cast(), self.elements) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and the buffer is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.block.0.as_ptr().cast(), self.elements) }
    }
}

impl AllocationController for Buffer {
    fn alloc_align(&self) -> usize {
        ALIGN
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(
        &mut self,
        _policy: AccessPolicy,
    ) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let bytes = self.elements * size_of::<f32>();
        // SAFETY: as in `deref_mut`; bytes have no alignment, and the caller keeps them
        // initialized.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.block.0.as_ptr().cast(), bytes) })
    }

    fn memory(&self, _policy: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let bytes = self.elements * size_of::<f32>();
        // SAFETY: as in `deref`; bytes have no alignment.
        Ok(unsafe { std::slice::from_raw_parts(self.block.0.as_ptr().cast(), bytes) })
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::{ALIGN, BufferPool, REGION_BYTES};
    use crate::out_of_memory::OutOfMemory;

    #[test]
    fn memory_that_the_system_does_not_have_is_an_error_with_the_bytes() {
        let pool = BufferPool::default();
        let first = pool.take(1000);
        let panic = catch_unwind(AssertUnwindSafe(|| pool.take(1 << 50))).unwrap_err();
        let refused = OutOfMemory { asked: 1 << 52, held: REGION_BYTES };
        assert_eq!(panic.downcast_ref(), Some(&refused));
        assert_ne!(pool.take(1000).as_ptr(), first.as_ptr());
    }

    #[test]
    fn memory_comes_back_and_buffers_do_not_overlap() {
        let pool = BufferPool::default();
        let sizes = [0, 1, 15, 16, 17, 1000, REGION_BYTES / 4, REGION_BYTES / 2, 3];
        let mut buffers: Vec<_> = sizes.iter().map(|&size| pool.take(size)).collect();
        for (number, buffer) in buffers.iter_mut().enumerate() {
            assert_eq!(buffer.as_ptr() as usize % ALIGN, 0);
            buffer.fill(number as f32);
        }
        for (number, buffer) in buffers.iter().enumerate() {
            assert!(buffer.iter().all(|&element| element == number as f32));
        }
        let place = buffers[5].as_ptr();
        drop(buffers);
        assert_eq!(pool.take(1000).as_ptr(), place);
        assert!(pool.zeros(1000).iter().all(|&element| element == 0.0));
    }

    #[test]
    fn a_buffer_outlives_its_pool_and_crosses_threads() {
        let bytes = {
            let pool = BufferPool::default();
            let mut buffer = pool.take(4);
            buffer.copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
            buffer.into_bytes()
        };
        let sum = std::thread::spawn(move || {
            let elements: &[f32] = bytemuck::cast_slice(&bytes);
            elements.iter().sum::<f32>()
        });
        assert_eq!(sum.join().unwrap(), 10.0);
    }
}
