//! The textbook program: fixed offsets, then a trie or one address. It shows the cost of everything
//! beyond that.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use aya::maps::lpm_trie::{Key, LpmTrie};
use ipnet::IpNet;
use tests::{
    assembly::{Code, MapShape, Size, When, r},
    foreign::{DROP, Foreign, PASS},
};

const V4: &str = "v4";
const V6: &str = "v6";
const DROPS: &str = "drops";
/// Ports 443 and 6443 as they lie in memory, loaded as little-endian.
const PORTS: [i32; 2] = [0xbb01, 0x2b19];
/// EtherTypes, the same way.
const TYPE_V4: i32 = 0x0008;
const TYPE_V6: i32 = 0xdd86;

/// A program that authorizes the sources in a trie per family.
pub(crate) fn tries(list: &[IpNet]) -> Result<Foreign> {
    // `BPF_MAP_TYPE_LPM_TRIE` with `BPF_F_NO_PREALLOC`, which this type requires.
    let trie = |name, key| MapShape {
        name,
        kind: 11,
        key,
        value: 4,
        capacity: u32::try_from(list.len()).unwrap_or(u32::MAX).max(1),
        flags: 1,
    };
    let look_up = |code: Code, map, below| {
        code.look_up(map, below)
            .jump(When::Unequal, 0, 0, "pass")
            .jump(When::Always, 0, 0, "drop")
    };
    let v4 = |code: Code| {
        let code = code
            .store(Size::Word, 10, -8, 32)
            .load(Size::Word, 5, 2, 26)
            .store(Size::Word, 10, -4, r(5));
        look_up(code, V4, 8)
    };
    let v6 = |code: Code| {
        let mut code = code.store(Size::Word, 10, -20, 128);
        for word in 0..4 {
            code = code.load(Size::Word, 5, 2, 22 + word * 4).store(
                Size::Word,
                10,
                word * 4 - 16,
                r(5),
            );
        }
        look_up(code, V6, 20)
    };
    let mut program =
        Foreign::with_code(program(v4, v6), &[trie(V4, 8), trie(V6, 20), DROP_COUNTER])?;
    let mut trie = LpmTrie::<_, [u8; 4], u32>::try_from(program.map(V4)?)?;
    for range in list {
        if let IpNet::V4(range) = range {
            let key = Key::new(u32::from(range.prefix_len()), range.network().octets());
            trie.insert(&key, 1, 0)?;
        }
    }
    let mut trie = LpmTrie::<_, [u8; 16], u32>::try_from(program.map(V6)?)?;
    for range in list {
        if let IpNet::V6(range) = range {
            let key = Key::new(u32::from(range.prefix_len()), range.network().octets());
            trie.insert(&key, 1, 0)?;
        }
    }
    Ok(program)
}

/// A program without a list: it drops packets to a protected port.
pub(crate) fn parse() -> Result<Foreign> {
    let nobody = |code: Code| code.jump(When::Always, 0, 0, "drop");
    Foreign::with_code(program(nobody, nobody), &[DROP_COUNTER])
}

/// A program with one address of each family in its instructions.
pub(crate) fn one_address(address: Ipv4Addr, address6: Ipv6Addr) -> Result<Foreign> {
    let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    // A jump sign-extends its number and a load zero-extends, so the number goes through a
    // register.
    let differs = |code: Code, at, bytes: &[u8]| {
        code.load(Size::Word, 5, 2, at)
            .set_wide(4, u64::from(word(bytes)))
            .jump(When::Unequal, 5, r(4), "drop")
    };
    let v4 = |code: Code| differs(code, 26, &address.octets()).jump(When::Always, 0, 0, "pass");
    let v6 = |mut code: Code| {
        for (at, bytes) in (22..).step_by(4).zip(address6.octets().chunks(4)) {
            code = differs(code, at, bytes);
        }
        code.jump(When::Always, 0, 0, "pass")
    };
    Foreign::with_code(program(v4, v6), &[DROP_COUNTER])
}

/// `BPF_MAP_TYPE_PERCPU_ARRAY` of one number.
const DROP_COUNTER: MapShape = MapShape {
    name: DROPS,
    kind: 6,
    key: 4,
    value: 8,
    capacity: 1,
    flags: 0,
};

/// Matches untagged frames without options and extension headers, TCP to 443 or 6443. Continues
/// with the code of the family; the frame is in register 2.
fn program(v4: impl Fn(Code) -> Code, v6: impl Fn(Code) -> Code) -> Code {
    let port = |code: Code, at, then| {
        code.load(Size::Half, 5, 2, at)
            .jump(When::Equal, 5, PORTS[0], then)
            .jump(When::Unequal, 5, PORTS[1], "pass")
            .label(then)
    };
    let code = Code::new()
        .load(Size::Word, 2, 1, 0)
        .load(Size::Word, 3, 1, 4)
        .set(4, r(2))
        .alu(tests::assembly::Do::Add, 4, 54)
        .jump(When::Greater, 4, r(3), "pass")
        .load(Size::Half, 5, 2, 12)
        .jump(When::Equal, 5, TYPE_V6, "v6")
        .jump(When::Unequal, 5, TYPE_V4, "pass")
        .load(Size::Byte, 5, 2, 23)
        .jump(When::Unequal, 5, 6, "pass");
    let code = v4(port(code, 36, "guarded"))
        .label("v6")
        .set(4, r(2))
        .alu(tests::assembly::Do::Add, 4, 74)
        .jump(When::Greater, 4, r(3), "pass")
        .load(Size::Byte, 5, 2, 20)
        .jump(When::Unequal, 5, 6, "pass");
    v6(port(code, 56, "guarded too"))
        .label("drop")
        .store(Size::Word, 10, -4, 0)
        .look_up(DROPS, 4)
        .jump(When::Equal, 0, 0, "counted")
        .load(Size::Double, 1, 0, 0)
        .alu(tests::assembly::Do::Add, 1, 1)
        .store(Size::Double, 0, 0, r(1))
        .label("counted")
        .set(0, i32::from(DROP))
        .exit()
        .label("pass")
        .set(0, i32::from(PASS))
        .exit()
}
