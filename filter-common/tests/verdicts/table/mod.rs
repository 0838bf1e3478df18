//! The verdict table: named frames, their policies, and the wanted verdicts.
//!
//! A byte-slice judge and the loaded program judge the same rows. There is one file per topic, and
//! the names of its rows start with it. Generated rows have names too, so that a failure names its
//! frame.

mod big;
mod destinations;
mod fragments;
mod headers;
mod headless;
mod ipv4;
mod ipv6;
mod link;
mod mpls;
pub mod mutation;
mod policies;
mod row;
mod rules;
mod tunnels;

use row::Rows;
pub use row::{
    NODE4, NODE6, OTHER4, OTHER6, Row, SID4, SID6, SID6_NEXT_HOP, Source, seed, v4, v6, verdict,
};
pub use rules::Rules;

/// All rows.
///
/// # Panics
///
/// If two rows have the same name.
pub fn all() -> Vec<Row> {
    let mut rows = Rows::default();
    for topic in [
        link::add,
        ipv4::add,
        ipv6::add,
        headers::add,
        fragments::add,
        tunnels::add,
        mpls::add,
        policies::add,
        destinations::add,
        big::add,
        // Last, because it uses the packets of all others.
        headless::add,
    ] {
        topic(&mut rows);
    }
    let mut names: Vec<_> = rows.0.iter().map(|row| &row.name).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        panic!("two rows are named `{}`", twice[0]);
    }
    rows.0
}
