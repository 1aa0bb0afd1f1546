//! How a window moves over images `[batch, channels, height, width]`: what convolutions and pools
//! have in common. Pairs are of the height and the width.

use std::fmt;

/// The attributes of a two-dimensional convolution, as in Burn and PyTorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// Distance between neighbouring windows.
    pub stride: [usize; 2],
    /// Zeros before and after the image.
    pub padding: [(usize, usize); 2],
    /// Distance between neighbouring elements of a window.
    pub dilation: [usize; 2],
    /// Parts that the channels are cut into: an output channel sees its part of the input's.
    pub groups: usize,
}

/// The attributes of a two-dimensional pool, as in Burn and PyTorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Elements of a window.
    pub kernel: [usize; 2],
    /// Distance between neighbouring windows.
    pub stride: [usize; 2],
    /// What windows may reach over either end of the image.
    pub padding: [usize; 2],
    /// Distance between neighbouring elements of a window.
    pub dilation: [usize; 2],
    /// Whether a last window may reach further, as long as it starts before the image's end.
    pub ceil: bool,
}

impl Convolution {
    /// How many windows of `kernel` there are in an image of `size`; none where not one fits.
    pub fn windows(&self, size: [usize; 2], kernel: [usize; 2]) -> Option<[usize; 2]> {
        both(|axis| {
            let (before, after) = self.padding[axis];
            let padded = size[axis] + before + after;
            let free = padded.checked_sub(extent(kernel[axis], self.dilation[axis])?)?;
            Some(free.checked_div(self.stride[axis])? + 1)
        })
    }
}

impl Pool {
    /// How many windows there are in an image of `size`; none where not one fits.
    pub fn windows(&self, size: [usize; 2]) -> Option<[usize; 2]> {
        both(|axis| {
            let (stride, padding) = (self.stride[axis], self.padding[axis]);
            let extra = if self.ceil { stride.checked_sub(1)? } else { 0 };
            let padded = size[axis] + 2 * padding + extra;
            let free = padded.checked_sub(extent(self.kernel[axis], self.dilation[axis])?)?;
            let last = free.checked_div(stride)?;
            let outside = self.ceil && last * stride >= size[axis] + padding;
            Some(if outside { last } else { last + 1 })
        })
    }
}

fn both(of: impl Fn(usize) -> Option<usize>) -> Option<[usize; 2]> {
    Some([of(0)?, of(1)?])
}

/// Elements from the first to the last of a window.
fn extent(kernel: usize, dilation: usize) -> Option<usize> {
    Some(dilation * kernel.checked_sub(1)? + 1)
}

impl fmt::Display for Convolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stride, padding, dilation, groups } = self;
        write!(f, "stride {stride:?} padding {padding:?} dilation {dilation:?} groups {groups}")
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, stride, padding, dilation, ceil } = self;
        let ceil = if *ceil { " ceil" } else { "" };
        write!(f, "{kernel:?} stride {stride:?} padding {padding:?} dilation {dilation:?}{ceil}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts of windows, counted from the padding's, one by one.
    fn starts(padded: usize, stride: usize, extent: usize) -> usize {
        (0..padded).step_by(stride).filter(|start| start + extent <= padded).count()
    }

    #[test]
    fn windows_are_those_that_fit_into_the_padded_image() {
        for case in 0..6 * 4 * 3 * 2 * 3 {
            let (size, kernel, stride) = (1 + case % 6, 1 + case / 6 % 4, 1 + case / 24 % 3);
            // No window is padding alone.
            let (padding, dilation) = ((case / 72 % 2).min(kernel / 2), 1 + case / 144);
            let (padded, extent) = (size + 2 * padding, (kernel - 1) * dilation + 1);
            let fit = starts(padded, stride, extent);
            // One more, that does not fit by less than a stride, where it starts before the end.
            let more = fit * stride < size + padding && fit * stride + extent < padded + stride;
            let some = |count: usize| (count > 0).then_some([count; 2]);
            let windows =
                |ceil| pool(kernel, stride, padding, dilation, ceil).windows([size, size]);
            let what = format!("{kernel} over {size}, {stride}, {padding}, {dilation}");
            assert_eq!(windows(false), some(fit), "{what}");
            assert_eq!(windows(true), some(fit + usize::from(more)), "{what}, ceil");
            let convolution = Convolution {
                stride: [stride; 2],
                padding: [(padding, padding); 2],
                dilation: [dilation; 2],
                groups: 1,
            };
            assert_eq!(convolution.windows([size; 2], [kernel; 2]), some(fit), "{what}");
        }
    }

    fn pool(kernel: usize, stride: usize, padding: usize, dilation: usize, ceil: bool) -> Pool {
        Pool {
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [padding; 2],
            dilation: [dilation; 2],
            ceil,
        }
    }

    #[test]
    fn attributes_of_zero_have_no_windows() {
        assert_eq!(pool(0, 1, 0, 1, false).windows([4, 4]), None);
        assert_eq!(pool(2, 0, 0, 1, false).windows([4, 4]), None);
        assert_eq!(pool(2, 0, 0, 1, true).windows([4, 4]), None);
        let convolution =
            Convolution { stride: [0, 1], padding: [(0, 0); 2], dilation: [1, 1], groups: 1 };
        assert_eq!(convolution.windows([4, 4], [2, 2]), None);
    }
}
