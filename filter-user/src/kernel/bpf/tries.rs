//! LPM tries: filled and read in batches, looked up one by one, and put into a map of maps.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use aya::maps::{LpmTrie, Map, MapData, MapError, lpm_trie::Key};
use aya_obj::generated::bpf_map_type;
use filter_common::layout::{MAX_PREFIXES, PrefixValue};
use ipnet::IpNet;

use super::{
    batch::Batch,
    slot::{PerSlot, Place},
};
use crate::{clock::Clocks, policy::Prefix, ui::explain::explain};

/// The kernel refuses to create an LPM trie without it (`trie_alloc` in `kernel/bpf/lpm_trie.c`).
const BPF_F_NO_PREALLOC: u32 = 1;

/// Identity of a range for its usage counters, kept from one generation to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RangeId {
    /// The key in the map of usage.
    pub(super) id: u32,
    /// When the range was added, in seconds on the boot clock.
    pub(super) since: u32,
}

/// Inserts the prefixes of one family into the trie at `place`, which is empty. Addresses of the
/// family have `N` bytes, and keys `K`. `done` is called with the number of prefixes inserted.
pub(super) fn fill<'a, const N: usize, const K: usize>(
    tries: &PerSlot,
    place: impl Into<Place>,
    prefixes: impl IntoIterator<Item = (&'a Prefix, RangeId)>,
    now: &Clocks,
    done: impl Fn(usize),
) -> Result<()> {
    const VALUE: usize = size_of::<PrefixValue>();
    let entries: Vec<([u8; K], [u8; VALUE])> = prefixes
        .into_iter()
        .filter_map(|(prefix, identity)| {
            let octets: [u8; N] = match prefix.range {
                IpNet::V4(range) => range.network().octets().as_slice().try_into(),
                IpNet::V6(range) => range.network().octets().as_slice().try_into(),
            }
            .ok()?;
            let prefix_len = prefix.range.prefix_len();
            let mut key = [0; K];
            let (len, data) = key.split_at_mut(size_of::<u32>());
            len.copy_from_slice(&u32::from(prefix_len).to_ne_bytes());
            data.copy_from_slice(&octets);
            let value = PrefixValue::new(
                prefix_len,
                prefix.origins,
                prefix.expires.map(|time| now.boot_at(time)),
                identity.id,
                identity.since,
            );
            Some((key, bytemuck::cast(value)))
        })
        .collect();
    Batch::of(&open_trie(tries, place)?)?
        .fill(entries, done)
        .map_err(|error| explain("fill trie", &error))
}

/// Puts an empty trie, whose keys have `K` bytes, at `place`, which no packet reads. The kernel
/// frees the old one.
pub(super) fn clear<const K: usize>(tries: &mut PerSlot, place: impl Into<Place>) -> Result<()> {
    let map = aya_obj::Map::new_from_params(
        bpf_map_type::BPF_MAP_TYPE_LPM_TRIE as u32,
        K as u32,
        size_of::<PrefixValue>() as u32,
        MAX_PREFIXES,
        BPF_F_NO_PREALLOC,
    );
    let map = MapData::create(map, "trie", None).map_err(|error| explain("create trie", &error))?;
    tries.put(place, &map)
}

/// The trie at `place`, which was filled or emptied before.
fn open_trie(tries: &PerSlot, place: impl Into<Place>) -> Result<MapData> {
    tries.inner(place)?.context("read policy: it is missing")
}

/// Every prefix around `octets` at `place`, the longest first.
pub(super) fn around<const N: usize>(
    tries: &PerSlot,
    place: impl Into<Place>,
    octets: [u8; N],
    now: &Clocks,
) -> Result<Vec<Prefix>>
where
    IpAddr: From<[u8; N]>,
{
    let verb = "read policy";
    let trie: LpmTrie<MapData, [u8; N], [u32; 4]> = Map::LpmTrie(open_trie(tries, place)?)
        .try_into()
        .map_err(|error: MapError| explain(verb, &error))?;
    let mut found = Vec::new();
    let mut len = Some(8 * N as u8);
    while let Some(bits) = len {
        let value = match trie.get(&Key::new(u32::from(bits), octets), 0) {
            Ok(words) => PrefixValue { words },
            Err(MapError::KeyNotFound) => break,
            Err(error) => return Err(explain(verb, &error)),
        };
        found.extend(prefix(octets, value, now).map(|(prefix, _)| prefix));
        len = value.prefix_len().checked_sub(1);
    }
    Ok(found)
}

/// Every prefix of the trie at `place`, in no order; none without a trie.
pub(super) fn all<const N: usize>(
    tries: &PerSlot,
    place: impl Into<Place>,
    now: &Clocks,
) -> Result<Vec<(Prefix, RangeId)>>
where
    IpAddr: From<[u8; N]>,
{
    with_ids(tries, place, now, |_| true)
}

/// Like [`all`], for the prefixes whose usage key is in `wanted`.
pub(super) fn with_ids<const N: usize>(
    tries: &PerSlot,
    place: impl Into<Place>,
    now: &Clocks,
    wanted: impl Fn(u32) -> bool,
) -> Result<Vec<(Prefix, RangeId)>>
where
    IpAddr: From<[u8; N]>,
{
    let mut prefixes = Vec::new();
    for_each(tries, place, |key, value| {
        if wanted(value.id()) {
            let octets = bytemuck::pod_read_unaligned::<[u8; N]>(&key[size_of::<u32>()..]);
            prefixes.extend(prefix(octets, value, now));
        }
    })?;
    Ok(prefixes)
}

/// Calls `entry` with every key and value of the trie at `place`.
pub(super) fn for_each(
    tries: &PerSlot,
    place: impl Into<Place>,
    mut entry: impl FnMut(&[u8], PrefixValue),
) -> Result<()> {
    let Some(map) = tries.inner(place)? else {
        return Ok(());
    };
    Batch::of(&map)?
        .read(|key, value| entry(key, bytemuck::pod_read_unaligned(value)))
        .map_err(|error| explain("read policy", &error))
}

/// The prefix in a trie's entry. The kernel accepts no prefix length beyond the key's own.
fn prefix<const N: usize>(
    octets: [u8; N],
    value: PrefixValue,
    now: &Clocks,
) -> Option<(Prefix, RangeId)>
where
    IpAddr: From<[u8; N]>,
{
    let range = IpNet::new(IpAddr::from(octets), value.prefix_len()).ok()?;
    let prefix = Prefix {
        range: range.trunc(),
        origins: value.origins(),
        expires: value.expires_at().map(|at| now.wall_at_boot(at)),
    };
    let identity = RangeId {
        id: value.id(),
        since: value.since(),
    };
    Some((prefix, identity))
}
