//! Kinds of network devices: which hook they get, and who passes.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use tests::{
    cli::{Apifence, INPUT, refused},
    netns::{End, Namespace, veth},
};

use crate::{
    case::{Outcome, case},
    pair::{Pair, hook},
};

/// What makes a device: the words of `ip`. `LINK` is the veth end below it, `NODE` and `CLIENT`
/// are the addresses of both veth ends.
struct Kind {
    name: &'static str,
    node: &'static [&'static str],
    /// The same at the client's end; empty if that is the veth end itself.
    client: &'static [&'static str],
    carries: Carries,
}

/// What the device carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carries {
    /// No packets: there is no other end.
    Nothing,
    /// No packets: the filter refuses such a device.
    Refused,
    Both,
    V4,
    V6,
}

impl Carries {
    fn packets(self) -> bool {
        self.v4() || self.v6()
    }

    fn v4(self) -> bool {
        matches!(self, Self::Both | Self::V4)
    }

    fn v6(self) -> bool {
        matches!(self, Self::Both | Self::V6)
    }
}

const KINDS: [Kind; 11] = [
    Kind {
        name: "bond",
        node: &[
            "link add bond type bond mode active-backup miimon 100",
            "link set LINK down",
            "link set LINK master bond",
            "link set LINK up",
        ],
        client: &[],
        carries: Carries::Both,
    },
    Kind {
        name: "vlan",
        node: &["link add link LINK name vlan type vlan id 7"],
        client: &["link add link LINK name vlan type vlan id 7"],
        carries: Carries::Both,
    },
    Kind {
        name: "bridge",
        node: &["link add bridge type bridge", "link set LINK master bridge"],
        client: &[],
        carries: Carries::Both,
    },
    Kind {
        name: "macvlan",
        node: &["link add link LINK name macvlan type macvlan mode private"],
        client: &[],
        carries: Carries::Both,
    },
    Kind {
        name: "dummy",
        node: &["link add dummy type dummy"],
        client: &[],
        carries: Carries::Nothing,
    },
    Kind {
        name: "tap",
        node: &["tuntap add dev tap mode tap"],
        client: &[],
        carries: Carries::Nothing,
    },
    Kind {
        name: "wireguard",
        node: &["link add wireguard type wireguard"],
        client: &["link add wireguard type wireguard"],
        carries: Carries::Both,
    },
    Kind {
        name: "ipip",
        node: &["link add ipip type ipip local NODE remote CLIENT"],
        client: &["link add ipip type ipip local CLIENT remote NODE"],
        carries: Carries::V4,
    },
    Kind {
        name: "gre",
        node: &["link add gre type gre local 192.168.0.1 remote 192.168.0.2"],
        client: &[],
        carries: Carries::Refused,
    },
    Kind {
        name: "gretap",
        node: &["link add gretap type gretap local NODE remote CLIENT"],
        client: &["link add gretap type gretap local CLIENT remote NODE"],
        carries: Carries::Both,
    },
    Kind {
        name: "sit",
        node: &["link add sit type sit local NODE remote CLIENT"],
        client: &["link add sit type sit local CLIENT remote NODE"],
        carries: Carries::V6,
    },
];

/// Makes all devices, guards them by one attach, and tries each of them.
pub(crate) fn guard(node: &Namespace, filter: &Apifence) {
    let kinds = (1..).zip(&KINDS);
    let made: Vec<_> = kinds
        .map(|(number, kind)| (kind, make(node, number, kind)))
        .collect();
    let there = made
        .iter()
        .filter(|(kind, pair)| kind.carries != Carries::Refused && matches!(pair, Ok(Ok(_))));
    let names = there
        .map(|(kind, _)| kind.name)
        .collect::<Vec<_>>()
        .join(",");
    let attached = filter.ok(&["attach", "--interface", &names, "--force"]);
    for (kind, pair) in made {
        case(&format!("device {}", kind.name), || {
            match (pair?, &attached) {
                (Err(cause), _) => Ok(Outcome::NotRun(cause)),
                (Ok(_), _) if kind.carries == Carries::Refused => {
                    let ran = filter.run(&["attach", "--interface", kind.name])?;
                    refused(&ran, INPUT, &[kind.name])?;
                    Ok(Outcome::Passed("refused by name".to_owned()))
                }
                (_, Err(error)) => Ok(Outcome::Failed(format!("{error:#}"))),
                (Ok(pair), Ok(_)) => {
                    let hook = hook(filter, kind.name)?;
                    let Some(pair) = pair else {
                        return Ok(Outcome::Passed(format!("{hook}, attached only")));
                    };
                    Ok(if pair.is_guarded(filter)? {
                        Outcome::Passed(hook)
                    } else {
                        Outcome::Failed(format!("{hook}, drops are not counted"))
                    })
                }
            }
        });
    }
    // What follows is about another interface.
    let _ = filter.run(&["detach", "--interface", &names]);
}

/// Makes a device of `kind` in the node and, if it carries packets, its other end. The inner error
/// is that of a kernel without such devices.
fn make(node: &Namespace, number: u8, kind: &Kind) -> Result<Result<Option<Pair>, String>> {
    let carries = kind.carries.packets();
    let client = Namespace::new(kind.name)?;
    let link = format!("link{number}");
    let ends = [1, 2].map(|host| format!("192.168.{number}.{host}"));
    if carries {
        let [own, other] = ends.each_ref().map(|address| format!("{address}/24"));
        let [own, other] = [[&*own], [&*other]];
        let end = |namespace, addresses| End {
            namespace,
            interface: &link,
            addresses,
        };
        veth(1500, end(node, &own), end(&client, &other))?;
    }
    for (namespace, words) in [(node, kind.node), (&client, kind.client)] {
        for words in words {
            let words = words.replace("LINK", &link).replace("NODE", &ends[0]);
            if let Err(error) = namespace.ip(&words.replace("CLIENT", &ends[1])) {
                return Ok(Err(format!("{error:#}")));
            }
        }
    }
    if kind.name == "wireguard" {
        introduce([(node, &ends[0]), (&client, &ends[1])])?;
    }
    node.ip(&format!("link set {} up", kind.name))?;
    if !carries {
        return Ok(Ok(None));
    }
    let far = if kind.client.is_empty() {
        &*link
    } else {
        kind.name
    };
    client.ip(&format!("link set {far} up"))?;
    let families = [kind.carries.v4(), kind.carries.v6()];
    Ok(Ok(Some(Pair::join(
        number,
        (node, kind.name),
        (client, far),
        families,
    )?)))
}

/// Gives both WireGuard devices a key, and the other one as their peer.
fn introduce(ends: [(&Namespace, &String); 2]) -> Result<()> {
    const KEYS: [&str; 2] = ["/tmp/wg-node", "/tmp/wg-client"];
    let public = KEYS.map(|key| {
        fs::write(key, run(Command::new("wg").arg("genkey"))?)?;
        run(Command::new("wg").arg("pubkey").stdin(fs::File::open(key)?))
    });
    let [node, client] = public;
    let public = [node?, client?];
    for (index, (namespace, _)) in ends.iter().enumerate() {
        let (peer, (_, address)) = (public[1 - index].trim(), ends[1 - index]);
        let mut set = Command::new("wg");
        set.args([
            "set",
            "wireguard",
            "listen-port",
            "51820",
            "private-key",
            KEYS[index],
        ]);
        set.args(["peer", peer, "allowed-ips", "0.0.0.0/0,::/0"]);
        set.args(["endpoint", &format!("{address}:51820")]);
        let output = namespace.output(&mut set)?;
        ensure!(output.status.success(), "{output:?}");
    }
    Ok(())
}

/// The output of a command that succeeds.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().context("run `wg`")?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}
