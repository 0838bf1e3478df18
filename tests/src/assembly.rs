//! Small eBPF programs, written instruction by instruction, and the object files that hold them.
//!
//! The instruction set is RFC 9669; names and numbers of helpers and maps are those of
//! `linux/bpf.h`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
    write::{Object, Relocation, Symbol, SymbolSection},
};

/// Size of a load or store: the size bits of its opcode (RFC 9669 section 5).
#[derive(Clone, Copy, Debug)]
pub enum Size {
    /// One byte.
    Byte = 0x10,
    /// Two bytes.
    Half = 0x08,
    /// Four bytes.
    Word = 0x00,
    /// Eight bytes.
    Double = 0x18,
}

/// Arithmetic operation: the upper half of the opcode (section 4.1).
#[derive(Clone, Copy, Debug)]
pub enum Do {
    /// Adds.
    Add = 0x00,
    /// Multiplies.
    Multiply = 0x20,
    /// Bitwise AND.
    And = 0x50,
    /// Bitwise OR.
    Or = 0x40,
    /// Bitwise XOR.
    Xor = 0xa0,
    /// Shifts left.
    Left = 0x60,
    /// Shifts right.
    Right = 0x70,
    /// Copies.
    Set = 0xb0,
}

/// Condition of a jump: the upper half of the opcode (section 4.3).
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Always; the operands are ignored.
    Always = 0x00,
    /// The operands are equal.
    Equal = 0x10,
    /// The operands differ.
    Unequal = 0x50,
    /// The first operand is greater, both unsigned.
    Greater = 0x20,
}

/// A map, as a program names it.
#[derive(Clone, Copy, Debug)]
pub struct MapShape {
    /// Its name.
    pub name: &'static str,
    /// A number of `enum bpf_map_type`.
    pub kind: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// Maximum number of entries.
    pub capacity: u32,
    /// Flags of `BPF_MAP_CREATE`.
    pub flags: u32,
}

/// The second operand of an instruction.
#[derive(Clone, Copy, Debug)]
pub enum Operand {
    /// A number, sign-extended.
    Number(i32),
    /// The register of this number.
    Register(u8),
}

impl From<i32> for Operand {
    fn from(number: i32) -> Self {
        Self::Number(number)
    }
}

/// The register with that number, as an operand.
pub const fn r(number: u8) -> Operand {
    Operand::Register(number)
}

/// A program under construction.
#[derive(Debug, Default)]
pub struct Code {
    bytes: Vec<u8>,
    labels: BTreeMap<&'static str, usize>,
    jumps: Vec<(usize, &'static str)>,
    maps: Vec<(usize, &'static str)>,
}

impl Code {
    /// An empty program.
    pub fn new() -> Self {
        Self::default()
    }

    fn push(mut self, opcode: u8, registers: (u8, u8), offset: i16, number: i32) -> Self {
        self.bytes.extend([opcode, registers.1 << 4 | registers.0]);
        self.bytes.extend(offset.to_le_bytes());
        self.bytes.extend(number.to_le_bytes());
        self
    }

    fn push_with(self, opcode: u8, register: u8, offset: i16, operand: Operand) -> Self {
        match operand {
            Operand::Number(number) => self.push(opcode, (register, 0), offset, number),
            Operand::Register(source) => self.push(opcode | 0x08, (register, source), offset, 0),
        }
    }

    /// Arithmetic of 64 bits on a register.
    pub fn alu(self, what: Do, register: u8, operand: impl Into<Operand>) -> Self {
        self.push_with(what as u8 | 0x07, register, 0, operand.into())
    }

    /// Copies into a register.
    pub fn set(self, register: u8, operand: impl Into<Operand>) -> Self {
        self.alu(Do::Set, register, operand)
    }

    /// Loads a 64-bit number into a register.
    pub fn set_wide(self, register: u8, number: u64) -> Self {
        self.push(0x18, (register, 0), 0, number as i32)
            .push(0, (0, 0), 0, (number >> 32) as i32)
    }

    /// Loads the address of a map into a register.
    pub fn set_map(mut self, register: u8, map: &'static str) -> Self {
        self.maps.push((self.bytes.len(), map));
        self.set_wide(register, 0)
    }

    /// Looks up (`bpf_map_lookup_elem`) the key that lies `below` bytes under the top of the stack.
    /// Register 0 then holds the address of the value, or zero.
    pub fn look_up(self, map: &'static str, below: i32) -> Self {
        self.set(2, r(10))
            .alu(Do::Add, 2, -below)
            .set_map(1, map)
            .call(1)
    }

    /// Loads from the address in `base`, plus `offset`.
    pub fn load(self, size: Size, register: u8, base: u8, offset: i16) -> Self {
        self.push(0x61 | size as u8, (register, base), offset, 0)
    }

    /// Stores to the address in `base`, plus `offset`.
    pub fn store(self, size: Size, base: u8, offset: i16, operand: impl Into<Operand>) -> Self {
        // For a store of a number, this bit of the opcode is inverted.
        match operand.into() {
            Operand::Number(number) => self.push(0x62 | size as u8, (base, 0), offset, number),
            Operand::Register(source) => self.push(0x63 | size as u8, (base, source), offset, 0),
        }
    }

    /// Jumps to a label further on.
    pub fn jump(
        mut self,
        when: When,
        register: u8,
        operand: impl Into<Operand>,
        label: &'static str,
    ) -> Self {
        self.jumps.push((self.bytes.len(), label));
        self.push_with(when as u8 | 0x05, register, 0, operand.into())
    }

    /// Defines a label at this position.
    pub fn label(mut self, label: &'static str) -> Self {
        self.labels.insert(label, self.bytes.len());
        self
    }

    /// Calls a helper of the kernel.
    pub fn call(self, helper: i32) -> Self {
        self.push(0x85, (0, 0), 0, helper)
    }

    /// Ends the program and returns register 0.
    pub fn exit(self) -> Self {
        self.push(0x95, (0, 0), 0, 0)
    }

    /// An object file with this XDP program, under that name, and its maps.
    pub fn object(mut self, name: &str, maps: &[MapShape]) -> Result<Vec<u8>> {
        for (at, label) in &self.jumps {
            let target = self
                .labels
                .get(label)
                .with_context(|| format!("no label `{label}`"))?;
            // In instructions, counted from the next one.
            let distance = i16::try_from((target - at) / 8 - 1)?;
            self.bytes[at + 2..at + 4].copy_from_slice(&distance.to_le_bytes());
        }
        let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        let symbol = |name: &str, section, value, size, kind| Symbol {
            name: name.as_bytes().to_vec(),
            value,
            size,
            kind,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        };
        let text = object.add_section(Vec::new(), b"xdp.frags".to_vec(), SectionKind::Text);
        let value = object.append_section_data(text, &self.bytes, 8);
        let size = self.bytes.len() as u64;
        object.add_symbol(symbol(name, text, value, size, SymbolKind::Text));
        if maps.is_empty() {
            return Ok(object.write()?);
        }
        let section = object.add_section(Vec::new(), b"maps".to_vec(), SectionKind::Data);
        for shape in maps {
            let words = [
                shape.kind,
                shape.key,
                shape.value,
                shape.capacity,
                shape.flags,
            ];
            let bytes = words.map(u32::to_le_bytes).concat();
            let value = object.append_section_data(section, &bytes, 4);
            let size = bytes.len() as u64;
            let map = object.add_symbol(symbol(shape.name, section, value, size, SymbolKind::Data));
            for (at, _) in self.maps.iter().filter(|(_, name)| *name == shape.name) {
                object.add_relocation(
                    text,
                    Relocation {
                        offset: *at as u64,
                        symbol: map,
                        addend: 0,
                        // `R_BPF_64_64`: Documentation/bpf/llvm_reloc.rst.
                        flags: RelocationFlags::Elf { r_type: 1 },
                    },
                )?;
            }
        }
        Ok(object.write()?)
    }
}
