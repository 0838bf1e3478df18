//! The verdict table, judged by the loaded programs (`BPF_PROG_TEST_RUN`).
//!
//! The suite `verdicts` attaches a filter for each policy. Under emulation the verifier takes
//! seconds, so this program changes the policy of one filter instead.

use anyhow::{Context as _, Result, ensure};
use tests::{
    cli::Apifence,
    loaded::{Filter, HEADLESS, INTERFACE, decapsulate, select_the_other_slot, write_own_lists},
    netns::Namespace,
    table::{self, Row, Rules, mutation::SHORTEST},
};

/// The policies in the order of the fewest loads. The other slot is unfilled until the first
/// change.
const ORDER: [Rules; Rules::ALL.len()] = [
    Rules::Enforce,
    Rules::Unfilled,
    Rules::Decapsulating,
    Rules::Monitor,
    Rules::Off,
    Rules::Anyone,
    Rules::AnyoneV4,
    Rules::AnyoneV6,
    Rules::Nobody,
    Rules::Ports,
    Rules::Destinations,
    Rules::Guards,
];

/// The last policies of [`ORDER`], which differ by more than the list: each takes an attach.
const BY_ATTACH: usize = 3;

/// Opens the programs for both kinds of frames.
pub(crate) fn open(filter: &Apifence, node: &Namespace) -> Result<[Filter; 2]> {
    Ok([
        Filter::open(filter, node.ifindex(INTERFACE)?)?,
        Filter::open(filter, node.ifindex(HEADLESS)?)?,
    ])
}

/// Judges all rows, or with `short` those of the policies that take no attach; returns the number
/// of frames. The filter is attached to both interfaces under [`Rules::Enforce`], and nothing was
/// changed since.
pub(crate) fn judge(filter: &Apifence, node: &Namespace, short: bool) -> Result<usize> {
    let rows = table::all();
    let (mut wrong, mut asked) = (Vec::new(), 0);
    let order = &ORDER[..ORDER.len() - if short { BY_ATTACH } else { 0 }];
    for &rules in order {
        bring(filter, rules).with_context(|| format!("put {rules:?} in force"))?;
        let [ethernet, headless] = open(filter, node)?;
        let mut programs = ethernet.and(headless);
        // Shorter frames do not exist: the kernel refuses to run the program on one.
        let judged = rows
            .iter()
            .filter(|row| row.rules == rules && row.frame.len() >= SHORTEST);
        for row in judged {
            asked += 1;
            wrong.extend(fault(row, &mut programs));
        }
        if rules == Rules::Unfilled {
            select_the_other_slot(filter)?;
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {asked} frames are wrong, first of them: {}",
        wrong.len(),
        wrong[..wrong.len().min(5)].join("; ")
    );
    Ok(asked)
}

/// What is wrong with the verdict on a row, if anything.
fn fault(row: &Row, programs: &mut Filter) -> Option<String> {
    let Row { name, want, .. } = row;
    match programs.judge_and_report(row.bytes(), None) {
        Ok((verdict, _)) if verdict == *want => None,
        Ok((verdict, _)) => Some(format!("{name}: want {want:?}, have {verdict:?}")),
        Err(error) => Some(format!("{name}: {error:#}")),
    }
}

/// Puts `rules` in force, from the policy before it in [`ORDER`].
fn bring(filter: &Apifence, rules: Rules) -> Result<()> {
    let list = rules.ranges().join(",");
    match rules {
        Rules::Enforce => return Ok(()),
        Rules::Unfilled => return select_the_other_slot(filter),
        Rules::Decapsulating => return decapsulate(filter),
        Rules::Off => filter.ok(&["ranges", "clear", "--force"])?,
        Rules::Monitor => {
            // The change also takes back what the policy before wrote into the headers.
            filter.ok(&["ranges", "set", &list, "--force"])?;
            filter.ok(&["monitor", "--force"])?
        }
        Rules::Anyone => {
            filter.ok(&["ranges", "set", &list, "--force"])?;
            filter.ok(&["enforce", "--force"])?
        }
        Rules::AnyoneV4 | Rules::AnyoneV6 | Rules::Nobody => {
            filter.ok(&["ranges", "set", &list, "--force"])?
        }
        Rules::Ports | Rules::Destinations | Rules::Guards => {
            write_own_lists(filter, rules)?;
            let mut words = vec!["attach".to_owned(), format!("--interface={INTERFACE}")];
            words.extend(rules.options());
            words.extend([
                format!("--authorized-ip-ranges={list}"),
                "--force".to_owned(),
            ]);
            match rules {
                Rules::Destinations => words.push("--port=443,6443".to_owned()),
                Rules::Guards => words.push("--destination=".to_owned()),
                _ => {}
            }
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            filter.ok(&words)?
        }
    };
    Ok(())
}
