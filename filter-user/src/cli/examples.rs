//! Examples of commands, for the help and the manual pages.

/// A command and what it does.
pub(crate) struct Example {
    /// What it does.
    pub(crate) text: &'static str,
    /// The command as it is typed in a shell.
    pub(crate) line: &'static str,
}

/// The examples of the command with the words `path`; of the program itself if it is empty.
pub(crate) fn examples_of(path: &str) -> impl Iterator<Item = Example> {
    let own = EXAMPLES
        .iter()
        .filter(move |(command, ..)| *command == path);
    own.map(|(_, text, line)| Example { text, line })
}

/// The command, what the example does, and the example.
const EXAMPLES: &[(&str, &str, &str)] = &[
    (
        "",
        "Set up this node, in monitor mode first",
        "apifence init",
    ),
    (
        "",
        "Allow one address for 30 days",
        "apifence ranges add 203.0.113.7 --comment \"home office\" --expires 30d",
    ),
    (
        "",
        "Replace the list, and revert after 60 s unless confirmed",
        "apifence ranges set --from-file list --confirm-within 60s",
    ),
    (
        "",
        "Ask the kernel whether an address is allowed",
        "apifence check 203.0.113.7",
    ),
    ("init", "Show what it would write", "apifence init --print"),
    (
        "init",
        "Set up without questions, as a script does",
        "apifence init --yes",
    ),
    (
        "status",
        "Fail in a script unless the node is guarded",
        "apifence status --check",
    ),
    (
        "status",
        "Hide the warning about one tunnel",
        "apifence status --ack W08:wg0",
    ),
    (
        "ranges add",
        "Allow one address for 30 days",
        "apifence ranges add 203.0.113.7 --comment \"home office\" --expires 30d",
    ),
    (
        "ranges add",
        "Allow the address of this SSH session for a working day",
        "apifence ranges add me --expires 8h",
    ),
    (
        "ranges add",
        "Remove the expiry of an entry",
        "apifence ranges add 203.0.113.7 --expires never",
    ),
    (
        "ranges set",
        "Replace the list, and revert after 60 s unless confirmed",
        "apifence ranges set 198.51.100.0/24,203.0.113.7 --confirm-within 60s",
    ),
    (
        "ranges set",
        "Replace the list by a file; refuse it if a fifth changed",
        "apifence ranges set --from-file office.list --max-change 20%",
    ),
    (
        "ranges set",
        "Allow no source",
        "apifence ranges set 0.0.0.0/32",
    ),
    (
        "ranges list",
        "Find entries that have no use",
        "apifence ls --unused-for 90d",
    ),
    (
        "ranges rollback",
        "Go back to the list before",
        "apifence ranges rollback",
    ),
    (
        "events",
        "Follow unlisted sources on one interface",
        "apifence events --interface eth0 --reason unauthorized",
    ),
    (
        "events",
        "Show what the kernel still remembers",
        "apifence events --recent",
    ),
    (
        "check",
        "Test two addresses",
        "apifence check 203.0.113.7 2001:db8::7",
    ),
    (
        "check",
        "Test the address of this SSH session at one port",
        "apifence check me --port 6443",
    ),
    (
        "suggest",
        "Append the suggestions to the ranges file",
        "apifence suggest >> /etc/apifence/ranges",
    ),
    (
        "suggest",
        "Suggest single IPv4 addresses",
        "apifence suggest --group-v4 32",
    ),
    (
        "run",
        "Run as the service does, with settings from the files",
        "apifence run",
    ),
    (
        "run",
        "Run in a container: JSON output, metrics for the network",
        "apifence run -o json --metrics-listen 0.0.0.0:9464",
    ),
    (
        "attach",
        "Watch first: nothing is dropped",
        "apifence attach --mode monitor",
    ),
    (
        "attach",
        "Protect RKE2's ports for all nodes and pods, with a trial",
        "apifence attach --port 6443,9345 --cluster-cidrs @nodes,@pods --confirm-within 60s",
    ),
    (
        "attach",
        "Show what would change",
        "apifence attach --dry-run",
    ),
    (
        "enforce",
        "Start to drop, and revert after 5 minutes unless confirmed",
        "apifence enforce --confirm-within 5m",
    ),
    (
        "config",
        "Show what a flag would change",
        "apifence config --mode monitor",
    ),
    (
        "doctor",
        "Write a report without addresses for a bug report",
        "apifence doctor --bundle report.json",
    ),
    (
        "explain",
        "Explain the warning about tunnels",
        "apifence explain W08",
    ),
    (
        "completions",
        "Load completions in this bash",
        "source <(apifence completions bash)",
    ),
    (
        "man",
        "Read the manual without installing it",
        "apifence man | man -l -",
    ),
];

#[cfg(test)]
mod tests {
    use super::{super::Cli, EXAMPLES};

    /// The words of a line before a pipe or a redirection, with quotes taken off.
    fn words(line: &str) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut is_quoted = false;
        let line = line.trim_start_matches("source <(").trim_end_matches(')');
        let mut word = String::new();
        for letter in line.chars() {
            match letter {
                '"' => is_quoted = !is_quoted,
                ' ' if !is_quoted => words.push(std::mem::take(&mut word)),
                letter => word.push(letter),
            }
        }
        words.push(word);
        let end = words.iter().position(|word| word == "|" || word == ">>");
        words.truncate(end.unwrap_or(words.len()));
        words
    }

    #[test]
    fn every_example_is_a_command_line() {
        for (command, _, line) in EXAMPLES {
            let parsed = Cli::from_words(words(line));
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
            let verb = command.rsplit(' ').next().unwrap_or_default();
            let is_short = *command == "ranges list" && line.starts_with("apifence ls");
            assert!(is_short || line.contains(verb), "{command}: {line}");
        }
    }
}
