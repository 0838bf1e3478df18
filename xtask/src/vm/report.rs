//! The results of the last run of each kernel, and the page that is made from them.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::{
    case::{Case, CaseResult},
    kernels::KERNELS,
};

/// The cases of a kernel.
pub(super) struct Results {
    pub(super) release: String,
    pub(super) seconds: u64,
    pub(super) cases: Vec<Case>,
}

impl Results {
    /// Whether the filter was loaded, and no case failed.
    fn works(&self) -> bool {
        let is_load = |case: &Case| case.name == "load" && case.result == CaseResult::Passed;
        let failed = |case: &Case| case.result == CaseResult::Failed;
        self.cases.iter().any(is_load) && !self.cases.iter().any(failed)
    }
}

/// Where results are kept between runs.
pub(super) struct Kept(pub(super) PathBuf);

impl Kept {
    /// Keeps the results of a kernel.
    pub(super) fn write(&self, kernel: &str, results: &Results) -> Result<()> {
        fs::create_dir_all(&self.0).context("make directory of results")?;
        let mut text = format!("{}\t{}\n", results.release, results.seconds);
        text.extend(results.cases.iter().map(Case::line));
        fs::write(self.0.join(kernel), text).context("write results")
    }

    /// The results of a kernel, if it was run.
    fn read(&self, kernel: &str) -> Option<Results> {
        let text = fs::read_to_string(self.0.join(kernel)).ok()?;
        let (release, seconds) = text.lines().next()?.split_once('\t')?;
        Some(Results {
            release: release.to_owned(),
            seconds: seconds.parse().ok()?,
            cases: text.lines().filter_map(Case::read).collect(),
        })
    }

    /// The page.
    pub(super) fn page(&self) -> String {
        let runs: Vec<_> = KERNELS
            .iter()
            .map(|kernel| (kernel.name, self.read(kernel.name)))
            .collect();
        let mut names: Vec<&str> = Vec::new();
        for case in runs
            .iter()
            .filter_map(|(_, run)| run.as_ref())
            .flat_map(|run| &run.cases)
        {
            if !names.contains(&&*case.name) {
                names.push(&case.name);
            }
        }
        let mut page = HEAD.to_owned();
        let mut remarks = Vec::new();
        page += "\n| kernel | release | seconds |\n|---|---|---|\n";
        for (name, run) in &runs {
            let line = match run {
                Some(run) => format!("| {name} | {} | {} |\n", run.release, run.seconds),
                None => format!("| {name} | not run | |\n"),
            };
            page += &line;
        }
        let ran: Vec<_> = runs
            .iter()
            .filter_map(|(name, run)| Some((name, run.as_ref()?)))
            .collect();
        if let Some(oldest) = runs
            .iter()
            .find_map(|(_, run)| run.as_ref().filter(|run| run.works()))
        {
            let _ = write!(
                page,
                "\nOldest kernel with a working filter here: {}.\n",
                oldest.release
            );
        }
        page += "\n## Cases\n\n| case |";
        for (name, _) in &ran {
            let _ = write!(page, " {name} |");
        }
        page += &format!("\n|---|{}\n", "---|".repeat(ran.len()));
        for name in names {
            let _ = write!(page, "| {name} |");
            for (kernel, run) in &ran {
                let case = run.cases.iter().find(|case| case.name == name);
                let _ = write!(page, " {} |", cell(kernel, case, &mut remarks));
            }
            page.push('\n');
        }
        if !remarks.is_empty() {
            page += "\n## Remarks\n\n";
            page.extend(remarks.into_iter().map(|remark| format!("- {remark}\n")));
        }
        page
    }
}

/// The words for a case in the table; long ones become a remark.
fn cell(kernel: &str, case: Option<&Case>, remarks: &mut Vec<String>) -> String {
    let Some(case) = case else {
        return "-".to_owned();
    };
    match case.result {
        CaseResult::Passed if case.text.is_empty() => "passed".to_owned(),
        CaseResult::Passed if case.text.len() < 60 => case.text.clone(),
        result => {
            remarks.push(format!("{kernel}, {}: {}", case.name, case.text));
            result.word().to_owned()
        }
    }
}

const HEAD: &str = "\
# Kernels

`cargo xtask vm-test --write` makes this page. It boots Debian's kernels in QEMU, without hardware
virtualisation and without mitigations of CPU faults, and runs the static release binary on them.
`--short` runs 6.1 and 6.12 without devices, generic XDP and two policies of the table. Seconds are
those of an emulated CPU, often on a busy machine: they say nothing about a real one.

- *load*: the time of the first `attach`, and the instructions that the verifier processed for the
  program for Ethernet frames and for that for frames that start with the IP header. The limit is
  a million.
- *verdict table*: all frames of the table, judged by the loaded programs (`BPF_PROG_TEST_RUN`).
- *settings*: another `attach`, or another list, puts the usual policy in force.
- *hook*: listed sources pass, unlisted ones do not, in IPv4 and IPv6; the next port stays open.
- *device*: the hook that `auto` takes on such a device. Listed sources pass through it, and
  unlisted ones do not. On a bond, the program runs on the port that a frame comes through, and
  counts it under the bond.
- *card*: the hook that `auto` takes on such a card of QEMU, over a bridge, and the same connections.
- `-`: not a case of this kernel.

Not run: 5.18 to 6.0, which Debian's suites do not have, and TCX, which is not a hook of the filter.
";
