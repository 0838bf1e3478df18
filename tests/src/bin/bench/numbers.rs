//! The median of measured numbers, and numbers as text.

use indicatif::HumanCount;

/// The middle one of sorted numbers.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// `3500` as `3,500`.
pub(crate) fn thousands(number: usize) -> String {
    HumanCount(number as u64).to_string()
}
