//! A foreign XDP program: the smallest one, which gives every frame the same action, or any other.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::Map,
    programs::{Xdp, XdpMode, links::FdLink},
};

use crate::assembly::{Code, MapShape};

/// The name of the program, as the kernel lists it.
pub const PROGRAM: &str = "passer_by";

/// `XDP_DROP`, of `enum xdp_action` in `linux/bpf.h`.
pub const DROP: u8 = 1;
/// `XDP_PASS`, of the same.
pub const PASS: u8 = 2;

/// A foreign program, loaded.
#[derive(Debug)]
pub struct Foreign {
    ebpf: Ebpf,
    name: String,
}

impl Foreign {
    /// Loads one that passes everything.
    pub fn load() -> Result<Self> {
        Self::with_action(PASS)
    }

    /// Loads one that returns `action`, [`DROP`] or [`PASS`].
    pub fn with_action(action: u8) -> Result<Self> {
        Self::with_code(Code::new().set(0, i32::from(action)).exit(), &[])
    }

    /// Loads one that passes everything, under another name.
    pub fn named(name: &str) -> Result<Self> {
        let code = Code::new().set(0, i32::from(PASS)).exit();
        Self::with_name(name, code, &[])
    }

    /// Loads one with these instructions and maps.
    pub fn with_code(code: Code, maps: &[MapShape]) -> Result<Self> {
        Self::with_name(PROGRAM, code, maps)
    }

    fn with_name(name: &str, code: Code, maps: &[MapShape]) -> Result<Self> {
        let mut foreign = Self {
            ebpf: Ebpf::load(&code.object(name, maps)?)?,
            name: name.to_owned(),
        };
        foreign.program()?.load()?;
        Ok(foreign)
    }

    /// Pins the program, so that `ip link set dev IF xdp pinned PATH` finds it.
    pub fn pin(&mut self, path: &str) -> Result<()> {
        Ok(self.program()?.pin(path)?)
    }

    /// Attaches it to an interface by a BPF link, which ends when dropped. Call it inside the
    /// interface's namespace.
    pub fn attach(&mut self, interface: &str) -> Result<FdLink> {
        let program = self.program()?;
        let link = program.attach(interface, XdpMode::default())?;
        Ok(program.take_link(link)?.try_into()?)
    }

    /// Its id in the kernel.
    pub fn id(&mut self) -> Result<u32> {
        Ok(self.program()?.info()?.id())
    }

    /// One of its maps.
    pub fn map(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf
            .map_mut(name)
            .with_context(|| format!("no map `{name}`"))
    }

    /// The program itself.
    pub fn program(&mut self) -> Result<&mut Xdp> {
        Ok(self
            .ebpf
            .program_mut(&self.name)
            .context("no such program")?
            .try_into()?)
    }
}
