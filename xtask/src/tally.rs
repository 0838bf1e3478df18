//! A summary of the output of `cargo test`.

use std::fmt;

/// Prefix of the line of a test that cannot run; `tests::kernel::cannot_run_before` writes it.
const NOT_RUN: &str = "not run: ";

/// Suites started and finished, tests by result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Test programs, documentation tests included, that cargo started.
    started: u64,
    /// Those that printed a result.
    finished: u64,
    /// Suites that printed no result, or 1 if cargo failed without a failed test, as after a
    /// compile error.
    broken: u64,
    passed: i64,
    failed: u64,
    /// Tests that could not run, each `NAME: reason`. A filter excludes tests silently.
    not_run: Vec<String>,
}

impl Tally {
    /// Reads a line of `cargo test`, as printed to either stream.
    pub(crate) fn read(&mut self, line: &str) {
        let line = without_colors(line);
        let line = line.trim();
        // A program's path stands in parentheses behind its name; documentation tests have none.
        let is_program = line.starts_with("Running ") && line.ends_with(')');
        if is_program || line.starts_with("Doc-tests ") {
            self.started += 1;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.finished += 1;
            let count = |name: &str| {
                let part = result
                    .split([';', '.'])
                    .map(str::trim)
                    .find_map(|part| part.strip_suffix(name));
                part.and_then(|number| number.trim().parse::<u64>().ok())
                    .unwrap_or(0)
            };
            self.passed += count("passed").cast_signed();
            self.failed += count("failed");
        } else if let Some(test) = line.strip_prefix(NOT_RUN) {
            // libtest does not know of tests that cannot run: it will count this one as passed.
            self.passed -= 1;
            self.not_run.push(test.to_owned());
        } else if let Some((test, reason)) = line
            .strip_prefix("test ")
            .and_then(|line| line.split_once(" ... ignored"))
        {
            let reason = reason.strip_prefix(", ").unwrap_or("ignored");
            self.not_run.push(format!("{test}: {reason}"));
        }
    }

    /// Records the end of `cargo test`.
    pub(crate) fn end(&mut self, success: bool) {
        // A program that died counts as a failed test, so that the closing line never claims
        // success.
        self.broken = self.started.saturating_sub(self.finished);
        if !success && self.failed == 0 && self.broken == 0 {
            self.broken = 1;
        }
    }

    /// The tally of a run that did not reach the tests.
    pub(crate) fn broken() -> Self {
        Self {
            broken: 1,
            ..Self::default()
        }
    }

    /// The reason for a failure, or nothing on success.
    pub(crate) fn problem(&self, in_ci: bool) -> Option<String> {
        if self.broken > 0 {
            Some("a test was not built, or ended without a result".to_owned())
        } else if self.failed > 0 {
            Some(format!("{} failed", self.failed))
        } else if self.passed <= 0 {
            Some("no test to run".to_owned())
        } else if in_ci && !self.not_run.is_empty() {
            Some(format!("{} not run: CI must run all", self.not_run.len()))
        } else {
            None
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed",
            self.passed,
            self.failed + self.broken
        )?;
        if self.not_run.is_empty() {
            return Ok(());
        }
        write!(
            f,
            ", {} not run: {}",
            self.not_run.len(),
            self.not_run.join("; ")
        )
    }
}

/// `line` without the escape sequences that color it (ECMA-48 SGR: ESC `[` ... `m`).
fn without_colors(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once('m').map_or(part, |(_, rest)| rest)
    })
}

#[cfg(test)]
mod tests {
    use super::Tally;

    fn tally(output: &str, success: bool) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        tally.end(success);
        tally
    }

    const TWO_SUITES: &str = "
     Running unittests src/lib.rs (target/debug/deps/filter_common-0123)

running 2 tests
test wire::tests::ports ... ok
test wire::tests::frames ... 
not run: wire::tests::frames: needs Linux 9.9
ok
test wire::tests::tags ... ignored, for a reason
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s

\u{1b}[1m\u{1b}[32m   Doc-tests\u{1b}[0m filter_common
test result: \u{1b}[31mFAILED\u{1b}[0m. 10 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.23s
";

    #[test]
    fn results_are_summed() {
        let tally = tally(TWO_SUITES, false);
        assert_eq!(
            tally.to_string(),
            "11 passed, 1 failed, 2 not run: wire::tests::frames: needs Linux 9.9; \
             wire::tests::tags: for a reason"
        );
        assert_eq!((tally.started, tally.finished), (2, 2));
    }

    #[test]
    fn a_suite_that_dies_is_a_failure() {
        let dies = "     Running tests/live.rs (target/debug/deps/live-0123)\nrunning 9 tests\n";
        let tally = tally(&(TWO_SUITES.to_owned() + dies), false);
        assert!(tally.to_string().starts_with("11 passed, 2 failed"));
    }

    #[test]
    fn a_compile_error_is_a_failure() {
        let tally = tally("error[E0425]: cannot find value `x` in this scope\n", false);
        assert_eq!(tally.to_string(), "0 passed, 1 failed");
        assert!(tally.problem(false).is_some());
    }

    #[test]
    fn no_test_run_is_a_failure() {
        let output = "     Running unittests src/lib.rs (target/debug/deps/tests-0123)\n\
                      test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s\n";
        assert!(tally(output, true).problem(false).is_some());
    }

    #[test]
    fn tests_that_could_not_run_are_no_success_in_ci() {
        let output = "     Running unittests src/lib.rs (target/debug/deps/tests-0123)\n\
                      test one ... ignored\n\
                      test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(tally(output, true).problem(false), None);
        assert!(tally(output, true).problem(true).is_some());
    }
}
