//! Emulated network cards: which hook they get at each MTU, and who passes.
//!
//! The host gives each card and its client's card MAC addresses by number, and a bridge between
//! them.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use tests::{cli::Apifence, net::Echo, netns::Namespace};

use crate::{
    case::{Outcome, case},
    pair::{Pair, hook},
};

/// MTUs of all cards.
const MTUS: [u16; 2] = [1500, 9000];

/// Tries the cards with these names, numbered from one.
pub(crate) fn guard(names: &[String]) -> Result<()> {
    let initial = Namespace::own("initial")?;
    let node = Namespace::new("node")?;
    let filter = Apifence::new(&node)?;
    let _server = Echo::new(&node, 6443)?;
    for (number, name) in (1..).zip(names) {
        let joined = join(&initial, &node, number);
        for mtu in MTUS {
            let guarded = case(&format!("card {name}, MTU {mtu}"), || match &joined {
                Err(error) => Ok(Outcome::Failed(format!("{error:#}"))),
                Ok(card) => card.guarded(&node, &filter, mtu),
            });
            if !guarded {
                // The next case starts without a filter.
                let _ = filter.run(&["detach"]);
            }
        }
    }
    Ok(())
}

/// A card of the node.
struct Card {
    interface: String,
    far: String,
    client: Namespace,
    pair: Pair,
}

/// Moves the card with this number into the node, and its client's into a namespace of its own.
fn join(initial: &Namespace, node: &Namespace, number: u8) -> Result<Card> {
    let client = Namespace::new("client")?;
    let [interface, far] = [0, 1].map(|end| interface(&format!("52:54:00:00:0{number}:0{end}")));
    let [interface, far] = [interface?, far?];
    initial.move_interface(&interface, node)?;
    initial.move_interface(&far, &client)?;
    node.ip(&format!("link set {interface} up"))?;
    client.ip(&format!("link set {far} up"))?;
    let pair = Pair::join(
        number,
        (node, &interface),
        (client.try_clone()?, &far),
        [true, true],
    )?;
    Ok(Card {
        interface,
        far,
        client,
        pair,
    })
}

impl Card {
    /// Tells the hook, after listed sources passed and unlisted ones did not.
    fn guarded(&self, node: &Namespace, filter: &Apifence, mtu: u16) -> Result<Outcome> {
        let Self {
            interface,
            far,
            client,
            pair,
        } = self;
        node.ip(&format!("link set {interface} mtu {mtu}"))?;
        client.ip(&format!("link set {far} mtu {mtu}"))?;
        let list = "--authorized-ip-ranges=198.51.100.0/24,2001:db8:aa::/48";
        let ran = filter.run(&["attach", "--interface", interface, list, "--force"])?;
        if ran.code != Some(0) {
            let error = ran.stderr.lines().find(|line| line.starts_with("error: "));
            bail!("{}", error.unwrap_or("attach: killed"));
        }
        let hook = hook(filter, interface)?;
        ensure!(pair.is_guarded(filter)?, "{hook}, drops are not counted");
        filter.ok(&["detach"])?;
        Ok(Outcome::Passed(hook))
    }
}

/// The name of the interface with this MAC address.
fn interface(address: &str) -> Result<String> {
    for entry in fs::read_dir("/sys/class/net")? {
        let path = entry?.path();
        let own = fs::read_to_string(path.join("address")).unwrap_or_default();
        if own.trim() == address {
            let name = path.file_name().context("an interface has a name")?;
            return Ok(name.to_string_lossy().into_owned());
        }
    }
    bail!("find card {address}: no such interface")
}
