//! Somebody else's XDP program: the smallest there is.

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

/// A program that passes everything, loaded.
#[derive(Debug)]
pub struct Foreign(Ebpf);

impl Foreign {
    /// Loads it.
    pub fn load() -> Result<Self> {
        let mut foreign = Self(Ebpf::load(&object_file()?)?);
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

    fn program(&mut self) -> Result<&mut Xdp> {
        Ok(self
            .0
            .program_mut(PROGRAM)
            .context("no such program")?
            .try_into()?)
    }
}

/// An object file with the program `r0 = XDP_PASS; exit`.
fn object_file() -> Result<Vec<u8>> {
    // Per instruction: opcode, registers, offset (2 bytes), immediate (4 bytes); RFC 9669 section 3.1.
    const PASS: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let section = object.add_section(Vec::new(), b"xdp".to_vec(), object::SectionKind::Text);
    let value = object.append_section_data(section, &PASS, 8);
    object.add_symbol(Symbol {
        name: PROGRAM.as_bytes().to_vec(),
        value,
        size: PASS.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    Ok(object.write()?)
}
