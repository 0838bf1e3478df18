//! The verdict table, judged by the loaded program; the tests of filter-common judge it over byte
//! slices.

use std::{collections::HashMap, iter};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use filter_common::{FlowInfo, Verdict, judge};
use tests::{
    kernel::cannot_run_before,
    loaded::{Filter, none_wrong},
    netns::Namespace,
    table::{
        self, Row, Rules,
        mutation::{SHORTEST, mutate},
        verdict,
    },
};

#[test]
fn loaded_program_gives_the_wanted_verdicts() -> Result<()> {
    let namespaces = Namespaces::new()?;
    let mut filters = namespaces.attach()?;
    let (mut wrong, mut judged) = (Vec::new(), 0);
    for row in table::all() {
        // Shorter frames do not exist: the kernel refuses to run the program on one.
        if row.frame.len() < SHORTEST {
            continue;
        }
        let filter = filters
            .get_mut(&row.rules)
            .expect("every policy is attached");
        judged += 1;
        check(&mut wrong, &row, None, filter);
    }
    println!("{judged} frames");
    none_wrong(&wrong)
}

/// A frame is split at any point between the memory that the program sees and the part that only
/// the helper reads.
#[test]
fn loaded_program_reads_beyond_the_linear_part() -> Result<()> {
    let namespaces = Namespaces::new()?;
    let mut filters = namespaces.attach()?;
    let splits = splits(&mut filters)?;
    if !splits {
        return cannot_run_before([6, 18], "a test run says how much of a frame is linear");
    }
    let mut rng = Rng::with_seed(table::seed());
    let (mut wrong, mut judged) = (Vec::new(), 0);
    for row in table::all() {
        let filter = filters
            .get_mut(&row.rules)
            .expect("every policy is attached");
        // Up to a page less the headroom of XDP.
        let longest = row.frame.len().min(3_000);
        if longest < SHORTEST {
            continue;
        }
        let everywhere = row.name.starts_with("headers/order/") && row.frame.len() < 160;
        let points: Vec<_> = if everywhere {
            (SHORTEST..=longest).step_by(3).collect()
        } else {
            let chosen = [SHORTEST, 16, 34, 54, row.frame.len() / 2];
            let random = iter::repeat_with(|| rng.usize(SHORTEST..=longest));
            chosen
                .into_iter()
                .chain(random.take(2))
                .filter(|at| (SHORTEST..=longest).contains(at))
                .collect()
        };
        for linear in points {
            judged += 1;
            check(&mut wrong, &row, Some(linear), filter);
        }
    }
    println!("{judged} frames");
    none_wrong(&wrong)
}

/// Random frames: both judges must agree.
#[test]
fn both_judges_agree_on_mutated_frames() -> Result<()> {
    let namespaces = Namespaces::new()?;
    let mut filters = namespaces.attach()?;
    let rows: Vec<_> = table::all()
        .into_iter()
        .filter(|row| row.frame.len() < 2_000)
        .collect();
    let splits = splits(&mut filters)?;
    let mut rng = Rng::with_seed(table::seed());
    let mut wrong = Vec::new();
    for round in 0..20_000 {
        let mut row = rng.choice(&rows).context("the table is empty")?.clone();
        mutate(&mut rng, &mut row.frame, &rows);
        row.name = format!("{} mutated in round {round}", row.name);
        row.want = verdict(&judge(&row.bytes(), &row.rules));
        let filter = filters
            .get_mut(&row.rules)
            .expect("every policy is attached");
        let longest = row.frame.len().min(3_000);
        let linear = (splits && rng.bool()).then(|| rng.usize(SHORTEST..=longest));
        check(&mut wrong, &row, linear, filter);
    }
    none_wrong(&wrong)
}

/// One namespace for each policy.
struct Namespaces(Vec<(Rules, Namespace)>);

impl Namespaces {
    fn new() -> Result<Self> {
        let named = |rules: Rules| Ok((rules, Namespace::new(&format!("{rules:?}"))?));
        Ok(Self(
            Rules::ALL.into_iter().map(named).collect::<Result<_>>()?,
        ))
    }

    fn attach(&self) -> Result<HashMap<Rules, Filter>> {
        let attached = |(rules, namespace): &(Rules, Namespace)| {
            let filter =
                Filter::attach(namespace, *rules).with_context(|| format!("attach {rules:?}"))?;
            Ok((*rules, filter))
        };
        self.0.iter().map(attached).collect()
    }
}

fn splits(filters: &mut HashMap<Rules, Filter>) -> Result<bool> {
    filters
        .get_mut(&Rules::Enforce)
        .context("nothing is attached")?
        .splits()
}

fn check(wrong: &mut Vec<String>, row: &Row, linear: Option<usize>, filter: &mut Filter) {
    // The other judge, on the same bytes: they must have seen the same.
    let frame = row.bytes();
    let judgement = judge(&frame, &row.rules);
    let info = match verdict(&judgement) {
        Verdict::Pass(_) => None,
        Verdict::Drop(_) | Verdict::WouldDrop(_) => {
            Some(FlowInfo::read(&frame, judgement.location))
        }
    };
    let have = match filter.judge_and_report(frame, linear) {
        Ok((verdict, seen)) if verdict == row.want && seen == info => return,
        Ok((verdict, seen)) => format!("{verdict:?}, {seen:?} and not {info:?}"),
        Err(error) => format!("{error:#}"),
    };
    let hex: String = row
        .frame
        .iter()
        .take(200)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let Row {
        name, want, rules, ..
    } = row;
    wrong.push(format!(
        "{name}: want {want:?}, have {have} ({rules:?}, linear {linear:?}, {hex})"
    ));
}
