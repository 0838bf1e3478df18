//! Lists, and sources that miss, nearly miss or hit them.

use std::{
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use fastrand::Rng;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tests::{
    front::{inside, near},
    site::Family,
};

/// Where sources come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Outside every range, anywhere.
    Miss,
    /// Outside every range, but in the same /24 or /48 as a longer one.
    Near,
    /// Inside a range.
    Hit,
}

impl Kind {
    pub(crate) const ALL: [(Self, &str); 3] = [
        (Self::Miss, "miss"),
        (Self::Near, "near"),
        (Self::Hit, "hit"),
    ];
}

/// That many ranges of a family, sorted: /16 to /32 at any unicast address, or /32 to /64 with some
/// /128 in `2000::/4`. Some are inside others.
pub(crate) fn list(family: Family, size: usize, rng: &mut Rng) -> Vec<IpNet> {
    let mut list: Vec<IpNet> = iter::repeat_with(|| match family {
        Family::V4 => Ipv4Net::new_assert(anywhere4(rng), rng.u8(16..=32))
            .trunc()
            .into(),
        Family::V6 => {
            let len = match rng.u8(..10) {
                0 => 128,
                _ => rng.u8(32..=64),
            };
            Ipv6Net::new_assert(anywhere6(rng), len).trunc().into()
        }
    })
    .take(size)
    .collect();
    list.sort_unstable();
    list
}

/// `1.0.0.0` to `223.255.255.255` without loopback.
fn anywhere4(rng: &mut Rng) -> Ipv4Addr {
    loop {
        let address = Ipv4Addr::from(rng.u32(0x0100_0000..0xe000_0000));
        if !address.is_loopback() {
            return address;
        }
    }
}

fn anywhere6(rng: &mut Rng) -> Ipv6Addr {
    Ipv6Addr::from(0x2 << 124 | rng.u128(..) >> 4)
}

/// The ranges of a list, all of one family.
pub(crate) struct Ranges<'a> {
    family: Family,
    ranges: &'a [IpNet],
    /// The ranges longer than the block that a near source shares with them; all ranges if there is
    /// none.
    long: Vec<IpNet>,
    /// First and last address of each covered interval, sorted, without overlaps.
    covered: Vec<(u128, u128)>,
}

impl<'a> Ranges<'a> {
    pub(crate) fn new(family: Family, ranges: &'a [IpNet]) -> Self {
        let block = match family {
            Family::V4 => 24,
            Family::V6 => 48,
        };
        let mut long = ranges.to_vec();
        long.retain(|range| range.prefix_len() > block);
        if long.is_empty() {
            long = ranges.to_vec();
        }
        let mut all: Vec<_> = ranges
            .iter()
            .map(|range| (number(range.network()), number(range.broadcast())))
            .collect();
        all.sort_unstable();
        let mut covered: Vec<(u128, u128)> = Vec::new();
        for (first, last) in all {
            match covered.last_mut() {
                Some(before) if first <= before.1 => before.1 = before.1.max(last),
                _ => covered.push((first, last)),
            }
        }
        Self {
            family,
            ranges,
            long,
            covered,
        }
    }

    /// That many sources of a kind.
    pub(crate) fn sources(&self, kind: Kind, count: usize, rng: &mut Rng) -> Vec<IpAddr> {
        let any = |ranges: &[IpNet], rng: &mut Rng| ranges[rng.usize(..ranges.len())];
        iter::repeat_with(|| match (kind, self.family) {
            (Kind::Miss, Family::V4) => anywhere4(rng).into(),
            (Kind::Miss, Family::V6) => anywhere6(rng).into(),
            (Kind::Near, _) => near(any(&self.long, rng), rng),
            (Kind::Hit, _) => inside(any(self.ranges, rng), rng),
        })
        .filter(|source| self.hold(*source) == (kind == Kind::Hit))
        .take(count)
        .collect()
    }

    fn hold(&self, address: IpAddr) -> bool {
        let address = number(address);
        let behind = self.covered.partition_point(|range| range.0 <= address);
        behind > 0 && address <= self.covered[behind - 1].1
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}
