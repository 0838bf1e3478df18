//! One case, and the list that the topics fill.

use tests::{packets::V6, table::Source};

/// A sequence of frames and its expected result.
#[derive(Debug)]
pub(crate) struct Case {
    /// Name of the case.
    pub name: String,
    /// The source port or echo identifier that identifies the answer.
    pub tag: u16,
    /// Frames in the order of sending.
    pub frames: Vec<Vec<u8>>,
    /// Whether a protected port must not answer.
    pub must_not_pass: bool,
    /// Where Linux is known to answer.
    pub works: Works,
}

/// Where Linux is known to answer a case without a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Works {
    /// With and without conntrack.
    Always,
    /// Without conntrack.
    Plain,
    /// With conntrack.
    Tracked,
    /// Nowhere as far as known; the test finds out.
    Never,
}

impl Works {
    /// Whether a node with or without conntrack must answer it.
    pub(crate) fn on(self, tracked: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Plain => !tracked,
            Self::Tracked => tracked,
            Self::Never => false,
        }
    }
}

/// The cases so far.
pub(super) struct Cases {
    pub(super) cases: Vec<Case>,
    tag: u16,
}

impl Cases {
    pub(super) fn new() -> Self {
        Self {
            cases: Vec::new(),
            tag: 1_000,
        }
    }

    pub(super) fn push(
        &mut self,
        name: String,
        works: Works,
        must_not_pass: bool,
        frames: impl FnOnce(u16) -> Vec<Vec<u8>>,
    ) {
        self.tag += 1;
        assert!(self.tag < 60_000, "no ports left");
        let frames = frames(self.tag);
        self.cases.push(Case {
            name,
            tag: self.tag,
            frames,
            must_not_pass,
            works,
        });
    }

    /// TCP to a protected port, from either source.
    pub(super) fn hostile(
        &mut self,
        name: &str,
        works: Works,
        frames: impl Fn(Source, u16) -> Vec<Vec<u8>>,
    ) {
        for who in Source::BOTH {
            let unlisted = who == Source::Unlisted;
            self.push(format!("{name}/{}", who.word()), works, unlisted, |tag| {
                frames(who, tag)
            });
        }
    }

    /// Frames that must pass.
    pub(super) fn ordinary(
        &mut self,
        name: &str,
        works: Works,
        frames: impl Fn(Source, u16) -> Vec<Vec<u8>>,
    ) {
        for who in Source::BOTH {
            self.push(format!("{name}/{}", who.word()), works, false, |tag| {
                frames(who, tag)
            });
        }
    }

    /// Frames that no source may send.
    pub(super) fn forbidden(
        &mut self,
        name: &str,
        works: Works,
        frames: impl Fn(Source, u16) -> Vec<Vec<u8>>,
    ) {
        for who in Source::BOTH {
            self.push(format!("{name}/{}", who.word()), works, true, |tag| {
                frames(who, tag)
            });
        }
    }
}

pub(super) type Add = fn(V6) -> V6;

/// A packet cut at `cuts`, each a multiple of 8.
pub(super) fn cut_at(packet: &V6, cuts: &[usize], identification: u16) -> Vec<Vec<u8>> {
    let ends = cuts.iter().copied().chain([packet.chain_len()]);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    starts
        .zip(ends)
        .map(|(start, end)| packet.piece(start..end, identification.into()).frame())
        .collect()
}
