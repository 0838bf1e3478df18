//! `detach` leaves nothing behind. Alone in its program, because the kernel's objects belong to all
//! processes.

use anyhow::Result;
use tests::{
    cli::words,
    foreign::Foreign,
    kernel::Loaded,
    site::{ADMIN_RANGES, Family, INTERFACE, Site},
    wait,
};

#[test]
fn detach_leaves_no_program_link_map_or_pin() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(443)?;
    let neighbour = Foreign::load()?;
    let before = Loaded::now()?;
    let attach = [
        "attach",
        "--interface",
        INTERFACE,
        "--authorized-ip-ranges",
        ADMIN_RANGES,
    ];
    let gone = |made: &Loaded| {
        wait::until("the kernel frees all that was made", || {
            Ok(Loaded::now()?.common(made) == Loaded::default())
        })
    };

    filter.ok(&attach)?;
    let first = Loaded::now()?.without(&before);
    assert!(
        !first.programs.is_empty() && !first.links.is_empty() && first.maps.len() >= 8,
        "only {first:?}"
    );
    site.unlisted_is_dropped(Family::V4, 443, &filter)?;

    // Another program replaces it, and there are other generations: the kernel frees the old ones
    // by itself.
    filter.ok(&["ranges", "add", "192.0.2.128/25"])?;
    // Two generations from here on, the current and the previous.
    let second = Loaded::now()?.without(&before);
    filter.ok(&[
        &attach[..],
        &words("--destination 192.0.2.0/24 --cluster-cidrs 10.0.0.0/8 --force"),
    ]
    .concat())?;
    filter.ok(&["ranges", "remove", "198.51.100.0/24"])?;
    let old = &first.programs;
    wait::until("the replaced program is freed", || {
        Ok(Loaded::now()?.programs.is_disjoint(old))
    })?;
    let last = Loaded::now()?.without(&before);
    let count = |loaded: &Loaded| [loaded.programs.len(), loaded.links.len(), loaded.maps.len()];
    wait::until("changes leave no more behind than the first one", || {
        Ok(count(&Loaded::now()?.without(&before)) == count(&second))
    })?;

    filter.ok(&["detach"])?;
    gone(&first)?;
    gone(&last)?;
    assert!(!filter.bpffs().exists(), "pins are left");
    assert!(
        !site
            .node
            .ip(&format!("link show dev {INTERFACE}"))?
            .contains("xdp")
    );
    site.unlisted_gets_in(Family::V4, 443)?;
    drop(neighbour);

    // An attach that fails half-way leaves nothing either: a bridge has no native XDP.
    site.node.ip("link add fake type bridge")?;
    let before = Loaded::now()?;
    let ran = filter.run(
        &[
            &attach[..],
            &["--interface", "fake", "--xdp-mode", "native"],
        ]
        .concat(),
    )?;
    assert_eq!(ran.code, Some(3), "{ran}");
    site.unlisted_gets_in(Family::V4, 443)?;
    wait::until("a failed attach is undone", || {
        Ok(Loaded::now()?.without(&before) == Loaded::default())
    })?;
    assert!(
        !filter.bpffs().exists(),
        "pins are left by an attach that failed"
    );
    Ok(())
}
