//! Source routes in packets.

use tests::{
    packets::{V4, V6, v6::DESTINATION_OPTIONS},
    table::{NODE4, NODE6, OTHER4, OTHER6, Source, v4, v6},
};

use super::case::{Case, Cases, Works, cut_at};

/// Cases of a node that guards only some of its addresses.
pub(crate) fn routes() -> Vec<Case> {
    let mut cases = Cases::new();
    let segments = |who: Source| {
        V6::new(who.v6(), NODE6)
            .by_way_of(OTHER6)
            .segments(1, &[NODE6, OTHER6])
    };
    cases.hostile("routes/segments", Works::Always, |who, tag| {
        vec![segments(who).syn(tag, 443).frame()]
    });
    cases.hostile(
        "routes/segments-in-a-later-fragment",
        Works::Plain,
        |who, tag| {
            let packet = V6::new(who.v6(), NODE6)
                .by_way_of(OTHER6)
                .destination_options(8);
            let packet = packet.segments(1, &[NODE6, OTHER6]).syn(tag, 443);
            cut_at(&packet, &[8], tag)
        },
    );
    cases.hostile("routes/tunnel", Works::Always, |who, tag| {
        let outer = V6::new(who.v6(), OTHER6).segments(0, &[OTHER6]);
        vec![outer.payload(41, &v6(who).syn(tag, 443).packet()).frame()]
    });
    let [a, b, c, d] = NODE4.octets();
    for (name, kind) in [("loose", 131), ("strict", 137)] {
        cases.hostile(&format!("routes/ipv4-{name}"), Works::Always, |who, tag| {
            let packet = v4(who).syn(tag, 443).by_way_of(OTHER4);
            vec![packet.options(&[kind, 7, 4, a, b, c, d, 0]).frame()]
        });
    }
    cases.hostile("routes/none", Works::Always, |who, tag| {
        vec![v4(who).syn(tag, 443).frame()]
    });
    for port in [443, 6443, 80] {
        cases.ordinary(
            &format!("routes/unguarded-ipv4/{port}"),
            Works::Always,
            |who, tag| vec![V4::new(who.v4(), OTHER4).syn(tag, port).frame()],
        );
        cases.ordinary(
            &format!("routes/unguarded-ipv6/{port}"),
            Works::Always,
            |who, tag| {
                let packet = V6::new(who.v6(), OTHER6).options(DESTINATION_OPTIONS, 8);
                vec![packet.syn(tag, port).frame()]
            },
        );
    }
    cases.cases
}
