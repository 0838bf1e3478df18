//! The system calls that aya lacks, or combines with something else: raw bpf(2), each in a safe
//! function. No other file of the program has unsafe code.

#![expect(unsafe_code, reason = "the system call takes addresses")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::Result;
use aya::{
    maps::{MapData, MapType},
    util::nr_cpus,
};
use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_link_type};
use nix::libc;

use crate::ui::explain::explain;

/// `union bpf_attr` as the commands here use it: four words, the rest zero
/// (`include/uapi/linux/bpf.h`).
type Words = [u32; 4];

/// Attaches a loaded XDP program to an interface by a new link. Unlike `Xdp::attach` of aya it
/// never falls back to netlink.
pub(super) fn create_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let kind = bpf_attach_type::BPF_XDP as u32;
    let words = [program.as_raw_fd() as u32, ifindex, kind, flags];
    open(bpf_cmd::BPF_LINK_CREATE, words)
}

/// Replaces the program of a link by another loaded one.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let words = [link.as_raw_fd() as u32, program.as_raw_fd() as u32, 0, 0];
    call(bpf_cmd::BPF_LINK_UPDATE, words).map(drop)
}

/// Opens the object pinned at `path`.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let [low, high] = halves(path.as_ptr() as u64);
    open(bpf_cmd::BPF_OBJ_GET, [low, high, 0, 0])
}

/// Pins an object at `path`.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let [low, high] = halves(path.as_ptr() as u64);
    let words = [low, high, object.as_raw_fd() as u32, 0];
    call(bpf_cmd::BPF_OBJ_PIN, words).map(drop)
}

/// The kernel's information about an XDP link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct XdpLinkInfo {
    /// The link's id.
    pub(super) id: u32,
    /// The program's id.
    pub(super) program_id: u32,
    /// The ifindex in the interface's own network namespace; 0 once it is gone, or the link was
    /// detached.
    pub(super) ifindex: u32,
}

/// Reads it; `None` if the link is of another type.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<Option<XdpLinkInfo>> {
    // `struct bpf_link_info`: type, id, prog_id, a hole, and of an XDP link `ifindex`.
    let mut info = [0_u32; 32];
    let [low, high] = halves(info.as_mut_ptr() as u64);
    let words = [
        link.as_raw_fd() as u32,
        size_of_val(&info) as u32,
        low,
        high,
    ];
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, words)?;
    let [kind, id, program_id, _, ifindex, ..] = info;
    Ok(
        (kind == bpf_link_type::BPF_LINK_TYPE_XDP as u32).then_some(XdpLinkInfo {
            id,
            program_id,
            ifindex,
        }),
    )
}

/// The next link's id after `id`; `None` at the end.
pub(super) fn next_link(id: u32) -> io::Result<Option<u32>> {
    let mut words = [id, 0, 0, 0];
    match call_with(bpf_cmd::BPF_LINK_GET_NEXT_ID, &mut words) {
        Ok(_) => Ok(Some(words[1])),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a link by its id.
pub(super) fn open_link(id: u32) -> io::Result<OwnedFd> {
    open(bpf_cmd::BPF_LINK_GET_FD_BY_ID, [id, 0, 0, 0])
}

/// Removes an element of a map with keys of 32 bits.
pub(super) fn remove_element(map: BorrowedFd<'_>, key: u32) -> io::Result<()> {
    let [low, high] = halves((&raw const key) as u64);
    call(
        bpf_cmd::BPF_MAP_DELETE_ELEM,
        [map.as_raw_fd() as u32, 0, low, high],
    )
    .map(drop)
}

/// An address as two words, in the order in which it lies in memory.
const fn halves(address: u64) -> [u32; 2] {
    let [low, high] = [address as u32, (address >> 32) as u32];
    if cfg!(target_endian = "little") {
        [low, high]
    } else {
        [high, low]
    }
}

fn open(command: bpf_cmd, words: Words) -> io::Result<OwnedFd> {
    let descriptor = call(command, words)?;
    // SAFETY: these commands return a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn call(command: bpf_cmd, mut words: Words) -> io::Result<i32> {
    call_with(command, &mut words)
}

/// Only for the commands above: each reads descriptors and numbers in `words`, or the address and
/// length of memory that the caller keeps until the call ends.
fn call_with(command: bpf_cmd, words: &mut Words) -> io::Result<i32> {
    // SAFETY: the kernel reads paths, which end with a zero byte, and writes no more of `info` than
    // the length next to its address. Both are the caller's: no other thread uses them until the
    // call ends. The kernel copies bytes and needs no alignment.
    unsafe { bpf(command, words) }
}

/// One bpf(2) with `attributes`, the beginning of a `union bpf_attr`.
///
/// # Safety
/// `T` has no padding and matches `command`; the kernel takes the rest for zero. Every address in
/// it is of memory that is as long as `command` needs, and that nothing else uses until the call
/// ends.
unsafe fn bpf<T>(command: bpf_cmd, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` outlives the call, is as long as the call states, and is borrowed by it
    // alone: no other thread writes it. The kernel copies it in and out and needs no alignment. The
    // caller guarantees the memory that it points to.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            &raw mut *attributes,
            size_of::<T>(),
        )
    };
    match answer {
        0.. => Ok(answer as i32),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where a batch lookup stopped: a key, or the number of a hash map's bucket.
pub(super) struct Position(Vec<u8>);

/// A map, and the sizes of its entries in batch calls.
pub(super) struct Entries<'a> {
    map: &'a MapData,
    key_size: usize,
    value_size: usize,
}

impl<'a> Entries<'a> {
    /// Asks the kernel for the sizes of `map`.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub(super) fn of(map: &'a MapData) -> Result<Self> {
        let verb = "ask for the size of a map";
        let info = map.info().map_err(|error| explain(verb, &error))?;
        let kind = info.map_type().map_err(|error| explain(verb, &error))?;
        let value_size = info.value_size() as usize;
        let value_size = match kind {
            MapType::PerCpuArray | MapType::PerCpuHash | MapType::LruPerCpuHash => {
                let cpus = nr_cpus().map_err(|(_, error)| explain(verb, &error))?;
                value_size.next_multiple_of(8) * cpus
            }
            _ => value_size,
        };
        Ok(Self {
            map,
            key_size: info.key_size() as usize,
            value_size,
        })
    }

    /// Bytes of one key and of one value in the system call. For a map with a value per CPU, the
    /// values lie side by side, each in a multiple of 8 bytes.
    pub(super) const fn sizes(&self) -> (usize, usize) {
        (self.key_size, self.value_size)
    }

    /// Room for a position in this map.
    pub(super) fn position(&self) -> Position {
        Position(vec![0; self.key_size.max(size_of::<u32>())])
    }

    /// Reads as many entries as fit, from `from` on; `next` is where it stopped.
    pub(super) fn lookup(
        &self,
        from: Option<&Position>,
        next: &mut Position,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> Moved {
        let len = self.position().0.len();
        assert_eq!(next.0.len(), len, "a position in this map");
        assert!(from.is_none_or(|from| from.0.len() == len));
        let from = from.map_or(0, |from| from.0.as_ptr() as u64);
        let positions = [from, next.0.as_mut_ptr() as u64];
        self.call(bpf_cmd::BPF_MAP_LOOKUP_BATCH, positions, keys, values)
    }

    /// Writes entries.
    pub(super) fn update(&self, keys: &mut [u8], values: &mut [u8]) -> Moved {
        self.call(bpf_cmd::BPF_MAP_UPDATE_BATCH, [0; 2], keys, values)
    }

    fn call(
        &self,
        command: bpf_cmd,
        [in_batch, out_batch]: [u64; 2],
        keys: &mut [u8],
        values: &mut [u8],
    ) -> Moved {
        let count = keys.len() / self.key_size;
        assert_eq!(
            values.len(),
            count * self.value_size,
            "a value for each key"
        );
        let mut attributes = BatchAttributes {
            in_batch,
            out_batch,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: count as u32,
            map_fd: self.map.fd().as_fd().as_raw_fd() as u32,
            ..BatchAttributes::default()
        };
        // SAFETY: the kernel touches `count` keys and values of the sizes that it reported itself;
        // `keys` and `values` are that long, and borrowed mutably, so no other thread uses them. It
        // touches a position (a key, or 4 bytes) in a lookup only, which checks both lengths. It
        // copies bytes and needs no alignment. Programs write the map meanwhile, never this memory.
        let answer = unsafe { bpf(command, &mut attributes) };
        (attributes.count as usize, answer.map(drop))
    }
}

/// How many entries a call moved, and what stopped it. The number means nothing if the kernel
/// refused the call at the start.
pub(super) type Moved = (usize, io::Result<()>);

/// The part of `union bpf_attr` for batches, in `include/uapi/linux/bpf.h`.
#[derive(Default)]
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    /// In: room for so many entries. Out: how many were moved.
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<BatchAttributes>() == 56);
