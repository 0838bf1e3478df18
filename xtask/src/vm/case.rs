//! A case of the guest, and its line on the console.

/// The start of the line; the fields follow after tabs: name, result, seconds, text.
const MARK: &str = "vm-case\t";

/// A case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) result: CaseResult,
    /// As the guest printed it.
    pub(super) seconds: String,
    pub(super) text: String,
}

/// Its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CaseResult {
    Passed,
    Failed,
    /// This kernel cannot run it.
    NotRun,
}

impl CaseResult {
    const ALL: [Self; 3] = [Self::Passed, Self::Failed, Self::NotRun];

    /// The guest's word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::NotRun => "not run",
        }
    }
}

impl Case {
    /// Reads a line of the console; `None` for all other lines.
    pub(super) fn read(line: &str) -> Option<Self> {
        // A message of the kernel may be in front.
        let (_, fields) = line.split_once(MARK)?;
        let mut fields = fields.splitn(4, '\t');
        let (name, word) = (fields.next()?, fields.next()?);
        Some(Self {
            name: name.to_owned(),
            result: CaseResult::ALL
                .into_iter()
                .find(|result| result.word() == word)?,
            seconds: fields.next()?.to_owned(),
            text: fields.next().unwrap_or_default().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_from_its_line() {
        let case = Case {
            name: "load".to_owned(),
            result: CaseResult::NotRun,
            seconds: "1.5".to_owned(),
            text: "no such\tdevice".to_owned(),
        };
        let line = "vm-case\tload\tnot run\t1.5\tno such\tdevice";
        assert_eq!(Case::read(line), Some(case.clone()));
        assert_eq!(Case::read(&format!("[  1.0] x {line}")), Some(case));
        assert_eq!(Case::read("vm-case\tload\tperhaps\t1\t"), None);
        assert_eq!(Case::read("Booting"), None);
    }
}
