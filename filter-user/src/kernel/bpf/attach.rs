//! The program on an interface: attached by a bpf_link whose pin outlives every process.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::{
    maps::{Array, Map, MapData},
    programs::{ProgramError, loaded_programs},
};
use aya_log::EbpfLogger;
use aya_obj::generated::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};
use filter_common::LinkHeader;
use jiff::Timestamp;
use nix::libc;

use super::{
    object::Program,
    sys::{self, XdpLinkInfo},
};
use crate::{
    config::XdpMode,
    kernel::{net::driver, pins::REFUSAL},
    ui::{
        error::UserError,
        explain::{explain, io_error},
    },
};

/// The kernel's information about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The link's id.
    pub link_id: u32,
    /// The id of the program that the link holds.
    pub program_id: u32,
    /// The interface's ifindex in its own network namespace; 0 once the interface is gone or
    /// another process detached the link.
    pub ifindex: u32,
}

impl Attachment {
    /// Reads the link pinned at `pin`.
    ///
    /// # Errors
    /// If it is not there, or the kernel refuses.
    pub fn read(pin: &Path) -> Result<Self> {
        Link::open(pin)?.attachment()
    }
}

impl From<XdpLinkInfo> for Attachment {
    fn from(info: XdpLinkInfo) -> Self {
        Self {
            link_id: info.id,
            program_id: info.program_id,
            ifindex: info.ifindex,
        }
    }
}

/// A link that this process holds. The program stays on its interface as long as any process holds
/// the link, or it is pinned.
pub struct Link {
    fd: OwnedFd,
    refusal: Option<String>,
}

impl Link {
    fn of(fd: OwnedFd) -> Self {
        let refusal = None;
        Self { fd, refusal }
    }

    /// Opens the link pinned at `pin`.
    ///
    /// # Errors
    /// If it is not there, or the kernel refuses.
    pub fn open(pin: &Path) -> Result<Self> {
        let fd = sys::open_pin(pin).map_err(|error| explain("open link", &error))?;
        Ok(Self::of(fd))
    }

    /// Attaches `program` to an interface without one. If this fails, or the process dies before
    /// the link is pinned, the interface is as it was. In mode `auto` any refusal by the driver
    /// leads to generic XDP.
    ///
    /// # Errors
    /// If the interface carries another program, or the driver or the kernel refuses. No program is
    /// ever displaced.
    pub fn create(
        program: &mut Program,
        link_header: LinkHeader,
        name: &str,
        ifindex: u32,
        mode: XdpMode,
    ) -> Result<Self> {
        let verb = format!("attach filter to `{name}`");
        let program = program
            .xdp(link_header)?
            .fd()
            .map_err(|error| explain(&verb, &error))?
            .as_fd();
        // Traffic is affected from here on.
        let attach = |flags| sys::create_link(program, ifindex, flags);
        let mut refusal = None;
        if mode != XdpMode::Generic {
            match attach(XDP_FLAGS_DRV_MODE) {
                Ok(fd) => return Ok(Self::of(fd)),
                Err(error) if !is_refusal(&error) => return Err(no_link(&verb, name, &error)),
                Err(error) => refusal = Some(driver::refusal(ifindex, program, &error)),
            }
        }
        if let (Some(refusal), XdpMode::Native) = (&refusal, mode) {
            let cause = format!("{verb}: {refusal}");
            return Err(UserError::failed(cause, driver::hint(name, refusal)));
        }
        match (attach(XDP_FLAGS_SKB_MODE), refusal) {
            (Ok(fd), refusal) => Ok(Self { fd, refusal }),
            (Err(error), None) => Err(no_link(&verb, name, &error)),
            (Err(error), Some(refusal)) => {
                let verb = format!("{verb}: {refusal}; and in generic mode");
                Err(no_link(&verb, name, &error))
            }
        }
    }

    /// The driver's reason for refusing the program, if this link was just created and the driver
    /// refused.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Pins the link, so that it outlives this process, and the driver's reason for refusing next
    /// to it.
    ///
    /// # Errors
    /// If bpffs refuses.
    pub fn pin(&self, pin: &Path) -> Result<()> {
        let verb = || format!("pin link at `{}`", pin.display());
        let refusal = refusal_of(pin);
        let _ = fs::remove_file(&refusal);
        if let Some(text) = &self.refusal {
            // The filter works without this text.
            let _ = pin_text(&refusal, text);
        }
        sys::pin(self.fd.as_fd(), pin).map_err(|error| explain(&verb(), &error))
    }

    /// Replaces the program of the link: one step, no gap.
    ///
    /// # Errors
    /// If the kernel refuses; the old program then stays, as long as the link has another holder.
    pub fn replace(
        self,
        program: &mut Program,
        link_header: LinkHeader,
        name: &str,
    ) -> Result<Self> {
        let verb = || format!("replace program on `{name}`");
        let program = program
            .xdp(link_header)?
            .fd()
            .map_err(|error| explain(&verb(), &error))?;
        sys::update_link(self.fd.as_fd(), program.as_fd())
            .map_err(|error| explain(&verb(), &error))?;
        Ok(self)
    }

    /// The kernel's current information about the link.
    ///
    /// # Errors
    /// If the kernel refuses, or the link is not an XDP link.
    pub fn attachment(&self) -> Result<Attachment> {
        let info = sys::link_info(self.fd.as_fd()).map_err(|error| explain("read link", &error))?;
        let info = info.context("read link: it is not an XDP link")?;
        Ok(info.into())
    }
}

/// Whether another way to attach may succeed, because the driver, or the kernel on its behalf,
/// refused this one. Not if the interface is taken or gone, this process lacks the rights, or it
/// has no descriptors left.
fn is_refusal(error: &io::Error) -> bool {
    let others = [
        libc::EBUSY,
        libc::EEXIST,
        libc::EPERM,
        libc::EACCES,
        libc::ENODEV,
        libc::EMFILE,
        libc::ENFILE,
    ];
    error
        .raw_os_error()
        .is_some_and(|number| !others.contains(&number))
}

fn no_link(verb: &str, name: &str, error: &io::Error) -> anyhow::Error {
    match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => UserError::failed(
            format!("{verb}: another XDP program is attached"),
            format!(
                "`ip link show {name}` names it; apifence does not replace other programs: remove it with its own tool, then attach again"
            ),
        ),
        _ => explain(verb, error),
    }
}

/// Length of the text that is pinned next to a link.
const TEXT_LEN: usize = 512;

/// Path of the driver's reason for the link pinned at `pin`.
fn refusal_of(pin: &Path) -> PathBuf {
    pin.with_file_name(REFUSAL)
}

/// Pins a text as the single value of a map, since bpffs holds no files.
fn pin_text(path: &Path, text: &str) -> Result<()> {
    let verb = "pin text";
    let mut bytes = [0; TEXT_LEN];
    let length = text.floor_char_boundary(TEXT_LEN);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    let mut map: Array<MapData, [u8; TEXT_LEN]> =
        Array::create(1, 0).map_err(|error| explain(verb, &error))?;
    map.set(0, bytes, 0)
        .map_err(|error| explain(verb, &error))?;
    map.pin(path).map_err(|error| explain(verb, &error))
}

/// The driver's reason for refusing the program of the link pinned at `pin`; `None` if it accepted
/// it, or the reason is not known.
pub fn refusal(pin: &Path) -> Option<String> {
    let map = MapData::from_pin(refusal_of(pin)).ok()?;
    let map: Array<MapData, [u8; TEXT_LEN]> = Map::Array(map).try_into().ok()?;
    let bytes = map.get(&0, 0).ok()?;
    let text = bytes.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Every XDP link of the kernel, in any network namespace and with any holder.
///
/// # Errors
/// If the kernel refuses.
pub fn links() -> Result<Vec<Attachment>> {
    let failed = |error: io::Error| explain("list links", &error);
    let mut found = Vec::new();
    let mut last = 0;
    while let Some(id) = sys::next_link(last).map_err(failed)? {
        last = id;
        // A link that is being removed cannot be opened.
        let info = sys::open_link(id).and_then(|link| sys::link_info(link.as_fd()));
        found.extend(info.ok().flatten().map(Attachment::from));
    }
    Ok(found)
}

/// Removes the pin of a link; the kernel detaches the program with the last holder.
///
/// # Errors
/// If the pin cannot be removed.
pub fn detach_link(pin: &Path) -> Result<()> {
    let _ = fs::remove_file(refusal_of(pin));
    fs::remove_file(pin).with_context(|| format!("remove pin `{}`", pin.display()))
}

/// A loaded program.
pub struct Loaded {
    /// Its name, if the kernel reports it.
    pub name: Option<String>,
    /// When it was loaded.
    pub since: Option<Timestamp>,
}

impl Loaded {
    /// The link header that it expects, if its name is one of ours.
    pub fn link_header(&self) -> Option<LinkHeader> {
        let name = self.name.as_deref();
        let mut all = LinkHeader::ALL.into_iter();
        all.find(|link_header| name == Some(link_header.program()))
    }
}

/// The kernel describes programs by their ids for CAP_SYS_ADMIN alone (`bpf_prog_get_fd_by_id`,
/// Linux 6.18), which this process lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unnamed;

/// The program with this id; `None` if it is gone, or the kernel does not answer.
///
/// # Errors
/// If this process may not ask.
pub fn loaded(id: u32) -> Result<Option<Loaded>, Unnamed> {
    for found in loaded_programs() {
        match found {
            Ok(info) if info.id() == id => {
                return Ok(Some(Loaded {
                    name: info.name_as_str().map(str::to_owned),
                    since: info
                        .loaded_at()
                        .and_then(|time| Timestamp::try_from(time).ok()),
                }));
            }
            // Other programs may end meanwhile.
            Err(error) if is_forbidden(&error) => return Err(Unnamed),
            _ => {}
        }
    }
    Ok(None)
}

fn is_forbidden(error: &ProgramError) -> bool {
    io_error(error).is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The log lines of a program that was loaded with its log on.
pub struct LogLines {
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl LogLines {
    /// Opens the log of `program`.
    ///
    /// # Errors
    /// If the kernel refuses its ring buffer.
    pub fn open(program: &mut Program) -> Result<Self> {
        let logger = EbpfLogger::init(&mut program.ebpf).context("open the program's log")?;
        Ok(Self { logger })
    }

    /// Passes the available lines to the logger of this process.
    pub fn flush(&mut self) {
        self.logger.flush();
    }
}
