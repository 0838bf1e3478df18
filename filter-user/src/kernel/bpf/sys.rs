//! The system calls about links that aya does not make, or not without doing something else: raw bpf(2), each behind a function that
//! is safe to call.

#![expect(unsafe_code, reason = "the system call takes addresses")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_link_type};
use nix::libc;

/// `union bpf_attr` as the commands here take it: four words, the rest of it zero (`include/uapi/linux/bpf.h`).
type Words = [u32; 4];

/// Attaches a loaded XDP program to an interface by a new link. Unlike `Xdp::attach` of aya it never attaches by netlink instead.
pub(super) fn create_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let kind = bpf_attach_type::BPF_XDP as u32;
    let words = [program.as_raw_fd() as u32, ifindex, kind, flags];
    open(bpf_cmd::BPF_LINK_CREATE, words)
}

/// Puts a loaded program in the place of the one that a link holds.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let words = [link.as_raw_fd() as u32, program.as_raw_fd() as u32, 0, 0];
    call(bpf_cmd::BPF_LINK_UPDATE, words).map(drop)
}

/// Opens what is pinned at `path`.
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

/// What the kernel says of an XDP link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct XdpLinkInfo {
    /// Its number.
    pub(super) id: u32,
    /// The number of its program.
    pub(super) program_id: u32,
    /// The interface in its own network namespace; 0 once that is gone, or the link was detached.
    pub(super) ifindex: u32,
}

/// Asks for it; `None` if the link is of another type.
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

/// The number of the link that comes after `id`; `None` if there are no more.
pub(super) fn next_link(id: u32) -> io::Result<Option<u32>> {
    let mut words = [id, 0, 0, 0];
    match call_with(bpf_cmd::BPF_LINK_GET_NEXT_ID, &mut words) {
        Ok(_) => Ok(Some(words[1])),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a link by its number.
pub(super) fn open_link(id: u32) -> io::Result<OwnedFd> {
    open(bpf_cmd::BPF_LINK_GET_FD_BY_ID, [id, 0, 0, 0])
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
    // SAFETY: these commands return a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn call(command: bpf_cmd, mut words: Words) -> io::Result<i32> {
    call_with(command, &mut words)
}

/// Only for the commands above: each finds descriptors and numbers in `words`, or the address and length of memory that the caller keeps
/// until the call is over.
fn call_with(command: bpf_cmd, words: &mut Words) -> io::Result<i32> {
    let size = size_of::<Words>();
    // SAFETY: `words` is the beginning of what these commands take, outlives the call and is ours alone; the kernel takes the rest for zero.
    // It reads the paths, which end with a zero byte, and writes no more of `info` than it was told that there is.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            words.as_mut_ptr(),
            size,
        )
    };
    match answer {
        0.. => Ok(answer as i32),
        _ => Err(io::Error::last_os_error()),
    }
}
