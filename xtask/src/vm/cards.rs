//! Emulated network cards, each bridged to a card of its client.

use std::process::Command;

use super::case::{Case, CaseResult};

/// A card of the node.
pub(super) struct Card {
    /// QEMU's name.
    pub(super) name: &'static str,
    properties: &'static str,
    queues: u8,
}

const CARDS: [Card; 4] = [
    Card {
        name: "virtio-net-pci",
        properties: ",mq=on,vectors=6",
        queues: 2,
    },
    Card {
        name: "vmxnet3",
        properties: "",
        queues: 1,
    },
    Card {
        name: "e1000e",
        properties: "",
        queues: 1,
    },
    Card {
        name: "igb",
        properties: "",
        queues: 1,
    },
];

/// A shell's words that make the host's end in a network namespace of its own and start the rest.
const HOST: &str = r#"
ip link set lo up
while [ "$1" != -- ]; do
    name=$1 queues=$2; shift 2
    ip link add "b$name" type bridge
    [ "$queues" = 1 ] && more= || more=multi_queue
    ip tuntap add dev "n$name" mode tap $more
    ip tuntap add dev "c$name" mode tap
    for end in "n$name" "c$name"; do
        ip link set "$end" mtu 9000 master "b$name" up
    done
    ip link set "b$name" up
done
shift
exec "$@"
"#;

/// The cards that this QEMU has.
pub(super) fn known(qemu: &str) -> Vec<Card> {
    let help = Command::new(qemu).args(["-device", "help"]).output();
    let help = help.map(|output| output.stdout).unwrap_or_default();
    let help = String::from_utf8_lossy(&help).into_owned();
    let is_known = |card: &Card| help.contains(&format!("name \"{}\"", card.name));
    CARDS.into_iter().filter(is_known).collect()
}

/// The cases of the cards that are not among `known`.
pub(super) fn missing(known: &[Card]) -> impl Iterator<Item = Case> {
    let is_missing = |card: &&Card| !known.iter().any(|known| known.name == card.name);
    let not_run = |card: &Card| Case {
        name: format!("card {}", card.name),
        result: CaseResult::NotRun,
        seconds: "0".to_owned(),
        text: "this QEMU has no such card".to_owned(),
    };
    CARDS.iter().filter(is_missing).map(not_run)
}

/// `command` with these cards, in a network namespace with what they are connected to.
pub(super) fn connected(command: &Command, cards: &[Card]) -> Command {
    let mut outer = Command::new("unshare");
    outer.args(["--net", "sh", "-ec", HOST, "sh"]);
    for (number, card) in (1..).zip(cards) {
        outer.args([i32::to_string(&number), card.queues.to_string()]);
    }
    outer
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    for (number, card) in (1..).zip(cards) {
        let Card {
            name,
            properties,
            queues,
        } = card;
        let tap = |end, more: &str| {
            let id = format!("{end}{number}");
            format!("tap,id={id},ifname={id},script=no,downscript=no{more}")
        };
        let queues = match queues {
            1 => String::new(),
            several => format!(",queues={several}"),
        };
        let mac = format!("mac=52:54:00:00:0{number}");
        outer.args(["-netdev", &tap('n', &queues)]);
        outer.args([
            "-device",
            &format!("{name},netdev=n{number},{mac}:00{properties}"),
        ]);
        outer.args(["-netdev", &tap('c', "")]);
        outer.args([
            "-device",
            &format!("virtio-net-pci,netdev=c{number},{mac}:01"),
        ]);
    }
    outer
}
