//! Random cases.

use fastrand::Rng;
use tests::{
    packets::{
        V6,
        v6::{AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING},
    },
    table::{NODE6, Source, seed, v6},
};

use super::case::{Cases, Works};

/// Random chains and fragments.
pub(super) fn add(cases: &mut Cases) {
    let mut rng = Rng::with_seed(seed());
    for round in 0..3_000 {
        let outer: Vec<_> = (0..rng.usize(0..4))
            .map(|_| Header::random(&mut rng))
            .collect();
        let inner: Vec<_> = (0..rng.usize(0..3))
            .map(|_| Header::random(&mut rng))
            .collect();
        let pieces = rng.u8(0..3);
        let (cut, reversed) = (rng.usize(..), rng.bool());
        let frames = |who: Source, tag: u16| {
            let add = |packet, headers: &[Header]| {
                headers
                    .iter()
                    .fold(packet, |packet, header| header.add(packet))
            };
            if pieces == 0 {
                return vec![add(add(v6(who), &outer), &inner).syn(tag, 6443).frame()];
            }
            // After the first chain comes a fragment header, and the second chain in one piece or
            // two.
            let fixed = add(v6(who), &inner).syn(tag, 6443).packet();
            let (number, chain) = (fixed[6], &fixed[40..]);
            let piece = |start: usize, end: usize| {
                let offset = u16::try_from(start / 8).expect("it is short");
                let packet = add(v6(who), &outer).fragment(offset, end < chain.len(), tag.into());
                packet.payload(number, &chain[start..end]).frame()
            };
            if pieces == 1 {
                return vec![piece(0, chain.len())];
            }
            let cut = cut % chain.len() / 8 * 8;
            let mut frames = vec![piece(0, cut), piece(cut, chain.len())];
            if reversed {
                frames.reverse();
            }
            frames
        };
        let name = format!("random/{round}: {outer:?}, {pieces} pieces of {inner:?}");
        let numbers: Vec<_> = outer.iter().map(|header| header.number).collect();
        let inner_numbers = inner.iter().map(|header| header.number);
        let fragment = (pieces > 0).then_some(FRAGMENT);
        let chain: Vec<_> = numbers
            .into_iter()
            .chain(fragment)
            .chain(inner_numbers)
            .collect();
        let misplaced =
            |at: usize| chain[at] == FRAGMENT && !matches!(chain[..at], [] | [HOP_BY_HOP]);
        if (0..chain.len()).any(misplaced) {
            cases.forbidden(&name, Works::Never, frames);
        } else {
            cases.hostile(&name, Works::Never, frames);
        }
    }
}

/// A random extension header.
#[derive(Clone, Debug)]
struct Header {
    number: u8,
    len: usize,
    left: u8,
}

impl Header {
    fn random(rng: &mut Rng) -> Self {
        const NUMBERS: [u8; 8] = [
            HOP_BY_HOP,
            ROUTING,
            ROUTING,
            FRAGMENT,
            AUTHENTICATION,
            DESTINATION_OPTIONS,
            DESTINATION_OPTIONS,
            DESTINATION_OPTIONS,
        ];
        Self {
            number: *rng.choice(&NUMBERS).expect("there are numbers"),
            len: rng.usize(1..40) * 8,
            left: rng.u8(0..2),
        }
    }

    fn add(&self, packet: V6) -> V6 {
        match self.number {
            ROUTING if self.left > 0 => packet.segments(self.left, &[NODE6, NODE6]),
            ROUTING => packet.routing(0, 0, &[NODE6]),
            FRAGMENT => packet.fragment(0, false, 9),
            AUTHENTICATION => packet.authentication(self.len + 8),
            number => packet.options(number, self.len),
        }
    }
}
