//! The prefilter, the table in front of the tries: switched off and on, with lists and sources to
//! query it.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    panic::resume_unwind,
    thread,
};

use anyhow::Result;
use aya::maps::{Array, Map, MapData};
use fastrand::Rng;
use filter_common::layout::{LAYOUT_VERSION, POLICY_HEADERS, PolicyHeader, SLOTS};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    cli::Apifence,
    packets::{V4, V6},
    table::{NODE4, NODE6},
};

/// The heads of the table in both slots.
pub struct Front {
    headers: Array<MapData, [u8; size_of::<PolicyHeader>()]>,
}

/// The heads before the table was switched off.
pub struct Off(Vec<Box<PolicyHeader>>);

impl Front {
    /// Opens the table of the filter that `apifence` attached.
    pub fn open(apifence: &Apifence) -> Result<Self> {
        let maps = format!("layout-{LAYOUT_VERSION}/maps/{POLICY_HEADERS}");
        let headers = MapData::from_pin(apifence.bpffs().join(maps))?;
        Ok(Self {
            headers: Map::Array(headers).try_into()?,
        })
    }

    /// Makes the table find every address, so that the program always asks the tries, as if there
    /// were no table.
    pub fn switch_off(&mut self) -> Result<Off> {
        with_stack(|| self.set_all_bits())
    }

    fn set_all_bits(&mut self) -> Result<Off> {
        let mut before = Vec::new();
        for slot in 0..SLOTS {
            let mut header: Box<PolicyHeader> = bytemuck::zeroed_box();
            bytemuck::bytes_of_mut(&mut *header).copy_from_slice(&self.headers.get(&slot, 0)?);
            before.push(header.clone());
            for roots in &mut header.prefilter.roots {
                roots.block_bits = 0;
                roots.bitmap.fill(u64::MAX);
                for line in &mut roots.lines {
                    *line = [0; 9];
                    line[..4].fill(u64::MAX);
                }
            }
            self.set(slot, &header)?;
        }
        Ok(Off(before))
    }

    /// Switches it on again.
    pub fn switch_on(&mut self, Off(before): Off) -> Result<()> {
        with_stack(|| {
            let mut headers = (0..).zip(before);
            headers.try_for_each(|(slot, header)| self.set(slot, &header))
        })
    }

    fn set(&mut self, slot: u32, header: &PolicyHeader) -> Result<()> {
        let mut bytes = [0; size_of::<PolicyHeader>()];
        bytes.copy_from_slice(bytemuck::bytes_of(header));
        Ok(self.headers.set(slot, bytes, 0)?)
    }
}

/// Runs `work` with room for some headers, which aya moves by value: they fill the stack of a
/// test's thread.
fn with_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(64 << 20);
        let end = thread.spawn_scoped(scope, work)?.join();
        end.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// That many ranges, half of them IPv6, at any address: /16 to /32, and /32 to /64 with some /128.
/// Some are inside others.
pub fn list(size: usize, rng: &mut Rng) -> Vec<IpNet> {
    let range = |number: usize, rng: &mut Rng| -> IpNet {
        if number.is_multiple_of(2) {
            let address = rng.u32(0x0100_0000..0x7e00_0000);
            Ipv4Net::new_assert(address.into(), rng.u8(16..=32))
                .trunc()
                .into()
        } else {
            let address = 0x2 << 124 | rng.u128(..) >> 4;
            let len = match rng.u8(..10) {
                0 => 128,
                _ => rng.u8(32..=64),
            };
            Ipv6Net::new_assert(address.into(), len).trunc().into()
        }
    };
    (0..size).map(|number| range(number, rng)).collect()
}

/// Puts `list` in force.
pub fn set(apifence: &Apifence, list: &[IpNet]) -> Result<()> {
    let mut text = String::from("# a list\n");
    for range in list {
        writeln!(text, "{range}")?;
    }
    let file = apifence.ranges_file().with_file_name("front");
    fs::write(&file, text)?;
    let file = file.display().to_string();
    apifence
        .ok(&["ranges", "set", "--from-file", &file])
        .map(drop)
}

/// An address near `range` and outside it: inside its /24 or /48 if the range is longer, adjacent
/// otherwise. A range of length 0 holds every address.
pub fn near(range: IpNet, rng: &mut Rng) -> IpAddr {
    let len = range.prefix_len();
    let mut flip = |bits: u8, block: u8| match len {
        0 => 0,
        len if len <= block => 1_u128 << (bits - len),
        len => 1 << rng.u8(bits - len..bits - block),
    };
    match range.network() {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) ^ flip(32, 24) as u32).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) ^ flip(128, 48)).into(),
    }
}

/// An address in `range`.
pub fn inside(range: IpNet, rng: &mut Rng) -> IpAddr {
    match range {
        IpNet::V4(range) => {
            let hosts = u32::from(range.hostmask());
            Ipv4Addr::from(u32::from(range.network()) | rng.u32(..) & hosts).into()
        }
        IpNet::V6(range) => {
            let hosts = u128::from(range.hostmask());
            Ipv6Addr::from(u128::from(range.network()) | rng.u128(..) & hosts).into()
        }
    }
}

/// A SYN to a protected port.
pub fn syn(source: IpAddr) -> Vec<u8> {
    match source {
        IpAddr::V4(source) => V4::new(source, NODE4).syn(40_000, 6443).frame(),
        IpAddr::V6(source) => V6::new(source, NODE6).syn(40_000, 6443).frame(),
    }
}
