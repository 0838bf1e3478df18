//! Somebody else's XDP program: the smallest there is, which gives every frame the same action.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode, links::FdLink},
};
use object::{
    Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};

/// The name of the program, as the kernel lists it.
pub const PROGRAM: &str = "passer_by";

/// `XDP_DROP`, of `enum xdp_action` in `linux/bpf.h`.
pub const DROP: u8 = 1;
/// `XDP_PASS`, of the same.
pub const PASS: u8 = 2;

/// A program of one action, loaded.
#[derive(Debug)]
pub struct Foreign(Ebpf);

impl Foreign {
    /// Loads one that passes everything.
    pub fn load() -> Result<Self> {
        Self::with_action(PASS)
    }

    /// Loads one that returns `action`, [`DROP`] or [`PASS`].
    pub fn with_action(action: u8) -> Result<Self> {
        let mut foreign = Self(Ebpf::load(&object_file(action)?)?);
        foreign.program()?.load()?;
        Ok(foreign)
    }

    /// Pins the program, so that `ip link set dev IF xdp pinned PATH` finds it.
    pub fn pin(&mut self, path: &str) -> Result<()> {
        Ok(self.program()?.pin(path)?)
    }

    /// Attaches it to an interface by a BPF link, which ends when dropped. To be called inside the interface's
    /// namespace.
    pub fn attach(&mut self, interface: &str) -> Result<FdLink> {
        let program = self.program()?;
        let link = program.attach(interface, XdpMode::default())?;
        Ok(program.take_link(link)?.try_into()?)
    }

    /// Its id in the kernel.
    pub fn id(&mut self) -> Result<u32> {
        Ok(self.program()?.info()?.id())
    }

    /// The program itself.
    pub fn program(&mut self) -> Result<&mut Xdp> {
        Ok(self
            .0
            .program_mut(PROGRAM)
            .context("no such program")?
            .try_into()?)
    }
}

/// An object file with the program `r0 = action; exit`.
fn object_file(action: u8) -> Result<Vec<u8>> {
    // Per instruction: opcode, registers, offset (2 bytes), immediate (4 bytes); RFC 9669 section 3.1.
    let code: [u8; 16] = [0xb7, 0, 0, 0, action, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let section = object.add_section(Vec::new(), b"xdp.frags".to_vec(), object::SectionKind::Text);
    let value = object.append_section_data(section, &code, 8);
    object.add_symbol(Symbol {
        name: PROGRAM.as_bytes().to_vec(),
        value,
        size: code.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    Ok(object.write()?)
}
