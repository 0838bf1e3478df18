//! The log of other crates, and of the kernel program.

use super::output::eprint;

/// Writes the log of other crates and of the kernel program: warnings, or with `verbose`
/// everything.
pub fn init_logger(verbose: bool) {
    let level = if verbose {
        log::LevelFilter::Debug
    } else {
        log::LevelFilter::Warn
    };
    // It can be set once in a process: the first one stays.
    if log::set_logger(&Logs).is_ok() {
        log::set_max_level(level);
    }
}

struct Logs;

impl log::Log for Logs {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        let own = metadata.target().starts_with("apifence");
        own || metadata.level() == log::Level::Error
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_lowercase();
            eprint(format_args!("{level}: {}", record.args()));
        }
    }

    fn flush(&self) {}
}
