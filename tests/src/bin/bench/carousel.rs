//! A program that gives the one frame of `BPF_PROG_TEST_RUN` another source each time and
//! tail-calls a contender.
//!
//! If the frame stayed the same, the cache would hold all data of its source and the CPU would
//! predict every branch.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::{Array, ProgramArray},
    programs::{TestRun as _, TestRunOptions, Xdp, links::FdLink},
};
use tests::{
    assembly::{Code, Do, MapShape, Size, When, r},
    foreign::Foreign,
    netns::Namespace,
    site::Family,
};

const SOURCES: &str = "sources";
const TURN: &str = "turn";
const NEXT: &str = "next";
/// `bpf_tail_call`.
const TAIL_CALL: i32 = 12;

/// The program of a family, on an interface.
pub(crate) struct Carousel {
    program: Foreign,
    sources: usize,
    /// The kernel takes some 20 ms for each test run of a program that is not attached anywhere.
    _link: FdLink,
}

impl Carousel {
    /// Makes room for `sources` sources, a power of two. It is on `lo`, which receives no other
    /// packets.
    pub(crate) fn new(family: Family, sources: usize, namespace: &Namespace) -> Result<Self> {
        let capacity = u32::try_from(sources)?;
        let map = |name, kind, value, capacity| MapShape {
            name,
            kind,
            key: 4,
            value,
            capacity,
            flags: 0,
        };
        // `BPF_MAP_TYPE_ARRAY` twice, and `BPF_MAP_TYPE_PROG_ARRAY`.
        let maps = [
            map(SOURCES, 2, 16, capacity),
            map(TURN, 2, 8, 1),
            map(NEXT, 3, 4, 1),
        ];
        let mut program = Foreign::with_code(code(family, i32::try_from(sources)? - 1), &maps)?;
        let link = namespace.run(|| program.attach("lo"))?;
        Ok(Self {
            program,
            sources,
            _link: link,
        })
    }

    /// Sets the sources; there must be as many as there is room for.
    pub(crate) fn load(&mut self, sources: &[IpAddr]) -> Result<()> {
        ensure!(sources.len() == self.sources, "too few sources, or many");
        let mut map = Array::<_, [u8; 16]>::try_from(self.program.map(SOURCES)?)?;
        for (index, source) in (0..).zip(sources) {
            let mut bytes = [0; 16];
            match source {
                IpAddr::V4(source) => bytes[..4].copy_from_slice(&source.octets()),
                IpAddr::V6(source) => bytes = source.octets(),
            }
            map.set(index, bytes, 0)?;
        }
        Ok(())
    }

    /// Runs `program` on `frame` with that many sources in turn; returns the mean time in
    /// nanoseconds. The last action must be `action`.
    pub(crate) fn run(
        &mut self,
        program: &Xdp,
        frame: &[u8],
        repeat: u32,
        action: u8,
    ) -> Result<f64> {
        let mut next = ProgramArray::try_from(self.program.map(NEXT)?)?;
        next.set(0, program.fd()?, 0)
            .context("put the contender behind the carousel")?;
        let result = self.program.program()?.test_run(TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::new()
        })?;
        ensure!(
            result.return_value == u32::from(action),
            "action {} came back instead of {action}",
            result.return_value
        );
        Ok(result.duration.as_secs_f64() * 1e9)
    }
}

/// The program; the mask selects the index of a source.
fn code(family: Family, mask: i32) -> Code {
    let (at, words) = match family {
        Family::V4 => (26, 1),
        Family::V6 => (22, 4),
    };
    let mut code = Code::new()
        .set(6, r(1))
        .load(Size::Word, 7, 6, 0)
        .load(Size::Word, 3, 6, 4)
        .set(4, r(7))
        .alu(Do::Add, 4, 54)
        .jump(When::Greater, 4, r(3), "away")
        .store(Size::Word, 10, -4, 0)
        .look_up(TURN, 4)
        .jump(When::Equal, 0, 0, "away")
        .load(Size::Double, 5, 0, 0)
        .alu(Do::Add, 5, 1)
        .store(Size::Double, 0, 0, r(5))
        .alu(Do::And, 5, mask)
        .store(Size::Word, 10, -4, r(5))
        .look_up(SOURCES, 4)
        .jump(When::Equal, 0, 0, "away");
    for word in 0..words {
        code = code
            .load(Size::Word, 5, 0, word * 4)
            .store(Size::Word, 7, at + word * 4, r(5));
    }
    code.set(1, r(6))
        .set_map(2, NEXT)
        .set(3, 0)
        .call(TAIL_CALL)
        // `XDP_ABORTED`, which no contender returns.
        .label("away")
        .set(0, 0)
        .exit()
}
