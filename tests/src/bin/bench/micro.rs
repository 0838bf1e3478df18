//! Cost of a packet by the length of the list, for `apifence`, a plain LPM trie with the same
//! ranges, and a program that parses and drops. The cost of a bare `XDP_DROP` is subtracted.

use anyhow::{Context as _, Result};
use aya::programs::Xdp;
use fastrand::Rng;
use filter_common::layout::LAYOUT_VERSION;
use ipnet::IpNet;
use tests::{
    cli::Apifence,
    foreign::{DROP, Foreign, PASS},
    front::{inside, set, syn},
    loaded::{Filter, INTERFACE, add_interface},
    netns::Namespace,
    packets::{V4, V6},
    site::Family,
    table::{NODE4, NODE6},
};

use crate::{
    carousel::Carousel,
    contender::count_loopback,
    cpus::{self, Speed},
    numbers::thousands,
    progress::Progress,
    sources::{Kind, Ranges, list},
    table::{Cell, Column, Table},
    textbook,
};

const CONTENDERS: [&str; 3] = ["apifence", "XDP, plain LPM", "parse and drop"];

/// Size of the measurement.
struct Plan {
    /// Ranges of a list, all of one family.
    sizes: &'static [usize],
    /// Undisturbed rounds for a list; each contender runs once per round.
    rounds: usize,
    /// Maximum number of rounds to reach that.
    most_rounds: usize,
    /// Sources of a kind; a power of two.
    sources: usize,
    /// Packets in a run.
    repeat: u32,
}

const PLAN: Plan = Plan {
    sizes: &[1, 3_500, 100_000, 1_000_000],
    rounds: 7,
    most_rounds: 14,
    sources: 1 << 14,
    repeat: 200_000,
};
const SHORT: Plan = Plan {
    sizes: &[1, 100],
    rounds: 1,
    most_rounds: 1,
    sources: 1 << 8,
    repeat: 1_000,
};
/// Index in `sizes` at which passing packets are measured, too.
const PASSES_AT: usize = 1;
/// Sources of a kind whose verdicts are checked one by one.
const LOOKED_AT: u32 = 256;

/// A frame, its sources, and the wanted action of each contender.
struct Case {
    name: &'static str,
    kind: Kind,
    frame: Vec<u8>,
    /// The wanted action of each contender.
    actions: [u8; 3],
    runs: Vec<Runs>,
}

/// Measurements of a case in one round.
#[derive(Clone, Copy)]
struct Runs {
    /// Nanoseconds per packet, by contender.
    cost: [f64; 3],
    /// Speed of the CPU before and after, the slower of each.
    speed: Speed,
}

/// Measures packets to a protected port and packets to others.
pub(crate) fn run(short: bool) -> Result<Vec<Table>> {
    let plan = if short { SHORT } else { PLAN };
    let progress = Progress::new("micro");
    let mut rng = Rng::with_seed(6443);
    // In the order of the table: by family, kind and size.
    let mut measured = Vec::new();
    for (family, name) in Family::BOTH.into_iter().zip(["IPv4", "IPv6"]) {
        let mut node = Node::new(family, &plan)?;
        for (number, size) in plan.sizes.iter().enumerate() {
            let said = format!("{name}, {} ranges", thousands(*size));
            progress.show(format_args!("{said}: set up"));
            let list = list(family, *size, &mut rng);
            let mut cases = cases(family, number == PASSES_AT, &list);
            node.measure(&list, &mut cases, &plan, &mut rng, |round| {
                progress.show(format_args!("{said}: round {round} of {}", plan.rounds));
            })?;
            for (place, case) in cases.into_iter().enumerate() {
                let row = match place {
                    0..3 => format!("{name}, {}, {}", case.name, thousands(*size)),
                    _ => format!("{name}, {}", case.name),
                };
                measured.push(((family as usize, place, number), row, case.runs));
            }
        }
    }
    measured.sort_by_key(|(order, ..)| *order);
    let all = measured.iter().flat_map(|(.., runs)| runs);
    let best = Speed::best(all.map(|runs| runs.speed));
    let mut disturbed = 0;
    let (mut rows, mut passes) = (Vec::new(), Vec::new());
    for ((_, place, _), row, runs) in measured {
        let kept = kept(&runs, best);
        disturbed += runs.len() - kept.len();
        let cells = (0..CONTENDERS.len())
            .map(|which| Cell::from_numbers(kept.iter().map(|runs| runs.cost[which]).collect()))
            .map(Some);
        let rows = if place < 3 { &mut rows } else { &mut passes };
        rows.push((row, cells.collect()));
    }
    let table = |title, rows| Table {
        title,
        columns: CONTENDERS.map(|name| Column(name, 0)).to_vec(),
        rows,
        notes: Vec::new(),
    };
    let mut guarded = table(
        "Packets: nanoseconds above a bare XDP_DROP, SYNs to a protected port, by ranges of the family; median (least to most)".to_owned(),
        rows,
    );
    guarded.notes = vec![format!(
        "{} to {} rounds of {} packets from {} sources in turn; {disturbed} more were disturbed and are left out; near: unlisted, from the /24 or \
         /48 of a listed longer range",
        plan.rounds,
        plan.most_rounds,
        thousands(plan.repeat as usize),
        thousands(plan.sources),
    )];
    let passing = table(
        format!(
            "What is not for a protected port: nanoseconds above a bare XDP_DROP, {} ranges; median (least to most)",
            thousands(plan.sizes[PASSES_AT])
        ),
        passes,
    );
    Ok(vec![guarded, passing])
}

/// The rounds during which the CPU was not slower than its best.
fn kept(runs: &[Runs], best: Speed) -> Vec<Runs> {
    cpus::undisturbed(runs, 0.0, |runs| runs.speed.disturbance(best))
}

/// The cases of a family: the three kinds of sources, and packets that pass from any source.
fn cases(family: Family, with_passing: bool, list: &[IpNet]) -> Vec<Case> {
    // Any address will do: the carousel overwrites it.
    let source = inside(list[0], &mut Rng::with_seed(0));
    let case = |name, kind, frame, actions| Case {
        name,
        kind,
        frame,
        actions,
        runs: Vec::new(),
    };
    let mut cases = Kind::ALL
        .map(|(kind, name)| {
            let verdict = if kind == Kind::Hit { PASS } else { DROP };
            case(name, kind, syn(source), [verdict, verdict, DROP])
        })
        .into_iter()
        .collect::<Vec<_>>();
    if with_passing {
        let [other_port, datagram] = match family {
            Family::V4 => {
                let from = V4::new("192.0.2.1".parse().expect("an address"), NODE4);
                [
                    from.clone().syn(40_000, 80).frame(),
                    from.datagram(40_000, 6443, &[0; 18]).frame(),
                ]
            }
            Family::V6 => {
                let from = V6::new("2001:db8::1".parse().expect("an address"), NODE6);
                [
                    from.clone().syn(40_000, 80).frame(),
                    from.datagram(40_000, 6443, &[0; 18]).frame(),
                ]
            }
        };
        cases.push(case("other port", Kind::Miss, other_port, [PASS; 3]));
        cases.push(case("not TCP", Kind::Miss, datagram, [PASS; 3]));
    }
    cases
}

/// A node with the filter and the carousel.
struct Node {
    family: Family,
    namespace: Namespace,
    carousel: Carousel,
    bare: Foreign,
    parse: Foreign,
}

impl Node {
    fn new(family: Family, plan: &Plan) -> Result<Self> {
        let namespace = Namespace::new("bench")?;
        add_interface(&namespace)?;
        Ok(Self {
            family,
            carousel: Carousel::new(family, plan.sources, &namespace)?,
            namespace,
            bare: Foreign::with_action(DROP)?,
            parse: textbook::parse()?,
        })
    }

    /// Puts the list in force and runs every case on every contender. Each round starts with
    /// another contender.
    fn measure(
        &mut self,
        list: &[IpNet],
        cases: &mut [Case],
        plan: &Plan,
        rng: &mut Rng,
        report: impl Fn(usize),
    ) -> Result<()> {
        let apifence = Apifence::new(&self.namespace)?;
        let pins = apifence
            .bpffs()
            .with_file_name(format!("{:?}", self.family));
        let apifence = apifence.with_bpffs(pins);
        let interface = format!("--interface={INTERFACE}");
        let nobody = [
            "--no-node-addresses",
            "--authorized-ip-ranges",
            "0.0.0.0/32",
        ];
        apifence.ok(&[
            &["attach", &interface, "--max-ranges", "1000000"],
            &nobody[..],
        ]
        .concat())?;
        set(&apifence, list)?;
        count_loopback(
            &apifence
                .bpffs()
                .join(format!("layout-{LAYOUT_VERSION}/maps")),
        )?;
        let filter = Filter::open(&apifence, self.namespace.ifindex(INTERFACE)?)?;
        let mut tries = textbook::tries(list)?;
        let contenders: [&Xdp; 3] = [filter.program(), tries.program()?, self.parse.program()?];
        let bare: &Xdp = self.bare.program()?;
        let ranges = Ranges::new(self.family, list);
        let sources: Vec<_> = cases
            .iter()
            .map(|case| ranges.sources(case.kind, plan.sources, rng))
            .collect();
        let carousel = &mut self.carousel;
        for round in 0..plan.most_rounds {
            let so_far = cases.iter().flat_map(|case| &case.runs);
            let best = Speed::best(so_far.map(|runs| runs.speed));
            let undisturbed = |runs: &&Runs| runs.speed.disturbance(best) == 0.0;
            let enough = |case: &Case| case.runs.iter().filter(undisturbed).count() >= plan.rounds;
            if cases.iter().all(enough) {
                break;
            }
            report(round + 1);
            for (case, sources) in cases.iter_mut().zip(&sources) {
                let early = Speed::measure(cpus::NODE)?;
                let mut cost = [0.0; 3];
                carousel.load(sources)?;
                let floor = carousel.run(bare, &case.frame, plan.repeat, DROP)?;
                for turn in 0..contenders.len() {
                    let which = (round + turn) % contenders.len();
                    let (program, action) = (contenders[which], case.actions[which]);
                    let mut run = |repeat| {
                        carousel
                            .run(program, &case.frame, repeat, action)
                            .with_context(|| format!("{}: {}", CONTENDERS[which], case.name))
                    };
                    if round == 0 {
                        (0..LOOKED_AT).try_for_each(|_| run(1).map(drop))?;
                    }
                    cost[which] = run(plan.repeat)? - floor;
                }
                let speed = early.or_slower(Speed::measure(cpus::NODE)?);
                case.runs.push(Runs { cost, speed });
            }
        }
        // Before the next list, so that two of them are never in memory.
        apifence.ok(&["detach"]).map(drop)
    }
}
