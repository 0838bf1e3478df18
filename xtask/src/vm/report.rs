//! The page of the results: a row and a column for each kernel.

use std::fmt::Write as _;

use super::{
    case::{Case, CaseResult},
    kernels::KERNELS,
};

/// The results of a kernel.
pub(super) struct Results {
    pub(super) release: String,
    pub(super) seconds: u64,
    pub(super) cases: Vec<Case>,
}

/// What the page has of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Column {
    release: String,
    seconds: String,
    /// Names of cases, each with its cell.
    cells: Vec<(String, String)>,
    /// Texts that are too long for a cell, without the name of the kernel.
    remarks: Vec<String>,
}

impl Column {
    fn of(results: &Results) -> Self {
        let mut column = Self {
            release: results.release.clone(),
            seconds: results.seconds.to_string(),
            ..Self::default()
        };
        for case in &results.cases {
            let cell = match case.result {
                CaseResult::Passed if case.text.is_empty() => "passed".to_owned(),
                CaseResult::Passed if case.text.len() < 60 => case.text.clone(),
                result => {
                    column.remarks.push(format!("{}: {}", case.name, case.text));
                    result.word().to_owned()
                }
            };
            column.cells.push((case.name.clone(), cell));
        }
        column
    }

    fn cell(&self, case: &str) -> Option<&str> {
        let cell = self.cells.iter().find(|(name, _)| name == case);
        cell.map(|(_, cell)| &**cell)
    }

    /// Whether the filter was loaded, and no case failed.
    fn works(&self) -> bool {
        let failed = CaseResult::Failed.word();
        self.cell("load").is_some() && self.cells.iter().all(|(_, cell)| cell != failed)
    }
}

/// The page, with the kernels in the order of [`KERNELS`].
pub(super) struct Page(Vec<(&'static str, Option<Column>)>);

impl Page {
    /// Reads what [`Page::text`] wrote. Anything else has no results.
    pub(super) fn read(text: &str) -> Self {
        let (kernels, cases) = text.split_once("\n## Cases\n").unwrap_or_default();
        let (cases, remarks) = cases.split_once("\n## Remarks\n").unwrap_or((cases, ""));
        let mut cases = cases.lines().filter_map(fields);
        let names = cases.next().unwrap_or_default();
        let cases: Vec<_> = cases.collect();
        let column = |kernel: &str| {
            let row = kernels.lines().filter_map(fields);
            let row = row.into_iter().find(|row| row[0] == kernel)?;
            let at = names.iter().position(|name| *name == kernel)?;
            let cell = |row: &Vec<&str>| Some((row[0].to_owned(), (*row.get(at)?).to_owned()));
            let remark = |line: &str| {
                let rest = line.strip_prefix("- ")?.strip_prefix(kernel)?;
                rest.strip_prefix(", ").map(str::to_owned)
            };
            Some(Column {
                release: (*row.get(1)?).to_owned(),
                seconds: (*row.get(2)?).to_owned(),
                cells: cases
                    .iter()
                    .filter_map(cell)
                    .filter(|(name, cell)| !name.starts_with("---") && cell != NO_CASE)
                    .collect(),
                remarks: remarks.lines().filter_map(remark).collect(),
            })
        };
        Self(
            KERNELS
                .map(|kernel| (kernel.name, column(kernel.name)))
                .into(),
        )
    }

    /// Puts the results of a kernel in the place of its older ones.
    pub(super) fn put(&mut self, kernel: &str, results: &Results) {
        for (name, column) in &mut self.0 {
            if *name == kernel {
                *column = Some(Column::of(results));
            }
        }
    }

    /// The text.
    pub(super) fn text(&self) -> String {
        let ran = || {
            let columns = self.0.iter();
            columns.filter_map(|(name, column)| Some((name, column.as_ref()?)))
        };
        let mut page = HEAD.to_owned();
        page += "\n| kernel | release | seconds |\n|---|---|---|\n";
        for (name, column) in &self.0 {
            let _ = match column {
                Some(column) => {
                    writeln!(page, "| {name} | {} | {} |", column.release, column.seconds)
                }
                None => writeln!(page, "| {name} | not run | |"),
            };
        }
        if let Some((_, oldest)) = ran().find(|(_, column)| column.works()) {
            let release = &oldest.release;
            let _ = writeln!(
                page,
                "\nOldest kernel with a working filter here: {release}."
            );
        }
        page += "\n## Cases\n\n| case |";
        for (name, _) in ran() {
            let _ = write!(page, " {name} |");
        }
        let _ = writeln!(page, "\n|---|{}", "---|".repeat(ran().count()));
        let mut cases: Vec<&str> = Vec::new();
        for (case, _) in ran().flat_map(|(_, column)| &column.cells) {
            if !cases.contains(&&**case) {
                cases.push(case);
            }
        }
        for case in cases {
            let _ = write!(page, "| {case} |");
            for (_, column) in ran() {
                let _ = write!(page, " {} |", column.cell(case).unwrap_or(NO_CASE));
            }
            page.push('\n');
        }
        let remarks = ran().flat_map(|(name, column)| {
            let remarks = column.remarks.iter();
            remarks.map(move |remark| format!("- {name}, {remark}\n"))
        });
        let remarks: String = remarks.collect();
        if !remarks.is_empty() {
            let _ = write!(page, "\n## Remarks\n\n{remarks}");
        }
        page
    }
}

/// The cell of a case that is none of a kernel.
const NO_CASE: &str = "-";

/// The fields of a line of a table.
fn fields(line: &str) -> Option<Vec<&str>> {
    let line = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(line.split('|').map(str::trim).collect())
}

const HEAD: &str = "\
# Kernels

`cargo xtask vm-test --write` makes this page, with `--kernel NAME` the columns of that kernel alone.
It boots Debian's kernels in QEMU, without hardware virtualisation and without mitigations of CPU
faults, and runs the static release binary on them. `--short` runs 6.1 and 6.12 without devices,
generic XDP and two policies of the table. Seconds are those of an emulated CPU, often on a busy
machine: they say nothing about a real one.

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
- hping3, trafgen, pktgen, xdp-trafficgen: generators that send to a guarded node.
- `-`: not a case of this kernel.

Not run: 5.18 to 6.0, which Debian's suites do not have; 6.19 and 7.0, of which they have no modules;
TCX, which is not a hook of the filter.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn results(cases: &[(&str, CaseResult, &str)]) -> Results {
        let case = |&(name, result, text): &(&str, CaseResult, &str)| Case {
            name: name.to_owned(),
            result,
            seconds: "1.0".to_owned(),
            text: text.to_owned(),
        };
        Results {
            release: "6.1.0-50-cloud-amd64".to_owned(),
            seconds: 7,
            cases: cases.iter().map(case).collect(),
        }
    }

    #[test]
    fn a_run_replaces_the_columns_of_its_kernel_alone() {
        use CaseResult::{Failed, NotRun, Passed};
        let mut page = Page::read("");
        page.put(
            "6.1",
            &results(&[("load", Passed, "1.0 s"), ("detach", Failed, "why")]),
        );
        page.put(
            "6.12",
            &results(&[("load", Passed, "2.0 s"), ("expiry", NotRun, "no clock")]),
        );
        let both = page.text();
        assert!(both.contains("| load | 1.0 s | 2.0 s |"), "{both}");
        assert!(both.contains("| detach | failed | - |"), "{both}");
        assert!(
            both.contains("- 6.1, detach: why\n- 6.12, expiry: no clock\n"),
            "{both}"
        );
        assert_eq!(Page::read(&both).text(), both);

        let mut page = Page::read(&both);
        page.put(
            "6.1",
            &results(&[("load", Passed, "3.0 s"), ("detach", Passed, "")]),
        );
        let text = page.text();
        assert!(text.contains("| load | 3.0 s | 2.0 s |"), "{text}");
        assert!(text.contains("| detach | passed | - |"), "{text}");
        assert!(
            text.ends_with("## Remarks\n\n- 6.12, expiry: no clock\n"),
            "{text}"
        );
        assert!(text.contains("here: 6.1.0-50-cloud-amd64.\n"), "{text}");
    }
}
