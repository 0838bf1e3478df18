//! Frames of the table with a few bytes changed.

use std::iter;

use fastrand::Rng;

use super::row::Row;

/// The shortest frame that the kernel takes for a test run: a whole Ethernet header.
pub const SHORTEST: usize = 14;

/// Changes some bytes of a frame; its length stays valid for the kernel.
pub fn mutate(rng: &mut Rng, frame: &mut Vec<u8>, rows: &[Row]) {
    for _ in 0..rng.usize(1..5) {
        // Headers are at the start.
        let at = rng.usize(0..frame.len().clamp(1, 120));
        match rng.u8(0..8) {
            0 => frame.truncate(at.max(SHORTEST)),
            1 => frame.extend(iter::repeat_n(rng.u8(..), rng.usize(0..64))),
            2 => {
                let other = &rng.choice(rows).expect("the table is not empty").frame;
                frame.truncate(at);
                frame.extend(other.iter().skip(at));
            }
            3 if at < frame.len() => frame[at] = *rng.choice(&INTERESTING).expect("not empty"),
            4 if at < frame.len() => frame[at] ^= 1 << rng.u8(0..8),
            5 if at < frame.len() => frame[at] = rng.u8(..),
            6 => {
                let piece: Vec<_> = frame
                    .iter()
                    .skip(at)
                    .take(rng.usize(1..40))
                    .copied()
                    .collect();
                frame.splice(at.min(frame.len())..at.min(frame.len()), piece);
            }
            _ => {
                let end = (at + rng.usize(1..16)).min(frame.len());
                frame.drain(at.min(end)..end);
            }
        }
    }
    frame.resize(frame.len().max(SHORTEST), 0);
}

/// Bytes with a meaning in one header or another.
const INTERESTING: [u8; 24] = [
    0, 1, 2, 3, 4, 6, 8, 17, 41, 43, 44, 50, 51, 58, 59, 60, 0x45, 0x4f, 0x60, 0x81, 0x86, 135,
    140, 255,
];
