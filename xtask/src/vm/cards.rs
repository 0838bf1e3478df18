//! Emulated network cards, each bridged to a card of its client.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::case::{Case, CaseResult};
use crate::{debian::Suite, target::Target};

/// QEMU for x86_64.
pub(super) const QEMU_X86_64: &str = "qemu-system-x86_64";

/// A card of the node.
struct Card {
    /// QEMU's name.
    name: &'static str,
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

/// The packages of a QEMU that has every card (igb: QEMU 8.0).
const NEWER_QEMU: [&str; 4] = [
    "qemu-system-common",
    "qemu-system-data",
    "qemu-system-x86",
    "seabios",
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

/// A QEMU, and those of the cards that it has.
pub(super) struct Emulator {
    /// The program, and the directories of its firmware.
    words: Vec<String>,
    cards: Vec<Card>,
}

impl Emulator {
    /// This machine's QEMU; if that lacks a card, the newer one of Debian 12's backports, which
    /// uses the libraries of Debian 12's own.
    pub(super) fn find(directory: &Path) -> Result<Self> {
        let own = Self::of(vec![QEMU_X86_64.to_owned()]);
        if own.cards.len() == CARDS.len() {
            return Ok(own);
        }
        let fetched = directory.join("qemu");
        if !fetched.is_dir() {
            Suite::open(directory, "bookworm-backports", Target::X86_64)?
                .extract(&NEWER_QEMU, &fetched)?;
        }
        let of = |part: &str| fetched.join("usr").join(part).display().to_string();
        let firmware = ["share/qemu", "share/seabios"].map(|part| ["-L".to_owned(), of(part)]);
        let program = of(&format!("bin/{QEMU_X86_64}"));
        let newer = Self::of([vec![program], firmware.concat()].concat());
        Ok(match newer.cards.len() > own.cards.len() {
            true => newer,
            false => own,
        })
    }

    fn of(words: Vec<String>) -> Self {
        // Help for all devices loads the modules of all, which may be those of another build.
        let is_known = |card: &Card| {
            let help = format!("{},help", card.name);
            let output = Command::new(&words[0]).args(["-device", &help]).output();
            output.is_ok_and(|output| !output.stdout.is_empty())
        };
        let cards = CARDS.into_iter().filter(is_known).collect();
        Self { words, cards }
    }

    /// The names of its cards.
    pub(super) fn cards(&self) -> Vec<&'static str> {
        self.cards.iter().map(|card| card.name).collect()
    }

    /// The cases of the cards that it does not have.
    pub(super) fn missing(&self) -> impl Iterator<Item = Case> {
        let is_missing = |card: &&Card| !self.cards().contains(&card.name);
        let not_run = |card: &Card| Case {
            name: format!("card {}", card.name),
            result: CaseResult::NotRun,
            seconds: "0".to_owned(),
            text: "this QEMU has no such card".to_owned(),
        };
        CARDS.iter().filter(is_missing).map(not_run)
    }

    /// The start of its command.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command
    }

    /// `command` with its cards, in a network namespace with what they are connected to.
    pub(super) fn connected(&self, command: &Command) -> Command {
        let mut outer = Command::new("unshare");
        outer.args(["--net", "sh", "-ec", HOST, "sh"]);
        for (number, card) in (1..).zip(&self.cards) {
            outer.args([i32::to_string(&number), card.queues.to_string()]);
        }
        outer
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args());
        for (number, card) in (1..).zip(&self.cards) {
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
                &format!("{name},netdev=n{number},{mac}:00,romfile={properties}"),
            ]);
            outer.args(["-netdev", &tap('c', "")]);
            outer.args([
                "-device",
                &format!("virtio-net-pci,netdev=c{number},{mac}:01,romfile="),
            ]);
        }
        outer
    }
}
