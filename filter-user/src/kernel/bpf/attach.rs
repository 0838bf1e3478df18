//! The program on an interface: attached by a bpf_link whose pin outlives every process.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::{
    maps::{Array, Map, MapData},
    programs::loaded_programs,
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
    ui::{error::UserError, explain::explain},
};

/// What a link holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The number of the link.
    pub link_id: u32,
    /// The number of the program that the link holds.
    pub program_id: u32,
    /// The number of the interface it is on, in that interface's own network namespace; 0 once the interface is gone or
    /// somebody detached the link.
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

/// A link that this process holds: the program stays on its interface as long as somebody does, or the link is pinned.
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

    /// Attaches `program` to an interface without one. If this fails, or the process dies before the link is pinned, the
    /// interface is as it was. In mode `auto` any refusal by the driver leads to generic XDP.
    ///
    /// # Errors
    /// If the interface carries another program, or the driver or the kernel refuses. Nothing is ever displaced.
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
                let verb = format!("{verb}: {refusal}; and by generic XDP");
                Err(no_link(&verb, name, &error))
            }
        }
    }

    /// Why the driver did not take the program, if this is a link that was just made and it did not.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Pins the link, so that it outlives this process; beside it, why the driver did not take the program.
    ///
    /// # Errors
    /// If bpffs refuses.
    pub fn pin(&self, pin: &Path) -> Result<()> {
        let verb = || format!("pin link at `{}`", pin.display());
        let refusal = refusal_of(pin);
        let _ = fs::remove_file(&refusal);
        if let Some(text) = &self.refusal {
            // The filter does not depend on it.
            let _ = pin_text(&refusal, text);
        }
        sys::pin(self.fd.as_fd(), pin).map_err(|error| explain(&verb(), &error))
    }

    /// Puts `program` in the place of the one that the link holds: one step, no gap.
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

    /// What frames the program expects that it holds.
    ///
    /// # Errors
    /// If the program is not ours, or the kernel refuses.
    pub fn link_header(&self) -> Result<LinkHeader> {
        let id = self.attachment()?.program_id;
        loaded(id)
            .and_then(|program| program.link_header())
            .with_context(|| format!("use program {id}: it is not ours"))
    }

    /// What it holds, as the kernel says now.
    ///
    /// # Errors
    /// If the kernel refuses, or the link is not one of XDP.
    pub fn attachment(&self) -> Result<Attachment> {
        let info = sys::link_info(self.fd.as_fd()).map_err(|error| explain("read link", &error))?;
        let info = info.context("read link: it is not one of XDP")?;
        Ok(info.into())
    }
}

/// Whether another way to attach may succeed: the driver, or what the kernel asks of it, is against this one. Not if the interface is taken or
/// gone, or this process may not attach anything, or has no descriptor left.
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
            format!("{verb}: it carries another XDP program"),
            format!(
                "`ip link show {name}` names it; apifence displaces nothing: remove it with its own tool, then attach again"
            ),
        ),
        _ => explain(verb, error),
    }
}

/// How long the text is that is pinned beside a link.
const TEXT_LEN: usize = 512;

/// Where it is told why the driver did not take the program that the link pinned at `pin` holds.
fn refusal_of(pin: &Path) -> PathBuf {
    pin.with_file_name(REFUSAL)
}

/// Pins a text: bpffs holds no files, so it is the one value of a map.
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

/// Why the driver did not take the program that the link pinned at `pin` holds; `None` if it did, or nobody can tell.
pub fn refusal(pin: &Path) -> Option<String> {
    let map = MapData::from_pin(refusal_of(pin)).ok()?;
    let map: Array<MapData, [u8; TEXT_LEN]> = Map::Array(map).try_into().ok()?;
    let bytes = map.get(&0, 0).ok()?;
    let text = bytes.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Every XDP link of the kernel, whatever its network namespace and whoever holds it.
///
/// # Errors
/// If the kernel refuses.
pub fn links() -> Result<Vec<Attachment>> {
    let failed = |error: io::Error| explain("list links", &error);
    let mut found = Vec::new();
    let mut last = 0;
    while let Some(id) = sys::next_link(last).map_err(failed)? {
        last = id;
        // One that is about to go cannot be opened.
        let info = sys::open_link(id).and_then(|link| sys::link_info(link.as_fd()));
        found.extend(info.ok().flatten().map(Attachment::from));
    }
    Ok(found)
}

/// Removes the pin of a link; the kernel detaches the program once nobody holds the link.
///
/// # Errors
/// If the pin cannot be removed.
pub fn detach_link(pin: &Path) -> Result<()> {
    let _ = fs::remove_file(refusal_of(pin));
    fs::remove_file(pin).with_context(|| format!("remove pin `{}`", pin.display()))
}

/// A loaded program.
pub struct Loaded {
    /// Its name, if the kernel tells.
    pub name: Option<String>,
    /// When it was loaded.
    pub since: Option<Timestamp>,
}

impl Loaded {
    /// What frames it expects, if it is one of ours by its name.
    pub fn link_header(&self) -> Option<LinkHeader> {
        let name = self.name.as_deref();
        let mut all = LinkHeader::ALL.into_iter();
        all.find(|link_header| name == Some(link_header.program()))
    }
}

/// The program with this number; `None` if it is gone, or the kernel does not tell.
pub fn loaded(id: u32) -> Option<Loaded> {
    let info = loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == id)?;
    Some(Loaded {
        name: info.name_as_str().map(str::to_owned),
        since: info
            .loaded_at()
            .and_then(|time| Timestamp::try_from(time).ok()),
    })
}

/// The lines that a program loaded with its log on writes.
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

    /// Hands the lines that are there to the logger of this process.
    pub fn flush(&mut self) {
        self.logger.flush();
    }
}
