//! The program on an interface: attached by a bpf_link whose pin outlives every process.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use aya::programs::{
    ProgramError, Xdp, XdpMode as AyaMode,
    links::{FdLink, PinnedLink},
    loaded_programs,
    xdp::XdpLink,
};
use aya_log::EbpfLogger;
use filter_common::LinkHeader;

use super::object::Program;
use crate::{
    config::XdpMode,
    explain::{explain, io_error},
    problem::Problem,
};

/// What is pinned for an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
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

/// The interface of an XDP link that this process holds, as `/proc/self/fdinfo` shows it (`bpf_xdp_link_show_fdinfo` in
/// `net/core/dev.c`, Linux 5.9); aya does not hand out this part of the link's info.
fn live_ifindex(link_id: u32) -> Result<u32> {
    let verb = "read link";
    for entry in fs::read_dir("/proc/self/fdinfo").context(verb)? {
        // The descriptor of the directory itself is closed by the time it is listed.
        let Ok(text) = fs::read_to_string(entry.context(verb)?.path()) else {
            continue;
        };
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok())
        };
        if field("link_id:") == Some(link_id)
            && let Some(ifindex) = field("ifindex:")
        {
            return Ok(ifindex);
        }
    }
    Err(Problem::failed(
        format!("{verb}: the kernel does not show its interface"),
        "mount /proc; apifence needs Linux 5.18 or later",
    ))
}

fn open_link(pin: &Path) -> Result<PinnedLink> {
    PinnedLink::from_pin(pin).map_err(|error| explain("open link", &error))
}

/// A link that this process holds: the program stays on its interface as long as somebody does, or the link is pinned.
pub struct Link {
    fd: FdLink,
}

impl Link {
    /// Opens the link pinned at `pin`.
    ///
    /// # Errors
    /// If it is not there, or the kernel refuses.
    pub fn open(pin: &Path) -> Result<Self> {
        let fd = FdLink::from(open_link(pin)?);
        Ok(Self { fd })
    }

    /// Attaches `program` to an interface without one. If this fails, or the process dies before the link is pinned, the
    /// interface is as it was.
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
        let xdp = program.xdp(link_header)?;
        let native = || {
            Problem::failed(
                format!("attach filter to `{name}`: its driver has no native XDP"),
                "use `--xdp-mode generic`, which is slower, or `auto`",
            )
        };
        let fd = match mode {
            XdpMode::Native => try_attach(xdp, name, ifindex, AyaMode::Driver)?,
            XdpMode::Generic => try_attach(xdp, name, ifindex, AyaMode::Skb)?,
            XdpMode::Auto => match try_attach(xdp, name, ifindex, AyaMode::Driver)? {
                Some(link) => Some(link),
                None => try_attach(xdp, name, ifindex, AyaMode::Skb)?,
            },
        };
        let fd = fd.ok_or_else(native)?;
        Ok(Self { fd })
    }

    /// Pins the link, so that it outlives this process, and goes on holding it.
    ///
    /// # Errors
    /// If bpffs refuses; the link is gone then, and the program with it unless the link has another holder.
    pub fn pin(self, pin: &Path) -> Result<Self> {
        let pinned = self
            .fd
            .pin(pin)
            .map_err(|error| explain(&format!("pin link at `{}`", pin.display()), &error))?;
        let fd = FdLink::from(pinned);
        Ok(Self { fd })
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
        let failed = |error: ProgramError| explain(&verb(), &error);
        let link = XdpLink::try_from(self.fd).map_err(|error| explain(&verb(), &error))?;
        let xdp = program.xdp(link_header)?;
        let id = xdp.attach_to_link(link).map_err(failed)?;
        let link = xdp.take_link(id).map_err(failed)?;
        let fd = FdLink::try_from(link).map_err(|error| explain(&verb(), &error))?;
        Ok(Self { fd })
    }

    /// What frames the program expects that it holds.
    ///
    /// # Errors
    /// If the program is not ours, or the kernel refuses.
    pub fn link_header(&self) -> Result<LinkHeader> {
        let id = self.attachment()?.program_id;
        let name = program_name(id).with_context(|| format!("name program {id}"))?;
        LinkHeader::ALL
            .into_iter()
            .find(|link_header| link_header.program() == name)
            .with_context(|| format!("use program `{name}`: it is not ours"))
    }

    /// What it holds, as the kernel says now.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attachment(&self) -> Result<Attachment> {
        let info = self
            .fd
            .info()
            .map_err(|error| explain("read link", &error))?;
        Ok(Attachment {
            program_id: info.program_id(),
            ifindex: live_ifindex(info.id())?,
        })
    }
}

/// Attaches in one mode; `None` if the driver does not have it.
fn try_attach(xdp: &mut Xdp, name: &str, ifindex: u32, mode: AyaMode) -> Result<Option<FdLink>> {
    let verb = || format!("attach filter to `{name}`");
    // Traffic is affected from here on.
    let id = match xdp.attach_to_if_index(ifindex, mode) {
        Ok(id) => id,
        Err(error) => {
            return match io_error(&error).and_then(std::io::Error::raw_os_error) {
                Some(nix::libc::EOPNOTSUPP) => Ok(None),
                Some(nix::libc::EBUSY | nix::libc::EEXIST) => Err(Problem::failed(
                    format!("{}: it carries another XDP program", verb()),
                    format!(
                        "`ip link show {name}` names it; apifence displaces nothing: remove it with its own tool, then attach again"
                    ),
                )),
                _ => Err(explain(&verb(), &error)),
            };
        }
    };
    let link: XdpLink = xdp
        .take_link(id)
        .map_err(|error| explain(&verb(), &error))?;
    // Where the kernel refuses a link with EINVAL aya attaches by netlink: such a program nobody can pin or
    // replace without a gap. Dropped here, it leaves the interface.
    FdLink::try_from(link).map(Some).map_err(|_| {
        Problem::failed(
            format!("{}: the kernel gives no bpf_link for it", verb()),
            "apifence needs Linux 5.18 or later and a driver that takes multi-buffer XDP programs; try `--xdp-mode generic`",
        )
    })
}

/// Removes the pin of a link; the kernel detaches the program once nobody holds the link.
///
/// # Errors
/// If the pin cannot be removed.
pub fn detach_link(pin: &Path) -> Result<()> {
    let link = open_link(pin)?;
    link.unpin()
        .with_context(|| format!("remove pin `{}`", pin.display()))?;
    Ok(())
}

/// The name of a loaded program, if the kernel tells.
pub fn program_name(id: u32) -> Option<String> {
    let info = loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == id)?;
    info.name_as_str().map(str::to_owned)
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
