//! A device of the node and a client at its other end, with a listed and an unlisted source.

use anyhow::{Context as _, Result};
use tests::{
    cli::Apifence,
    net::{open, silent},
    netns::{Namespace, add_address},
    site::{at, ip},
};

/// The guarded port.
const PORT: u16 = 6443;

/// The client, and its addresses.
pub(crate) struct Pair {
    client: Namespace,
    /// Addresses of the node, of a listed and of an unlisted source, for each family.
    addresses: Vec<[String; 3]>,
}

impl Pair {
    /// Gives addresses to `device` of the node and `far` of the client, which are up. Without a
    /// filter every source reaches the node. The listed sources are those of the site's
    /// administrator; `number` keeps pairs of one node apart.
    pub(crate) fn join(
        number: u8,
        node: (&Namespace, &str),
        client: (Namespace, &str),
        [v4, v6]: [bool; 2],
    ) -> Result<Self> {
        let mut addresses = Vec::new();
        if v4 {
            let sources = ["198.51.100", "203.0.113"].map(|net| format!("{net}.{}", 16 * number));
            let [listed, unlisted] = sources;
            addresses.push([format!("10.0.{number}.1"), listed, unlisted]);
        }
        if v6 {
            let [listed, unlisted] = ["aa", "bb"].map(|net| format!("2001:db8:{net}:{number}::2"));
            addresses.push([format!("fd00:{number}::1"), listed, unlisted]);
        }
        let ((node, device), (client, far)) = (node, client);
        for [target, sources @ ..] in &addresses {
            let bits = if target.contains(':') { 128 } else { 32 };
            add_address(node, device, &format!("{target}/{bits}"))?;
            for source in sources {
                add_address(&client, far, &format!("{source}/{bits}"))?;
                node.ip(&format!("route add {source}/{bits} dev {device}"))?;
            }
            client.ip(&format!("route add {target}/{bits} dev {far}"))?;
        }
        let pair = Self { client, addresses };
        for [target, sources @ ..] in &pair.addresses {
            for source in sources {
                open(&pair.client, ip(source), at(target, PORT)).context("without a filter")?;
            }
        }
        Ok(pair)
    }

    /// Listed sources reach the node, unlisted ones do not; whether those drops were counted.
    pub(crate) fn is_guarded(&self, filter: &Apifence) -> Result<bool> {
        let mut counted = true;
        for [target, listed, unlisted] in &self.addresses {
            let target = at(target, PORT);
            open(&self.client, ip(listed), target)?;
            let before = filter.dropped()?;
            silent(&self.client, ip(unlisted), target)?;
            counted &= filter.dropped()? > before;
            // The device itself works.
            open(&self.client, ip(listed), target)?;
        }
        Ok(counted)
    }
}

/// The hook of an interface, as `status` has it.
pub(crate) fn hook(filter: &Apifence, interface: &str) -> Result<String> {
    let status = filter.json(&["status"])?;
    let interfaces = status["interfaces"].as_array();
    let own = interfaces
        .into_iter()
        .flatten()
        .find(|found| found["interface"] == interface);
    let hook = own.and_then(|own| own["xdp_mode"].as_str());
    Ok(hook
        .with_context(|| format!("`{interface}` is not guarded"))?
        .to_owned())
}
